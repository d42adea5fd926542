"""Server side of Cohere's chat API: parse requests, encode responses."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lm_deluge.config import SamplingParams
from lm_deluge.encoders.cohere_v2.request import parse_request
from lm_deluge.encoders.cohere_v2.response import encode_error, encode_response, encode_stream, encode_stream_error
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
    ToolCallFinished,
    UsageReported,
)
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import ProviderDataPart, ReasoningPart, TextPart, ToolCallPart
from lm_deluge.prompt.tool import Tool
from lm_deluge.testing import decode_body
from lm_deluge.usage import Usage
from samples import api_calls

API = "cohere-v2"


def request(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hi"}], **fields}).encode()


def message(**fields: Any) -> bytes:
    return request(messages=[fields])


def test_requests_of_the_adapter_are_parsed() -> None:
    conversation = Conversation(
        [
            Message.system("Be short."),
            Message.user("See").with_image(b"\x89PNG\r\n\x1a\n rest", detail="low").with_image("https://a.test/1.png"),
            Message(
                "assistant",
                (
                    ReasoningPart("Hm."),
                    TextPart("So."),
                    ProviderDataPart(API, "tool_plan", "I will add."),
                    ToolCallPart("add_1", "add", '{"n": 1}', {"n": 1}),
                ),
            ),
            Message.tool_result("add_1", "4"),
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
        tool_choice="required",
    )
    closed = {"type": "object", "properties": {}, "additionalProperties": False}
    tools = (Tool(name="add", parameters=closed, strict=True),)
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    extra = {"documents": ["a"], "k": 3}
    call = api_calls.call_of(API, conversation, params=params, tools=tools, output=schema, extra_body=extra)
    parsed = parse_request(api_calls.built(api_calls.with_owner(call, API)))
    assert parsed.conversation == conversation
    assert (parsed.params, parsed.tools, parsed.output) == (params, tools, schema)
    assert (parsed.is_streamed, parsed.wants_usage, parsed.extra) == (True, True, extra)


def test_forms_of_older_clients() -> None:
    schema = {"type": "object"}
    parsed = parse_request(request(response_format={"type": "json_object", "schema": schema}))
    assert (parsed.output, parsed.params.json_mode) == (schema, False)
    assert parse_request(request(response_format={"type": "json_object"})).params.json_mode


def test_results_of_tools_may_be_documents() -> None:
    content = [{"type": "document", "document": {"data": {"a": "sun", "n": 1}}}, {"type": "text", "text": "ny"}]
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    result = {"role": "tool", "tool_call_id": "a", "content": content}
    parsed = parse_request(request(messages=[{"role": "assistant", "tool_calls": [call]}, result]))
    assert parsed.conversation[1] == Message.tool_result("a", "sunny")


def test_a_budget_that_is_no_effort_is_passed_on() -> None:
    thinking = {"type": "enabled", "token_budget": 77}
    parsed = parse_request(request(thinking=thinking))
    assert (parsed.params.reasoning_effort, parsed.extra) == (None, {"thinking": thinking})


REFUSED = {
    "no JSON": (b"{", "We could not parse the JSON body"),
    "no model": (b'{"messages": []}', "Missing required parameter: 'model'."),
    "another choice": (request(tool_choice="MAYBE"), "Invalid value: 'MAYBE' for 'tool_choice'"),
    "audio": (message(role="user", content=[{"type": "input_audio"}]), "Invalid value: 'input_audio'"),
    "no id of the call": (message(role="tool", content="x"), "Missing required parameter: 'messages[0].tool_call_id'."),
    "a number out of range": (request(p=3), "top_p=3 is not a number between 0 and 1"),
}


@pytest.mark.parametrize(("body", "words"), REFUSED.values(), ids=REFUSED)
def test_malformed_requests_are_refused(body: bytes, words: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        parse_request(body)
    assert words in caught.value.message


def test_frames_are_those_of_cohere() -> None:
    usage = Usage(input_tokens=3, output_tokens=2, cache_read_tokens=1, reasoning_tokens=1)
    events = [
        ResponseStarted("1", "m"),
        ReasoningDelta("Hm."),
        TextDelta("Hi"),
        UsageReported(usage),
        ResponseFinished("stop"),
    ]
    assert b"".join(encode_stream(events)) == (
        b'event: message-start\ndata: {"type":"message-start","id":"1","delta":{"message":{"role":"assistant",'
        b'"content":[],"tool_plan":"","tool_calls":[],"citations":[]}}}\n\n'
        b'event: content-start\ndata: {"type":"content-start","index":0,"delta":{"message":{"content":'
        b'{"type":"thinking","thinking":""}}}}\n\n'
        b'event: content-delta\ndata: {"type":"content-delta","index":0,"delta":{"message":{"content":'
        b'{"thinking":"Hm."}}}}\n\n'
        b'event: content-end\ndata: {"type":"content-end","index":0}\n\n'
        b'event: content-start\ndata: {"type":"content-start","index":1,"delta":{"message":{"content":'
        b'{"type":"text","text":""}}}}\n\n'
        b'event: content-delta\ndata: {"type":"content-delta","index":1,"delta":{"message":{"content":'
        b'{"text":"Hi"}}}}\n\n'
        b'event: content-end\ndata: {"type":"content-end","index":1}\n\n'
        b'event: message-end\ndata: {"type":"message-end","delta":{"finish_reason":"COMPLETE","usage":{"billed_units":'
        b'{"input_tokens":3,"output_tokens":2},"tokens":{"input_tokens":3,"output_tokens":2,"reasoning_tokens":1},'
        b'"cached_tokens":1}}}\n\n'
        b"data: [DONE]\n\n"
    )


def test_calls_that_come_whole() -> None:
    whole = ToolCallFinished(0, "a", "f", '{"a": 1}', {"a": 1})
    (call,) = decode_body(API, b"".join(encode_stream([whole, ResponseFinished("tool_calls")]))).tool_calls
    assert (call.id, call.name, call.arguments) == ("a", "f", {"a": 1})


def test_events_that_the_api_cannot_express() -> None:
    events = [
        Attempt(2, "ServerError", "x", 0.1, "m"),
        RefusalDelta("No."),
        MediaDelta("audio/pcm", "AAAA"),
        ProviderPart("x", "signature", "sig"),
        ResponseFinished("refusal"),
    ]
    for response in (decode_body(API, b"".join(encode_stream(events))), decode_body(API, encode_response(events))):
        assert response.content.parts == (TextPart("No."),)
        assert (response.finish_reason, response.raw_finish_reason) == ("stop", "COMPLETE")


def test_log_probabilities() -> None:
    events = [TextDelta("Hi", (TokenLogprob("Hi", float("-inf")),)), ResponseFinished("stop")]
    for body in (b"".join(encode_stream(events)), encode_response(events)):
        assert decode_body(API, body).content.parts == (TextPart("Hi", (TokenLogprob("Hi", -9999.0),)),)


def test_citations_of_the_provider_pass_as_they_are() -> None:
    raw = {"start": 0, "end": 2, "text": "Hi", "sources": [{"type": "tool", "id": "a:0", "tool_output": {"x": 1}}]}
    events = [TextDelta("Hi"), Citation(start=0, end=2, raw=raw), ResponseFinished("stop")]
    for body in (b"".join(encode_stream(events)), encode_response(events)):
        assert decode_body(API, body).citations == (Citation(start=0, end=2, raw=raw),)


def test_a_cut_answer_has_no_end() -> None:
    with pytest.raises(TruncatedError):
        decode_body(API, b"".join(encode_stream([TextDelta("Hi")])))
    assert json.loads(encode_response([TextDelta("Hi")]))["finish_reason"] is None


def test_errors() -> None:
    assert encode_error(RateLimitError("Slow down", status_code=429)) == b'{"message":"Slow down"}'
    body = b"".join(encode_stream([TextDelta("Hi")])) + encode_stream_error(OverloadedError("Busy"))
    with pytest.raises(OverloadedError, match="Busy"):
        decode_body(API, body)
