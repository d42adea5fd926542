"""Calls that are refused before anything is sent, and parts that are left out with a warning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from lm_deluge import LLMClient
from lm_deluge.adapters.capabilities import dropped_parts
from lm_deluge.adapters.openai_chat.adapter import OpenAIChat
from lm_deluge.api_requests.request import build_call
from lm_deluge.config import SamplingParams
from lm_deluge.errors import ConfigurationError, UnsupportedParameterError
from lm_deluge.models.registry import find_model, find_provider
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
from lm_deluge.prompt.tool import Tool
from lm_deluge.simulator import Simulator
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


def test_parameters_that_a_model_ignores_are_named() -> None:
    params = SamplingParams(temperature=0.5, top_p=0.9, stop="x")
    ignored = build_call(find_model("gemini-3.8-flash"), "Hi", params=params)
    assert ignored.warnings == ("temperature_ignored", "top_p_ignored")
    assert build_call(find_model("gemini-3.8-flash"), "Hi").warnings == ()
    assert build_call(find_model("gemini-2.5-flash"), "Hi", params=params).warnings == ()


async def test_the_response_names_what_the_model_ignored(tmp_path: Path) -> None:
    async with Simulator("Hello.") as sim:
        options: dict[str, Any] = {"base_url": sim.url, "api_key": "k", "local_cache": tmp_path / "cache.db"}
        async with LLMClient("gemini-3.8-flash", **options) as client:
            answers = [await client.stream("Hi", temperature=0.5, echo=None) for _ in range(2)]
            answers += await client.process_prompts_async(["Ho"], temperature=0.5)
    assert [answer.warnings for answer in answers] == [("temperature_ignored",)] * 3
    assert [answer.local_cache_hit for answer in answers] == [False, True, False]
    assert sim.requests[0].json["generationConfig"]["temperature"] == 0.5


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


EFFORTS = ("none", "low", "high")
WITHOUT = Capabilities(
    reasoning=True,
    reasoning_efforts=EFFORTS,
    default_effort="none",
    sampling="without_reasoning",
    logprobs="without_reasoning",
    forced_tool_choice="without_reasoning",
)
THINKING = msgspec.structs.replace(WITHOUT, default_effort="high")
UNKNOWN = msgspec.structs.replace(WITHOUT, default_effort=None)
LIMITED = Capabilities(penalties=False, stop=False, forced_tool_choice=False, logprobs=False)
TOOLS = (Tool(name="f", parameters={"type": "object", "properties": {}}),)


@pytest.mark.parametrize(
    ("capabilities", "params", "refused"),
    [
        (WITHOUT, {"temperature": 0.5}, None),
        (WITHOUT, {"temperature": 0.5, "reasoning_effort": "none"}, None),
        (WITHOUT, {"temperature": 0.5, "reasoning_effort": "low"}, "temperature"),
        (WITHOUT, {"presence_penalty": 0.5, "reasoning_effort": "low"}, "presence_penalty"),
        (WITHOUT, {"logprobs": True, "reasoning_effort": "low"}, "logprobs"),
        (WITHOUT, {"tool_choice": "required", "reasoning_effort": "low"}, "tool_choice"),
        (WITHOUT, {"tool_choice": "required"}, None),
        (THINKING, {"top_p": 0.5}, "top_p"),
        (THINKING, {"top_p": 0.5, "reasoning_effort": "none"}, None),
        (UNKNOWN, {"temperature": 0.5}, None),
        (UNKNOWN, {"temperature": 0.5, "reasoning_effort": "high"}, "temperature"),
        (LIMITED, {"temperature": 0.5}, None),
        (LIMITED, {"frequency_penalty": 0.5}, "frequency_penalty"),
        (LIMITED, {"stop": "x"}, "stop"),
        (LIMITED, {"tool_choice": "f"}, "tool_choice"),
        (LIMITED, {"tool_choice": "auto"}, None),
        (LIMITED, {"top_logprobs": 2}, "logprobs"),
        (Capabilities(sampling="ignored"), {"temperature": 0.5}, None),
        (Capabilities(reasoning=True, thinking="fixed"), {"reasoning_effort": "low"}, "reasoning_effort"),
        (Capabilities(reasoning=True, reasoning_efforts=EFFORTS), {"reasoning_effort": "max"}, "reasoning_effort"),
    ],
)
def test_what_a_model_takes_depends_on_whether_it_reasons(
    capabilities: Capabilities, params: dict[str, Any], refused: str | None
) -> None:
    tools = TOOLS if "tool_choice" in params else ()
    call = a_call(Conversation.user("Hi"), capabilities=capabilities, params=SamplingParams(**params), tools=tools)
    if refused is None:
        OpenAIChat().build_request(call)
        return
    with pytest.raises(UnsupportedParameterError) as caught:
        OpenAIChat().build_request(call)
    assert caught.value.parameter == refused


@pytest.mark.parametrize(
    ("params", "tools", "refused"),
    [
        ({}, TOOLS, None),
        ({"reasoning_effort": "high"}, (), None),
        ({"reasoning_effort": "none"}, TOOLS, None),
        ({"reasoning_effort": "high"}, TOOLS, "tools"),
        ({"reasoning_effort": "max"}, (), "reasoning_effort"),
    ],
)
def test_what_needs_the_responses_api_is_refused_with_its_name(
    params: dict[str, Any], tools: tuple[Tool, ...], refused: str | None
) -> None:
    needs = Capabilities(reasoning=True, default_effort="none", needs_responses=("tools_while_reasoning", "effort_max"))
    call = a_call(Conversation.user("Hi"), capabilities=needs, params=SamplingParams(**params), tools=tools)
    call = msgspec.structs.replace(call, provider=find_provider("openai-chat"))
    if refused is None:
        OpenAIChat().build_request(call)
        return
    with pytest.raises(UnsupportedParameterError, match="openai-responses:") as caught:
        OpenAIChat().build_request(call)
    assert caught.value.parameter == refused
