"""Fields of a request's JSON, taken with OpenAI's words for what is wrong with them."""

from __future__ import annotations

from typing import Any

import msgspec

from lm_deluge.errors import BadRequestError

__all__ = ["bad", "missing", "need", "parse_json", "take", "unknown", "wrong_type"]

JSON = dict[str, Any]

_KINDS: dict[type, str] = {
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a decimal",
    list: "an array",
    dict: "an object",
    type(None): "null",
}


def parse_json(body: bytes) -> Any:
    """Return the JSON of a body."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad("We could not parse the JSON body of your request: the API expects a JSON payload.") from error


def bad(message: str, code: str | None = None) -> BadRequestError:
    """Return the error for a request that cannot be answered."""
    return BadRequestError(message, status_code=400, code=code, type="invalid_request_error")


def wrong_type(name: str, wanted: type, value: Any) -> BadRequestError:
    """Return the error for a value of a wrong kind."""
    got = _KINDS.get(type(value), "something else")
    return bad(f"Invalid type for '{name}': expected {_KINDS[wanted]}, but got {got} instead.", "invalid_type")


def missing(name: str) -> BadRequestError:
    """Return the error for a field that is not there."""
    return bad(f"Missing required parameter: '{name}'.", "missing_required_parameter")


def unknown(name: str, value: Any, known: Any) -> BadRequestError:
    """Return the error for a word that is none of the known ones."""
    words = ", ".join(f"'{word}'" for word in known)
    return bad(f"Invalid value: '{str(value)[:50]}' for '{name}'. Supported values are: {words}.", "invalid_value")


def take(fields: JSON, name: str, kind: type, default: Any = None, *, at: str = "") -> Any:
    """Return a field of a certain kind; null counts as absent."""
    value = fields.get(name)
    if value is None:
        return default
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise wrong_type(f"{at}{name}", kind, value)
    return value


def need(fields: JSON, name: str, kind: type, *, at: str = "") -> Any:
    """Return a field of a certain kind, which must be there."""
    value = take(fields, name, kind, at=at)
    if value is None:
        raise missing(f"{at}{name}")
    return value
