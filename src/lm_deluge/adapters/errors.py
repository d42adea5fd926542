"""Map a provider's error response to an `APIError` class.

The HTTP status is the most reliable and decides first, then the code or type in the body. The text of the message is
only searched for status 400 and 422, where the code often does not distinguish the cause.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from lm_deluge.adapters.google_error_details import read_reasons
from lm_deluge.errors import (
    APIError,
    AuthenticationError,
    BadRequestError,
    ContentFilterError,
    ContextLengthError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    QuotaExceededError,
    RateLimitError,
    RequestTooLargeError,
    ServerError,
)
from lm_deluge.wire.retry_after import find_wait, parse_retry_after
from lm_deluge.wire.tolerant_json import NotJSONError, decode_json

__all__ = ["add_headers", "classify_in_band", "classify_status", "is_error_object"]

# Limits in characters keep an HTML page or an echoed prompt out of exceptions and logs.
_MOST_MESSAGE = 2_000  # room for a validation error that lists many fields
_MOST_WORD = 100  # a code or type is an identifier
_MOST_BODY = 4_096  # enough to see the structure of an error object

_BY_STATUS: dict[int, type[APIError]] = {
    401: AuthenticationError,
    402: QuotaExceededError,
    403: PermissionDeniedError,
    404: NotFoundError,
    408: ServerError,
    409: ServerError,
    413: RequestTooLargeError,
    429: RateLimitError,
    503: OverloadedError,
    529: OverloadedError,
}

# Codes and types of errors as OpenAI, Anthropic, Google, Groq, OpenRouter and compatible hosts write them, in lower
# case. The status is the HTTP status of the same error outside a stream.
_STATUS_OF_CODE: dict[str, int] = {
    "invalid_request_error": 400,
    "bad_request": 400,
    "tool_use_failed": 400,
    "invalid_argument": 400,
    "failed_precondition": 400,
    "context_length_exceeded": 400,
    "content_filter": 400,
    "content_policy_violation": 400,
    "image_content_policy_violation": 400,
    "invalid_prompt": 400,
    "invalid_image": 400,
    "invalid_image_format": 400,
    "invalid_base64_image": 400,
    "invalid_image_url": 400,
    "image_too_large": 400,
    "image_too_small": 400,
    "image_parse_error": 400,
    "image_file_too_large": 400,
    "unsupported_image_media_type": 400,
    "failed_to_download_image": 400,
    "authentication_error": 401,
    "api_key_invalid": 401,
    "invalid_api_key": 401,
    "unauthenticated": 401,
    "unauthorized": 401,
    "billing_error": 402,
    "insufficient_quota": 402,
    "permission_error": 403,
    "permission_denied": 403,
    "forbidden": 403,
    "not_found_error": 404,
    "model_not_found": 404,
    "not_found": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "resource_exhausted": 429,
    "too_many_requests": 429,
    "request_limit_exceeded": 429,  # Databricks
    "requests": 429,
    "tokens": 429,
    "throttling": 429,
    "api_error": 500,
    "server_error": 500,
    "internal_server_error": 500,
    "internal_error": 500,
    "internal": 500,
    "bad_gateway": 502,
    "timeout": 504,
    "gateway_timeout": 504,
    "vector_store_timeout": 504,
    "timeout_error": 504,
    "unavailable": 503,
    "service_unavailable": 503,
    "overloaded_error": 529,
    "overloaded": 529,
    "engine_overloaded": 503,
    "insufficient_system_resource": 503,
}

# Codes and types of an account without credit: `insufficient_quota` (OpenAI), `insufficient_balance_error`
# (ModelScope), `insufficient_user_quota` (New API), `exceeded_current_quota_error` (Moonshot), `Arrearage` (Alibaba),
# `AccountOverdueError` (Volcengine). They come with the statuses below. Google's `RESOURCE_EXHAUSTED` is a rate limit.
_QUOTA_CODE = re.compile(
    r"insufficient_?(\w*_)?(quota|balance|funds?|credits?)|billing_(hard_limit_reached|not_active|error)"
    r"|credit_(balance_too_low|limit)|exceeded_current_quota|arrearage|accountoverdue"
)
_PAYMENT_REQUIRED, _TOO_MANY_REQUESTS = 402, 429  # RFC 9110, section 15.5.3, and RFC 6585
_QUOTA_STATUSES = (400, 402, 403, 429)  # Alibaba 400, New API 403, OpenAI 429
_QUOTA_MESSAGE = re.compile(r"insufficient (account )?(balance|credits?|funds)|余额不足|欠费", re.IGNORECASE)

# Numbers in MiniMax's `base_resp`, which comes with status 200: the HTTP status of such an error, and a code above.
# https://platform.minimax.io/docs/api-reference/errorcode (2026-11). A number that the page does not have is 500.
_BASE_RESP: dict[int, tuple[int, str]] = {
    1000: (500, "server_error"),
    1001: (504, "timeout"),
    1002: (429, "rate_limit_exceeded"),
    1004: (401, "invalid_api_key"),
    1008: (402, "insufficient_balance"),
    1024: (500, "server_error"),
    1026: (400, "content_filter"),  # the prompt
    1027: (400, "content_filter"),  # the answer
    1033: (500, "server_error"),
    1039: (429, "rate_limit_exceeded"),  # tokens
    1041: (429, "rate_limit_exceeded"),  # connections
    1042: (400, "invalid_request_error"),  # invisible characters
    2013: (400, "invalid_request_error"),
    2045: (429, "rate_limit_exceeded"),  # the rate grows too fast
    2049: (401, "invalid_api_key"),
    2056: (429, "insufficient_quota"),  # the plan's limit for five hours
}
_WORD = "deluge_word"  # key for a code of our tables beside the provider's own number
_WORD_FIELDS = ("code", "error_code", "type", "status", _WORD)
_MESSAGE_FIELDS = ("message", "detail", "msg", "error_msg", "error_message", "status_msg")
_CODE_FIELDS = ("code", "error_code", "status_code", "http_status", "status")
_FINE = ("", "0", "200", "ok", "success", "completed")  # values of `code` and `status` that report no failure
_KEY_CODES = {"api_key_invalid"}  # Google sends this code with status 400
_CONTEXT_CODES = {"context_length_exceeded", "model_context_window_exceeded", "string_above_max_length"}
_FILTER_CODES = {
    "content_filter",
    "content_policy_violation",
    "image_content_policy_violation",
    "responsibleaipolicyviolation",
    "invalid_prompt",
}

_CONTEXT_MESSAGE = re.compile(
    r"(maximum context length|context[_ ](length|window)|prompt is too long|too many (input )?tokens"
    r"|input (is )?too long|exceeds? the (maximum|max)( number of| input)? tokens?|input token count)",
    re.IGNORECASE,
)
_FILTER_MESSAGE = re.compile(r"(content (management|filter)|safety system|usage policies)", re.IGNORECASE)
# A provider may quote the key that it refuses: "Incorrect API key provided: sk-...".
_KEY = re.compile(r"\b(sk|pk|gsk|xai|key)[-_][\w*.-]{6,}|\b(Bearer)\s+[\w*.=/+-]{6,}|\b(AIza)[\w-]{6,}")

_HINTS: dict[type[APIError], str] = {
    AuthenticationError: "Check the key and that it belongs to this provider.",
    PermissionDeniedError: "The key may not use this model; check its project and permissions.",
    QuotaExceededError: "Add credit or raise the account's spending limit; waiting does not help.",
    NotFoundError: "Check the model's name and the base URL.",
    RequestTooLargeError: "Send less: smaller images, or fewer messages.",
    ContextLengthError: "Shorten the conversation, ask for fewer tokens, or take a model with a larger window.",
    RateLimitError: "Wait, send less at a time, or have the limit raised.",
    OverloadedError: "Try again later, or fall back to another model.",
    ServerError: "Try again later; the provider's status page may say more.",
}


def classify_status(status: int, headers: Mapping[str, str], body: bytes) -> APIError:
    """Return the error of an HTTP response whose status is not a success; names of headers are in lower case."""
    error = classify_in_band(_parsed(body), status=status)
    add_headers(error, headers)
    return error


def add_headers(error: APIError, headers: Mapping[str, str]) -> None:
    """Add what the headers of its response ask for; of several waits, in headers and body, the longest applies."""
    should_retry = headers.get("x-should-retry", "").lower()
    error.should_retry = {"true": True, "false": False}.get(should_retry)
    waits = [wait for wait in (error.retry_after_s, parse_retry_after(headers)) if wait is not None]
    error.retry_after_s = max(waits, default=None)


def classify_in_band(payload: Any, *, status: int | None = None) -> APIError:
    """Return the error of a provider's error object, for example one inside a stream.

    Args:
        payload: The decoded JSON, or text if the body is not JSON.
        status: The HTTP status; None infers it from the object. Without a status or a known code in it, it is 500.
    """
    fields = _error_fields(payload)
    message = _redacted(fields.get("message"))
    words = [_word(fields[name]) for name in _WORD_FIELDS if fields.get(name) is not None]
    words += read_reasons(fields.get("details"), message)
    if status is None:
        status = _inferred_status(fields, words)
    kind = _kind(status, words, message)
    error = kind(
        message or f"the provider answered with status {status}",
        status_code=status,
        code=_redacted(fields.get("code", fields.get("error_code")), _MOST_WORD) or None,
        type=_redacted(fields.get("type"), _MOST_WORD) or None,
        hint=_HINTS.get(kind),
        body=_redacted(_text_of(payload), _MOST_BODY),
    )
    # The message of a rejected request may quote the prompt, and waiting does not help it.
    error.retry_after_s = find_wait(payload, message if error.retryable else "")
    return error


def is_error_object(value: Any) -> bool:
    """Whether a JSON value that is no answer is an error, in one of the structures in which hosts send it.

    Args:
        value: Decoded JSON: a frame, or a document. Status 200 of its response proves nothing.
    """
    if isinstance(value, list):  # Google
        return bool(value) and isinstance(value[0], dict) and is_error_object(value[0])
    if not isinstance(value, dict):
        return False
    if value.get("error") or "error" in (value.get("object"), value.get("type")) or value.get("success") is False:
        return True
    if _base_resp(value) is not None:
        return True
    has_message = any(isinstance(value.get(name), str) and value[name] for name in _MESSAGE_FIELDS)
    return has_message and any(_is_failure(value.get(name)) for name in ("code", "error_code", "status_code", "status"))


def _is_failure(code: Any) -> bool:
    return isinstance(code, int | str) and not isinstance(code, bool) and str(code).lower() not in _FINE


def _kind(status: int, words: list[str], message: str) -> type[APIError]:
    if _is_quota(status, words, message):
        return QuotaExceededError
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status >= 500:  # noqa: PLR2004
        return ServerError
    if _KEY_CODES.intersection(words):
        return AuthenticationError
    return _kind_of_request(status, set(words), message)


def _is_quota(status: int, words: Iterable[str], message: str) -> bool:
    if status == _PAYMENT_REQUIRED or (status in _QUOTA_STATUSES and any(map(_QUOTA_CODE.search, words))):
        return True
    return status == _TOO_MANY_REQUESTS and _QUOTA_MESSAGE.search(message) is not None


def _kind_of_request(status: int, words: set[str], message: str) -> type[APIError]:
    if words & _CONTEXT_CODES or (status in (400, 422) and _CONTEXT_MESSAGE.search(message)):
        return ContextLengthError
    if words & _FILTER_CODES or (status in (400, 422) and _FILTER_MESSAGE.search(message)):
        return ContentFilterError
    return BadRequestError


def _inferred_status(fields: Mapping[str, Any], words: Iterable[str]) -> int:
    for name in ("status_code", "code", "status", "http_status"):
        value = fields.get(name)
        number = int(value) if isinstance(value, str) and re.fullmatch("[0-9]{3}", value) else value
        if isinstance(number, int) and 400 <= number < 600:  # noqa: PLR2004
            return number
    known = (_STATUS_OF_CODE.get(word) or (_PAYMENT_REQUIRED if _QUOTA_CODE.search(word) else None) for word in words)
    return next((status for status in known if status is not None), 500)


def _word(value: Any) -> str:
    """Return a code or type in the form of the tables above."""
    return str(value).lower().replace(" ", "_").replace("-", "_")


def _parsed(body: bytes) -> Any:
    try:
        return decode_json(body)
    except NotJSONError:
        return body.decode("utf-8", "replace")


def _error_fields(payload: Any) -> dict[str, Any]:
    """Return the fields of the error, with `message`, from any of the structures that hosts use."""
    if isinstance(payload, list):
        payload = payload[0] if payload else {}
    if isinstance(payload, str):
        return {"message": _title(payload)}
    if not isinstance(payload, dict):
        return {}
    inner = _first(payload.get("error")) or _base_resp(payload) or _first(payload.get("errors")) or payload
    if isinstance(inner, str):
        return {**payload, "message": payload.get("message") or inner}
    if not isinstance(inner, dict):
        inner = payload
    wrapped = inner.get("error")
    if inner is not payload and isinstance(wrapped, dict):  # a gateway wraps the error of the host that it calls
        inner = {**_codes_of(inner), **{name: value for name, value in wrapped.items() if value is not None}}
    # Hosts also have the code, or the message, beside the object.
    messages = (*(inner.get(name) for name in _MESSAGE_FIELDS), *(payload.get(name) for name in _MESSAGE_FIELDS))
    found = {name: value for name, value in inner.items() if value is not None}
    return {**_codes_of(payload), **found, "message": next(filter(None, messages), None)}


def _codes_of(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the codes in an object around the error: those of a failure, and types that the tables know."""
    codes = {name: fields[name] for name in _CODE_FIELDS if _is_failure(fields.get(name))}
    kind = fields.get("type")
    return codes | ({"type": kind} if isinstance(kind, str) and _word(kind) in _STATUS_OF_CODE else {})


