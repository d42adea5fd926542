"""Chat Completions from literal bytes: tool calls as hosts send them."""

from __future__ import annotations

from typing import Any

import pytest

from grammar import check_grammar
from lm_deluge.errors import TruncatedError
from lm_deluge.events import (
    ResponseFinished,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
)
from samples.chat_bytes import chunk, events_of, failure_of, read

DONE = b"data: [DONE]\n\n"
END = chunk({}, "stop") + DONE


def call(index: int | None = None, call_id: str | None = None, name: str | None = None, arguments: Any = None) -> dict:
    """Return a fragment with only the given fields."""
    fragment: dict[str, Any] = {} if index is None else {"index": index}
    if call_id is not None:
        fragment |= {"id": call_id, "type": "function"}
    function = {} if name is None else {"name": name}
    if arguments is not None:
        function["arguments"] = arguments
    return {**fragment, "function": function} if function else fragment


def calls_of(*deltas: list[dict], finish_reason: str = "tool_calls") -> list[tuple[str, str, str]]:
    """Return (id, name, arguments) of the calls in a stream whose chunks have these lists of fragments."""
    body = b"".join(chunk({"tool_calls": fragments}) for fragments in deltas) + chunk({}, finish_reason) + DONE
    check_grammar(events_of(body))
    response = read(body)
    assert response.finish_reason == "tool_calls"
    return [(each.id, each.name, each.arguments_text) for each in response.tool_calls]


def test_a_call_by_the_book() -> None:
    body = b"".join(
        [
            chunk({"role": "assistant", "content": None, "tool_calls": [call(0, "call_1", "add", "")]}),
            chunk({"tool_calls": [call(0, None, None, '{"a": ')]}),
            chunk({"tool_calls": [call(0, None, None, "1}")]}),
            chunk({}, "tool_calls"),
            DONE,
        ]
    )
    assert events_of(body)[1:] == [
        ToolCallStarted(0, "call_1", "add"),
        ToolCallDelta(0, '{"a": '),
        ToolCallDelta(0, "1}"),
        ToolCallFinished(0, "call_1", "add", '{"a": 1}', {"a": 1}),
        ResponseFinished("tool_calls", "tool_calls"),
    ]


