"""Fields of a request to Bedrock, read with its words for what is wrong with them."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import msgspec

from lm_deluge.errors import BadRequestError

__all__ = ["invalid", "need", "read_base64", "read_object", "take"]

JSON = dict[str, Any]


def invalid(message: str) -> BadRequestError:
    """Return the error for a request that cannot be answered."""
    return BadRequestError(message, status_code=400, code="ValidationException")


def read_object(body: bytes) -> JSON:
    """Return the JSON object that a body is.

    Raises:
        BadRequestError: It is none.
    """
    try:
        raw = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise invalid("Malformed input request, please reformat your input and try again.") from error
    if not isinstance(raw, dict):
        raise invalid("Malformed input request: expected type: JSONObject.")
    return raw


def take(fields: JSON, name: str, kind: type | tuple[type, ...], default: Any = None, *, at: str = "") -> Any:
    """Return a field of a certain kind; null counts as absent.

    Raises:
        BadRequestError: It is of another kind.
    """
    value = fields.get(name)
    if value is None:
        return default
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise invalid(f"The value at {at}{name} is of a wrong type.")
    return value


def need(fields: JSON, name: str, kind: type, *, at: str = "") -> Any:
    """Return a field that must be there.

    Raises:
        BadRequestError: It is missing, or of another kind.
    """
    value = take(fields, name, kind, at=at)
    if value is None:
        raise invalid(f"The value at {at}{name} failed to satisfy constraint: Member must not be null.")
    return value


def read_base64(fields: JSON, name: str, *, at: str = "") -> bytes:
    """Return the bytes in a field.

    Raises:
        BadRequestError: It is missing, or no base64.
    """
    try:
        return base64.b64decode(need(fields, name, str, at=at), validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid(f"The value at {at}{name} is not base64.") from error
