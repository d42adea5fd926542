"""Chat Completions from literal bytes: the parts of a response, host by host."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lm_deluge.errors import ProtocolError
from lm_deluge.events import (
    Citation,
    MediaDelta,
    ProviderPart,
    ReasoningDelta,
    RefusalDelta,
    ResponseFinished,
    TextDelta,
)
from lm_deluge.prompt.parts import ReasoningPart, RefusalPart, TextPart, TokenLogprob, TopLogprob
from samples.chat_bytes import chunk, events_of, failure_of, frames, outcome_of, read, text

DONE = b"data: [DONE]\n\n"
END = chunk({}, "stop") + DONE


# Text and reasoning.


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning", "reasoning_text", "thinking"])
def test_each_field_that_carries_reasoning(field: str) -> None:
    response = read(chunk({field: "Let me "}) + chunk({field: "see.", "content": ""}) + text("42") + END)
    assert response.content.parts == (ReasoningPart("Let me see."), TextPart("42"))


def test_reasoning_that_comes_under_two_names_counts_once() -> None:
    details = [{"type": "reasoning.text", "text": "hm", "index": 0}]
    body = chunk({"reasoning": "hm", "reasoning_content": "hm", "reasoning_details": details})
    assert read(body + text("!") + END).thinking == "hm"


def test_reasoning_and_text_in_one_chunk_are_kept_in_that_order() -> None:
    events = events_of(chunk({"content": "a", "reasoning": "b"}) + END)
    assert events[1:3] == [ReasoningDelta("b"), TextDelta("a")]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"content": "hm"}, "hm"),
        ({"text": "hm"}, "hm"),
        ([{"type": "text", "text": "h"}, "m", 5], "hm"),
        ([], ""),
        (5, ""),
        ({"text": None, "content": None}, ""),
    ],
)
def test_reasoning_of_other_types(value: Any, expected: str) -> None:
    assert read(chunk({"reasoning": value}) + text("a") + END).thinking == expected


def test_reasoning_details_are_shown_and_joined_to_be_sent_back() -> None:
    body = b"".join(
        [
            chunk({"reasoning_details": [{"type": "reasoning.summary", "summary": "First ", "index": 0, "id": None}]}),
            chunk({"reasoning_details": [{"type": "reasoning.summary", "summary": "second.", "index": 0}]}),
            chunk({"reasoning_details": [{"type": "reasoning.text", "text": "Hm", "index": 1, "signature": None}]}),
            chunk({"reasoning_details": [{"type": "reasoning.text", "index": 1, "signature": "c2ln"}]}),
            chunk(
                {"reasoning_details": [{"type": "reasoning.encrypted", "data": "ZW5j", "index": 2, "format": "f"}, 7]}
            ),
            text("!"),
            END,
        ]
    )
    response = read(body)
    assert response.thinking == "First second.Hm"
    assert [event for event in events_of(body) if isinstance(event, ProviderPart)] == [
        ProviderPart(
            "recording",
            "reasoning_details",
            [
                {"type": "reasoning.summary", "index": 0, "summary": "First second."},
                {"type": "reasoning.text", "index": 1, "signature": "c2ln", "text": "Hm"},
                {"type": "reasoning.encrypted", "index": 2, "format": "f", "data": "ZW5j"},
            ],
        )
    ]


def test_content_as_a_list_of_typed_pieces() -> None:
    body = chunk(
        {
            "content": [
                {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}, {"type": "text", "text": "m"}]},
                {"type": "reasoning", "text": "..."},
                {"type": "text", "text": "Hi"},
                " there",
                {"type": "image"},
                5,
            ]
        }
    )
    response = read(body + END)
    assert (response.completion, response.thinking) == ("Hi there", "hmm...")


def test_refusal_in_mid_stream_keeps_the_text() -> None:
    response = read(text("Well, ") + chunk({"refusal": "I can"}) + chunk({"refusal": "not."}) + END)
    assert response.content.parts == (TextPart("Well, "), RefusalPart("I cannot."))
    assert (response.finish_reason, response.raw_finish_reason) == ("refusal", "stop")


def test_a_content_filter_in_mid_stream_keeps_the_text() -> None:
    response = read(text("Well, ") + chunk({}, "content_filter") + DONE)
    assert (response.completion, response.finish_reason) == ("Well, ", "content_filter")


def test_legacy_completions_have_text_beside_the_delta() -> None:
    body = frames(
        {"id": "1", "choices": [{"index": 0, "text": "Hel", "finish_reason": None}]},
        {"id": "1", "choices": [{"index": 0, "text": None}]},
        {"id": "1", "choices": [{"index": 0, "text": "lo", "finish_reason": "stop"}]},
    )
    assert read(body + DONE).completion == "Hello"


def test_of_several_candidates_the_first_is_read() -> None:
    body = frames(
        {"id": "1", "choices": [{"index": 1, "delta": {"content": "other"}, "finish_reason": "length"}]},
        {
            "id": "1",
            "choices": [
                {"index": 0, "delta": {"content": "mine"}, "finish_reason": "stop"},
                {"index": 2, "delta": {"content": "third"}},
            ],
        },
    )
    response = read(body + DONE)
    assert (response.completion, response.finish_reason) == ("mine", "stop")


FINISH_WORDS = {
    "stop": "stop",
    "eos": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "tool_use": "tool_calls",
    "content_filter": "content_filter",
    "refusal": "refusal",
}


@pytest.mark.parametrize(("word", "expected"), FINISH_WORDS.items())
def test_finish_words(word: str, expected: str) -> None:
    assert events_of(text("a") + chunk({}, word) + DONE)[-1] == ResponseFinished(expected, word)


def test_an_unknown_finish_word_is_kept_and_warned_about() -> None:
    finished = events_of(text("a") + chunk({}, "tired") + DONE)[-1]
    assert finished == ResponseFinished("stop", "tired", ("unknown_finish_reason",))


# Log probabilities.


def test_log_probabilities() -> None:
    logprobs = {
        "content": [
            {
                "token": "Hi",
                "logprob": -0.5,
                "bytes": [72, 105],
                "top_logprobs": [{"token": "Hi", "logprob": -0.5, "bytes": None}, {"token": "Yo", "logprob": -2}],
            }
        ],
        "refusal": None,
    }
    token = TokenLogprob("Hi", -0.5, (72, 105), (TopLogprob("Hi", -0.5), TopLogprob("Yo", -2.0)))
    assert events_of(chunk({"content": "Hi"}, logprobs=logprobs) + END)[1] == TextDelta("Hi", (token,))
    response = read(chunk({"content": "Hi"}, logprobs=logprobs) + chunk({"content": "!"}, logprobs=None) + END)
    assert response.content.parts == (TextPart("Hi!", (token,)),)


def test_log_probabilities_of_a_refusal_and_without_text() -> None:
    body = chunk({"refusal": "No"}, logprobs={"content": None, "refusal": [{"token": "No", "logprob": 0}]})
    assert events_of(body + END)[1] == RefusalDelta("No", (TokenLogprob("No", 0.0),))
    body = chunk({"content": ""}, logprobs={"content": [{"token": "", "logprob": 0, "bytes": []}]})
    assert events_of(body + END)[1] == TextDelta("", (TokenLogprob("", 0.0, ()),))


@pytest.mark.parametrize(
    "logprobs",
    [
        None,
        {},
        {"content": []},
        {"content": None, "refusal": None},
        {"content": [None]},
        {"content": [{"token": "a", "logprob": None}]},
        {"content": [{"logprob": 1}]},
        {"tokens": ["a"], "token_logprobs": [None], "top_logprobs": [None]},
        {"tokens": ["a"], "token_logprobs": []},
        [],
        5,
    ],
)
def test_missing_parts_of_log_probabilities_cost_no_text(logprobs: Any) -> None:
    assert events_of(chunk({"content": "a"}, logprobs=logprobs) + END)[1] == TextDelta("a")


def test_null_alternatives() -> None:
    logprobs = {"content": [{"token": "a", "logprob": -1, "bytes": None, "top_logprobs": None}]}
    assert events_of(chunk({"content": "a"}, logprobs=logprobs) + END)[1] == TextDelta("a", (TokenLogprob("a", -1.0),))


# Sources, audio, images, fields that hosts add.


def test_annotations_are_citations() -> None:
    annotation = {
        "type": "url_citation",
        "url_citation": {"url": "https://a.test", "title": "A", "start_index": 3, "end_index": 9},
    }
    body = text("See A.") + chunk({"annotations": [annotation]}) + chunk({"annotations": [annotation, 5, {}]}) + END
    assert read(body).citations == (Citation("https://a.test", "A", 3, 9, annotation),)


def test_sources_beside_the_choices() -> None:
    result = {"title": "A", "url": "https://a.test", "date": "2025-01-01"}
    extra = {"citations": ["https://a.test", "https://b.test"], "search_results": [result]}
    body = frames(*({"id": "1", "choices": [{"delta": {"content": word}}], **extra} for word in ("x", "y"))) + END
    assert read(body).citations == (
        Citation("https://a.test", "A", raw=result),
        Citation("https://b.test", raw={"url": "https://b.test"}),
    )
    alone = frames({"id": "1", "citations": ["https://b.test"]}) + text("x") + END
    assert [each.url for each in read(alone).citations] == ["https://b.test"]


def test_sources_of_surprising_types() -> None:
    sources = [{"url": 5}, {"url": "https://a.test", "title": 7, "start_index": "x", "url_citation": []}, None]
    (found,) = read(text("x") + chunk({"annotations": sources}) + END).citations
    assert (found.url, found.title, found.start) == ("https://a.test", None, None)


def test_sound() -> None:
    body = b"".join(
        [
            chunk({"audio": {"id": "audio_1", "transcript": "Hel"}}),
            chunk({"audio": {"data": "AAE="}}),
            chunk({"audio": {"data": "AgM=", "transcript": "lo"}}),
            chunk({"audio": {"expires_at": 1_700_000_000}}),
            END,
        ]
    )
    (part,) = read(body).content.parts
    assert (part.media.data, part.media.media_type, part.media.file_id) == (b"\0\1\2\3", "audio/pcm", "audio_1")
    assert part.transcript == "Hello"


@pytest.mark.parametrize("audio", [{"data": 5, "transcript": 6, "id": 7}, [], "x", 5, {}])
def test_sound_of_surprising_types_costs_no_text(audio: Any) -> None:
    assert read(chunk({"content": "a", "audio": audio}) + END).content.parts == (TextPart("a"),)


def test_damaged_sound_is_empty() -> None:
    (part,) = read(chunk({"audio": {"data": "A"}}) + END).content.parts
    assert part.media.data == b""


def test_pictures() -> None:
    images = [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw=="}},
        {"type": "image_url", "image_url": {"url": "https://a.test/b.png"}},
        {"type": "image_url", "image_url": {"url": 5}},
        {"type": "image_url"},
        7,
    ]
    body = chunk({"images": images}) + END
    assert [event for event in events_of(body) if isinstance(event, MediaDelta)] == [
        MediaDelta("image/png", "iVBORw=="),
        MediaDelta("image/*", url="https://a.test/b.png"),
    ]
    first, second = read(body).content.parts
    assert (first.media.data, first.media.media_type) == (b"\x89PNG", "image/png")
    assert (second.media.data, second.media.url) == (None, "https://a.test/b.png")


def test_tools_that_the_host_ran_itself_are_opaque() -> None:
    tools = [{"index": 0, "type": "search", "arguments": "{}", "output": "found"}]
    body = chunk({"executed_tools": tools}) + text("x") + END
    assert events_of(body)[1] == ProviderPart("recording", "executed_tools", tools)


# Surprising types, sizes and depths.

SURPRISES: list[Any] = [None, 5, -1.5, True, "x", [], {}, [1], {"a": 1}, [[]], 10**30]
FIELDS = ["id", "model", "object", "created", "usage", "x_groq", "citations", "search_results", "system_fingerprint"]
CHOICE_FIELDS = ["finish_reason", "logprobs", "usage", "text", "message"]
DELTA_FIELDS = [
    "role",
    "reasoning_details",
    "tool_calls",
    "function_call",
    "annotations",
    "audio",
    "images",
    "executed_tools",
    "refusal",
]


@pytest.mark.parametrize("value", SURPRISES, ids=json.dumps)
def test_a_surprising_field_costs_no_text(value: Any) -> None:
    for field in FIELDS:
        body = frames({"id": "1", "choices": [{"delta": {"content": "a"}}], field: value})
        assert read(body + text("b") + END).completion == "ab", field
    for field in CHOICE_FIELDS:
        body = frames({"id": "1", "choices": [{"index": 0, "delta": {"content": "a"}, field: value}]})
        assert read(body + text("b") + END).completion == "ab", field
    for field in DELTA_FIELDS:
        assert read(chunk({"content": "a", field: value}) + text("b") + END).completion == "ab", field


@pytest.mark.parametrize("value", SURPRISES, ids=json.dumps)
def test_surprises_instead_of_a_chunk_or_a_choice(value: Any) -> None:
    if not isinstance(value, dict):
        assert read(frames(value) + text("b") + END).completion == "b"
    assert read(frames({"id": "1", "choices": value}) + text("b") + END).completion == "b"
    assert read(frames({"id": "1", "choices": [value]}) + text("b") + END).completion == "b"
    assert read(frames({"id": "1", "choices": [{"delta": value}]}) + text("b") + END).completion == "b"


def test_one_bad_choice_or_call_does_not_hide_the_others() -> None:
    body = frames(
        {
            "id": "1",
            "choices": [
                7,
                {"index": 0, "delta": {"content": "a", "tool_calls": [5, {"index": 0, "function": {"name": "f"}}]}},
            ],
        }
    )
    response = read(body + END)
    assert (response.completion, [each.name for each in response.tool_calls]) == ("a", ["f"])


@pytest.mark.parametrize("depth", [10, 300, 600, 900, 100_000])
@pytest.mark.parametrize("field", ["reasoning", "content", "annotations", "unknown"])
def test_deep_nesting_is_read_or_refused_and_never_a_crash(depth: int, field: str) -> None:
    nested = b"[" * depth + b"]" * depth
    body = text("a") + b'data: {"id":"1","choices":[{"delta":{"%b":%b}}]}\n\n' % (field.encode(), nested) + END
    response, error = outcome_of(body)
    assert response.completion == "a"
    assert error is None or (type(error) is ProtocolError and error.reason == "json" and depth > 300)


def test_numbers_that_no_float_holds_are_refused_as_json() -> None:
    body = text("a") + b'data: {"id":"1","choices":[],"usage":{"prompt_tokens":%b}}\n\n' % (b"9" * 5_000) + END
    assert failure_of(body, ProtocolError).partial.completion == "a"


def test_a_plain_answer_nested_too_deep_is_refused() -> None:
    nested = b"[" * 700 + b"]" * 700
    body = b'{"id":"1","choices":[{"message":{"reasoning":%b},"finish_reason":"stop"}]}' % nested
    assert failure_of(body, ProtocolError).message == "a frame is nested too deeply"