def _first(value: Any) -> Any:
    """Return the first item of a list, as Cloudflare sends it; any other value unchanged."""
    return (value[0] if value else None) if isinstance(value, list) else value


def _base_resp(payload: dict[str, Any]) -> dict[str, Any] | None:
    """Return the error in MiniMax's `base_resp`; None if there is none, or its number is that of a success."""
    found = payload.get("base_resp")
    if not isinstance(found, dict):
        return None
    number = found.get("status_code")
    if isinstance(number, str) and re.fullmatch("[0-9]{1,9}", number):
        number = int(number)
    if not isinstance(number, int) or isinstance(number, bool) or number == 0:
        return None
    status, word = _BASE_RESP.get(number, (500, "server_error"))
    return {"code": number, "status_code": status, _WORD: word, "message": found.get("status_msg")}


def _title(page: str) -> str:
    """Return the title of an HTML page; other text unchanged."""
    found = re.search(r"<title[^>]*>(.*?)</title>", page[:_MOST_BODY], re.IGNORECASE | re.DOTALL)
    return f"an HTML page: {found.group(1).strip()}" if found else page.strip()


def _text_of(payload: Any) -> str:
    return payload if isinstance(payload, str) else str(msgspec.json.encode(payload), "utf-8")


def _redacted(text: Any, most: int = _MOST_MESSAGE) -> str:
    if text is None:
        return ""
    shown = _KEY.sub(lambda found: f"{found[1] or found[2] or found[3]}-...", _text_of(text))
    return shown if len(shown) <= most else shown[: most - 3] + "..."
