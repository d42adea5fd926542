"""Requests to Ollama, as parsed JSON."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from lm_deluge.adapters.capabilities import dropped_parts
from lm_deluge.adapters.ollama_chat.adapter import OllamaChat
from lm_deluge.config import SamplingParams
from lm_deluge.errors import UnsupportedParameterError
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.media import Media
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import ImagePart, ReasoningPart, RefusalPart, TextPart, ToolCallPart, ToolResultPart
from lm_deluge.prompt.tool import Tool
from lm_deluge.testing import decode_body
from samples import api_calls

API = "ollama-chat"
HI = Conversation.user("Hi")
PNG = b"\x89PNG\r\n\x1a\n rest"
IMAGE = base64.b64encode(PNG).decode()


def body_of(prompt: Any = HI, **fields: Any) -> dict[str, Any]:
    return api_calls.body_of(API, prompt, **fields)


def messages_of(*messages: Message) -> list[dict[str, Any]]:
    return body_of(messages)["messages"]


def test_the_whole_of_a_simple_request() -> None:
    request = api_calls.request_of(API, HI)
    assert request.url == "https://acme.test/api/chat"
    assert request.headers == {"content-type": "application/json", "accept": "application/x-ndjson"}
    assert request.body == b'{"model":"m-1","messages":[{"role":"user","content":"Hi"}],"stream":true}'


def test_a_plain_response_is_requested_explicitly() -> None:
    # Without `stream` Ollama sends a stream.
    assert body_of(is_streamed=False)["stream"] is False


def test_parameters_are_options() -> None:
    params = SamplingParams(
        temperature=0.5,
        top_p=0.9,
        max_new_tokens=9,
        stop="END",
        seed=7,
        presence_penalty=0.1,
        frequency_penalty=0.2,
        top_logprobs=2,
    )
    sent = body_of(params=params, extra_body={"keep_alive": "5m", "options": {"num_ctx": 8_192, "seed": 8}})
    del sent["messages"]
    assert sent == {
        "model": "m-1",
        "stream": True,
        "options": {
            "temperature": 0.5,
            "top_p": 0.9,
            "num_predict": 9,
            "stop": ["END"],
            "seed": 8,
            "presence_penalty": 0.1,
            "frequency_penalty": 0.2,
            "num_ctx": 8_192,
        },
        "logprobs": True,
        "top_logprobs": 2,
        "keep_alive": "5m",
    }
    assert body_of(extra_body={"options": {"num_ctx": 1}})["options"] == {"num_ctx": 1}


@pytest.mark.parametrize(
    ("name", "value"), [("parallel_tool_calls", True), ("service_tier", "flex"), ("verbosity", "low")]
)
def test_unsupported_parameters_are_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(UnsupportedParameterError, match=f"takes no {name} through ollama-chat"):
        body_of(params=SamplingParams(**{name: value}))


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (Message.user("See").with_file(b"%PDF-1.7"), "takes no files"),
        (Message.user("Hear").with_audio(b"ID3"), "takes no audio"),
        (Message.user("See").with_image("https://a.test/1.png"), "takes no images by URL"),
        (Message("user", (TextPart("Hi"),), "Ann"), "name of a message"),
        (Message("user", (ReasoningPart("Hm."),)), "Reasoning is not allowed in a message of role user"),
        (Message("system", (ReasoningPart("Hm."),)), "Reasoning is not allowed in a message of role system"),
        (Message("tool", (TextPart("Hi"),)), "Text is not allowed in a message of role tool"),
    ],
)
def test_unsupported_parts_are_refused(message: Message, words: str) -> None:
    with pytest.raises(UnsupportedParameterError, match=words):
        messages_of(message)


@pytest.mark.parametrize(
    ("effort", "think"),
    [("none", False), ("minimal", "low"), ("low", "low"), ("medium", "medium"), ("high", "high"), ("max", "high")],
)
def test_effort(effort: Any, think: bool | str) -> None:
    assert body_of(params=SamplingParams(reasoning_effort=effort))["think"] == think


def test_tools() -> None:
    (tool,) = body_of(tools=(Tool(name="add", description="Adds."),), params=SamplingParams(tool_choice="auto"))[
        "tools"
    ]
    assert tool == {
        "type": "function",
        "function": {"name": "add", "parameters": {"type": "object", "properties": {}}, "description": "Adds."},
    }
    assert "tools" not in body_of(tools=(Tool(name="add"),), params=SamplingParams(tool_choice="none"))
    for choice in ("required", "add"):
        with pytest.raises(UnsupportedParameterError, match=f"takes no tool_choice='{choice}'"):
            body_of(tools=(Tool(name="add"),), params=SamplingParams(tool_choice=choice))


def test_a_schema() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    assert body_of(output=schema)["format"] == schema
    assert body_of(params=SamplingParams(json_mode=True))["format"] == "json"


def test_images_are_in_a_separate_field() -> None:
    assert messages_of(Message.user("See").with_image(PNG)) == [{"role": "user", "content": "See", "images": [IMAGE]}]


def test_a_developer_is_the_system() -> None:
    assert messages_of(Message.developer("Be short.")) == [{"role": "system", "content": "Be short."}]


def test_thoughts_calls_and_results_go_back() -> None:
    body = (
        b'{"model":"m","message":{"role":"assistant","content":"So","thinking":"Hm.","tool_calls":[{"function":{"name":'
        b'"add","arguments":{"n":1}}}]},"done":true,"done_reason":"stop"}'
    )
    answer = decode_body(API, body).content
    shown = ToolResultPart("call_0", "4", (ImagePart(Media(media_type="image/png", data=PNG)),))
    assert messages_of(Message.user("1+3?"), answer, Message("tool", (shown,)))[1:] == [
        {
            "role": "assistant",
            "content": "So",
            "thinking": "Hm.",
            "tool_calls": [{"id": "call_0", "type": "function", "function": {"name": "add", "arguments": {"n": 1}}}],
        },
        {"role": "tool", "content": "4", "tool_call_id": "call_0", "tool_name": "add", "images": [IMAGE]},
    ]
    assert dropped_parts(api_calls.call_of(API, [answer]), OllamaChat()) == ()


@pytest.mark.parametrize(
    ("part", "arguments"),
    [
        (ToolCallPart("a", "f", '{"n": 1}'), {"n": 1}),
        (ToolCallPart("a", "f", ""), {}),
        (ToolCallPart("a", "f", '{"n": ', None, "cut off"), {"input": '{"n": '}),
        (ToolCallPart("a", "f", "[1]", [1]), {"input": "[1]"}),
        (ToolCallPart("a", "run", "ls", custom=True), {"input": "ls"}),
        (ToolCallPart("a", "run", "{}", custom=True), {"input": "{}"}),
    ],
)
def test_arguments_are_an_object_whatever_the_model_wrote(part: ToolCallPart, arguments: dict[str, Any]) -> None:
    (sent,) = messages_of(Message.assistant(tool_calls=[part]))
    assert sent["tool_calls"][0]["function"]["arguments"] == arguments


def test_the_name_of_a_tool_whose_call_is_not_there() -> None:
    assert "tool_name" not in messages_of(Message.tool_result("x", "4"))[0]
    named = Message("tool", Message.tool_result("x", "4").parts, "add")
    assert messages_of(named)[0]["tool_name"] == "add"


def test_parts_that_are_not_sent_back_are_named() -> None:
    assert dropped_parts(api_calls.call_of(API, [Message("assistant", (RefusalPart("No."),))]), OllamaChat()) == (
        "refusal_not_sent",
    )


@pytest.mark.parametrize("role", ["system", "user", "assistant"])
def test_a_name_of_a_message_is_refused(role: Any) -> None:
    with pytest.raises(UnsupportedParameterError, match="name of a message"):
        messages_of(Message(role, Message.user("Hi").parts, "Ann"))