A, B = ("a", "f", '{"x": 1}'), ("b", "g", '{"y": 2}')
FRAGMENTS: dict[str, tuple[list[list[dict]], list[tuple[str, str, str]]]] = {
    "parallel, one after the other": (
        [[call(0, "a", "f", "")], [call(0, arguments=A[2])], [call(1, "b", "g", "")], [call(1, arguments=B[2])]],
        [A, B],
    ),
    "parallel, in one chunk": ([[call(0, *A), call(1, *B)]], [A, B]),
    "interleaved": (
        [
            [call(0, "a", "f", ""), call(1, "b", "g", "")],
            [call(1, arguments='{"y":')],
            [call(0, arguments='{"x":')],
            [call(1, arguments=" 2}"), call(0, arguments=" 1}")],
        ],
        [A, B],
    ),
    "gaps in the index, not from 0": ([[call(3, *A)], [call(7, *B)]], [A, B]),
    "falling index": ([[call(1, *A)], [call(0, *B)]], [A, B]),
    "index always 0, new ids": (
        [[call(0, "a", "f", "")], [call(0, arguments=A[2])], [call(0, "b", "g", "")], [call(0, arguments=B[2])]],
        [A, B],
    ),
    "index always 0, ids interleaved": (
        [
            [call(0, "a", "f", '{"x":')],
            [call(0, "b", "g", '{"y":')],
            [call(0, "a", arguments=" 1}")],
            [call(0, "b", arguments=" 2}")],
        ],
        [A, B],
    ),
    "no index": (
        [
            [call(None, "a", "f", "")],
            [call(None, arguments=A[2])],
            [call(None, "b", "g", '{"y":'), call(None, arguments=" 2}")],
        ],
        [A, B],
    ),
    "no index, ids repeated and interleaved": (
        [
            [call(None, "a", "f", "")],
            [call(None, "b", "g", "")],
            [call(None, "a", arguments=A[2])],
            [call(None, "b", arguments=B[2])],
        ],
        [A, B],
    ),
    "index only in the first fragment": (
        [
            [call(0, "a", "f", "")],
            [call(1, "b", "g", "")],
            [call(None, "a", arguments=A[2])],
            [call(None, "b", arguments=B[2])],
        ],
        [A, B],
    ),
    "no ids": (
        [[call(0, None, "f", "")], [call(0, arguments=A[2])], [call(1, None, "g", B[2])]],
        [("call_0", "f", A[2]), ("call_1", "g", B[2])],
    ),
    "neither index nor ids: a new name after whole arguments": (
        [[call(None, None, "f", A[2])], [call(None, None, "g", '{"y":')], [call(None, arguments=" 2}")]],
        [("call_0", "f", A[2]), ("call_1", "g", B[2])],
    ),
    "neither index nor ids, the same tool twice": (
        [[call(None, None, "f", '{"x": 1} ')], [call(None, None, "f", '{"x": 2}')]],
        [("call_0", "f", '{"x": 1} '), ("call_1", "f", '{"x": 2}')],
    ),
    "id and name repeated in each chunk": (
        [[call(0, "a", "f", '{"x":')], [call(0, "a", "f", " 1")], [call(0, "a", "f", "}")], [call(0, "a", "f", "")]],
        [A],
    ),
    "name repeated in each chunk, no id": (
        [[call(0, None, "f", '{"x": {"y":')], [call(0, None, "f", " 1}")], [call(0, None, "f", "}")]],
        [("call_0", "f", '{"x": {"y": 1}}')],
    ),
    "name repeated in each chunk, the last one without arguments": (
        [[call(0, "a", "f", '{"x":')], [call(0, None, "f", " 1}")], [call(0, None, "f", "")], [call(0, None, "f")]],
        [A],
    ),
    "name repeated with an empty id and blank arguments": (
        [[call(0, "a", "f", A[2])], [call(0, "", "f", "\n")]],
        [("a", "f", A[2] + "\n")],
    ),
    "no index, name repeated without arguments at the end": (
        [[call(None, None, "f", A[2])], [call(None, None, "f", "")]],
        [("call_0", "f", A[2])],
    ),
    "index always 0, no ids, two whole calls of one tool": (
        [[call(0, None, "f", A[2])], [call(0, None, "f", B[2])]],
        [("call_0", "f", A[2]), ("call_1", "f", B[2])],
    ),
    "index always 0, no ids, the second call of the tool in pieces": (
        [
            [call(0, None, "f", A[2])],
            [call(0, None, "f", "")],
            [call(0, arguments='{"y":')],
            [call(0, arguments=" 2}")],
        ],
        [("call_0", "f", A[2]), ("call_1", "f", B[2])],
    ),
    "index always 0, no ids, another tool without arguments": (
        [[call(0, None, "f", A[2])], [call(0, None, "g", "")]],
        [("call_0", "f", A[2]), ("call_1", "g", "")],
    ),
    "index always 0, the same id for two whole calls": (
        [[call(0, "a", "f", A[2])], [call(0, "a", "f", B[2])]],
        [A, ("a", "f", B[2])],
    ),
    "the whole call again in the last chunk": (
        [[call(0, "a", "f", '{"x":')], [call(0, None, None, " 1}")], [call(0, *A)]],
        [A],
    ),
    "a new id in each fragment": (
        [[call(0, "a", "f", '{"x":')], [call(0, "b", None, " 1")], [call(0, "c", "", "}")]],
        [A],
    ),
    "name repeated before the arguments": ([[call(0, "a", "f", "")], [call(0, None, "f", A[2])]], [A]),
    "name in pieces": (
        [[call(0, "a", "get_")], [call(0, None, "wea", "")], [call(0, None, "ther")], [call(0, None, "", "{}")]],
        [("a", "get_weather", "{}")],
    ),
    "empty ids in later fragments": ([[call(0, "a", "f", "")], [call(0, "", "", A[2])]], [A]),
    "id later than the name": ([[call(0, None, "f")], [call(0, "a")], [call(0, None, None, A[2])]], [A]),
    "arguments as an object": ([[call(0, "a", "f", {"x": [1, None]})]], [("a", "f", '{"x":[1,null]}')]),
    "no arguments": ([[call(0, "a", "f")]], [("a", "f", "")]),
    "the same id under two indices": ([[call(0, *A)], [call(1, "a", "g", B[2])]], [A, ("a", "g", B[2])]),
    "surprising types": (
        [[{"index": "0", "id": 5, "function": {"name": 7, "arguments": "{}"}}]],
        [("call_0", "", "{}")],
    ),
    "arguments of a second call before the first has a name": (
        [[call(0, "a"), call(1, "b", "g", "{}")], [call(0, None, "f", "{}")]],
        [("b", "g", "{}"), ("a", "f", "{}")],
    ),
    "a null function": ([[{"index": 0, "id": "a", "function": None}], [call(0, None, "f", "{}")]], [("a", "f", "{}")]),
}


