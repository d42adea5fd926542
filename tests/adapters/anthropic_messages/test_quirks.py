"""Faulty streams of Anthropic's Messages: the error, and the partial response."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import cuts
from grammar import check_grammar
from lm_deluge import errors
from lm_deluge.adapters.adapter import Call
from lm_deluge.adapters.catalog import find_adapter
from lm_deluge.errors import APIError, DelugeError, ProtocolError, TruncatedError
from lm_deluge.events import Event, TextDelta
from lm_deluge.models.rows import ModelRow, ProviderRow
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.testing.decode import decode_body, decode_events
from samples.anthropic_bytes import (
    API,
    STOP,
    answer,
    block,
    call,
    delta,
    end,
    event,
    events_of,
    failure_of,
    outcome_of,
    read,
    start,
    text,
)

THOUGHT = block(
    0,
    {"type": "thinking", "thinking": ""},
    {"type": "thinking_delta", "thinking": "Hm"},
    {"type": "signature_delta", "signature": "s"},
)
RICH = answer(
    THOUGHT,
    text(1, "Grü", "ße"),
    block(2, {"type": "server_tool_use", "id": "s", "name": "w", "input": {}}),
    block(
        3,
        {"type": "text", "text": ""},
        {"type": "text_delta", "text": "x"},
        {"type": "citations_delta", "citation": {"type": "page_location", "cited_text": "c"}},
    ),
    call(4, "f", '{"x":', " 1}"),
    reason="tool_use",
)
OVERLOADED = event("error", error={"type": "overloaded_error", "message": "Overloaded"}, request_id="req_1")


def test_without_its_last_event_an_answer_with_a_reason_is_whole() -> None:
    response = read(start() + text(0, "a") + end())
    assert (response.completion, response.warnings) == ("a", ("no_done",))


def test_a_last_event_without_a_reason_ends_it_too() -> None:
    response = read(start() + text(0, "a") + STOP)
    assert (response.finish_reason, response.raw_finish_reason) == ("stop", None)
    assert response.warnings == ("no_finish_reason",)


def test_a_last_event_without_a_reason_and_without_usage_ends_nothing() -> None:
    error = failure_of(start(usage=None) + text(0, "a") + STOP, TruncatedError)
    assert error.partial.completion == "a"


def test_a_last_event_and_nothing_before_it_is_no_answer() -> None:
    assert failure_of(STOP, ProtocolError).reason == "order"


@pytest.mark.parametrize("reason", [None, ""])
def test_a_reason_that_is_none_ends_nothing(reason: str | None) -> None:
    assert failure_of(start() + text(0, "a") + end(reason), TruncatedError).partial.completion == "a"


def test_blocks_that_nobody_ended_end_with_the_answer() -> None:
    body = start() + event("content_block_start", index=0, content_block={"type": "text", "text": "a"})
    body += event("content_block_start", index=1, content_block={"type": "tool_use", "id": "t", "name": "f"})
    body += delta(1, "input_json_delta", partial_json="{}")
    events = events_of(body + end("tool_use") + STOP)
    check_grammar(events)


def test_a_head_that_nobody_sent_is_made_up() -> None:
    events = events_of(text(0, "a") + end() + STOP)
    check_grammar(events)
    assert TextDelta("a") in events


def test_pieces_of_blocks_that_nobody_began() -> None:
    body = delta(7, "text_delta", text="a") + delta(7, "input_json_delta", partial_json="{}")
    body += delta(7, "signature_delta", signature="s") + delta(7, "citations_delta", citation={"a": 1})
    body += delta(7, "compaction_delta", content="c") + event("content_block_stop", index=9)
    response = read(start() + body + end() + STOP)
    assert response.completion == "a"
    assert len(response.content.parts) == 1


def test_blocks_without_numbers() -> None:
    body = start() + event("content_block_start", content_block={"type": "tool_use", "id": "t", "name": "f"})
    body += event("content_block_delta", delta={"type": "input_json_delta", "partial_json": '{"a": 1}'})
    body += event("content_block_stop") + end("tool_use") + STOP
    assert read(body).tool_calls[0].arguments == {"a": 1}


@pytest.mark.parametrize("name", [b"", b"event: vertex_event\n", b"event: message\n"])
def test_the_type_counts_where_the_name_of_the_event_says_nothing(name: bytes) -> None:
    lines = [line for line in RICH.split(b"\n") if line.startswith(b"data")]
    body = b"".join(name + line + b"\n\n" for line in lines)
    assert events_of(body) == events_of(RICH)


def test_what_is_not_known_is_counted_and_passed_over() -> None:
    odd = event("brand_new", a=1) + delta(0, "brand_new_delta", a=1) + event("content_block_delta", index=0)
    odd += event("content_block_start", index=3) + event("message_start") + b"data: 5\n\n" + b"data: [DONE]\n\n"
    row = ProviderRow(id="recording", otel_name="recording", adapter=API, base_url="")
    model = ModelRow(id="recording", name="recording", provider=row.id)
    decoder = find_adapter(API).decoder(Call(model=model, provider=row, conversation=Conversation()))
    events = [*decoder.feed(start() + event("ping") + odd + text(0, "a") + end() + STOP), *decoder.close()]
    assert decoder.error is None
    assert events == events_of(answer(text(0, "a")))
    assert decoder.ignored == 7


ERRORS = [
    ("invalid_request_error", errors.BadRequestError),
    ("authentication_error", errors.AuthenticationError),
    ("billing_error", errors.QuotaExceededError),
    ("permission_error", errors.PermissionDeniedError),
    ("not_found_error", errors.NotFoundError),
    ("request_too_large", errors.RequestTooLargeError),
    ("rate_limit_error", errors.RateLimitError),
    ("timeout_error", errors.ServerError),
    ("api_error", errors.ServerError),
    ("overloaded_error", errors.OverloadedError),
]


@pytest.mark.parametrize(("word", "kind"), ERRORS)
def test_errors_in_the_stream(word: str, kind: type[APIError]) -> None:
    body = start() + text(0, "a") + event("error", error={"type": word, "message": "No."})
    error = failure_of(body, kind)
    assert (error.message, error.type, error.partial.completion) == ("No.", word, "a")


@pytest.mark.parametrize(("word", "kind"), ERRORS)
def test_errors_in_place_of_the_answer(word: str, kind: type[APIError]) -> None:
    body = json.dumps({"type": "error", "error": {"type": word, "message": "No."}}).encode()
    assert failure_of(body, kind).message == "No."
    assert failure_of(b"event: error\ndata: " + body + b"\n\n", kind).message == "No."


def test_a_prompt_that_is_too_long() -> None:
    message = b"prompt is too long: 9 tokens > 8 maximum"
    body = b'{"type":"error","error":{"type":"invalid_request_error","message":"%b"}}' % message
    assert type(find_adapter(API).classify_error(400, {}, body)) is errors.ContextLengthError


def test_after_the_end_nothing_is_an_error() -> None:
    response = read(start() + text(0, "a") + end() + OVERLOADED + b"data: {broken\n\n" + STOP)
    assert (response.completion, set(response.warnings)) == ("a", {"error_after_finish"})
    assert read(answer(text(0, "a")) + OVERLOADED + text(0, "b")).completion == "a"


def test_an_event_that_is_no_json() -> None:
    error = failure_of(start() + text(0, "a") + b"event: content_block_delta\ndata: {oops\n\n", ProtocolError)
    assert (error.reason, error.partial.completion) == ("json", "a")


@pytest.mark.parametrize(
    "body", [b'{"id":"1","choices":[]}', b'{"type":"message"}', b"[]", b'{"type":"message_start"}']
)
def test_a_document_that_is_no_answer(body: bytes) -> None:
    assert failure_of(body, ProtocolError).reason == "order"


def test_every_cut_of_a_rich_answer() -> None:
    whole = events_of(RICH)
    complete_from = RICH.index(b'"usage": {"output_tokens": 5}}') + len(b'"usage": {"output_tokens": 5}}')
    for position in range(len(RICH)):
        events: list[Event] = []
        error = None
        try:
            for found in decode_events(API, [RICH[:position]]):
                events.append(found)  # noqa: PERF402 - events before the error must be kept
        except DelugeError as caught:
            error = caught
        if position < complete_from:
            assert type(error) is TruncatedError
            assert events == whole[: len(events)]
        else:
            assert error is None


def events_and_error(chunks: list[bytes]) -> tuple[list[Event], str | None]:
    """Return the events and the text of a `DelugeError`; other exceptions are not caught."""
    events: list[Event] = []
    try:
        for found in decode_events(API, chunks):
            events.append(found)  # noqa: PERF402 - events before the error must be kept
    except DelugeError as error:
        check_grammar(events, is_complete=False)
        return events, f"{type(error).__name__}: {error}"
    check_grammar(events)
    return events, None


NAMES = st.sampled_from(
    [
        *("type", "index", "delta", "message", "content_block", "content", "usage", "text", "thinking", "signature"),
        *("partial_json", "citation", "citations", "input", "id", "name", "model", "stop_reason", "container", "error"),
        *("input_tokens", "output_tokens", "output_tokens_details", "caller", "encrypted_content", "title", "url"),
    ]
)
TYPES = st.sampled_from(
    [
        *("message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta"),
        *("message_stop", "message", "ping", "error"),
        *("text", "thinking", "tool_use", "server_tool_use", "compaction"),
        *("text_delta", "thinking_delta", "input_json_delta", "signature_delta", "citations_delta", "compaction_delta"),
    ]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | TYPES | st.integers(0, 2),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES | st.text(max_size=3), inner, max_size=4),
    max_leaves=10,
)


def framed(kind: str, fields: dict[str, Any]) -> bytes:
    return event(kind, **{name: value for name, value in fields.items() if name != "type"})


@given(
    st.lists(
        st.one_of(
            st.builds(framed, TYPES, st.dictionaries(NAMES, VALUES, max_size=4)),
            VALUES.map(lambda value: b"data: " + json.dumps(value).encode() + b"\n\n"),
            st.sampled_from([start(), text(0, "a"), call(1, "f", "{}"), THOUGHT, end(), STOP, OVERLOADED]),
            st.binary(max_size=10).map(lambda noise: b"data: " + noise + b"\n\n"),
        ),
        max_size=6,
    ),
    st.lists(st.integers(0, 500), max_size=5),
)
@example([event("content_block_start", index=0, content_block={"type": ["x"]}), end()], [])
@example([event("content_block_start", index=0, content_block={"type": "tool_use", "input": 5}), end()], [])
@settings(max_examples=300, deadline=None)
def test_events_of_any_shape_are_events_or_errors_of_ours(parts: list[bytes], positions: list[int]) -> None:
    body = b"".join(parts)
    assert events_and_error(cuts.at(body, positions)) == events_and_error([body])


@given(st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_damaged_streams_are_read_or_refused_alike_however_they_are_cut(dice: random.Random) -> None:
    damaged = bytearray(RICH)
    for _ in range(dice.randrange(1, 8)):
        place = dice.randrange(len(damaged))
        damage = dice.choice([b"", b"\0", b"\xff", b"\r", b"\n", b'"', b"{", b"}", b"[", b"9", b"null", b"data: "])
        damaged[place : place + dice.randrange(3)] = damage
    assert events_and_error(cuts.at_random(bytes(damaged), dice.randrange(100), 50)) == events_and_error(
        [bytes(damaged)]
    )


@given(VALUES)
@settings(max_examples=200, deadline=None)
def test_documents_of_any_shape(value: Any) -> None:
    for document in (value, {"type": "message", "content": value, "stop_reason": "end_turn", "usage": value}):
        body = json.dumps(document).encode()
        response, error = outcome_of(body)
        assert error is None or isinstance(error, DelugeError)
        assert response.is_error is False
        assert type(decode_body(API, answer(text(0, "a")))) is type(response)
