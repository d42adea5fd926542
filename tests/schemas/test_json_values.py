"""Python values as JSON."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import json
import pathlib
import types
import uuid
from collections import OrderedDict, namedtuple
from typing import Any

import msgspec
import pydantic
import pytest

from lm_deluge.schemas.json_values import to_json_text


class Shade(enum.StrEnum):
    DARK = "dark"


class Word(str):
    __slots__ = ()


@dataclasses.dataclass
class Pair:
    left: Any
    right: int = 1


class Model(pydantic.BaseModel):
    day: dt.date


class Struct(msgspec.Struct):
    a: int


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        ({"ä": [1, 2.5, True]}, '{"ä": [1, 2.5, true]}'),
        (Pair(Model(day=dt.date(2026, 1, 2))), '{"left": {"day": "2026-01-02"}, "right": 1}'),
        ([Struct(1), Shade.DARK, Word("w")], '[{"a": 1}, "dark", "w"]'),
        ((1, {2}), "[1, [2]]"),
        (OrderedDict(a=namedtuple("P", "x")(3)), '{"a": [3]}'),  # noqa: PYI024 - an untyped one, as users have
        (types.MappingProxyType({"a": 1}), '{"a": 1}'),
        (uuid.UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
        (decimal.Decimal("1.50"), '"1.50"'),
        (pathlib.PurePosixPath("/a/b"), '"/a/b"'),
        (10**30, str(10**30)),
        ([float("nan"), float("inf")], "[null, null]"),
        ({1: "a"}, '{"1": "a"}'),
        (b"ab", '"YWI="'),
    ],
    ids=lambda each: str(each)[:20],
)
def test_a_value_as_text(value: Any, text: str) -> None:
    assert to_json_text(value) == text
    json.loads(text)


def test_values_without_a_form_in_json() -> None:
    with pytest.raises(TypeError, match="object has no form in JSON"):
        to_json_text({"a": object()})
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(ValueError, match="contains itself"):
        to_json_text(loop)
