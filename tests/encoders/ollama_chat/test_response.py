"""Server side of Ollama's chat API: parse requests, encode responses."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lm_deluge.config import SamplingParams
from lm_deluge.encoders.ollama_chat.request import parse_request
from lm_deluge.encoders.ollama_chat.response import (
    ENCODER,
    encode_error,
    encode_response,
    encode_stream,
    encode_stream_error,
)
from lm_deluge.errors import BadRequestError, OverloadedError, RateLimitError, TruncatedError
from lm_deluge.events import (
    Attempt,
    Citation,
    MediaDelta,
    ProviderPart,
    ReasoningDelta,
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
from lm_deluge.prompt.media import Media
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import ImagePart, ReasoningPart, TextPart, ToolCallPart, ToolResultPart
from lm_deluge.prompt.tool import Tool
from lm_deluge.testing import decode_body
from lm_deluge.usage import Usage
from samples import api_calls

API = "ollama-chat"
PNG = b"\x89PNG\r\n\x1a\n rest"


def request(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hi"}], **fields}).encode()


def message(**fields: Any) -> bytes:
    return request(messages=[fields])


def test_requests_of_the_adapter_are_parsed() -> None:
    shown = ToolResultPart("call_1", "4", (ImagePart(Media(media_type="image/png", data=PNG)),))
    conversation = Conversation(
        [
            Message.system("Be short."),
            Message.user("See").with_image(PNG),
            Message("assistant", (ReasoningPart("Hm."), TextPart("So."), ToolCallPart("call_1", "add", "{}", {}))),
            Message("tool", (shown,), "add"),
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
    )
    tools = (Tool(name="add", parameters={"type": "object", "properties": {}}),)
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    extra = {"keep_alive": "5m", "options": {"num_ctx": 5}}
    call = api_calls.call_of(API, conversation, params=params, tools=tools, output=schema, extra_body=extra)
    parsed = parse_request(api_calls.built(call))
    assert parsed.conversation == conversation
    assert (parsed.params, parsed.tools, parsed.output) == (params, tools, schema)
    assert (parsed.is_streamed, parsed.wants_usage, parsed.extra) == (True, True, extra)


def test_the_default_is_a_stream_without_limits() -> None:
    assert parse_request(request()).is_streamed
    assert not parse_request(request(stream=False)).is_streamed
    parsed = parse_request(request(options={"num_predict": -1, "stop": []}, format="", think=None, tools=None))
    assert parsed.params == SamplingParams()
    assert (parsed.output, parsed.extra) == (None, {})


@pytest.mark.parametrize(
    ("think", "effort"), [(True, "high"), (False, "none"), ("low", "low"), ("medium", "medium"), ("high", "high")]
)
def test_thought(think: Any, effort: str) -> None:
    assert parse_request(request(think=think)).params.reasoning_effort == effort
    assert parse_request(request(format="json")).params.json_mode


def test_calls_without_ids_find_their_results() -> None:
    calls = [{"function": {"name": name, "arguments": {}}} for name in ("a", "b", "b", "c")]
    results = [
        {"role": "tool", "content": "x", **({"tool_name": name} if name else {})} for name in ("b", "", "b", "z")
    ]
    parsed = parse_request(request(messages=[{"role": "assistant", "tool_calls": calls}, *results]))
    ids = [call.id for call in parsed.conversation[0].tool_calls]
    assert len(set(ids)) == 4
    found = [message.parts[0].tool_call_id for message in parsed.conversation.messages[1:]]
    assert found == [ids[1], ids[0], ids[2], ""]


REFUSED = {
    "no JSON": (b"{", "We could not parse the JSON body"),
    "no model": (b'{"messages": []}', "Missing required parameter: 'model'."),
    "options as text": (request(options="x"), "Invalid type for 'options'"),
    "another thought": (request(think="hard"), "Invalid value: 'hard' for 'think'"),
    "a format as list": (request(format=[]), "Invalid type for 'format'"),
    "an image as number": (message(role="user", images=[5]), "Invalid type for 'messages[0].images[0]'"),
    "a path as image": (message(role="user", images=["/etc/hosts"]), "Invalid 'messages[0].images[0]'"),
    "no image": (message(role="user", images=["AAAA"]), "these bytes are no image"),
    "a call as text": (message(role="assistant", tool_calls=["f"]), "Invalid type for 'messages[0].tool_calls[0]'"),
    "arguments as text": (
        message(role="assistant", tool_calls=[{"function": {"name": "f", "arguments": "{}"}}]),
        "Invalid type for 'messages[0].tool_calls[0].function.arguments'",
    ),
    "another role": (message(role="judge", content="Hi"), "Invalid value: 'judge'"),
}


@pytest.mark.parametrize(("body", "words"), REFUSED.values(), ids=REFUSED)
def test_malformed_requests_are_refused(body: bytes, words: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        parse_request(body)
    assert words in caught.value.message


def test_lines_are_those_of_ollama() -> None:
    events = [
        ResponseStarted("1", "m"),
        ReasoningDelta("Hm."),
        TextDelta("Hi"),
        UsageReported(Usage(input_tokens=3, output_tokens=2)),
        ResponseFinished("stop"),
    ]
    head = b'{"model":"m","created_at":"2025-03-28T16:52:49Z","message":{"role":"assistant","content":"'
    assert list(encode_stream(events, created=1743180769)) == [
        head + b'","thinking":"Hm."},"done":false}\n',
        head + b'Hi"},"done":false}\n',
        head + b'"},"done":true,"done_reason":"stop","total_duration":0,"load_duration":0,"prompt_eval_count":3,'
        b'"prompt_eval_duration":0,"eval_count":2,"eval_duration":0}\n',
    ]
    assert (ENCODER.is_sse, ENCODER.stream_type) == (False, "application/x-ndjson")


@pytest.mark.parametrize(
    ("text", "value", "arguments"),
    [('{"a":1}', {"a": 1}, {"a": 1}), ('{"a"', None, {"input": '{"a"'}), ("[1]", [1], {"input": "[1]"})],
)
def test_arguments_are_objects(text: str, value: Any, arguments: dict[str, Any]) -> None:
    whole = ToolCallFinished(0, "a", "f", text, value)
    events = [ToolCallStarted(0, "a", "f"), whole, ResponseFinished("tool_calls")]
    for body in (b"".join(encode_stream(events)), encode_response(events)):
        (call,) = decode_body(API, body).tool_calls
        assert (call.id, call.name, call.arguments) == ("a", "f", arguments)


def test_a_call_that_was_not_finished_is_not_lost() -> None:
    events = [
        ToolCallStarted(0, "a", "f"),
        ToolCallDelta(0, '{"a"'),
        ToolCallDelta(0, ": "),
        ToolCallDelta(5, "x"),
        ResponseFinished("tool_calls"),
    ]
    (call,) = decode_body(API, b"".join(encode_stream(events))).tool_calls
    assert (call.id, call.name, call.arguments) == ("a", "f", {"input": '{"a": '})


def test_events_that_the_api_cannot_express() -> None:
    events = [
        Attempt(2, "ServerError", "x", 0.1, "m"),
        RefusalDelta("No."),
        MediaDelta("audio/pcm", "AAAA"),
        MediaDelta("image/*", url="https://a.test/1.png"),
        Citation("https://a.test"),
        ProviderPart("x", "signature", "sig"),
        ResponseFinished("refusal"),
    ]
    for response in (decode_body(API, b"".join(encode_stream(events))), decode_body(API, encode_response(events))):
        assert response.content.parts == (TextPart("No."),)
        assert (response.finish_reason, response.raw_finish_reason) == ("stop", "stop")


def test_log_probabilities() -> None:
    events = [TextDelta("Hi", (TokenLogprob("Hi", float("-inf")),)), ResponseFinished("stop")]
    for body in (b"".join(encode_stream(events)), encode_response(events)):
        assert decode_body(API, body).content.parts == (TextPart("Hi", (TokenLogprob("Hi", -9999.0),)),)


def test_a_cut_answer_has_no_end() -> None:
    with pytest.raises(TruncatedError):
        decode_body(API, b"".join(encode_stream([TextDelta("Hi")])))
    assert json.loads(encode_response([TextDelta("Hi")]))["done"] is False


def test_errors() -> None:
    assert encode_error(RateLimitError("Slow down", status_code=429)) == b'{"error":"Slow down"}'
    body = b"".join(encode_stream([TextDelta("Hi")])) + encode_stream_error(OverloadedError("Busy"))
    with pytest.raises(OverloadedError, match="Busy"):
        decode_body(API, body)
