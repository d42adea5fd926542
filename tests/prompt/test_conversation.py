"""Conversations: created and extended without losing any message."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_deluge.errors import InvalidPromptError
from lm_deluge.prompt.conversation import Conversation, to_conversation
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import ReasoningPart, TextPart, ToolCallPart, ToolResultPart

PNG = b"\x89PNG\r\n\x1a\n rest"


def turns_of(conversation: Conversation) -> list[tuple[str, str]]:
    return [(message.role, message.completion) for message in conversation]


@pytest.mark.parametrize("role", ["system", "developer", "user", "assistant"])
def test_on_the_class_a_method_starts_and_on_an_instance_it_appends(role: str) -> None:
    started = getattr(Conversation, role)("a")
    assert turns_of(started) == [(role, "a")]
    same = getattr(started, role)("b")
    assert same is started
    assert turns_of(started) == [(role, "a"), (role, "b")]
    assert turns_of(getattr(Conversation, role)("c")) == [(role, "c")]


@given(st.lists(st.tuples(st.sampled_from(["system", "developer", "user", "assistant"]), st.text(max_size=5))))
def test_no_message_is_ever_dropped(turns: list[tuple[str, str]]) -> None:
    conversation = Conversation()
    for role, text in turns:
        assert getattr(conversation, role)(text) is conversation
    assert turns_of(conversation) == turns
    assert len(conversation) == len(turns)


def test_a_subclass_starts_as_itself() -> None:
    class Longer(Conversation):
        pass

    assert type(Longer.user("a")) is Longer


def test_documentation_is_kept() -> None:
    assert inspect.getdoc(Conversation.user) == (
        "Append a user message.\n\n"
        "Args:\n"
        "    text: The text, None for a message of media only.\n"
        "    image: A path, bytes, an http(s) URL or a data URL.\n"
        "    file: The same, for a document.\n"
        "    audio: The same, for audio.\n\n"
        "Raises:\n"
        "    InvalidPromptError: A file cannot be read, or the data is not an image or audio of a known format."
    )
    assert inspect.getdoc(Conversation().system) == "Append a system message, the instructions for the model."


def test_adding_returns_the_conversation() -> None:
    conversation = Conversation()
    assert conversation.add(Message.user("a")) is conversation
    assert conversation.tool_result("id", {"a": 1}) is conversation
    assert conversation[1] == Message("tool", (ToolResultPart("id", '{"a": 1}'),))


def test_a_copy_grows_by_itself() -> None:
    first = Conversation.user("a")
    second = first.copy()
    assert second == first
    second.user("b")
    assert (len(first), len(second)) == (1, 2)
    assert first != second
    assert first != "a"


def test_a_conversation_that_can_grow_has_no_hash() -> None:
    with pytest.raises(TypeError, match="unhashable"):
        hash(Conversation())


def test_its_representation_shows_no_text() -> None:
    assert repr(Conversation.user("secret")) == "Conversation(1 messages)"


@pytest.mark.parametrize("wrong", ["text", None, 5, {"role": "user", "content": "a"}, Conversation()])
def test_what_is_no_message_is_refused(wrong: Any) -> None:
    kind = type(wrong).__name__
    with pytest.raises(InvalidPromptError) as caught:
        Conversation().add(wrong)
    assert str(caught.value) == f"a conversation takes messages, not {kind}. Create one with Message.user(...)."


def test_the_length_of_its_text() -> None:
    conversation = Conversation.user("four", image=PNG).add(
        Message("assistant", (ReasoningPart("hm"), ToolCallPart("a", "f", "{}")))
    )
    conversation.tool_result("a", "done").add(Message.assistant(""))
    assert conversation.text_length() == 4 + 340 + 2 + 2 + 4


@pytest.mark.parametrize(
    "prompt",
    ["a", Conversation.user("a"), Message.user("a"), [Message.user("a")], (Message.user("a"),)],
    ids=lambda prompt: type(prompt).__name__,
)
def test_all_that_a_prompt_may_be(prompt: Any) -> None:
    assert turns_of(to_conversation(prompt)) == [("user", "a")]


def test_a_prompt_is_copied() -> None:
    mine = Conversation.user("a")
    to_conversation(mine).user("b")
    assert len(mine) == 1


@pytest.mark.parametrize(
    "prompt", ["", " \n", Conversation(), [], Message.user(""), Message.user(), [Message("user", (TextPart(" "),))]]
)
def test_an_empty_prompt_is_refused(prompt: Any) -> None:
    with pytest.raises(InvalidPromptError) as caught:
        to_conversation(prompt)
    assert str(caught.value) == "the prompt is empty. Give it some text, an image or a file."


def test_a_prompt_of_an_image_alone_is_not_empty() -> None:
    assert len(to_conversation(Message.user(image=PNG))) == 1


@pytest.mark.parametrize("prompt", [None, 5, b"bytes", object])
def test_what_is_no_prompt_is_refused(prompt: Any) -> None:
    with pytest.raises(InvalidPromptError, match=f"a prompt is text or a Conversation, not {type(prompt).__name__}"):
        to_conversation(prompt)
