"""`Conversation.add_answer`: a partial answer leaves no tool call open."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from lm_deluge.errors import InvalidPromptError, StreamInterruptedError
from lm_deluge.events import (
    ProviderPart,
    ReasoningDelta,
    ResponseFinished,
    ResponseStarted,
    TextDelta,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
)
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import (
    Part,
    ProviderDataPart,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from lm_deluge.prompt.tool_pairs import find_unpaired
from lm_deluge.response import APIResponse, ResponseBuilder

WHOLE = ToolCallPart("c1", "f", '{"x": 1}', {"x": 1})
HALF = ToolCallPart("c2", "g", '{"x', None, "the call was cut off")
THOUGHT, SIGNATURE = ReasoningPart("hm"), ProviderDataPart("p", "signature", "s")
OF_CALL = ProviderDataPart("p", "thought_signature", "s")
ITEM = ProviderDataPart("p", "reasoning", {"type": "reasoning"})
CITED = ProviderDataPart("p", "citations", [1])


def response_of(*parts: Part, reason: Any = None) -> APIResponse:
    return APIResponse(content=Message("assistant", parts), finish_reason=reason)


def added(*parts: Part, reason: Any = None, **options: Any) -> list[Message]:
    return Conversation.user("q").add_answer(response_of(*parts, reason=reason), **options).messages[1:]


@pytest.mark.parametrize(
    ("parts", "kept"),
    [
        ((TextPart("a"), WHOLE, HALF), (TextPart("a"),)),
        ((TextPart("a"), WHOLE, OF_CALL, OF_CALL), (TextPart("a"),)),
        ((THOUGHT, SIGNATURE, HALF), ()),
        ((ITEM, HALF), ()),
        ((TextPart("a"), ITEM, HALF), (TextPart("a"),)),
        ((TextPart("a"), CITED, THOUGHT, SIGNATURE), (TextPart("a"), CITED)),
        ((THOUGHT, SIGNATURE, TextPart("a"), CITED), (THOUGHT, SIGNATURE, TextPart("a"), CITED)),
        ((), ()),
    ],
    ids=str,
)
@pytest.mark.parametrize("options", [{}, {"open_calls": "drop"}], ids=str)
def test_calls_of_a_partial_answer_are_dropped(parts: tuple[Part, ...], kept: Any, options: dict[str, Any]) -> None:
    assert added(*parts, **options) == ([Message("assistant", kept)] if kept else [])


def test_calls_are_closed() -> None:
    answer, results = added(TextPart("a"), WHOLE, OF_CALL, HALF, open_calls="close")
    closed = ToolCallPart("c2", "g", "{}", {})  # half of its arguments would be a 400 at many hosts
    assert answer.parts == (TextPart("a"), WHOLE, OF_CALL, closed)
    text = "The call was cancelled before it had a result."
    assert results == Message(
        "tool", (ToolResultPart("c1", text, is_error=True), ToolResultPart("c2", text, is_error=True))
    )
    assert added(TextPart("a"), open_calls="close") == [Message.assistant("a")]
    assert added(THOUGHT, open_calls="close") == []


def test_calls_of_a_complete_answer_wait_for_their_results() -> None:
    conversation = Conversation.user("q").add_answer(response_of(THOUGHT, WHOLE, reason="tool_calls"))
    assert conversation[1].parts == (THOUGHT, WHOLE)
    assert list(find_unpaired(conversation.tool_result("c1", "1").messages, "next_message")) == []
    assert added(TextPart("a"), WHOLE, reason="tool_calls", open_calls="drop") == [Message.assistant("a")]
    assert len(added(WHOLE, reason="tool_calls", open_calls="close")) == 2


@pytest.mark.parametrize("reason", [None, "error", "stop"])
def test_an_answer_with_an_error_is_partial(reason: Any) -> None:
    response = response_of(TextPart("a"), WHOLE, reason=reason)
    response.error = StreamInterruptedError("gone")
    assert Conversation().add_answer(response).messages == [Message.assistant("a")]


EVENTS = [
    ResponseStarted("r", "m"),
    ReasoningDelta("hm"),
    ProviderPart("p", "signature", "s"),
    TextDelta("I look."),
    ToolCallStarted(0, "c1", "f"),
    ToolCallDelta(0, '{"x":'),
    ToolCallDelta(0, " 1}"),
    ToolCallFinished(0, "c1", "f", '{"x": 1}', {"x": 1}),
    ProviderPart("p", "thought_signature", "s"),
    ToolCallStarted(1, "c2", "g"),
    ToolCallFinished(1, "c2", "g", "{}", {}),
    ResponseFinished("tool_calls"),
]


@pytest.mark.parametrize(("length", "way"), [*itertools.product(range(len(EVENTS)), ["drop", "close", None])])
def test_an_answer_cut_anywhere_leaves_nothing_open(length: int, way: Any) -> None:
    builder = ResponseBuilder()
    builder.add_all(EVENTS[:length])
    conversation = Conversation.user("q").add_answer(builder.response(), open_calls=way).user("go on")
    assert list(find_unpaired(conversation.messages, "next_message")) == []
    assert all(message.parts for message in conversation)
    assert not any(call.arguments_error for message in conversation for call in message.tool_calls)
    assert not any(isinstance(message.parts[-1], ReasoningPart) for message in conversation)


def test_a_message_may_be_given_too() -> None:
    answer = Message("assistant", (TextPart("a"), WHOLE))
    assert Conversation().add_answer(answer).messages == [answer]
    assert Conversation().add_answer(answer, open_calls="drop").messages == [Message.assistant("a")]


def test_wrong_arguments() -> None:
    with pytest.raises(InvalidPromptError, match="str is not a response"):
        Conversation().add_answer("text")  # type: ignore[arg-type]
    with pytest.raises(InvalidPromptError, match="open_calls='keep' is neither 'drop' nor 'close'"):
        Conversation().add_answer(response_of(WHOLE), open_calls="keep")  # type: ignore[arg-type]
