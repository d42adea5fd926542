"""Requests to Cohere, as parsed JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lm_deluge.adapters.capabilities import dropped_parts
from lm_deluge.adapters.cohere_v2.adapter import CohereV2
from lm_deluge.adapters.cohere_v2.request import THINKING_BUDGETS
from lm_deluge.config import SamplingParams
from lm_deluge.encoders.cohere_v2.request import parse_request
from lm_deluge.errors import ConfigurationError, UnsupportedParameterError
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.media import Media
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import (
    AudioPart,
    ImagePart,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from lm_deluge.prompt.tool import ProviderTool, Tool
from lm_deluge.testing import decode_body
from samples import api_calls

API = "cohere-v2"
HI = Conversation.user("Hi")
IMAGE = ImagePart(Media(url="https://a.test/1.png"), "low")
SOUND = AudioPart(Media(media_type="audio/mpeg", data=b"ID3"))


def body_of(prompt: Any = HI, **fields: Any) -> dict[str, Any]:
    return api_calls.body_of(API, prompt, **fields)


def messages_of(*messages: Message) -> list[dict[str, Any]]:
    return body_of(messages)["messages"]


def test_the_whole_of_a_simple_request() -> None:
    request = api_calls.request_of(API, HI)
    assert request.url == "https://acme.test/v2/chat"
    assert request.body == b'{"model":"m-1","messages":[{"role":"user","content":"Hi"}],"stream":true}'
    assert body_of(is_streamed=False)["stream"] is False


def test_parameters_have_names_of_their_own() -> None:
    params = SamplingParams(
        temperature=0.5,
        top_p=0.9,
        max_new_tokens=9,
        stop=("END", "STOP"),
        seed=7,
        presence_penalty=0.1,
        frequency_penalty=0.2,
        logprobs=True,
    )
    sent = body_of(params=params, extra_body={"k": 5, "safety_mode": "NONE", "documents": ["a"]})
    del sent["messages"]
    assert sent == {
        "model": "m-1",
        "stream": True,
        "temperature": 0.5,
        "p": 0.9,
        "max_tokens": 9,
        "stop_sequences": ["END", "STOP"],
        "seed": 7,
        "presence_penalty": 0.1,
        "frequency_penalty": 0.2,
        "logprobs": True,
        "k": 5,
        "safety_mode": "NONE",
        "documents": ["a"],
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [("top_logprobs", 2), ("parallel_tool_calls", True), ("service_tier", "flex"), ("verbosity", "low")],
)
def test_unsupported_parameters_are_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(UnsupportedParameterError, match=f"takes no {name} through cohere-v2"):
        body_of(params=SamplingParams(**{name: value}))


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (Message.user("See").with_file(b"%PDF-1.7"), "takes no files"),
        (Message.user("Hear").with_audio(b"ID3"), "takes no audio"),
        (Message("user", (TextPart("Hi"),), "Ann"), "name of a message"),
        (Message("system", (IMAGE,)), "Image is not allowed in a message of role system"),
        (Message("tool", (TextPart("Hi"),)), "Text is not allowed in a message of role tool"),
        (Message("tool", (ToolResultPart("a", "See", (SOUND,)),)), "takes no audio"),
    ],
)
def test_unsupported_parts_are_refused(message: Message, words: str) -> None:
    with pytest.raises(UnsupportedParameterError, match=words):
        messages_of(message)


@pytest.mark.parametrize(
    ("effort", "thinking"),
    [
        ("none", {"type": "disabled"}),
        ("minimal", {"type": "enabled", "token_budget": 512}),
        ("low", {"type": "enabled", "token_budget": 2_048}),
        ("medium", {"type": "enabled", "token_budget": 8_192}),
        ("high", {"type": "enabled"}),
        ("max", {"type": "enabled"}),
    ],
)
def test_effort_is_a_budget(effort: Any, thinking: dict[str, Any]) -> None:
    assert body_of(params=SamplingParams(reasoning_effort=effort))["thinking"] == thinking


@pytest.mark.parametrize("effort", ["none", *THINKING_BUDGETS])
def test_the_encoder_has_the_same_budgets(effort: Any) -> None:
    sent = body_of(params=SamplingParams(reasoning_effort=effort))
    parsed = parse_request(json.dumps(sent).encode())
    assert parsed.params.reasoning_effort == ("high" if effort in ("xhigh", "max") else effort)
    assert parsed.extra == {}


def test_tools_are_strict_all_together() -> None:
    sent = body_of(tools=(Tool(name="add", strict=True), Tool(name="nop"), ProviderTool({"type": "new"})))
    assert sent["strict_tools"] is True
    assert sent["tools"] == [
        {
            "type": "function",
            "function": {
                "name": "add",
                "parameters": {"type": "object", "properties": {}, "additionalProperties": False},
            },
        },
        {"type": "function", "function": {"name": "nop", "parameters": {"type": "object", "properties": {}}}},
        {"type": "new"},
    ]
    assert "strict_tools" not in body_of(tools=(Tool(name="nop", strict=False),))


@pytest.mark.parametrize(("choice", "sent"), [(None, None), ("auto", None), ("none", "NONE"), ("required", "REQUIRED")])
def test_tool_choice(choice: str | None, sent: str | None) -> None:
    assert body_of(tools=(Tool(name="add"),), params=SamplingParams(tool_choice=choice)).get("tool_choice") == sent


def test_one_tool_cannot_be_forced() -> None:
    with pytest.raises(UnsupportedParameterError, match="takes no tool_choice by name"):
        body_of(tools=(Tool(name="add"),), params=SamplingParams(tool_choice="add"))
    with pytest.raises(ConfigurationError, match="names no tool"):
        body_of(params=SamplingParams(tool_choice="add"))


def test_a_schema() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    assert body_of(output=schema)["response_format"] == {"type": "json_object", "json_schema": schema}
    assert body_of(params=SamplingParams(json_mode=True))["response_format"] == {"type": "json_object"}


def test_an_image_is_its_own_piece() -> None:
    assert messages_of(Message("user", (TextPart("See"), IMAGE)))[0]["content"] == [
        {"type": "text", "text": "See"},
        {"type": "image_url", "image_url": {"url": "https://a.test/1.png", "detail": "low"}},
    ]


def test_a_developer_is_the_system() -> None:
    assert messages_of(Message.developer("Be short.")) == [{"role": "system", "content": "Be short."}]


def test_a_plan_goes_back_with_its_calls() -> None:
    body = (
        b'{"id":"1","finish_reason":"TOOL_CALL","message":{"role":"assistant","tool_plan":"I will add.","tool_calls":'
        b'[{"id":"add_1","type":"function","function":{"name":"add","arguments":"{}"}}]},"usage":{}}'
    )
    answer = decode_body(API, body).content
    sent = messages_of(Message.user("2+2?"), answer, Message.tool_result("add_1", "4"))
    assert sent[1:] == [
        {
            "role": "assistant",
            "tool_plan": "I will add.",
            "tool_calls": [{"id": "add_1", "type": "function", "function": {"name": "add", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "add_1", "content": "4"},
    ]
    assert dropped_parts(api_calls.call_of(API, [answer]), CohereV2()) == ()


def test_thoughts_go_back_as_pieces() -> None:
    answer = Message("assistant", (ReasoningPart("Hm."), TextPart("Four."), RefusalPart("No."), ToolCallPart("a", "f")))
    sent, _ = messages_of(answer, Message.tool_result("a", "1"))
    assert sent["content"] == [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "Four."}]
    assert dropped_parts(api_calls.call_of(API, [answer]), CohereV2()) == ("refusal_not_sent",)


def test_a_call_with_free_text_becomes_one_of_a_function() -> None:
    turn = Message.assistant(tool_calls=[ToolCallPart("a", "run", "ls", custom=True)])
    sent, _ = messages_of(turn, Message.tool_result("a", "1"))
    assert sent["tool_calls"][0]["function"] == {"name": "run", "arguments": '{"input":"ls"}'}


def test_an_empty_assistant_message() -> None:
    assert messages_of(Message("assistant")) == [{"role": "assistant", "content": ""}]


@pytest.mark.parametrize("role", ["system", "user", "assistant"])
def test_a_name_of_a_message_is_refused(role: Any) -> None:
    with pytest.raises(UnsupportedParameterError, match="name of a message"):
        messages_of(Message(role, Message.user("Hi").parts, "Ann"))
