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

__all__ = ["add_headers", "classify_in_band", "classify_status"]

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
    "billing_error": 402,
    "insufficient_quota": 402,
    "permission_error": 403,
    "permission_denied": 403,
    "not_found_error": 404,
    "model_not_found": 404,
    "not_found": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "resource_exhausted": 429,
    "requests": 429,
    "tokens": 429,
    "throttling": 429,
    "api_error": 500,
    "server_error": 500,
    "internal_server_error": 500,
    "internal_error": 500,
    "internal": 500,
    "timeout": 504,
    "vector_store_timeout": 504,
    "timeout_error": 504,
    "unavailable": 503,
    "service_unavailable": 503,
    "overloaded_error": 529,
    "overloaded": 529,
    "engine_overloaded": 503,
    "insufficient_system_resource": 503,
}

_QUOTA_CODES = {
    "insufficient_quota",
    "billing_hard_limit_reached",
    "billing_not_active",
    "billing_error",
    "insufficient_balance",
    "credit_balance_too_low",
}
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
    words = [str(fields[name]).lower() for name in ("code", "type", "status") if fields.get(name) is not None]
    words += read_reasons(fields.get("details"), message)
    if status is None:
        status = _inferred_status(fields, words)
    kind = _kind(status, set(words), message)
    error = kind(
        message or f"the provider answered with status {status}",
        status_code=status,
        code=_redacted(fields.get("code"), _MOST_WORD) or None,
        type=_redacted(fields.get("type"), _MOST_WORD) or None,
        hint=_HINTS.get(kind),
        body=_redacted(_text_of(payload), _MOST_BODY),
    )
    # The message of a rejected request may quote the prompt, and waiting does not help it.
    error.retry_after_s = find_wait(payload, message if error.retryable else "")
    return error


def _kind(status: int, words: set[str], message: str) -> type[APIError]:
    if status in (402, 429) and (words & _QUOTA_CODES or status == 402):  # noqa: PLR2004
        return QuotaExceededError
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status >= 500:  # noqa: PLR2004
        return ServerError
    if words & _KEY_CODES:
        return AuthenticationError
    return _kind_of_request(status, words, message)


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
    return next((_STATUS_OF_CODE[word] for word in words if word in _STATUS_OF_CODE), 500)


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
    inner = payload.get("error", payload)
    if isinstance(inner, str):
        return {**payload, "message": payload.get("message") or inner}
    if not isinstance(inner, dict):
        return {"message": payload.get("message")}
    message = inner.get("message") or inner.get("detail") or inner.get("msg")
    return {**inner, "message": message}


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
