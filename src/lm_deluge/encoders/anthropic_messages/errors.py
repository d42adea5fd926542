"""Encode errors in Anthropic's format.

https://platform.claude.com/docs/en/api/errors
"""

from __future__ import annotations

import msgspec

from lm_deluge import errors
from lm_deluge.errors import APIError
from lm_deluge.wire.sse import encode_sse

__all__ = ["encode_error", "encode_stream_error"]

# Anthropic's type for errors that have none of its types. The most derived class in this table applies.
_TYPES: dict[type[APIError], str] = {
    errors.APIError: "api_error",
    errors.BadRequestError: "invalid_request_error",
    errors.AuthenticationError: "authentication_error",
    errors.PermissionDeniedError: "permission_error",
    errors.QuotaExceededError: "billing_error",
    errors.NotFoundError: "not_found_error",
    errors.RequestTooLargeError: "request_too_large",
    errors.RateLimitError: "rate_limit_error",
    errors.OverloadedError: "overloaded_error",
}
_ANTHROPIC_TYPES = {*_TYPES.values(), "timeout_error"}


def encode_error(error: APIError) -> bytes:
    """Return the JSON body of an error response. The HTTP status is `error.status_code`, not a field of the body."""
    nearest = next(_TYPES[each] for each in type(error).__mro__ if each in _TYPES)
    kind = error.type if error.type in _ANTHROPIC_TYPES else nearest
    body = {"type": "error", "error": {"type": kind, "message": error.message}, "request_id": error.request_id}
    return msgspec.json.encode(body)


def encode_stream_error(error: APIError) -> bytes:
    """Return the frame that reports an error in a started stream. No frame follows it, not even the end mark."""
    return encode_sse(encode_error(error), event="error")
