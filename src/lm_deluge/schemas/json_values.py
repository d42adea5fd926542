"""Python values as JSON: dataclasses, structs, models, dates, enums and so on."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

__all__ = ["to_json_text", "to_json_value"]


def to_json_value(value: Any) -> Any:
    """Return a value as JSON data.

    Raises:
        TypeError: A value in it has no form in JSON.
        ValueError: It contains itself, or is nested too deeply.
    """
    try:
        return msgspec.to_builtins(value, enc_hook=_plain, str_keys=True)
    except RecursionError as error:
        raise ValueError("the value contains itself, or is nested too deeply") from error


def to_json_text(value: Any) -> str:
    """Return a value as JSON text. Numbers that JSON does not have, such as NaN, become null.

    Raises:
        TypeError: A value in it has no form in JSON.
        ValueError: It contains itself, or is nested too deeply.
    """
    return json.dumps(_finite(to_json_value(value)), ensure_ascii=False)


# msgspec knows the built-in types, but not their subclasses.
_SUBCLASSES: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (str, str.__str__), (int, int), (float, float), (Mapping, dict), (list, list), (tuple, list),
)  # fmt: skip


def _plain(value: Any) -> Any:
    """Return a value that msgspec does not know as one that it knows."""
    if (dump := getattr(value, "model_dump", None)) is not None and not isinstance(value, type):  # Pydantic models
        return dump(mode="json")
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    convert = getattr(value, "tolist", None) or getattr(value, "item", None)  # arrays and scalars of numpy
    if convert is not None and type(value).__module__.startswith("numpy"):
        return convert()
    for kind, convert in _SUBCLASSES:
        if isinstance(value, kind):
            return convert(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list | tuple) else value
