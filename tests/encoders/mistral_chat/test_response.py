"""Server side of Mistral's chat API: parse requests, encode responses."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from lm_deluge.config import SamplingParams
from lm_deluge.encoders.mistral_chat.request import parse_request
from lm_deluge.encoders.mistral_chat.response import encode_error, encode_response, encode_stream, encode_stream_error
from lm_deluge.errors import BadRequestError, OverloadedError, RateLimitError, TruncatedError
from lm_deluge.events import (
    Attempt,
    MediaDelta,
    ProviderPart,
    RefusalDelta,
    ResponseFinished,
    ResponseStarted,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
    UsageReported,
)
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import ImagePart, ProviderDataPart, ReasoningPart, TextPart, ToolCallPart, ToolResultPart
from lm_deluge.prompt.tool import Tool
from lm_deluge.testing import decode_body
from lm_deluge.usage import Usage
from samples import api_calls

API = "mistral-chat"
PNG = b"\x89PNG\r\n\x1a\n rest"


def request(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hi"}], **fields}).encode()


def message(**fields: Any) -> bytes:
    return request(messages=[fields])


def test_requests_of_the_adapter_are_parsed() -> None:
    conversation = Conversation(
        [
            Message.system("Be short."),
            Message.user("See")
            .with_image(PNG)
            .with_file(b"%PDF-1.7", filename="a.pdf")
            .with_file("https://a.test/b.pdf")
            .with_audio(b"RIFF\0\0\0\0WAVEfmt ")
            .with_audio("https://a.test/c.mp3"),
            Message(
                "assistant",
                (
                    ReasoningPart("Hm."),
                    ProviderDataPart(API, "signature", "sig"),
                    TextPart("So."),
                    ToolCallPart("abcDEF123", "add", '{"n": 1}', {"n": 1}),
                ),
            ),
            Message("tool", (ToolResultPart("abcDEF123", "4", (ImagePart(Message.user(image=PNG).parts[0].media),)),)),
        ]
    )
    params = SamplingParams(
        temperature=0.5,
        top_p=0.9,
        max_new_tokens=20,
        stop=("END",),
        seed=7,
        presence_penalty=1,
        frequency_penalty=-1,
        reasoning_effort="low",
        logprobs=True,
        top_logprobs=3,
        tool_choice="required",
        parallel_tool_calls=False,
        service_tier="priority",
    )
    tools = (Tool(name="add", description="Adds.", parameters={"type": "object", "properties": {}}),)
    call = api_calls.call_of(API, conversation, params=params, tools=tools, extra_body={"safe_prompt": True})
    # The provider of opaque data is the API whose request contained the data.
    call = api_calls.with_owner(call, API)
    parsed = parse_request(api_calls.built(call))
    assert parsed.conversation == conversation
    assert (parsed.params, parsed.tools) == (params, tools)
    assert (parsed.is_streamed, parsed.wants_usage) == (True, True)
    assert parsed.extra == {"safe_prompt": True}


def test_formats_of_the_answer() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    assert parse_request(api_calls.request_of(API, Conversation.user("Hi"), output=schema).body).output == schema
    assert parse_request(request(response_format={"type": "json_object"})).params.json_mode


REFUSED = {
    "no JSON": (b"{", "We could not parse the JSON body"),
    "no model": (b'{"messages": []}', "Missing required parameter: 'model'."),
    "stop as number": (request(stop=3), "Invalid type for 'stop': expected an array"),
    "a developer": (message(role="developer", content="Hi"), "Invalid value: 'developer'"),
    "a path as image": (
        message(role="user", content=[{"type": "image_url", "image_url": "/etc/hosts"}]),
        "expected an http(s) or data URL",
    ),
    "a path as document": (
        message(role="user", content=[{"type": "document_url", "document_url": "/etc/hosts"}]),
        "expected an http(s) or data URL",
    ),
    "no base64": (message(role="user", content=[{"type": "input_audio", "input_audio": "!"}]), "expected base64 text"),
    "a thought of the user": (
        message(role="user", content=[{"type": "thinking", "thinking": []}]),
        "Invalid value: 'thinking'",
    ),
    "a piece as text": (message(role="assistant", content=["Hi"]), "Invalid type for 'messages[0].content[0]"),
    "a number out of range": (request(temperature=3), "temperature=3 is not a number between 0 and 2"),
}


@pytest.mark.parametrize(("body", "words"), REFUSED.values(), ids=REFUSED)
def test_malformed_requests_are_refused(body: bytes, words: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        parse_request(body)
    assert words in caught.value.message


def test_frames_are_those_of_mistral() -> None:
    events = [
        ResponseStarted("1", "m"),
        TextDelta("Hi"),
        UsageReported(Usage(input_tokens=3, output_tokens=1)),
        ResponseFinished("stop"),
    ]
    head = b'data: {"id":"1","object":"chat.completion.chunk","created":9,"model":"m","choices":['
    assert list(encode_stream(events, created=9, include_usage=False)) == [
        head + b'{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}\n\n',
        head + b'{"index":0,"delta":{"content":"Hi"},"finish_reason":null}]}\n\n',
        head + b'{"index":0,"delta":{"content":""},"finish_reason":"stop"}],'
        b'"usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4}}\n\n',
        b"data: [DONE]\n\n",
    ]


def test_a_frame_comes_out_as_soon_as_its_event_went_in() -> None:
    asked: list[str] = []

    def events() -> Any:
        for word in ("a", "b"):
            asked.append(word)
            yield TextDelta(word)

    frames = encode_stream(events())
    next(frames)  # the start
    next(frames)
    assert asked == ["a"]


def test_calls_that_come_whole() -> None:
    whole = ToolCallFinished(0, "abcDEF123", "f", '{"a": 1}', {"a": 1})
    lost = ToolCallDelta(5, "x")
    for events in ([whole], [TextDelta("Hi"), whole]):
        body = b"".join(encode_stream([*events, ResponseFinished("tool_calls")]))
        (call,) = decode_body(API, body).tool_calls
        assert (call.id, call.name, call.arguments) == ("abcDEF123", "f", {"a": 1})
    assert b"x" in b"".join(encode_stream([lost, ResponseFinished("length")]))


def test_a_call_in_fragments_is_written_whole() -> None:
    events = [
        ToolCallStarted(0, "abcDEF123", "f"),
        ToolCallStarted(1, "abcDEF456", "g"),
        *(ToolCallDelta(0, fragment) for fragment in ('{"a"', ": 1", "}")),
        ToolCallDelta(1, '{"b":'),
        ToolCallFinished(0, "abcDEF123", "f", '{"a": 1}', {"a": 1}),
    ]
    frames = [json.loads(frame[6:]) for frame in encode_stream([*events, ResponseFinished("length")]) if b"{" in frame]
    calls = [call for frame in frames for call in frame["choices"][0]["delta"].get("tool_calls", ())]
    assert [(call["index"], call["id"], call["function"]["arguments"]) for call in calls] == [
        (0, "abcDEF123", '{"a": 1}'),
        (1, "abcDEF456", '{"b":'),  # the length limit has cut it
    ]


def test_events_that_the_api_cannot_express() -> None:
    events = [
        Attempt(2, "ServerError", "x", 0.1, "m"),
        RefusalDelta("No."),
        MediaDelta("audio/pcm", "AAAA"),
        ProviderPart("x", "reasoning_details", []),
        ResponseFinished("refusal"),
    ]
    for response in (decode_body(API, b"".join(encode_stream(events))), decode_body(API, encode_response(events))):
        assert response.content.parts == (TextPart("No."),)
        assert (response.finish_reason, response.raw_finish_reason) == ("stop", "stop")


def test_log_probabilities() -> None:
    events = [TextDelta("Hi", (TokenLogprob("Hi", float("-inf")),)), ResponseFinished("stop")]
    for body in (b"".join(encode_stream(events)), encode_response(events)):
        (part,) = decode_body(API, body).content.parts
        assert part == TextPart("Hi", (TokenLogprob("Hi", -9999.0),))


def test_a_cut_answer_has_no_end() -> None:
    with pytest.raises(TruncatedError):
        decode_body(API, b"".join(encode_stream([TextDelta("Hi")])))
    assert json.loads(encode_response([TextDelta("Hi")]))["choices"][0]["finish_reason"] is None


def test_errors() -> None:
    assert json.loads(encode_error(RateLimitError("Slow down", status_code=429))) == {
        "object": "error",
        "message": "Slow down",
        "type": "requests",
        "param": None,
        "code": "rate_limit_exceeded",
    }
    body = b"".join(encode_stream([TextDelta("Hi")])) + encode_stream_error(OverloadedError("Busy"))
    with pytest.raises(OverloadedError, match="Busy"):
        decode_body(API, body)


def test_an_image_of_the_answer() -> None:
    data = base64.b64encode(PNG).decode()
    events = [MediaDelta("image/png", data), ResponseFinished("stop")]
    (part,) = decode_body(API, encode_response(events)).content.parts
    assert part.media.data == PNG
