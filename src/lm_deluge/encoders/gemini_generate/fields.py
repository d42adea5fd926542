"""Fields of a request to Google, and errors in Google's words.

https://cloud.google.com/apis/design/errors (read 2026-11). A field may be spelt `thoughtSignature` or
`thought_signature`: Google takes both.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from lm_deluge import errors
from lm_deluge.errors import APIError, BadRequestError
from lm_deluge.wire.sse import encode_sse

__all__ = [
    "bad",
    "camel",
    "encode_error",
    "encode_stream_error",
    "lower_types",
    "need",
    "parse_object",
    "take",
]

JSON = dict[str, Any]

_STATUS_OF_CLASS: dict[type[APIError], int] = {
    errors.APIError: 500,
    errors.BadRequestError: 400,
    errors.AuthenticationError: 401,
    errors.PermissionDeniedError: 403,
    errors.QuotaExceededError: 429,
    errors.NotFoundError: 404,
    errors.RequestTooLargeError: 413,
    errors.RateLimitError: 429,
    errors.OverloadedError: 503,
    errors.ServerError: 500,
}
_WORDS = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
    529: "UNAVAILABLE",
}
_RPC = "type.googleapis.com/google.rpc."


def encode_error(error: APIError) -> bytes:
    """Write the JSON body of an error answer."""
    kind = next(each for each in type(error).__mro__ if each in _STATUS_OF_CLASS)
    status = error.status_code or _STATUS_OF_CLASS[kind]
    word = _WORDS.get(status) or ("INTERNAL" if status > 500 else "INVALID_ARGUMENT")  # noqa: PLR2004
    fields: JSON = {"code": status, "message": error.message, "status": word}
    details: list[JSON] = []
    if isinstance(error, errors.QuotaExceededError):
        violation = {"quotaId": "GenerateRequestsPerDayPerProjectPerModel", "quotaValue": "0"}
        details.append({"@type": f"{_RPC}QuotaFailure", "violations": [violation]})
    if error.retry_after_s is not None:
        details.append({"@type": f"{_RPC}RetryInfo", "retryDelay": f"{error.retry_after_s:g}s"})
    if details:
        fields["details"] = details
    return msgspec.json.encode({"error": fields})


def encode_stream_error(error: APIError) -> bytes:
    """Write the frame by which a stream fails after it began."""
    return encode_sse(encode_error(error))


def bad(message: str) -> BadRequestError:
    """Return the error for a request that cannot be answered."""
    return BadRequestError(message, status_code=400, type="INVALID_ARGUMENT")


def parse_object(body: bytes) -> JSON:
    """Return the JSON object that a request is.

    Raises:
        BadRequestError: It is none.
    """
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad("Invalid JSON payload received. Expected an object.") from error


_NAMES: dict[type, str] = {str: "a string", bool: "a boolean", int: "an integer", list: "a list", dict: "an object"}


def take(fields: JSON, name: str, kind: type, default: Any = None, *, at: str = "") -> Any:
    """Return a field of a certain kind; null counts as absent.

    Raises:
        BadRequestError: It is of another kind.
    """
    value = fields.get(name)
    if value is None:
        return default
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise bad(f"Invalid value at '{at}{name}': it must be {_NAMES[kind]}.")
    return value


def need(fields: JSON, name: str, kind: type, *, at: str = "") -> Any:
    """Return a field that must be there.

    Raises:
        BadRequestError: It is not, or is of another kind.
    """
    value = take(fields, name, kind, at=at)
    if value is None:
        raise bad(f"Missing field '{at}{name}'.")
    return value


def camel(fields: JSON) -> JSON:
    """Return an object with its own fields in the spelling `thoughtSignature`."""
    return {re.sub(r"_([a-z])", lambda found: found[1].upper(), name): value for name, value in fields.items()}


def lower_types(schema: Any) -> Any:
    """Return a JSON schema for one of Google's own, whose types are words like `OBJECT`."""
    if isinstance(schema, list):
        return [lower_types(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    lowered = {name: lower_types(value) for name, value in schema.items()}
    kind = schema.get("type")
    return {**lowered, "type": kind.lower()} if isinstance(kind, str) else lowered
