"""Tool calls without results, and results without calls."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import ProviderDataPart, TextPart, ToolCallPart, ToolResultPart
from lm_deluge.prompt.tool_pairs import OpenCalls, PairRule, find_unpaired

RULES: tuple[PairRule, ...] = ("next_message", "next_turn", "later")
USER, SYSTEM, TEXT = Message.user("u"), Message.system("s"), Message.assistant("a")


def calls(*ids: str) -> Message:
    return Message("assistant", tuple(ToolCallPart(each, "f") for each in ids))


def results(*ids: str) -> Message:
    return Message("tool", tuple(ToolResultPart(each, "1") for each in ids))


def found(messages: list[Message], rule: PairRule) -> list[tuple[str, int, str]]:
    return [
        (type(each).__name__, each.turn, "".join(part.id for part in each.calls))
        if isinstance(each, OpenCalls)
        else (type(each).__name__, each.turn, "".join(part.tool_call_id for part in each.results))
        for each in find_unpaired(messages, rule)
    ]


OPEN, ORPHAN = "OpenCalls", "Orphans"
CASES: dict[str, tuple[list[Message], list[Any], list[Any], list[Any]]] = {
    "no tools": ([SYSTEM, USER, TEXT], [], [], []),
    "all answered": ([USER, calls("x", "y"), results("x"), results("y"), USER], [], [], []),
    "in another order": ([USER, calls("x", "y"), results("y", "x"), TEXT], [], [], []),
    "at the end": ([USER, calls("x")], *[[(OPEN, 1, "x")]] * 3),
    "one of two": ([USER, calls("x", "y"), results("x"), USER], *[[(OPEN, 1, "y")]] * 3),
    "a user message instead": ([USER, calls("x"), USER], *[[(OPEN, 1, "x")]] * 3),
    "a user message between": (
        [USER, calls("x"), USER, results("x")],
        [(OPEN, 1, "x"), (ORPHAN, 2, "x")],
        [(OPEN, 1, "x"), (ORPHAN, 2, "x")],
        [],
    ),
    "a system message between": (
        [USER, calls("x"), SYSTEM, results("x")],
        [(OPEN, 1, "x"), (ORPHAN, 2, "x")],
        [],
        [],
    ),
    "an answer in two messages": (
        [USER, calls("x"), TEXT, results("x")],
        [(OPEN, 1, "x"), (ORPHAN, 2, "x")],
        [],
        [],
    ),
    "a result of no call": ([USER, results("x")], *[[(ORPHAN, 0, "x")]] * 3),
    "two results of a call": ([calls("x"), results("x", "x")], *[[(ORPHAN, 1, "x")]] * 3),
    "equal ids in two turns": ([calls("x"), results("x"), calls("x"), results("x")], [], [], []),
    "equal ids in one turn": ([calls("x", "x"), results("x")], *[[(OPEN, 0, "x")]] * 3),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", CASES)
def test_what_is_unpaired(name: str, rule: PairRule) -> None:
    messages, *expected = CASES[name]
    assert found(messages, rule) == expected[RULES.index(rule)]


@pytest.mark.parametrize(
    "data",
    [
        {"type": "tool_result", "tool_use_id": "x", "content": []},
        {"toolResult": {"toolUseId": "x", "content": []}},
        {"type": "computer_call_output", "call_id": "x"},
    ],
)
def test_a_result_in_the_words_of_the_provider_is_one(data: dict[str, Any]) -> None:
    opaque = Message("user", (ProviderDataPart("p", "block", data), TextPart("Well?")))
    assert [found([calls("x"), opaque], rule) for rule in RULES] == [[], [], []]
    assert [found([calls("x", "y"), results("y"), opaque], rule) for rule in RULES] == [[], [], []]


@given(st.lists(st.sampled_from("xyz"), unique=True), st.data())
def test_calls_and_all_their_results_are_pairs(ids: list[str], data: st.DataObject) -> None:
    order = data.draw(st.permutations(ids))
    cut = data.draw(st.integers(0, len(order)))
    messages = [USER, calls(*ids), results(*order[:cut]), results(*order[cut:]), USER]
    assert [found(messages, rule) for rule in RULES] == [[], [], []]
