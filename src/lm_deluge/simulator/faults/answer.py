"""Faults by status: the provider answers, and the answer is an error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from email.utils import formatdate
from typing import Any

from lm_deluge import errors
from lm_deluge.errors import APIError
from lm_deluge.simulator.faults.fault import Parameters, Row
from lm_deluge.simulator.plan import Frame, WirePlan

__all__ = ["ANSWER_FAULTS", "refuse"]

_JSON = "application/json"

_KINDS: dict[int, type[APIError]] = {
    400: errors.BadRequestError,
    401: errors.AuthenticationError,
    402: errors.QuotaExceededError,
    403: errors.PermissionDeniedError,
    404: errors.NotFoundError,
    413: errors.RequestTooLargeError,
    429: errors.RateLimitError,
    503: errors.OverloadedError,
    529: errors.OverloadedError,
}

_MESSAGES: dict[int, str] = {
    400: "The request is not valid.",
    401: "Incorrect API key provided.",
    402: "You have no credit left.",
    403: "You are not allowed to use this model.",
    404: "The model does not exist or you do not have access to it.",
    408: "The request timed out.",
    409: "The request conflicts with another one.",
    413: "The request is too large.",
    429: "Rate limit reached: please slow down.",
    500: "The server had an error while processing your request.",
    501: "This is not implemented.",
    502: "Bad gateway.",
    503: "The engine is currently overloaded, please try again later.",
    504: "The upstream server did not answer in time.",
    505: "This version of HTTP is not supported.",
    529: "Overloaded.",
}


def refuse(plan: WirePlan, error: APIError) -> WirePlan:
    """Return a plan that answers with an error."""
    status = error.status_code or 500
    refusal = plan.with_document(status, _JSON, plan.site.encoder.encode_error(error))
    if error.retry_after_s is not None:
        refusal = refusal.with_headers(retry_after=f"{error.retry_after_s:g}")
    return refusal


def _error(params: Parameters) -> APIError:
    status = int(params["status"])
    kind = params.get("kind") or _KINDS.get(status, errors.ServerError)
    message = params["message"] or _MESSAGES.get(status, "Something went wrong.")
    error: APIError = kind(message, status_code=status, type=params["type"], code=params["code"])
    return error


def _status(plan: WirePlan, params: Parameters) -> WirePlan:
    refusal = refuse(plan, _error(params))
    if params["body"] is not None:
        refusal = plan.with_document(int(params["status"]), params["content_type"], str(params["body"]).encode())
    return replace(refusal, headers=(*refusal.headers, *dict(params["headers"]).items()))


_STATUS: dict[str, Any] = {
    "status": 500,
    "message": None,
    "type": None,
    "code": None,
    "headers": {},
    "body": None,
    "content_type": _JSON,
}


def _row(description: str, status: int, **defaults: Any) -> Row:
    return Row(
        description, _status, defaults={**_STATUS, "status": status, **defaults}, only_streams=False, is_refusal=True
    )


def _retry_after(description: str, header: Callable[[WirePlan, float], dict[str, str]], seconds: float = 1.0) -> Row:
    def edit(plan: WirePlan, params: Parameters) -> WirePlan:
        refusal = _status(plan, params)
        return replace(refusal, headers=(*refusal.headers, *header(plan, params["seconds"]).items()))

    row = _row(f"429, {description}", 429, seconds=seconds)
    return replace(row, edit_plan=edit)


def _date(plan: WirePlan, seconds: float) -> dict[str, str]:
    # Measured against the answer's own date, which is an hour ahead: the client's clock must not matter.
    ahead = plan.site.now + 3_600
    return {
        "date": formatdate(ahead, usegmt=True),
        "retry-after": formatdate(ahead + seconds, usegmt=True),
    }


def _json_error_200(plan: WirePlan, params: Parameters) -> WirePlan:
    return plan.with_document(200, _JSON, plan.site.encoder.encode_error(_error(params)))


def _in_band_first(plan: WirePlan, params: Parameters) -> WirePlan:
    return replace(plan, body=(Frame(plan.site.encoder.encode_stream_error(_error(params))),))


def _in_band_mid(plan: WirePlan, params: Parameters) -> WirePlan:
    before, _ = plan.split(params["after"])
    return replace(plan, body=(*before, Frame(plan.site.encoder.encode_stream_error(_error(params)))))


_PAGE = (
    "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n<center><h1>502 Bad Gateway</h1></center>\r\n"
    "<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
)

ANSWER_FAULTS: dict[str, Row] = {
    "status": _row("the answer has a `status`, and `headers` and a `body` if wished", 500),
    **{f"status_{status}": _row(f"{status}: {message}", status) for status, message in _MESSAGES.items()},
    "retry_after_ms": _retry_after(
        "with retry-after-ms, which goes before retry-after",
        lambda _plan, seconds: {"retry-after-ms": f"{seconds * 1000:g}", "retry-after": "30"},
        0.05,
    ),
    "retry_after_seconds": _retry_after(
        "with retry-after in seconds", lambda _plan, seconds: {"retry-after": f"{seconds:g}"}
    ),
    "retry_after_float": _retry_after(
        "with retry-after in seconds and a fraction", lambda _plan, seconds: {"retry-after": f"{seconds:g}"}, 0.25
    ),
    "retry_after_date": _retry_after("with retry-after as a date, on a server whose clock is an hour ahead", _date),
    "retry_after_negative": _retry_after("with retry-after: -1", lambda _plan, _seconds: {"retry-after": "-1"}),
    "retry_after_nan": _retry_after("with retry-after: nan", lambda _plan, _seconds: {"retry-after": "nan"}),
    "retry_after_past": _retry_after("with retry-after as a date that is past", _date, -60.0),
    "retry_after_garbage": _retry_after("with retry-after: soon", lambda _plan, _seconds: {"retry-after": "soon"}),
    "retry_after_day": _retry_after(
        "with retry-after of a day", lambda _plan, seconds: {"retry-after": f"{seconds:g}"}, 86_400.0
    ),
    "retry_after_absurd": _retry_after(
        "with retry-after: 1e300", lambda _plan, seconds: {"retry-after": f"{seconds:g}"}, 1e300
    ),
    "quota": _row(
        "429 that waiting does not help: the quota is used up",
        429,
        kind=errors.QuotaExceededError,
        message="You exceeded your current quota, please check your plan and billing details.",
    ),
    "context_length": _row(
        "400: the prompt is too long",
        400,
        kind=errors.ContextLengthError,
        message="This model's maximum context length is 128000 tokens. However, your messages resulted in more.",
    ),
    "content_filter_first": _row(
        "400: the prompt was filtered",
        400,
        kind=errors.ContentFilterError,
        message="The response was filtered due to the prompt triggering the content management policy.",
    ),
    "x_should_retry_false": _row(
        "503, and the provider says that a retry does not help", 503, headers={"x-should-retry": "false"}
    ),
    "x_should_retry_true": _row(
        "400, and the provider says that a retry helps", 400, headers={"x-should-retry": "true"}
    ),
    "error_html": _row("502 with the page of a proxy", 502, body=_PAGE, content_type="text/html"),
    "error_empty": _row("500 without a body", 500, body=""),
    "error_text": _row("500 with plain text", 500, body="upstream connect error", content_type="text/plain"),
    "extra_headers": Row(
        "a whole answer with `headers` of your own",
        lambda plan, params: replace(plan, headers=(*plan.headers, *dict(params["headers"]).items())),
        defaults={"headers": {}},
        only_streams=False,
    ),
    "json_error_200": Row(
        "200, and a JSON error in place of a stream",
        _json_error_200,
        defaults={**_STATUS, "status": 429},
        only_streams=False,
        is_refusal=True,
    ),
    "in_band_error_first": Row(
        "200, and an error as the first event",
        _in_band_first,
        defaults={**_STATUS, "status": 503},
        is_refusal=True,
    ),
    "in_band_error_mid": Row(
        "an error as an event in the middle of the answer", _in_band_mid, defaults={**_STATUS, "after": 3}
    ),
}
