"""Requests to Mistral, as parsed JSON."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from lm_deluge.adapters.capabilities import dropped_parts
from lm_deluge.adapters.mistral_chat.adapter import MistralChat
from lm_deluge.adapters.mistral_chat.request import valid_call_id
from lm_deluge.config import SamplingParams
from lm_deluge.errors import InvalidPromptError, UnsupportedParameterError
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.media import Media
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import AudioPart, ImagePart, ReasoningPart, RefusalPart, ToolCallPart, ToolResultPart
from lm_deluge.prompt.tool import ProviderTool, Tool
from lm_deluge.testing import decode_body
from samples import api_calls

API = "mistral-chat"
HI = Conversation.user("Hi")
PDF = b"%PDF-1.7 rest"
PNG = b"\x89PNG\r\n\x1a\n rest"
WAV = b"RIFF\0\0\0\0WAVEfmt "


def body_of(prompt: Any = HI, **fields: Any) -> dict[str, Any]:
    return api_calls.body_of(API, prompt, **fields)


def messages_of(*messages: Message) -> list[dict[str, Any]]:
    return body_of(messages)["messages"]


def test_the_whole_of_a_simple_request() -> None:
    request = api_calls.request_of(API, HI)
    assert request.url == "https://acme.test/v1/chat/completions"
    # Mistral rejects `stream_options`; it always sends usage.
    assert request.body == b'{"model":"m-1","messages":[{"role":"user","content":"Hi"}],"stream":true}'


def test_parameters_have_names_of_their_own() -> None:
    params = SamplingParams(
        temperature=0.5,
        top_p=0.9,
        max_new_tokens=9,
        stop="END",
        seed=7,
        presence_penalty=0.1,
        frequency_penalty=0.2,
        reasoning_effort="high",
        top_logprobs=2,
        parallel_tool_calls=False,
        service_tier="priority",
    )
    sent = body_of(params=params, is_streamed=False)
    del sent["messages"]
    assert sent == {
        "model": "m-1",
        "temperature": 0.5,
        "top_p": 0.9,
        "max_tokens": 9,
        "stop": ["END"],
        "random_seed": 7,
        "presence_penalty": 0.1,
        "frequency_penalty": 0.2,
        "reasoning_effort": "high",
        "logprobs": True,
        "top_logprobs": 2,
        "parallel_tool_calls": False,
        "service_tier": "priority",
    }


def test_unsupported_parameters_are_refused_by_name() -> None:
    with pytest.raises(UnsupportedParameterError, match="verbosity"):
        body_of(params=SamplingParams(verbosity="low"))
    with pytest.raises(UnsupportedParameterError, match="name of a message"):
        messages_of(Message("user", Message.user("Hi").parts, "Ann"))
    with pytest.raises(UnsupportedParameterError, match="ToolCall is not allowed in a message of role user"):
        messages_of(Message("user", (ToolCallPart("a", "f"),)))
    with pytest.raises(UnsupportedParameterError, match="Image is not allowed in a message of role system"):
        messages_of(Message("system", (ImagePart(Media(url="https://a.test/1.png")),)))
    with pytest.raises(InvalidPromptError, match="by its file id"):
        messages_of(Message("user", (AudioPart(Media(file_id="x")),)))


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        ("auto", "auto"),
        ("none", "none"),
        ("required", "any"),
        ("add", {"type": "function", "function": {"name": "add"}}),
    ],
)
def test_tool_choice(choice: str, sent: Any) -> None:
    assert body_of(tools=(Tool(name="add"),), params=SamplingParams(tool_choice=choice))["tool_choice"] == sent


def test_tools_and_a_schema() -> None:
    schema = {"title": "Answer", "type": "object", "properties": {"n": {"type": "integer"}}}
    sent = body_of(tools=(Tool(name="add", description="Adds."), ProviderTool({"type": "web_search"})), output=schema)
    assert sent["tools"] == [
        {
            "type": "function",
            "function": {"name": "add", "parameters": {"type": "object", "properties": {}}, "description": "Adds."},
        },
        {"type": "web_search"},
    ]
    assert sent["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "Answer", "schema": schema, "strict": False},
    }
    assert body_of(params=SamplingParams(json_mode=True))["response_format"] == {"type": "json_object"}


def test_media_stand_in_pieces_of_their_own() -> None:
    message = (
        Message.user("See")
        .with_image(PNG)
        .with_file(PDF, filename="a.pdf")
        .with_file("https://a.test/b.pdf")
        .with_file(Media(file_id="f-1"))
        .with_audio(WAV)
        .with_audio("https://a.test/c.mp3")
    )
    (sent,) = messages_of(message)
    assert sent["content"] == [
        {"type": "text", "text": "See"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{base64.b64encode(PNG).decode()}"}},
        {
            "type": "document_url",
            "document_url": f"data:application/pdf;base64,{base64.b64encode(PDF).decode()}",
            "document_name": "a.pdf",
        },
        {"type": "document_url", "document_url": "https://a.test/b.pdf"},
        {"type": "file", "file_id": "f-1"},
        {"type": "input_audio", "input_audio": base64.b64encode(WAV).decode()},
        {"type": "input_audio", "input_audio": "https://a.test/c.mp3"},
    ]


def test_a_developer_is_the_system() -> None:
    assert messages_of(Message.developer("Be short.")) == [{"role": "system", "content": "Be short."}]


def test_ids_of_calls_that_mistral_refuses_are_changed_in_call_and_result_alike() -> None:
    kept, changed = ToolCallPart("abcDEF123", "f", "{}"), ToolCallPart("call_0123456789", "g", '{"a": 1}')
    sent = messages_of(
        Message.assistant(tool_calls=[kept, changed]),
        Message.tool_result("abcDEF123", "one"),
        Message.tool_result("call_0123456789", "two"),
    )
    new = valid_call_id("call_0123456789")
    assert [call["id"] for call in sent[0]["tool_calls"]] == ["abcDEF123", new]
    assert [message["tool_call_id"] for message in sent[1:]] == ["abcDEF123", new]
    assert sent[0]["content"] == ""


def test_a_changed_id_is_deterministic_and_unique() -> None:
    ids = [f"call_{number}" for number in range(2_000)] + ["", "é" * 9, "abc-ef123", "abcdefgh\n", "\ud800"]
    changed = [valid_call_id(each) for each in ids]
    assert all(len(each) == 9 and each.isascii() and each.isalnum() for each in changed)
    assert len(set(changed)) == len(ids)
    assert changed == [valid_call_id(each) for each in ids]
    assert valid_call_id("call_0") == "MUPikt56d"


def test_a_call_with_free_text_becomes_one_of_a_function() -> None:
    turn = Message.assistant(tool_calls=[ToolCallPart("abcDEF123", "run", "ls", custom=True)])
    sent, _ = messages_of(turn, Message.tool_result("abcDEF123", "1"))
    assert sent["tool_calls"][0]["function"] == {"name": "run", "arguments": '{"input":"ls"}'}


def test_media_of_a_tool_and_its_name() -> None:
    result = ToolResultPart("abcDEF123", "See", (ImagePart(Media(url="https://a.test/1.png")),))
    (sent,) = messages_of(Message("tool", (result,), "camera"))
    assert sent == {
        "role": "tool",
        "tool_call_id": "abcDEF123",
        "name": "camera",
        "content": [
            {"type": "text", "text": "See"},
            {"type": "image_url", "image_url": {"url": "https://a.test/1.png"}},
        ],
    }


def test_a_final_assistant_message_is_marked_as_prefix() -> None:
    assert messages_of(Message.user("Hi"), Message.assistant("Once"))[-1] == {
        "role": "assistant",
        "content": "Once",
        "prefix": True,
    }
    assert "prefix" not in messages_of(Message.assistant("Once"), Message.user("Hi"))[0]


def test_thoughts_go_back_with_their_signatures() -> None:
    body = (
        b'{"id":"1","choices":[{"index":0,"message":{"content":[{"type":"thinking","thinking":[{"type":"text",'
        b'"text":"Hm."}],"signature":"sig"},{"type":"text","text":"Four."}]},"finish_reason":"stop"}]}'
    )
    answer = decode_body(API, body).content
    sent = messages_of(Message.user("2+2?"), answer, Message.user("Sure?"))
    assert sent[1] == {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}], "signature": "sig"},
            {"type": "text", "text": "Four."},
        ],
    }
    assert dropped_parts(api_calls.call_of(API, [answer]), MistralChat()) == ()


def test_parts_that_are_not_sent_back_are_named() -> None:
    answer = Message("assistant", (RefusalPart("No."), ReasoningPart("Hm."), AudioPart(Media(file_id="a"))))
    assert dropped_parts(api_calls.call_of(API, [answer]), MistralChat()) == ("refusal_not_sent", "audio_not_sent")
    (sent,) = messages_of(answer)
    assert sent["content"] == [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}]


@pytest.mark.parametrize("role", ["system", "user", "assistant"])
def test_a_name_of_a_message_is_refused(role: Any) -> None:
    with pytest.raises(UnsupportedParameterError, match="name of a message"):
        messages_of(Message(role, Message.user("Hi").parts, "Ann"))
