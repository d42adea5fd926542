"""Responses of Cohere from literal bytes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lm_deluge.adapters.adapter import Call
from lm_deluge.adapters.cohere_v2.adapter import CohereV2
from lm_deluge.errors import (
    APIError,
    AuthenticationError,
    BadRequestError,
    DelugeError,
    ProtocolError,
    RateLimitError,
    ServerError,
    TruncatedError,
)
from lm_deluge.events import (
    Citation,
    ProviderPart,
    ReasoningDelta,
    ResponseFinished,
    ResponseStarted,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
    UsageReported,
)
from lm_deluge.models.rows import ModelRow, ProviderRow
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.testing import decode_body, decode_events
from lm_deluge.usage import Usage

API = "cohere-v2"


def frame(kind: str, *, event: bool = True, **fields: Any) -> bytes:
    head = b"event: %b\n" % kind.encode() if event else b""
    return head + b"data: %b\n\n" % json.dumps({"type": kind, **fields}).encode()


def piece(index: int = 0, **content: str) -> bytes:
    return frame("content-delta", index=index, delta={"message": {"content": content}})


def plan(words: str) -> bytes:
    return frame("tool-plan-delta", delta={"message": {"tool_plan": words}})


def called(kind: str, index: int, **call: Any) -> bytes:
    return frame(f"tool-call-{kind}", index=index, delta={"message": {"tool_calls": call}} if call else None)


def end(reason: str | None = "COMPLETE", **more: Any) -> bytes:
    return frame("message-end", delta={"finish_reason": reason, **more}) + b"data: [DONE]\n\n"


START = frame("message-start", id="1", delta={"message": {"role": "assistant", "content": [], "tool_plan": ""}})


def test_an_answer_that_thinks_first() -> None:
    usage = {
        "billed_units": {"input_tokens": 1, "output_tokens": 2},
        "tokens": {"input_tokens": 10.0, "output_tokens": 3, "reasoning_tokens": 2},
        "cached_tokens": 8,
    }
    body = (
        START
        + frame("content-start", index=0, delta={"message": {"content": {"type": "thinking", "thinking": ""}}})
        + piece(thinking="Hm.")
        + frame("content-end", index=0)
        + frame("content-start", index=1, delta={"message": {"content": {"type": "text", "text": "Fo"}}})
        + piece(1, text="ur")
        + frame("content-end", index=1)
        + end(usage=usage)
    )
    counted = Usage(input_tokens=10, output_tokens=3, cache_read_tokens=8, reasoning_tokens=2, raw=usage)
    assert list(decode_events(API, body)) == [
        ResponseStarted("1"),
        ReasoningDelta("Hm."),
        TextDelta("Fo"),
        TextDelta("ur"),
        UsageReported(counted),
        ResponseFinished("stop", "COMPLETE"),
    ]


def test_a_plan_is_kept_whole_in_front_of_the_calls() -> None:
    body = (
        START
        + plan("I will")
        + plan(" add.")
        + called("start", 0, id="a", type="function", function={"name": "add", "arguments": ""})
        + called("delta", 0, function={"arguments": '{"n"'})
        + called("delta", 0, function={"arguments": ": 1}"})
        + called("end", 0)
        + called("start", 1, id="b", type="function", function={"name": "now", "arguments": ""})
        + called("end", 1)
        + end("TOOL_CALL")
    )
    assert list(decode_events(API, body)) == [
        ResponseStarted("1"),
        ProviderPart("recording", "tool_plan", "I will add."),
        ToolCallStarted(0, "a", "add"),
        ToolCallDelta(0, '{"n"'),
        ToolCallDelta(0, ": 1}"),
        ToolCallFinished(0, "a", "add", '{"n": 1}', {"n": 1}),
        ToolCallStarted(1, "b", "now"),
        ToolCallFinished(1, "b", "now", "", {}),
        ResponseFinished("tool_calls", "TOOL_CALL"),
    ]


def test_a_plan_without_calls_is_kept_too() -> None:
    events = list(decode_events(API, START + plan("I will not.") + end()))
    assert ProviderPart("recording", "tool_plan", "I will not.") in events


def test_calls_may_come_as_lists_and_their_arguments_as_objects() -> None:
    call = {"id": "a", "function": {"name": "add", "arguments": {"n": 1}}}
    body = START + frame("tool-call-start", index=0, delta={"message": {"tool_calls": [call]}}) + end("TOOL_CALL")
    (found,) = decode_body(API, body).tool_calls
    assert (found.name, found.arguments) == ("add", {"n": 1})


def test_every_call_in_a_list_is_read() -> None:
    start = [{"id": name, "type": "function", "function": {"name": name, "arguments": ""}} for name in ("add", "mul")]
    pieces = [{"function": {"arguments": '{"n": '}}, {"function": {"arguments": '{"m": '}}]
    rests = [{"function": {"arguments": "1}"}}, {"function": {"arguments": "2}"}}]
    lists = [("start", start), ("delta", pieces), ("delta", rests)]
    body = START + b"".join(
        frame(f"tool-call-{kind}", index=0, delta={"message": {"tool_calls": calls}}) for kind, calls in lists
    )
    body += called("end", 0) + called("start", 1, **start[0]) + called("end", 1) + end("TOOL_CALL")
    found = decode_body(API, body).tool_calls
    assert [(call.name, call.arguments) for call in found] == [("add", {"n": 1}), ("mul", {"m": 2}), ("add", {})]


def test_each_source_of_a_citation_is_an_event() -> None:
    of_tool = {"type": "tool", "id": "a:0", "tool_output": {"content": "x"}}
    of_page = {"type": "document", "id": "d", "document": {"url": "https://a.test", "title": "T"}}
    raw = {"start": 0, "end": 4, "text": "Four", "sources": [of_tool, of_page], "type": "TEXT_CONTENT"}
    of_plan = {**raw, "sources": [], "type": "PLAN"}
    body = (
        START
        + piece(text="Four")
        + frame("citation-start", index=0, delta={"message": {"citations": raw}})
        + frame("citation-end", index=0)
        + frame("citation-start", index=1, delta={"message": {"citations": of_plan}})
        + end()
    )
    assert decode_body(API, body).citations == (
        Citation(start=0, end=4, raw={**raw, "sources": [of_tool]}),
        Citation("https://a.test", "T", 0, 4, {**raw, "sources": [of_page]}),
        Citation(raw=of_plan),
    )


def test_log_probabilities_of_a_piece() -> None:
    logprobs = {"text": "Four", "token_ids": [1, 2], "logprobs": [-0.5, -0.25]}
    body = (
        START
        + frame("content-delta", index=0, delta={"message": {"content": {"text": "Four"}}}, logprobs=logprobs)
        + end()
    )
    assert TextDelta("Four", (TokenLogprob("Four", -0.75),)) in list(decode_events(API, body))


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("COMPLETE", "stop"),
        ("STOP_SEQUENCE", "stop"),
        ("MAX_TOKENS", "length"),
        ("TOOL_CALL", "tool_calls"),
        ("ERROR_TOXIC", "content_filter"),
        ("ERROR_LIMIT", "length"),
        ("NEW", "stop"),
    ],
)
def test_finish_reasons(word: str, reason: str) -> None:
    response = decode_body(API, START + piece(text="Hi") + end(word))
    assert (response.finish_reason, response.raw_finish_reason) == (reason, word)
    assert response.warnings == {"NEW": ("unknown_finish_reason",)}.get(word, ())


def test_a_last_event_without_a_finish_reason_ends_the_answer_only_if_it_has_usage() -> None:
    usage = {"tokens": {"input_tokens": 3, "output_tokens": 1}}
    response = decode_body(API, START + piece(text="Hi") + end(None, usage=usage))
    assert (response.finish_reason, response.raw_finish_reason) == ("stop", None)
    assert response.warnings == ("no_finish_reason",)
    with pytest.raises(TruncatedError) as caught:
        decode_body(API, START + piece(text="Hi") + end(None))
    assert caught.value.partial.completion == "Hi"


@pytest.mark.parametrize(
    ("reason", "more", "message", "status"),
    [
        ("ERROR", {"error": "the model failed"}, "the model failed", 500),
        ("ERROR", {}, "the answer broke off: ERROR", 500),
        ("TIMEOUT", {}, "the answer broke off: TIMEOUT", 504),
        (None, {"error": "gone"}, "gone", 500),
        ("ERROR", {"error": {"message": "no more"}}, "no more", 500),
    ],
)
def test_a_response_that_broke_off_is_an_error(reason: str | None, more: Any, message: str, status: int) -> None:
    with pytest.raises(ServerError) as caught:
        decode_body(API, START + piece(text="Hi") + end(reason, **more))
    assert (caught.value.message, caught.value.status_code, caught.value.billed) == (message, status, "maybe")
    assert caught.value.partial is not None
    assert caught.value.partial.completion == "Hi"


def test_the_end_needs_no_mark_and_the_mark_is_no_end() -> None:
    body = START + piece(text="Hi")
    assert decode_body(API, body + end().partition(b"data: [DONE]")[0]).finish_reason == "stop"
    with pytest.raises(TruncatedError):
        decode_body(API, body + b"data: [DONE]\n\n")


def test_types_in_the_head_are_not_needed() -> None:
    body = (
        frame("message-start", event=False, id="1")
        + frame("content-delta", event=False, delta={"message": {"content": {"text": "Hi"}}})
        + frame("debug", event=False, prompt="secret")
        + frame("message-end", event=False, delta={"finish_reason": "COMPLETE"})
    )
    assert decode_body(API, body).completion == "Hi"


def test_unknown_events_are_counted_and_known_ones_are_not() -> None:
    call = Call(
        model=ModelRow(id="m", name="m", provider="cohere"),
        provider=ProviderRow(id="cohere", otel_name="cohere", adapter=API, base_url=""),
        conversation=Conversation.user("Hi"),
    )
    decoder = CohereV2().decoder(call)
    decoder.feed(START + piece(text="Hi") + frame("content-end", index=0) + end())
    assert (decoder.is_finished, decoder.ignored) == (True, 0)
    decoder = CohereV2().decoder(call)
    decoder.feed(START + frame("new-event", x=1) + frame("content-delta", delta=None) + end())
    assert (decoder.is_finished, decoder.ignored) == (True, 1)


def test_a_plain_answer() -> None:
    body = {
        "id": "1",
        "finish_reason": "TOOL_CALL",
        "message": {
            "role": "assistant",
            "content": [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "So"}],
            "tool_plan": "I will add.",
            "tool_calls": [{"id": "a", "type": "function", "function": {"name": "add", "arguments": "{}"}}],
            "citations": [{"start": 0, "end": 2, "sources": []}],
        },
        "usage": {"billed_units": {"input_tokens": 1, "output_tokens": 2}},
        "logprobs": [{"text": "So", "token_ids": [5], "logprobs": [-0.5]}],
    }
    assert list(decode_events(API, json.dumps(body).encode())) == [
        ResponseStarted("1"),
        ReasoningDelta("Hm."),
        TextDelta("So", (TokenLogprob("So", -0.5),)),
        ProviderPart("recording", "tool_plan", "I will add."),
        ToolCallStarted(0, "a", "add"),
        ToolCallDelta(0, "{}"),
        ToolCallFinished(0, "a", "add", "{}", {}),
        Citation(start=0, end=2, raw=body["message"]["citations"][0]),
        UsageReported(Usage(input_tokens=1, output_tokens=2, raw=body["usage"])),
        ResponseFinished("tool_calls", "TOOL_CALL"),
    ]


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        (b'{"id":"1","message":"too many requests"}', APIError, "too many requests"),
        (b'{"id":"1"}', ProtocolError, "not a chat response"),
        (b"[1]", ProtocolError, "not a chat response"),
        (b"{", ProtocolError, "is not JSON"),
    ],
)
def test_documents_that_are_not_a_response(body: bytes, kind: type[DelugeError], words: str) -> None:
    with pytest.raises(kind, match=words):
        decode_body(API, body)


@pytest.mark.parametrize(
    ("status", "kind"), [(400, BadRequestError), (401, AuthenticationError), (429, RateLimitError), (500, ServerError)]
)
def test_errors(status: int, kind: type[APIError]) -> None:
    error = CohereV2().classify_error(status, {}, b'{"id":"1","message":"why not"}')
    assert (type(error), error.message) == (kind, "why not")
