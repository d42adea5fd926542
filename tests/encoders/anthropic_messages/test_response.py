"""Encode responses of Anthropic's Messages."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lm_deluge import errors
from lm_deluge.encoders.catalog import find_encoder
from lm_deluge.errors import APIError
from lm_deluge.events import (
    Attempt,
    Citation,
    Event,
    FinishReason,
    MediaDelta,
    ProviderPart,
    ReasoningDelta,
    RefusalDelta,
    ResponseFinished,
    ResponseStarted,
    TextDelta,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
    UsageReported,
)
from lm_deluge.testing import decode_body, encode_events
from lm_deluge.usage import Usage

API = "anthropic-messages"
ENCODER = find_encoder(API)
STARTED = ResponseStarted("msg_1", "claude")
NO_TOKENS = {
    "input_tokens": 0,
    "cache_creation_input_tokens": None,
    "cache_read_input_tokens": None,
    "output_tokens": 0,
}


def frames_of(*events: Event) -> list[dict[str, Any]]:
    """Return the data of the frames, after a check that the name of each frame is its type."""
    found = []
    for frame in encode_events(API, events):
        head, data, *rest = frame.decode().split("\n")
        assert rest == ["", ""]
        found.append(json.loads(data.removeprefix("data: ")))
        assert head == f"event: {found[-1]['type']}"
    return found


def blocks_of(*events: Event) -> list[dict[str, Any]]:
    """Return the content of the response that is not streamed."""
    content: list[dict[str, Any]] = json.loads(ENCODER.encode_response([STARTED, *events]))["content"]
    return content


def test_a_stream() -> None:
    usage = Usage(input_tokens=9, output_tokens=4, cache_read_tokens=5, cache_write_tokens=1, reasoning_tokens=2)
    counts = {
        "input_tokens": 3,
        "cache_creation_input_tokens": 1,
        "cache_read_input_tokens": 5,
        "output_tokens": 4,
        "output_tokens_details": {"thinking_tokens": 2},
    }
    frames = frames_of(STARTED, TextDelta("a"), TextDelta("é"), UsageReported(usage), ResponseFinished("stop"))
    assert frames == [
        {
            "type": "message_start",
            "message": {
                "id": "msg_1",
                "model": "claude",
                "type": "message",
                "role": "assistant",
                "content": [],
                "stop_reason": None,
                "stop_sequence": None,
                "usage": NO_TOKENS,
            },
        },
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "a"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "é"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": counts},
        {"type": "message_stop"},
    ]


def test_each_frame_comes_as_soon_as_its_events_went_in() -> None:
    taken: list[Event] = []

    def source() -> Any:
        for each in (STARTED, UsageReported(Usage()), TextDelta("a"), TextDelta("b"), ResponseFinished("stop")):
            taken.append(each)
            yield each

    frames = encode_events(API, source())
    seen = [(next(frames).split(b"\n")[0].removeprefix(b"event: "), len(taken)) for _ in range(4)]
    assert seen == [
        (b"message_start", 2),
        (b"content_block_start", 3),
        (b"content_block_delta", 3),
        (b"content_block_delta", 4),
    ]


@pytest.mark.parametrize(
    ("reason", "raw", "word"),
    [
        ("stop", None, "end_turn"),
        ("stop", "stop", "end_turn"),
        ("stop", "stop_sequence", "stop_sequence"),
        ("length", "length", "max_tokens"),
        ("tool_calls", None, "tool_use"),
        ("content_filter", "content_filter", "refusal"),
        ("refusal", None, "refusal"),
        ("pause", None, "pause_turn"),
    ],
)
def test_why_it_ends(reason: FinishReason, raw: str | None, word: str) -> None:
    assert frames_of(STARTED, ResponseFinished(reason, raw))[-2]["delta"]["stop_reason"] == word


def test_an_answer_that_broke_off_is_an_error() -> None:
    frames = frames_of(STARTED, TextDelta("a"), ResponseFinished("error", "abort"))
    assert frames[-1]["type"] == "error"
    assert frames[-1]["error"] == {"type": "api_error", "message": "the response ended with an error: abort"}
    body = json.loads(ENCODER.encode_response([STARTED, TextDelta("a"), ResponseFinished("error")]))
    assert body["stop_reason"] is None


def test_a_cut_answer_has_no_end() -> None:
    frames = frames_of(STARTED, TextDelta("a"), ToolCallStarted(0, "t", "f"), ToolCallDelta(0, '{"x'))
    assert [frame["type"] for frame in frames[-2:]] == ["content_block_start", "content_block_delta"]
    body = json.loads(ENCODER.encode_response([STARTED, ToolCallStarted(0, "t", "f"), ToolCallDelta(0, '{"x')]))
    assert body["stop_reason"] is None
    assert body["content"] == [{"type": "tool_use", "id": "t", "name": "f", "input": {}}]


def test_calls_that_come_mixed() -> None:
    frames = frames_of(
        STARTED,
        TextDelta("a"),
        ToolCallStarted(0, "t", "f"),
        ToolCallStarted(1, "u", "g"),
        ToolCallDelta(0, "{}"),
        ToolCallDelta(1, '{"x":1}'),
        ToolCallFinished(1, "u", "g", '{"x":1}', {"x": 1}),
        ResponseFinished("tool_calls"),
    )
    assert [(frame["type"].removeprefix("content_block_"), frame["index"]) for frame in frames if "index" in frame] == [
        *(("start", 0), ("delta", 0), ("stop", 0)),
        *(("start", 1), ("start", 2), ("delta", 1), ("delta", 2), ("stop", 2), ("stop", 1)),
    ]


def test_a_call_that_was_never_streamed() -> None:
    done = ToolCallFinished(0, "t", "f", '{"x":1}', {"x": 1})
    assert blocks_of(done) == [{"type": "tool_use", "id": "t", "name": "f", "input": {"x": 1}}]
    assert blocks_of(ToolCallStarted(0, "t", "f"), done) == blocks_of(done)


def test_input_that_is_no_json_has_a_name() -> None:
    events = (ToolCallStarted(0, "t", "f"), ToolCallDelta(0, '{"x'), ToolCallFinished(0, "t", "f", '{"x', None, "no"))
    assert blocks_of(*events)[0]["input"] == {"INVALID_JSON": '{"x'}


def test_free_text_for_a_tool_is_a_field() -> None:
    events = (
        ToolCallStarted(0, "t", "f", custom=True),
        ToolCallDelta(0, "free"),
        ToolCallFinished(0, "t", "f", "free", custom=True),
    )
    assert blocks_of(*events)[0]["input"] == {"input": "free"}


def test_thoughts_and_their_signatures() -> None:
    events = (
        ReasoningDelta("a"),
        ProviderPart("x", "signature", "s"),
        ProviderPart("x", "signature", "t"),
        ReasoningDelta("b"),
    )
    assert blocks_of(*events) == [
        {"type": "thinking", "thinking": "a", "signature": "s"},
        {"type": "thinking", "thinking": "", "signature": "t"},
        {"type": "thinking", "thinking": "b", "signature": ""},
    ]


def test_sources_of_other_providers() -> None:
    page = {
        "type": "web_search_result_location",
        "cited_text": "",
        "url": "https://a.test",
        "title": "A",
        "encrypted_index": "",
    }
    events = (TextDelta("a"), Citation("https://a.test", "A", 0, 1, {"url": "https://a.test"}), Citation(title="B"))
    assert blocks_of(*events) == [{"type": "text", "text": "a", "citations": [page]}]


def test_sources_that_come_only_as_opaque_data() -> None:
    source = {"type": "page_location", "cited_text": "c"}
    assert blocks_of(TextDelta("a"), ProviderPart("x", "citations", [source]), TextDelta("b")) == [
        {"type": "text", "text": "a", "citations": [source]},
        {"type": "text", "text": "b"},
    ]


def test_events_that_the_api_cannot_express_are_left_out() -> None:
    assert blocks_of(
        RefusalDelta("No."),
        TextDelta(""),
        MediaDelta("image/png", "AA=="),
        Attempt(2, "ServerError", "x", 1.0, "m"),
        ProviderPart("x", "reasoning_details", []),
        ProviderPart("x", "citations", []),
        ProviderPart("x", "tool_use", {"caller": {}}),
        ToolCallDelta(7, "{}"),
    ) == [{"type": "text", "text": "No."}]


def test_an_answer_without_a_head_gets_one() -> None:
    frames = frames_of(TextDelta("a"), ResponseFinished("stop"))
    assert (frames[0]["message"]["id"], frames[0]["message"]["model"]) == ("", "")


def test_nothing_is_no_answer() -> None:
    assert list(encode_events(API, [])) == []
    assert ENCODER.encode_response([]) == b"{}"


ERRORS = [
    (errors.BadRequestError, "invalid_request_error"),
    (errors.ContextLengthError, "invalid_request_error"),
    (errors.ContentFilterError, "invalid_request_error"),
    (errors.AuthenticationError, "authentication_error"),
    (errors.PermissionDeniedError, "permission_error"),
    (errors.QuotaExceededError, "billing_error"),
    (errors.NotFoundError, "not_found_error"),
    (errors.RequestTooLargeError, "request_too_large"),
    (errors.RateLimitError, "rate_limit_error"),
    (errors.OverloadedError, "overloaded_error"),
    (errors.ServerError, "api_error"),
]


@pytest.mark.parametrize(("kind", "word"), ERRORS)
def test_error_types(kind: type[APIError], word: str) -> None:
    body = json.loads(ENCODER.encode_error(kind("No.", type="insufficient_quota")))
    assert body == {"type": "error", "error": {"type": word, "message": "No."}, "request_id": None}


def test_a_word_of_its_own_stays() -> None:
    body = json.loads(ENCODER.encode_error(errors.ServerError("Slow.", type="timeout_error")))
    assert body["error"]["type"] == "timeout_error"


@pytest.mark.parametrize(("kind", "word"), [pair for pair in ERRORS if pair[0].__subclasses__() == []])
def test_an_error_in_the_stream_is_read_again(kind: type[APIError], word: str) -> None:
    body = b"".join(encode_events(API, [STARTED, TextDelta("a")])) + ENCODER.encode_stream_error(kind("No."))
    with pytest.raises(APIError) as caught:
        decode_body(API, body)
    assert (caught.value.type, caught.value.message) == (word, "No.")
