"""Values of built-in types in place of their subclasses, which the JSON encoder does not accept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["to_plain"]

_EXACT = frozenset({str, int, float, bool, bytes, type(None)})


def to_plain(value: Any) -> Any:
    """Return JSON-like data with instances of subclasses replaced: `numpy.str_` by `str`, `defaultdict` by `dict`.

    Mappings become dicts, and scalars of numpy the number or text that they contain. Values of other types stay, and
    data that has only built-in types is returned itself.
    """
    if type(value) in _EXACT:
        return value
    for kind, convert in _CONVERTERS:
        if isinstance(value, kind):
            return convert(value)
    is_scalar = type(value).__module__ == "numpy" and getattr(value, "shape", None) == ()
    return value.item() if is_scalar else value


def _plain_mapping(value: Mapping[Any, Any]) -> Any:
    plain = {to_plain(name): to_plain(each) for name, each in value.items()}
    is_plain = type(value) is dict and all(
        name is other and each is value[other] for (name, each), other in zip(plain.items(), value, strict=True)
    )
    return value if is_plain else plain


def _plain_list(value: list[Any] | tuple[Any, ...]) -> Any:
    plain = [to_plain(each) for each in value]
    is_plain = type(value) in (list, tuple) and all(each is other for each, other in zip(plain, value, strict=True))
    return value if is_plain else plain


_CONVERTERS: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
    (str, str.__str__),  # not str(value), which an enum overrides
    (int, int),
    (float, float),
    (Mapping, _plain_mapping),
    ((list, tuple), _plain_list),
)
