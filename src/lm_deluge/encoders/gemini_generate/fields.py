"""Typed access to the fields of requests to Google, and errors in Google's format.

https://cloud.google.com/apis/design/errors (read 2026-11). Google accepts two spellings of each field, such as
`thoughtSignature` and `thought_signature`.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from lm_deluge import errors
from lm_deluge.errors import APIError, BadRequestError
from lm_deluge.wire.sse import encode_sse

__all__ = [
    "bad_request",
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
_STATUS_NAMES = {
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
    """Return the JSON body of an error response."""
    kind = next(each for each in type(error).__mro__ if each in _STATUS_OF_CLASS)
    status = error.status_code or _STATUS_OF_CLASS[kind]
    status_name = _STATUS_NAMES.get(status) or ("INTERNAL" if status > 500 else "INVALID_ARGUMENT")  # noqa: PLR2004
    fields: JSON = {"code": status, "message": error.message, "status": status_name}
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
    """Return the frame that reports an error in a started stream."""
    return encode_sse(encode_error(error))


def bad_request(message: str) -> BadRequestError:
    """Return the error of a request that cannot be answered."""
    return BadRequestError(message, status_code=400, type="INVALID_ARGUMENT")


def parse_object(body: bytes) -> JSON:
    """Return the JSON object in a body.

    Raises:
        BadRequestError: The body is not a JSON object.
    """
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad_request("Invalid JSON payload received. Expected an object.") from error


_NAMES: dict[type, str] = {str: "a string", bool: "a boolean", int: "an integer", list: "a list", dict: "an object"}


def take(fields: JSON, name: str, kind: type, default: Any = None, *, at: str = "") -> Any:
    """Return a field of type `kind`, or `default` if the field is absent or null.

    Raises:
        BadRequestError: The field has another type.
    """
    value = fields.get(name)
    if value is None:
        return default
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise bad_request(f"Invalid value at '{at}{name}': it must be {_NAMES[kind]}.")
    return value


def need(fields: JSON, name: str, kind: type, *, at: str = "") -> Any:
    """Return a required field of type `kind`.

    Raises:
        BadRequestError: The field is missing or has another type.
    """
    value = take(fields, name, kind, at=at)
    if value is None:
        raise bad_request(f"Missing field '{at}{name}'.")
    return value


def camel(fields: JSON) -> JSON:
    """Return an object with its fields, but not those of nested objects, in the spelling `thoughtSignature`."""
    return {re.sub(r"_([a-z])", lambda found: found[1].upper(), name): value for name, value in fields.items()}


def lower_types(schema: Any) -> Any:
    """Return the JSON schema of a schema in Google's format, whose types are upper-case, such as `OBJECT`."""
    if isinstance(schema, list):
        return [lower_types(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    lowered = {name: lower_types(value) for name, value in schema.items()}
    kind = schema.get("type")
    return {**lowered, "type": kind.lower()} if isinstance(kind, str) else lowered