@pytest.mark.parametrize("name", FRAGMENTS)
def test_fragments_find_their_call(name: str) -> None:
    deltas, expected = FRAGMENTS[name]
    assert calls_of(*deltas) == expected


def test_null_arguments_are_none() -> None:
    fragment = {"index": 0, "id": "a", "function": {"name": "f", "arguments": None}}
    response = read(chunk({"tool_calls": [fragment]}) + chunk({}, "tool_calls") + DONE)
    assert (response.tool_calls[0].arguments, response.tool_calls[0].arguments_text) == ({}, "")


@pytest.mark.parametrize("text_", ['{"a": 1', "{'a': 1}", "nope", '{"a": 1}}', '{"a": NaN}'])
def test_arguments_that_are_no_json_are_never_repaired(text_: str) -> None:
    response = read(chunk({"tool_calls": [call(0, "a", "f", text_)]}) + chunk({}, "tool_calls") + DONE)
    (found,) = response.tool_calls
    assert (found.arguments, found.arguments_text) == (None, text_)
    assert found.arguments_error is not None
    assert found.arguments_error.startswith("the arguments are not JSON: ")
    assert response.finish_reason == "tool_calls"
    assert not response.is_error


@pytest.mark.parametrize("text_", ["", "  ", "{}", " {} "])
def test_empty_arguments_are_an_empty_object(text_: str) -> None:
    response = read(chunk({"tool_calls": [call(0, "a", "f", text_)]}) + END)
    assert (response.tool_calls[0].arguments, response.tool_calls[0].arguments_error) == ({}, None)


def test_deeply_nested_arguments_are_an_error_of_the_call_alone() -> None:
    nested = "[" * 50_000 + "]" * 50_000
    response = read(chunk({"tool_calls": [call(0, "a", "f", nested)]}) + END)
    assert response.tool_calls[0].arguments_text == nested
    assert response.tool_calls[0].arguments_error is not None


def test_the_work_for_repeated_names_is_linear() -> None:
    pieces = ['{"x": "', *["word "] * 20_000, '"}']
    body = b"".join(chunk({"tool_calls": [call(0, None, "f", piece)]}) for piece in pieces) + END
    (found,) = read(body).tool_calls
    assert found.arguments == {"x": "word " * 20_000}


def test_stop_after_a_call_means_tool_calls() -> None:
    assert calls_of([call(0, *A)], finish_reason="stop") == [A]


def test_a_legacy_function_call() -> None:
    body = b"".join(
        [
            chunk({"role": "assistant", "content": None, "function_call": {"name": "add", "arguments": ""}}),
            chunk({"function_call": {"arguments": '{"a":'}}),
            chunk({"function_call": {"arguments": "1}"}}),
            chunk({}, "function_call"),
            DONE,
        ]
    )
    response = read(body)
    (found,) = response.tool_calls
    assert (found.id, found.name, found.arguments) == ("call_0", "add", {"a": 1})
    assert (response.finish_reason, response.raw_finish_reason) == ("tool_calls", "function_call")


def test_a_custom_tool_takes_free_text() -> None:
    first = {"index": 0, "id": "a", "type": "custom", "custom": {"name": "sql", "input": ""}}
    body = chunk({"tool_calls": [first]}) + chunk({"tool_calls": [{"index": 0, "custom": {"input": "SELECT {"}}]})
    (found,) = read(body + chunk({}, "tool_calls") + DONE).tool_calls
    assert (found.name, found.custom, found.arguments_text) == ("sql", True, "SELECT {")
    assert (found.arguments, found.arguments_error) == (None, None)


def test_a_call_that_was_cut_off_is_in_the_partial_answer() -> None:
    body = chunk({"tool_calls": [call(0, "a", "f", '{"x":')]})
    (found,) = failure_of(body, TruncatedError).partial.tool_calls
    assert (found.id, found.name, found.arguments_text) == ("a", "f", '{"x":')
    assert (found.arguments, found.arguments_error) == (None, "the call was cut off")
