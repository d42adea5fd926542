"""Faults of the status: the provider answers with an error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from email.utils import formatdate
from typing import Any

from lm_deluge import errors
from lm_deluge.errors import APIError
from lm_deluge.simulator.faults.fault import FaultSpec, Parameters
from lm_deluge.simulator.plan import Frame, WirePlan

__all__ = ["ANSWER_FAULTS", "error_plan"]

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


def error_plan(plan: WirePlan, error: APIError) -> WirePlan:
    """Return a plan that answers with an error."""
    status = error.status_code or 500
    answer = plan.with_document(status, _JSON, plan.context.encoder.encode_error(error))
    if error.retry_after_s is not None:
        answer = answer.with_headers(retry_after=f"{error.retry_after_s:g}")
    return answer


def _error(params: Parameters) -> APIError:
    status = int(params["status"])
    kind = params.get("kind") or _KINDS.get(status, errors.ServerError)
    message = params["message"] or _MESSAGES.get(status, "Something went wrong.")
    error: APIError = kind(message, status_code=status, type=params["type"], code=params["code"])
    return error


def _status(plan: WirePlan, params: Parameters) -> WirePlan:
    answer = error_plan(plan, _error(params))
    if params["body"] is not None:
        answer = plan.with_document(int(params["status"]), params["content_type"], str(params["body"]).encode())
    return replace(answer, headers=(*answer.headers, *dict(params["headers"]).items()))


_STATUS: dict[str, Any] = {
    "status": 500,
    "message": None,
    "type": None,
    "code": None,
    "headers": {},
    "body": None,
    "content_type": _JSON,
}


def _status_fault(description: str, status: int, **defaults: Any) -> FaultSpec:
    return FaultSpec(
        description,
        _status,
        defaults={**_STATUS, "status": status, **defaults},
        only_streams=False,
        replaces_answer=True,
    )


def _retry_after(
    description: str, header: Callable[[WirePlan, float], dict[str, str]], seconds: float = 1.0
) -> FaultSpec:
    def edit(plan: WirePlan, params: Parameters) -> WirePlan:
        answer = _status(plan, params)
        return replace(answer, headers=(*answer.headers, *header(plan, params["seconds"]).items()))

    spec = _status_fault(f"429, {description}", 429, seconds=seconds)
    return replace(spec, edit_plan=edit)


def _date(plan: WirePlan, seconds: float) -> dict[str, str]:
    # The server's clock is an hour ahead: a client must compute the wait from the `date` header, not its own clock.
    server_now = plan.context.now + 3_600
    return {
        "date": formatdate(server_now, usegmt=True),
        "retry-after": formatdate(server_now + seconds, usegmt=True),
    }


def _json_error_200(plan: WirePlan, params: Parameters) -> WirePlan:
    return plan.with_document(200, _JSON, plan.context.encoder.encode_error(_error(params)))


def _in_band_first(plan: WirePlan, params: Parameters) -> WirePlan:
    return replace(plan, body=(Frame(plan.context.encoder.encode_stream_error(_error(params))),))


def _in_band_mid(plan: WirePlan, params: Parameters) -> WirePlan:
    before, _ = plan.split(params["after"])
    return replace(plan, body=(*before, Frame(plan.context.encoder.encode_stream_error(_error(params)))))


_PAGE = (
    "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n<center><h1>502 Bad Gateway</h1></center>\r\n"
    "<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
)

ANSWER_FAULTS: dict[str, FaultSpec] = {
    "status": _status_fault("the answer has `status`, and optionally `headers` and `body`", 500),
    **{f"status_{status}": _status_fault(f"{status}: {message}", status) for status, message in _MESSAGES.items()},
    "retry_after_ms": _retry_after(
        "with retry-after-ms, which takes precedence over retry-after",
        lambda _plan, seconds: {"retry-after-ms": f"{seconds * 1000:g}", "retry-after": "30"},
        0.05,
    ),
    "retry_after_seconds": _retry_after(
        "with retry-after in seconds", lambda _plan, seconds: {"retry-after": f"{seconds:g}"}
    ),
    "retry_after_float": _retry_after(
        "with retry-after in seconds and a fraction", lambda _plan, seconds: {"retry-after": f"{seconds:g}"}, 0.25
    ),
    "retry_after_date": _retry_after("with retry-after as a date, from a server whose clock is an hour ahead", _date),
    "retry_after_negative": _retry_after("with retry-after: -1", lambda _plan, _seconds: {"retry-after": "-1"}),
    "retry_after_nan": _retry_after("with retry-after: nan", lambda _plan, _seconds: {"retry-after": "nan"}),
    "retry_after_past": _retry_after("with retry-after as a date in the past", _date, -60.0),
    "retry_after_garbage": _retry_after("with retry-after: soon", lambda _plan, _seconds: {"retry-after": "soon"}),
    "retry_after_day": _retry_after(
        "with retry-after of a day", lambda _plan, seconds: {"retry-after": f"{seconds:g}"}, 86_400.0
    ),
    "retry_after_absurd": _retry_after(
        "with retry-after: 1e300", lambda _plan, seconds: {"retry-after": f"{seconds:g}"}, 1e300
    ),
    "quota": _status_fault(
        "429 because the quota is used up: waiting does not help",
        429,
        kind=errors.QuotaExceededError,
        message="You exceeded your current quota, please check your plan and billing details.",
    ),
    "context_length": _status_fault(
        "400 because the prompt is too long",
        400,
        kind=errors.ContextLengthError,
        message="This model's maximum context length is 128000 tokens. However, your messages resulted in more.",
    ),
    "content_filter_first": _status_fault(
        "400 because the prompt was filtered",
        400,
        kind=errors.ContentFilterError,
        message="The response was filtered due to the prompt triggering the content management policy.",
    ),
    "x_should_retry_false": _status_fault("503 with x-should-retry: false", 503, headers={"x-should-retry": "false"}),
    "x_should_retry_true": _status_fault("400 with x-should-retry: true", 400, headers={"x-should-retry": "true"}),
    "error_html": _status_fault("502 with the HTML page of a proxy", 502, body=_PAGE, content_type="text/html"),
    "error_empty": _status_fault("500 without a body", 500, body=""),
    "error_text": _status_fault("500 with plain text", 500, body="upstream connect error", content_type="text/plain"),
    "extra_headers": FaultSpec(
        "a whole answer with additional `headers`",
        lambda plan, params: replace(plan, headers=(*plan.headers, *dict(params["headers"]).items())),
        defaults={"headers": {}},
        only_streams=False,
    ),
    "json_error_200": FaultSpec(
        "200 with a JSON error instead of a stream",
        _json_error_200,
        defaults={**_STATUS, "status": 429},
        only_streams=False,
        replaces_answer=True,
    ),
    "in_band_error_first": FaultSpec(
        "200 with an error as the first event",
        _in_band_first,
        defaults={**_STATUS, "status": 503},
        replaces_answer=True,
    ),
    "in_band_error_mid": FaultSpec(
        "an error as an event in the middle of the answer", _in_band_mid, defaults={**_STATUS, "after": 3}
    ),
}
