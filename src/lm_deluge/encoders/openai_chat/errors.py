"""Encode errors in OpenAI's format.

https://platform.openai.com/docs/guides/error-codes
"""

from __future__ import annotations

import msgspec

from lm_deluge import errors
from lm_deluge.errors import APIError
from lm_deluge.wire.sse import encode_sse

__all__ = ["encode_error", "encode_stream_error", "error_type_and_code", "usual_status"]

# OpenAI's type and code for errors without them. The most derived class in this table applies.
_TYPES_AND_CODES: dict[type[APIError], tuple[str, str | None]] = {
    errors.APIError: ("api_error", None),
    errors.BadRequestError: ("invalid_request_error", None),
    errors.ContextLengthError: ("invalid_request_error", "context_length_exceeded"),
    errors.ContentFilterError: ("invalid_request_error", "content_policy_violation"),
    errors.AuthenticationError: ("invalid_request_error", "invalid_api_key"),
    errors.PermissionDeniedError: ("invalid_request_error", "permission_denied"),
    errors.QuotaExceededError: ("insufficient_quota", "insufficient_quota"),
    errors.NotFoundError: ("invalid_request_error", "model_not_found"),
    errors.RequestTooLargeError: ("invalid_request_error", "request_too_large"),
    errors.RateLimitError: ("requests", "rate_limit_exceeded"),
    errors.OverloadedError: ("server_error", "service_unavailable"),
    errors.ServerError: ("server_error", None),
}

_STATUSES: dict[type[APIError], int] = {
    errors.APIError: 500,
    errors.BadRequestError: 400,
    errors.AuthenticationError: 401,
    errors.PermissionDeniedError: 403,
    errors.QuotaExceededError: 402,
    errors.NotFoundError: 404,
    errors.RequestTooLargeError: 413,
    errors.RateLimitError: 429,
    errors.OverloadedError: 503,
}


def usual_status(error: APIError) -> int:
    """Return the HTTP status of an error: its own, or the one that the adapters decode as its class."""
    return error.status_code or _STATUSES[next(each for each in type(error).__mro__ if each in _STATUSES)]


def encode_error(error: APIError) -> bytes:
    """Return the JSON body of an error response. The HTTP status is `error.status_code`, not a field of the body."""
    kind, code = error_type_and_code(error)
    fields = {"message": error.message, "type": kind, "param": None, "code": code}
    return msgspec.json.encode({"error": fields})


def error_type_and_code(error: APIError) -> tuple[str, str | None]:
    """Return the type and the code of an error: its own, or those that the adapters decode as its class."""
    kind = next(each for each in type(error).__mro__ if each in _TYPES_AND_CODES)
    default_type, default_code = _TYPES_AND_CODES[kind]
    return error.type or default_type, error.code or default_code


def encode_stream_error(error: APIError) -> bytes:
    """Return the frame that reports an error in a started stream. No frame follows it, not even the end mark."""
    return encode_sse(encode_error(error))
