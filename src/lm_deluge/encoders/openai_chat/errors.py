"""Errors as OpenAI writes them.

https://platform.openai.com/docs/guides/error-codes
"""

from __future__ import annotations

import msgspec

from lm_deluge import errors
from lm_deluge.errors import APIError
from lm_deluge.wire.sse import encode_sse

__all__ = ["encode_error", "encode_stream_error", "error_words", "usual_status"]

# Type and code of each class, for errors that bring none of their own. The nearest class in the tree holds.
_WORDS: dict[type[APIError], tuple[str, str | None]] = {
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
    """Return the status of an error: its own, or the one by which its class is known again."""
    return error.status_code or _STATUSES[next(each for each in type(error).__mro__ if each in _STATUSES)]


def encode_error(error: APIError) -> bytes:
    """Write the JSON body of an error answer. The status is not in it: `error.status_code` goes before."""
    kind, code = error_words(error)
    fields = {"message": error.message, "type": kind, "param": None, "code": code}
    return msgspec.json.encode({"error": fields})


def error_words(error: APIError) -> tuple[str, str | None]:
    """Return the type and the code of an error: its own, or those by which its class is known again."""
    kind = next(each for each in type(error).__mro__ if each in _WORDS)
    default_type, default_code = _WORDS[kind]
    return error.type or default_type, error.code or default_code


def encode_stream_error(error: APIError) -> bytes:
    """Write the frame by which a stream fails after it began. Nothing follows it, no end mark either."""
    return encode_sse(encode_error(error))
