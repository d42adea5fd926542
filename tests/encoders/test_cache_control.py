"""The cache marks of the adapter are parsed as the same `PromptCache` value."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest

from lm_deluge.adapters.adapter import Call
from lm_deluge.adapters.openai_chat.adapter import OpenAIChat
from lm_deluge.config import PromptCache
from lm_deluge.encoders.openai_chat.request import parse_request
from lm_deluge.models.registry import find_provider
from lm_deluge.models.rows import ModelRow
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import ReasoningPart, TextPart
from lm_deluge.prompt.tool import Tool

CHAT = Conversation(
    [
        Message.system("Long."),
        *(part for number in "123" for part in (Message.user(number), Message("assistant", (TextPart("ok"),)))),
        Message.user("4"),
    ]
)


def written(provider: str, **fields: Any) -> bytes:
    row = find_provider(provider)
    fields = {"conversation": CHAT, **fields}
    call = Call(model=ModelRow(id="m", name="m", provider=row.id), provider=row, base_url="https://x.test", **fields)
    return OpenAIChat().build_request(call).body


@pytest.mark.parametrize("cache", get_args(PromptCache))
def test_marks_are_read_as_the_word_that_made_them(cache: Any) -> None:
    parsed = parse_request(written("openrouter", cache=cache, tools=(Tool(name="add"),)))
    assert parsed.cache == cache
    assert [message.completion for message in parsed.conversation] == [message.completion for message in CHAT]
    assert [tool.name for tool in parsed.tools] == ["add"]


def test_without_marks_nothing_is_asked_for() -> None:
    assert parse_request(written("openrouter")).cache is None


@pytest.mark.parametrize(
    ("numbers", "cache"), [("1", "last_user_message"), ("13", "last_user_message"), ("1234", "last_3_user_messages")]
)
def test_marks_without_an_exact_value_get_the_nearest(numbers: str, cache: str) -> None:
    body = json.loads(written("openrouter"))
    for message in body["messages"]:
        if message["content"] in list(numbers):
            piece = {"type": "text", "text": message["content"], "cache_control": {"type": "ephemeral"}}
            message["content"] = [piece]
    assert parse_request(json.dumps(body).encode()).cache == cache


@pytest.mark.parametrize("provider", ["deepseek", "openrouter"])
def test_reasoning_is_read_from_the_field_of_each_host(provider: str) -> None:
    answer = Message("assistant", (ReasoningPart("Hm."), TextPart("Yes.")))
    chat = Conversation([Message.user("Hi"), answer, Message.user("And?")])
    assert list(parse_request(written(provider, conversation=chat)).conversation)[1] == answer
