"""Typed JSON decoding that ignores fields of unexpected types.

The typed decoder is the fast path. If a field of a provider's object has a type that its documentation does not
mention, the object is decoded again without types, and each field that does not fit is omitted.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar, get_args

import msgspec

__all__ = ["NotJSONError", "TolerantDecoder"]

T = TypeVar("T", bound=msgspec.Struct)


class NotJSONError(ValueError):
    """The bytes are not a JSON document."""


class TolerantDecoder(Generic[T]):
    """Decodes JSON objects into the msgspec struct `kind`, whose own fields must all be optional.

    Attributes:
        decode_typed: The fast path alone; raises `msgspec.DecodeError` where `decode` reads the object once more.
    """

    def __init__(self, kind: type[T]) -> None:
        self._kind = kind
        self.decode_typed = msgspec.json.Decoder(kind).decode

    def decode(self, data: bytes) -> T | None:
        """Return the object; None if the JSON value is not an object.

        Raises:
            NotJSONError: The bytes are not valid JSON.
        """
        try:
            return self.decode_typed(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return self._decode_slowly(data)

    def _decode_slowly(self, data: bytes) -> T | None:
        try:
            value = msgspec.json.decode(data.decode("utf-8", "replace"))
        except (msgspec.DecodeError, RecursionError) as error:
            raise NotJSONError(str(error)[:100]) from None
        return convert_tolerantly(value, self._kind)


def convert_tolerantly(value: Any, kind: type[T]) -> T | None:
    """Return `value` as a `kind` without fields that do not fit; None if it is no object or lacks required fields."""
    if not isinstance(value, dict):
        return None
    kept = {}
    for field in msgspec.structs.fields(kind):
        if field.encode_name in value:
            fits, item = _fit(value[field.encode_name], field.type)
            if fits:
                kept[field.name] = item
    try:
        return kind(**kept)
    except TypeError:  # a required field
        return None


def _fit(value: Any, wanted: Any) -> tuple[bool, Any]:
    try:
        return True, msgspec.convert(value, wanted)
    except (msgspec.ValidationError, RecursionError):
        pass
    inner = next((arg for arg in (wanted, *get_args(wanted)) if _is_struct(arg)), None)
    if inner is not None and isinstance(value, dict):
        item = convert_tolerantly(value, inner)
        return item is not None, item
    items = next((arg for arg in (wanted, *get_args(wanted)) if getattr(arg, "__origin__", None) is list), None)
    if items is not None and isinstance(value, list):
        (item_type,) = get_args(items)
        fitted = [_fit(item, item_type) for item in value]
        return True, [item for fits, item in fitted if fits]
    return False, None


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)
