"""Signatures and log probabilities in the forms of single hosts, and the way of signatures into the next request."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

import cuts
from lm_deluge.adapters.adapter import Call
from lm_deluge.adapters.capabilities import dropped_parts
from lm_deluge.adapters.gemini_generate.adapter import GeminiGenerate
from lm_deluge.adapters.openai_chat.adapter import OpenAIChat
from lm_deluge.encoders.openai_chat.request import parse_request
from lm_deluge.encoders.openai_chat.response import encode_response, encode_stream
from lm_deluge.events import ProviderPart, ReasoningDelta, TextDelta, TokenLogprob, TopLogprob
from lm_deluge.models.registry import find_provider
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import ProviderDataPart, ReasoningPart, TextPart, ToolCallPart
from lm_deluge.response import APIResponse, ResponseBuilder
from samples.chat_bytes import chunk, events_of, text
from samples.chat_calls import a_call

DONE = b"data: [DONE]\n\n"
HI = Conversation.user("Hi")


def call_to(host: str, conversation: Conversation = HI) -> Call:
    row = find_provider(host)
    call = msgspec.structs.replace(a_call(conversation), provider=row)
    return msgspec.structs.replace(call, model=msgspec.structs.replace(call.model, provider=row.id))


def answer_of(host: str, body: bytes, size: int = 10_000) -> APIResponse:
    decoder = OpenAIChat().decoder(call_to(host))
    builder = ResponseBuilder()
    for piece in cuts.every(body, size):
        builder.add_all(decoder.feed(piece))
    builder.add_all(decoder.close())
    assert decoder.error is None
    return builder.response()


def plain(message: dict[str, Any], finish_reason: str = "stop") -> bytes:
    """Return a response that is not streamed."""
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish_reason}
    return json.dumps({"id": "1", "choices": [choice]}).encode()


def next_turn(answer: APIResponse) -> Conversation:
    conversation = Conversation.user("Hi").add(answer.content)
    for called in answer.tool_calls:
        conversation.tool_result(called.id, "done")
    return conversation.user("Go on")


def next_message(host: str, answer: APIResponse) -> dict[str, Any]:
    """Return the answer as a message of the next request to a host."""
    request = OpenAIChat().build_request(call_to(host, next_turn(answer)))
    message: dict[str, Any] = json.loads(request.body)["messages"][1]
    return message


def reasoning(**entry: Any) -> dict[str, Any]:
    return {"type": "reasoning", "summary": [{"type": "summary_text", **entry}]}


ITEM = reasoning(text="I need a plan", signature="SIG==")
SECRET = {"type": "reasoning", "summary": [{"type": "summary_encrypted_text", "data": "xyz"}]}
TEXT = {"type": "text", "text": "Hello!"}
PIECES: dict[str, tuple[bytes, list[Any]]] = {
    "streamed": (
        chunk({"role": "assistant", "content": [reasoning(text="I need")]})
        + chunk({"content": [reasoning(text=" a plan", signature="")]})
        + chunk({"content": [reasoning(text="", signature="SIG==")]})
        + chunk({"content": [{"type": "text", "text": "Hello"}]})
        + chunk({"content": "!"})
        + chunk({}, "stop")
        + DONE,
        [ITEM, TEXT],
    ),
    "plain": (plain({"content": [ITEM, TEXT]}), [ITEM, TEXT]),
    "signature in pieces": (
        chunk({"content": [reasoning(text="I need a plan", signature="SI")]})
        + chunk({"content": [reasoning(text="", signature="G==")]})
        + text("Hello!")
        + chunk({}, "stop")
        + DONE,
        [ITEM, TEXT],
    ),
    "two signed thoughts": (
        plain({"content": [reasoning(text="I need", signature="A"), reasoning(text=" a plan", signature="B"), TEXT]}),
        [
            {
                "type": "reasoning",
                "summary": [
                    {"type": "summary_text", "text": "I need", "signature": "A"},
                    {"type": "summary_text", "text": " a plan", "signature": "B"},
                ],
            },
            TEXT,
        ],
    ),
    "no signature": (
        plain({"content": [reasoning(text="I need a plan"), TEXT]}),
        [reasoning(text="I need a plan"), TEXT],
    ),
}


@pytest.mark.parametrize("name", PIECES)
@pytest.mark.parametrize("size", [1, 10_000])
def test_reasoning_of_databricks_goes_back_as_it_came(name: str, size: int) -> None:
    body, content = PIECES[name]
    answer = answer_of("databricks", body, size)
    assert (answer.thinking, answer.completion, answer.warnings) == ("I need a plan", "Hello!", ())
    assert next_message("databricks", answer) == {"role": "assistant", "content": content}


def test_encrypted_reasoning_of_databricks_goes_back_before_the_calls() -> None:
    fragment = {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    body = chunk({"content": [SECRET]}) + chunk({"tool_calls": [fragment]}) + chunk({}, "tool_calls") + DONE
    answer = answer_of("databricks", body)
    assert [type(part) for part in answer.content.parts] == [ProviderDataPart, ToolCallPart]
    assert next_message("databricks", answer)["content"] == [SECRET]


def test_reasoning_of_databricks_stays_there() -> None:
    answer = answer_of("databricks", PIECES["plain"][0])
    conversation = next_turn(answer)
    assert next_message("openai", answer)["content"] == "Hello!"
    assert dropped_parts(call_to("openai", conversation), OpenAIChat()) == (
        "reasoning_not_sent",
        "provider_data_not_sent",
    )
    assert dropped_parts(call_to("databricks", conversation), OpenAIChat()) == ()


def test_the_request_is_understood_by_its_parser() -> None:
    answer = answer_of("databricks", PIECES["plain"][0])
    call = call_to("databricks", next_turn(answer))
    message = parse_request(OpenAIChat().build_request(call).body).conversation.messages[1]
    assert [type(part) for part in message.parts] == [ReasoningPart, ProviderDataPart, TextPart]
    assert message.parts[1] == ProviderDataPart("openai-chat", "reasoning_item", ITEM)


def google(signature: str) -> dict[str, Any]:
    return {"extra_content": {"google": {"thought_signature": signature}}}


def signed(index: int | None, name: str, signature: str | None, arguments: str = "{}") -> dict[str, Any]:
    fields = {} if index is None else {"index": index}
    fields |= {"id": f"call_{name}", "type": "function", "function": {"name": name, "arguments": arguments}}
    return fields if signature is None else {**fields, **google(signature)}


SIGNED: dict[str, bytes] = {
    "in one delta": chunk({"tool_calls": [signed(0, "f", "S1"), signed(1, "g", None)]}),
    "without an index": chunk({"tool_calls": [signed(None, "f", "S1"), signed(None, "g", None)]}),
    "before the arguments": chunk({"tool_calls": [signed(0, "f", "S1", "")]})
    + chunk({"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]})
    + chunk({"tool_calls": [signed(1, "g", None)]}),
    "after the arguments": chunk({"tool_calls": [signed(0, "f", None)]})
    + chunk({"tool_calls": [{"index": 0, **google("S1")}]})
    + chunk({"tool_calls": [signed(1, "g", None)]}),
}


@pytest.mark.parametrize("name", [*SIGNED, "plain"])
@pytest.mark.parametrize("size", [1, 10_000])
def test_the_signature_of_a_call_goes_back_on_the_call(name: str, size: int) -> None:
    body = (
        plain({"tool_calls": [signed(None, "f", "S1"), signed(None, "g", None)]}, "tool_calls")
        if name == "plain"
        else SIGNED[name] + chunk({}, "tool_calls") + DONE
    )
    answer = answer_of("gemini-openai", body, size)
    assert [type(part) for part in answer.content.parts] == [ToolCallPart, ProviderDataPart, ToolCallPart]
    first, second = next_message("gemini-openai", answer)["tool_calls"]
    assert first["extra_content"] == {"google": {"thought_signature": "S1"}}
    assert "extra_content" not in second
    assert "extra_content" not in next_message("openai", answer)["tool_calls"][0]


@pytest.mark.parametrize("is_plain", [True, False])
def test_the_signature_of_text_goes_back_on_the_message(*, is_plain: bool) -> None:
    body = (
        plain({"content": "Hi", **google("S")})
        if is_plain
        else chunk({"content": "Hi"}) + chunk(google("S"), "stop") + DONE
    )
    answer = answer_of("gemini-openai", body)
    assert next_message("gemini-openai", answer) == {"role": "assistant", "content": "Hi", **google("S")}


def test_the_native_api_of_gemini_has_the_same_signatures() -> None:
    body = SIGNED["in one delta"] + chunk({}, "tool_calls") + DONE
    answer = answer_of("gemini-openai", body)
    call = call_to("gemini", next_turn(answer))
    parts = json.loads(GeminiGenerate().build_request(call).body)["contents"][1]["parts"]
    assert [part.get("thoughtSignature") for part in parts] == ["S1", None]


@pytest.mark.parametrize("is_streamed", [True, False])
def test_the_encoder_writes_signatures(*, is_streamed: bool) -> None:
    events = events_of(SIGNED["in one delta"] + chunk({}, "tool_calls") + DONE)
    again = b"".join(encode_stream(events)) if is_streamed else encode_response(events)
    read = [event for event in events_of(again) if isinstance(event, ProviderPart)]
    assert read == [ProviderPart("recording", "thought_signature", "S1")]


def test_the_owner_of_opaque_data_is_that_of_the_row() -> None:
    body = plain({"content": "a", "reasoning_details": [{"type": "reasoning.text", "text": "b", "index": 0}]})
    answer = answer_of("azure-deployment", body)
    owners = [part.provider for part in answer.content.parts if isinstance(part, ProviderDataPart)]
    assert owners == ["azure"]
    assert "reasoning_details" in next_message("azure-deployment", answer)


def test_no_other_message_gets_opaque_data() -> None:
    message = Message("assistant", (TextPart("a"), ProviderDataPart("google", "thought_signature", {"text": ""})))
    answer = APIResponse(content=message)
    assert next_message("gemini-openai", answer) == {"role": "assistant", "content": "a"}


OLD = {
    "tokens": ["He", "llo"],
    "token_logprobs": [None, -0.5],
    "top_logprobs": [None, {"llo": -0.5, "y": -1.5}],
    "text_offset": [0, 2],
}


@pytest.mark.parametrize("is_plain", [True, False])
def test_log_probabilities_of_the_older_form(*, is_plain: bool) -> None:
    token = TokenLogprob("llo", -0.5, None, (TopLogprob("llo", -0.5), TopLogprob("y", -1.5)))
    if is_plain:
        choice = {"index": 0, "message": {"content": "Hello"}, "finish_reason": "stop", "logprobs": OLD}
        body = json.dumps({"id": "1", "choices": [choice]}).encode()
    else:
        body = chunk({"content": "Hello"}, logprobs=OLD) + chunk({}, "stop") + DONE
    assert TextDelta("Hello", (token,)) in events_of(body)


def test_reasoning_before_text_in_one_list() -> None:
    events = events_of(chunk({"content": [ITEM, TEXT]}) + chunk({}, "stop") + DONE)
    assert events[1:4] == [
        ReasoningDelta("I need a plan"),
        ProviderPart("recording", "reasoning_item", ITEM),
        TextDelta("Hello!"),
    ]
