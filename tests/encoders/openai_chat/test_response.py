"""Responses of Chat Completions are decoded as the same response that was encoded."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given, settings

from encoders.answers import answers, comparable, normal_form
from lm_deluge.encoders.openai_chat.response import encode_response, encode_stream
from lm_deluge.errors import ConfigurationError, TruncatedError
from lm_deluge.events import (
    Attempt,
    Citation,
    Event,
    ProviderPart,
    ReasoningDelta,
    ResponseFinished,
    ResponseStarted,
    TextDelta,
    TokenLogprob,
    ToolCallFinished,
    UsageReported,
)
from lm_deluge.prompt.parts import AudioPart, ImagePart, Part, ProviderDataPart, ReasoningPart, TextPart
from lm_deluge.response import APIResponse
from lm_deluge.testing import decode_body, decode_events, encode_events
from lm_deluge.usage import Usage

API = "openai-chat"
SETTINGS = settings(deadline=None, max_examples=60)
START = ResponseStarted("chatcmpl-1", "gpt-4o")


def chunks_of(events: list[Event], **options: object) -> list[dict]:
    """Return the JSON of every frame except the end mark."""
    frames = list(encode_stream(events, **options))
    assert all(frame.startswith(b"data: ") and frame.endswith(b"\n\n") for frame in frames)
    return [json.loads(frame[6:]) for frame in frames if b"[DONE]" not in frame]


@given(answers())
@SETTINGS
def test_a_stream_is_read_again_as_its_normal_form(events: list[Event]) -> None:
    body = b"".join(encode_events(API, events))
    assert comparable(list(decode_events(API, body))) == comparable(normal_form(events))


@given(answers())
@SETTINGS
def test_a_stream_is_read_the_same_byte_by_byte(events: list[Event]) -> None:
    body = b"".join(encode_events(API, events))
    assert list(decode_events(API, body)) == list(decode_events(API, [body[at : at + 1] for at in range(len(body))]))


@given(answers())
@SETTINGS
def test_writing_is_stable_once_an_answer_was_read(events: list[Event]) -> None:
    once = list(decode_events(API, b"".join(encode_events(API, events))))
    twice = list(decode_events(API, b"".join(encode_events(API, once))))
    assert comparable(twice) == comparable(once)


@given(answers())
@SETTINGS
def test_plain_and_streamed_answers_are_equal_but_for_the_order_of_parts(events: list[Event]) -> None:
    streamed = decode_body(API, encode_events(API, events))
    plain = decode_body(API, encode_response(events))
    assert summary(plain) == summary(streamed)


@given(answers(in_order=True, with_logprobs=False))
@SETTINGS
def test_plain_and_streamed_answers_in_the_order_of_the_fields_are_equal(events: list[Event]) -> None:
    streamed = decode_body(API, encode_events(API, events))
    plain = decode_body(API, encode_response(events))
    assert plain.content.parts == streamed.content.parts


def summary(response: APIResponse) -> dict:
    """Return the content of a response, grouped by kind of part."""
    by_kind: dict[str, list[Part]] = {}
    for part in response.content.parts:
        by_kind.setdefault(type(part).__name__, []).append(part)
    audio = [part for part in response.content.parts if isinstance(part, AudioPart)]
    return {
        "text": response.completion,
        "thinking": response.thinking,
        "refusal": response.content.refusal,
        "logprobs": [each for part in by_kind.get("TextPart", ()) for each in part.logprobs],
        "calls": response.tool_calls,
        "audio": (b"".join(part.media.data or b"" for part in audio), "".join(part.transcript or "" for part in audio)),
        "images": by_kind.get(ImagePart.__name__),
        "opaque": by_kind.get(ProviderDataPart.__name__),
        "citations": response.citations,
        "usage": response.usage,
        "end": (response.finish_reason, response.raw_finish_reason, response.warnings),
        "who": (response.response_id, response.model_external),
    }


def test_frames_are_those_of_openai() -> None:
    usage = Usage(input_tokens=12, output_tokens=2, cache_read_tokens=0, reasoning_tokens=0)
    body = b"".join(
        encode_stream([START, TextDelta("Hi"), UsageReported(usage), ResponseFinished("stop")], created=1743181369)
    )
    head = (
        b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1743181369,"model":"gpt-4o",'
        b'"system_fingerprint":null,"choices":['
    )
    assert body == (
        head + b'{"index":0,"delta":{"role":"assistant","content":"","refusal":null},"logprobs":null,'
        b'"finish_reason":null}],"usage":null}\n\n'
        + head
        + b'{"index":0,"delta":{"content":"Hi"},"logprobs":null,"finish_reason":null}],"usage":null}\n\n'
        + head
        + b'{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}],"usage":null}\n\n'
        + head
        + b'],"usage":{"prompt_tokens":12,"completion_tokens":2,"total_tokens":14,'
        b'"prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":0}}}\n\n'
        b"data: [DONE]\n\n"
    )


def test_usage_that_was_not_asked_for_is_not_written() -> None:
    events = [START, UsageReported(Usage(input_tokens=1)), ResponseFinished("stop")]
    chunks = chunks_of(events, include_usage=False)
    assert all("usage" not in chunk for chunk in chunks)
    assert len(chunks) == 2


def test_an_answer_that_was_cut_gets_no_end() -> None:
    body = list(encode_events(API, [START, TextDelta("Half an ans")]))
    assert b"[DONE]" not in b"".join(body)
    with pytest.raises(TruncatedError) as caught:
        decode_body(API, body)
    assert caught.value.partial.completion == "Half an ans"
    plain = json.loads(encode_response([START, TextDelta("Half an ans")]))
    assert plain["choices"][0]["finish_reason"] is None


def test_an_answer_without_a_start_is_opened_all_the_same() -> None:
    chunks = chunks_of([TextDelta("Hi"), ResponseFinished("stop")])
    assert [chunk["choices"][0]["delta"] for chunk in chunks] == [
        {"role": "assistant", "content": "", "refusal": None},
        {"content": "Hi"},
        {},
    ]


def test_the_word_of_the_provider_is_passed_on() -> None:
    chunks = chunks_of([START, ResponseFinished("stop", "eos")])
    assert chunks[-1]["choices"][0]["finish_reason"] == "eos"


def test_a_call_that_came_whole_is_written_with_its_arguments() -> None:
    done = ToolCallFinished(0, "call_1", "weather", '{"city":"Paris"}', {"city": "Paris"})
    chunks = chunks_of([START, done, ResponseFinished("tool_calls")])
    first, second = (chunk["choices"][0]["delta"]["tool_calls"][0] for chunk in chunks[1:3])
    assert first == {
        "index": 0,
        "id": "call_1",
        "type": "function",
        "function": {"name": "weather", "arguments": ""},
    }
    assert second == {"index": 0, "function": {"arguments": '{"city":"Paris"}'}}


def test_events_that_the_api_cannot_express_are_left_out() -> None:
    events = [
        START,
        Attempt(2, "RateLimitError", "too fast", 1.0, "gpt-4o"),
        Citation(title="a book"),
        ProviderPart("anthropic", "thinking", {"signature": "x"}),
        ResponseFinished("stop", warnings=("no_done",)),
    ]
    assert len(chunks_of(events)) == 2


def test_a_citation_keeps_the_object_of_its_provider() -> None:
    raw = {"type": "url_citation", "url_citation": {"url": "https://example.org", "content": "kept"}}
    chunks = chunks_of([START, Citation("https://example.org", raw=raw)])
    assert chunks[1]["choices"][0]["delta"]["annotations"] == [raw]


def test_an_impossible_token_is_written_as_openai_does() -> None:
    chunks = chunks_of([START, TextDelta("x", (TokenLogprob("x", float("-inf")),))])
    assert chunks[1]["choices"][0]["logprobs"]["content"][0]["logprob"] == -9999.0


def test_frames_come_out_as_events_go_in() -> None:
    taken: list[str] = []

    def slowly() -> object:
        for word in ("one", "two"):
            taken.append(word)
            yield TextDelta(word)

    frames = encode_stream(slowly())
    next(frames)
    next(frames)
    assert taken == ["one"]


def test_reasoning_has_its_own_field() -> None:
    plain = json.loads(encode_response([START, ReasoningDelta("hm"), TextDelta("yes"), ResponseFinished("stop")]))
    message = plain["choices"][0]["message"]
    assert (message["reasoning_content"], message["content"]) == ("hm", "yes")
    parts = decode_body(API, msgspec.json.encode(plain)).content.parts
    assert parts == (ReasoningPart("hm"), TextPart("yes"))


def test_an_unknown_api_is_refused_by_name() -> None:
    with pytest.raises(
        ConfigurationError, match=r"there is no encoder for a wire API 'morse'\. Use one of: .*openai-chat"
    ):
        list(encode_events("morse", []))


@pytest.mark.parametrize("is_streamed", [True, False])
def test_audio_tokens_and_the_tier_are_part_of_the_usage(*, is_streamed: bool) -> None:
    usage = Usage(input_tokens=12, output_tokens=2, input_audio_tokens=5, output_audio_tokens=1, service_tier="flex")
    events = [START, UsageReported(usage), ResponseFinished("stop")]
    body = b"".join(encode_stream(events)) if is_streamed else encode_response(events)
    read = decode_body("openai-chat", body).usage
    assert read is not None
    assert (read.input_audio_tokens, read.output_audio_tokens, read.service_tier) == (5, 1, "flex")
