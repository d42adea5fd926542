"""Values of built-in types in place of their subclasses."""

from __future__ import annotations

import enum
from collections import OrderedDict, UserDict, defaultdict
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_deluge.api_requests.request import build_call
from lm_deluge.config import SamplingParams
from lm_deluge.models.rows import ModelRow
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import ToolResultPart
from lm_deluge.prompt.plain_values import to_plain
from lm_deluge.prompt.tool import Tool


class Text(str):
    __slots__ = ()


class Whole(int):
    __slots__ = ()


class Real(float):
    __slots__ = ()


class Level(enum.IntEnum):
    LOW = 1


VALUES = [
    (Text("a"), "a"),
    (Whole(1), 1),
    (Real(1.5), 1.5),
    (Level.LOW, 1),
    (True, True),
    (OrderedDict({Text("k"): Whole(2)}), {"k": 2}),
    (defaultdict(list, a=[Text("b")]), {"a": ["b"]}),
    (UserDict(a=(Whole(1),)), {"a": [1]}),
]


@pytest.mark.parametrize(("value", "plain"), VALUES, ids=repr)
def test_a_subclass_is_replaced(value: Any, plain: Any) -> None:
    found = to_plain(value)
    assert (found, type(found)) == (plain, type(plain))
    msgspec.json.encode(found)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_plain_data_is_returned_itself(value: Any) -> None:
    assert to_plain(value) is value


class Scalar:
    """Has what a scalar of numpy has that is no subclass of a Python number, such as numpy.int64."""

    shape = ()

    def item(self) -> int:
        return 7


def test_scalars_of_numpy() -> None:
    assert to_plain(scalar := Scalar()) is scalar
    Scalar.__module__ = "numpy"
    assert to_plain({"a": [scalar]}) == {"a": [7]}


def test_everything_of_a_call_is_plain() -> None:
    schema = OrderedDict(type=Text("object"), properties=UserDict(n={"type": Text("string"), "minLength": Whole(1)}))
    call = build_call(
        ModelRow(id="openai:m", name="m", provider="openai"),
        Text("Hi"),
        params=SamplingParams(temperature=Real(0.5), max_new_tokens=Whole(9), stop=(Text("END"),)),
        tools=[Tool(name=Text("f"), parameters=schema), {"name": Text("g")}],  # type: ignore[arg-type]
        output=schema,
        extra_body={"user": Text("ann")},
    )
    plain = {"type": "object", "properties": {"n": {"type": "string", "minLength": 1}}}
    sent = [call.params, call.tools, call.output, call.extra_body, list(call.conversation)]
    assert msgspec.json.decode(msgspec.json.encode(sent))[2:4] == [plain, {"user": "ann"}]
    assert (call.params.temperature, call.params.max_new_tokens, call.params.stop) == (0.5, 9, ("END",))


def test_a_result_of_a_tool_may_have_them() -> None:
    assert Message.tool_result("a", {Text("k"): [Whole(1)]}).parts == (ToolResultPart("a", '{"k": [1]}'),)
