"""Errors as Anthropic writes them.

https://platform.claude.com/docs/en/api/errors
"""

from __future__ import annotations

import msgspec

from lm_deluge import errors
from lm_deluge.errors import APIError
from lm_deluge.wire.sse import encode_sse

__all__ = ["encode_error", "encode_stream_error"]

# The type of each class, for errors that bring none of Anthropic's. The nearest class in the tree holds.
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
_KNOWN = {*_TYPES.values(), "timeout_error"}


def encode_error(error: APIError) -> bytes:
    """Write the JSON body of an error answer. The status is not in it: `error.status_code` goes before."""
    nearest = next(_TYPES[each] for each in type(error).__mro__ if each in _TYPES)
    kind = error.type if error.type in _KNOWN else nearest
    body = {"type": "error", "error": {"type": kind, "message": error.message}, "request_id": error.request_id}
    return msgspec.json.encode(body)


def encode_stream_error(error: APIError) -> bytes:
    """Write the frame by which a stream fails after it began. Nothing follows it, no end mark either."""
    return encode_sse(encode_error(error), event="error")
