"""Typed access to the fields of requests to Bedrock; errors have Bedrock's wording."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import msgspec

from lm_deluge.errors import BadRequestError

__all__ = ["invalid", "need", "read_base64", "read_object", "take"]

JSON = dict[str, Any]


def invalid(message: str) -> BadRequestError:
    """Return the error of a request that cannot be answered."""
    return BadRequestError(message, status_code=400, code="ValidationException")


def read_object(body: bytes) -> JSON:
    """Return the JSON object in a body.

    Raises:
        BadRequestError: The body is not a JSON object.
    """
    try:
        raw = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise invalid("Malformed input request, please reformat your input and try again.") from error
    if not isinstance(raw, dict):
        raise invalid("Malformed input request: expected type: JSONObject.")
    return raw


def take(fields: JSON, name: str, kind: type | tuple[type, ...], default: Any = None, *, at: str = "") -> Any:
    """Return a field of type `kind`, or `default` if the field is absent or null.

    Raises:
        BadRequestError: The field has another type.
    """
    value = fields.get(name)
    if value is None:
        return default
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise invalid(f"The value at {at}{name} is of a wrong type.")
    return value


def need(fields: JSON, name: str, kind: type, *, at: str = "") -> Any:
    """Return a required field of type `kind`.

    Raises:
        BadRequestError: The field is missing or has another type.
    """
    value = take(fields, name, kind, at=at)
    if value is None:
        raise invalid(f"The value at {at}{name} failed to satisfy constraint: Member must not be null.")
    return value


def read_base64(fields: JSON, name: str, *, at: str = "") -> bytes:
    """Return the decoded bytes of a required base64 field.

    Raises:
        BadRequestError: The field is missing or is not base64.
    """
    try:
        return base64.b64decode(need(fields, name, str, at=at), validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid(f"The value at {at}{name} is not base64.") from error
