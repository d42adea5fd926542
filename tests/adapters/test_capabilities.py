"""Calls that are refused before anything is sent, and parts that are left out with a warning."""

from __future__ import annotations

import pytest

from lm_deluge.adapters.capabilities import dropped_parts
from lm_deluge.adapters.openai_chat.adapter import OpenAIChat
from lm_deluge.api_requests.request import build_call
from lm_deluge.errors import ConfigurationError, UnsupportedParameterError
from lm_deluge.models.rows import Capabilities, ModelRow
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.media import Media
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import (
    AudioPart,
    ImagePart,
    ProviderDataPart,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from samples.chat_calls import a_call, body_of

PNG = b"\x89PNG\r\n\x1a\n"
IMAGE = ImagePart(Media(media_type="image/png", data=PNG))
SIGNED = (ReasoningPart("hm"), ProviderDataPart("acme", "reasoning_details", [{"type": "reasoning.text"}]))


def dropped(*parts: object, role: str = "assistant") -> tuple[str, ...]:
    return dropped_parts(a_call(Conversation([Message(role, parts)])), OpenAIChat())


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ((TextPart("a"), RefusalPart("no"), ToolCallPart("1", "f")), ()),
        ((ReasoningPart("hm"), TextPart("a")), ("reasoning_not_sent",)),
        (SIGNED, ()),
        (
            (ReasoningPart("hm"), ProviderDataPart("acme", "a kind of another API", 1)),
            ("reasoning_not_sent", "provider_data_not_sent"),
        ),
        (
            (ReasoningPart("hm"), ProviderDataPart("other", "reasoning_details", [])),
            ("reasoning_not_sent", "provider_data_not_sent"),
        ),
        ((IMAGE, IMAGE), ("image_not_sent",)),
        ((AudioPart(Media(data=b"x")),), ("audio_not_sent",)),
        ((AudioPart(Media(file_id="audio_1")),), ()),
    ],
)
def test_parts_of_another_model_are_left_out_and_named(parts: tuple[object, ...], expected: tuple[str, ...]) -> None:
    assert dropped(*parts) == expected
    assert dropped(*parts, role="user") == ()


def test_dropped_parts_are_not_sent() -> None:
    body = body_of(Conversation([Message("assistant", (ReasoningPart("hm"), TextPart("a"), IMAGE))]))
    assert body["messages"] == [{"role": "assistant", "content": "a"}]


def test_the_call_carries_its_warnings() -> None:
    model = ModelRow(id="openai:m", name="m", provider="openai")
    assert build_call(model, [Message.user("u"), Message("assistant", (IMAGE,))]).warnings == ("image_not_sent",)


def test_media_in_tool_results_are_checked_against_the_model() -> None:
    result = Message("tool", (ToolResultPart("1", "see", (IMAGE,)),))
    blind = Capabilities(image_input=False)
    with pytest.raises(UnsupportedParameterError, match="acme:m does not take image"):
        body_of(Conversation([result]), capabilities=blind)


def test_caching_is_refused_if_the_provider_has_none() -> None:
    with pytest.raises(UnsupportedParameterError, match="acme takes no cache through openai-chat"):
        body_of(Conversation.user("hi"), cache="system_and_tools")
    model = ModelRow(id="openai:m", name="m", provider="openai")
    with pytest.raises(ConfigurationError, match=r"cache='all' is none.*Known: tools_only"):
        build_call(model, "hi", cache="all")  # type: ignore[arg-type]


def test_a_tool_of_the_provider_is_sent_unchanged() -> None:
    model = ModelRow(id="openai:m", name="m", provider="openai")
    tools = [{"type": "web_search", "depth": 2}, {"name": "f"}]
    call = build_call(model, "hi", tools=tools)
    assert [tool.name for tool in call.tools] == ["web_search", "f"]
    assert body_of(Conversation.user("hi"), tools=call.tools)["tools"][0] == tools[0]
