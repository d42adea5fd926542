"""JSON decoding that tolerates what providers get wrong: broken text and fields of unexpected types.

The typed decoder is the fast path. If a field of a provider's object has a type that its documentation does not
mention, the object is decoded again without types. Each field that does not fit is omitted and reported, so that no
value disappears without a warning. Text that is not valid Unicode is repaired: invalid UTF-8, and escapes of half a
surrogate pair, become U+FFFD.
"""

from __future__ import annotations

import re
from functools import cache
from types import NoneType, UnionType
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, Union, get_args, get_origin

import msgspec

__all__ = [
    "NotJSONError",
    "SkipReport",
    "TolerantDecoder",
    "convert_tolerantly",
    "decode_json",
    "mend_json",
    "parse_arguments",
]

T = TypeVar("T", bound=msgspec.Struct)

# A surrogate pair, half of a pair (group 1), or any other escape. Escapes that are not repaired have to be matched,
# too: in `\\ud800` the first backslash escapes the second.
_ESCAPE = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u([dD][89a-fA-F][0-9a-fA-F]{2})|\\.", re.DOTALL
)


class NotJSONError(ValueError):
    """The bytes are not a JSON document."""


class SkipReport(Protocol):
    """Gets the values that are omitted."""

    def skip_value(self, value: Any) -> None:
        """Record that `value` is omitted because of its type; a null is not worth a warning."""
        ...


def decode_json(data: bytes | str) -> Any:
    """Decode a JSON document. Invalid UTF-8, and escapes of half a surrogate pair, become U+FFFD.

    Raises:
        NotJSONError: The text is not JSON, or is nested too deeply.
    """
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        fault = str(error)
    raw = data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass")
    mended = mend_json(raw)
    if mended != raw:
        try:
            return msgspec.json.decode(mended)
        except (msgspec.DecodeError, RecursionError) as error:
            fault = str(error)
    raise NotJSONError(fault[:100])


def parse_arguments(text: str) -> tuple[Any, str | None]:
    """Parse the arguments of a tool call: return the value and None, or None and the reason. Empty text is `{}`."""
    if not text.strip():
        return {}, None
    try:
        return decode_json(text), None
    except NotJSONError as error:
        return None, f"the arguments are not JSON: {error}"[:200]


def mend_json(data: bytes) -> bytes:
    """Return JSON text with U+FFFD in place of invalid UTF-8 and of escapes of half a surrogate pair."""
    return _ESCAPE.sub(_mended, data.decode("utf-8", "replace").encode())


def _mended(escape: re.Match[bytes]) -> bytes:
    return escape[0] if escape[1] is None else rb"\ufffd"


class TolerantDecoder(Generic[T]):
    """Decodes JSON objects into the msgspec struct `kind`, whose own fields must all be optional.

    Attributes:
        decode_typed: The fast path alone; raises `msgspec.DecodeError` where `decode` reads the object once more.
    """

    def __init__(self, kind: type[T]) -> None:
        self._kind = kind
        self.decode_typed = msgspec.json.Decoder(kind).decode

    def decode(self, data: bytes, report: SkipReport | None = None) -> T | None:
        """Return the object; None if the JSON value is not an object.

        Such a value is reported as null: hosts send heartbeats like `"ping"`, which have no content.

        Raises:
            NotJSONError: The bytes are not valid JSON.
        """
        try:
            return self.decode_typed(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            value = decode_json(data)
        if isinstance(value, dict):
            return convert_tolerantly(value, self._kind, report)
        if report is not None:
            report.skip_value(None)
        return None


def convert_tolerantly(value: Any, kind: type[T], report: SkipReport | None = None) -> T | None:
    """Return `value` as a `kind` without fields that do not fit; None if it is no object or lacks required fields.

    Args:
        value: Decoded JSON.
        kind: The struct to create.
        report: Gets each value that is omitted, also `value` itself if the result is None.
    """
    try:
        return msgspec.convert(value, kind)
    except (msgspec.ValidationError, RecursionError):
        pass
    found = _struct_of(value, kind, report)
    if found is None and report is not None:
        report.skip_value(value)
    return found


def _struct_of(value: Any, kind: type[T], report: SkipReport | None) -> T | None:
    if not isinstance(value, dict):
        return None
    kept = {}
    for field in _fields_of(kind):
        if field.encode_name in value:
            raw = value[field.encode_name]
            fits, item = _fit(raw, field.shape, report)
            if fits:
                kept[field.name] = item
            elif report is not None and raw is not None:
                report.skip_value(raw)
    try:
        return kind(**kept)
    except TypeError:  # a required field
        return None


class _Shape(NamedTuple):
    """What a type accepts, looked up once per struct.

    Attributes:
        kind: The type itself.
        plain: Types of values that fit without a conversion.
        struct: The struct among the alternatives, if any.
        item: The shape of the items, if a list is among the alternatives.
        is_any: Whether every value fits.
    """

    kind: Any
    plain: frozenset[type]
    struct: type[msgspec.Struct] | None
    item: _Shape | None
    is_any: bool


class _Field(NamedTuple):
    name: str
    encode_name: str
    shape: _Shape


_PLAIN = (str, bool, int, float, NoneType)


def _shape_of(kind: Any) -> _Shape:
    options = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    struct = next((each for each in options if isinstance(each, type) and issubclass(each, msgspec.Struct)), None)
    lists = next((each for each in options if get_origin(each) is list), None)
    plain = frozenset(each for each in options if each in _PLAIN)
    return _Shape(kind, plain, struct, None if lists is None else _shape_of(get_args(lists)[0]), Any in options)


@cache
def _fields_of(kind: type[msgspec.Struct]) -> tuple[_Field, ...]:
    fields = msgspec.structs.fields(kind)
    return tuple(_Field(field.name, field.encode_name, _shape_of(field.type)) for field in fields)


def _fit(value: Any, shape: _Shape, report: SkipReport | None) -> tuple[bool, Any]:
    if shape.is_any or type(value) in shape.plain:
        return True, value
    if isinstance(value, float) and int in shape.plain and value.is_integer():
        return True, int(value)
    if isinstance(value, list) and shape.item is not None:
        return True, _items(value, shape.item, report)
    try:
        return True, msgspec.convert(value, shape.kind)
    except (msgspec.ValidationError, RecursionError):
        item = None if shape.struct is None else _struct_of(value, shape.struct, report)
        return item is not None, item


def _items(values: list[Any], shape: _Shape, report: SkipReport | None) -> list[Any]:
    found = []
    for value in values:
        fits, item = _fit(value, shape, report)
        if fits:
            found.append(item)
        elif report is not None:
            report.skip_value(value)
    return found
