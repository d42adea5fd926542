"""Shortened conversations: whole turns, and no result without its call."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_deluge import Conversation, Message
from lm_deluge.errors import ConfigurationError, ContextLengthError
from lm_deluge.prompt.parts import ProviderDataPart, ToolCallPart
from lm_deluge.prompt.tool_pairs import find_unpaired

CHAT = (
    Conversation.system("Be brief.")
    .user("First?")
    .assistant("One.")
    .developer("In German.")
    .user("Second?")
    .add(Message("assistant", [ToolCallPart("c1", "look", "{}"), ToolCallPart("c2", "look", "{}")]))
    .tool_result("c1", "a")
    .tool_result("c2", "b")
    .assistant("Two.")
    .user("Third?")
    .user("And a picture.")
)


def size(conversation: Conversation) -> int:
    return len(conversation)


def texts(conversation: Conversation) -> str:
    return " ".join(message.text or message.role for message in conversation)


@pytest.mark.parametrize(
    ("most", "kept"),
    [
        (99, texts(CHAT)),
        (11, texts(CHAT)),
        (10, "Be brief. In German. Second? assistant tool tool Two. Third? And a picture."),
        (9, "Be brief. In German. Second? assistant tool tool Two. Third? And a picture."),
        (8, "Be brief. In German. Third? And a picture."),
        (4, "Be brief. In German. Third? And a picture."),
    ],
)
def test_the_newest_turns_and_the_system_messages_stay(most: int, kept: str) -> None:
    assert texts(CHAT.trimmed(most, count_tokens=size)) == kept


def test_a_last_turn_that_is_too_long() -> None:
    with pytest.raises(
        ContextLengthError, match="the last turn and the system messages have about 4 tokens, more than"
    ):
        CHAT.trimmed(3, count_tokens=size)
    with pytest.raises(ContextLengthError, match="about 250 tokens, more than the 249 that are allowed"):
        Conversation.user("x" * 1000).trimmed(249)
    assert len(Conversation.user("x" * 1000).trimmed(250)) == 1


@pytest.mark.parametrize("wrong", [0, -1, 1.5, None, True, "9"])
def test_limits_that_are_none(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="max_tokens must be a positive number of tokens"):
        CHAT.trimmed(wrong)


def test_the_original_stays_and_shares_no_message() -> None:
    before = CHAT.copy()
    short = CHAT.trimmed(4, count_tokens=size)
    short[-1].add_text(" More.")
    assert before == CHAT


def test_conversations_without_a_turn() -> None:
    assert Conversation().trimmed(1) == Conversation()
    assert Conversation.system("a").trimmed(1) == Conversation.system("a")


def test_results_in_the_format_of_a_provider_start_no_turn() -> None:
    result = ProviderDataPart("anthropic", "block", {"type": "tool_result", "tool_use_id": "c1"})
    chat = Conversation.user("a").add(Message("assistant", [ToolCallPart("c1", "f")])).add(Message("user", [result]))
    assert len(chat.trimmed(3, count_tokens=size)) == 3
    with pytest.raises(ContextLengthError):
        chat.trimmed(2, count_tokens=size)


def test_no_turn_starts_between_a_call_and_a_late_result() -> None:
    chat = Conversation.user("a").add(Message("assistant", [ToolCallPart("c1", "f")])).user("b").tool_result("c1", "x")
    with pytest.raises(ContextLengthError):
        chat.trimmed(2, count_tokens=size)
    assert len(chat.user("c").assistant("d").trimmed(3, count_tokens=size)) == 1 + 1


TURNS = st.lists(
    st.tuples(st.text("abc", max_size=30), st.lists(st.sampled_from(["c0", "c1", "c2"]), max_size=3, unique=True)),
    min_size=1,
    max_size=6,
)


@given(TURNS, st.integers(1, 60), st.booleans())
def test_every_result_keeps_its_call(turns: list[tuple[str, list[str]]], most: int, has_system: bool) -> None:
    """Ids may come again in a later turn, as with providers that number the calls of each answer."""
    chat = Conversation.system("s") if has_system else Conversation()
    for text, calls in turns:
        chat.user(text or "?")
        if calls:
            chat.add(Message("assistant", [ToolCallPart(each, "f", "{}") for each in calls]))
        for each in calls:
            chat.tool_result(each, text)
        chat.assistant("done")
    try:
        short = chat.trimmed(most)
    except ContextLengthError:
        last = max(index for index, message in enumerate(chat) if message.role == "user")
        newest = [message for index, message in enumerate(chat) if index >= last or message.role == "system"]
        assert Conversation(newest).count_tokens() > most
        return
    assert short.count_tokens() <= most
    assert list(find_unpaired(short.messages, "next_message")) == []
    kept = [message for message in short if message.role != "system"]
    assert kept == chat.messages[len(chat) - len(kept) :]
    assert (short[0].role == "system") == has_system
    assert kept[0].role == "user"
    if len(short) < len(chat):  # one more turn does not fit
        start = max(index for index in range(len(chat) - len(kept)) if chat[index].role == "user")
        longer = [*(chat.messages[:1] if has_system else []), *chat.messages[start:]]
        assert Conversation(longer).count_tokens() > most
