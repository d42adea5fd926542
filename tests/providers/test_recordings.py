"""Recorded answers of many hosts: what each says, however it is cut, and what is left where it breaks off."""

from __future__ import annotations

import contextlib
import copy
import json
import random
import re
from typing import Any

import pytest

import cuts
import recordings
from chat_bytes import outcome_of
from grammar import check_grammar
from lm_deluge.errors import APIError, DelugeError, TruncatedError
from lm_deluge.events import Event, TextDelta
from lm_deluge.models.rows import ModelRow, ProviderRow
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.providers.adapter import Call, Decoder
from lm_deluge.providers.openai_chat import OpenAIChat
from lm_deluge.response import APIResponse
from lm_deluge.testing.decode import decode_events
from recordings import IS_SOAK, Recording

API = "openai-chat"
NAMES = recordings.names(API)
pytestmark = pytest.mark.skipif(not NAMES, reason=recordings.REASON)

# Every cut of every body takes minutes. By default only small bodies are read byte by byte, and of long ones
# not every frame is cut.
MOST_BYTES_ONE_BY_ONE = 10**9 if IS_SOAK else 5_000
MOST_BORDERS = 10**9 if IS_SOAK else 20


@pytest.fixture(params=NAMES)
def recording(request: pytest.FixtureRequest) -> Recording:
    return recordings.load(API, request.param)


def read(body: bytes) -> list[Event]:
    """Return all events, whatever the end."""
    events: list[Event] = []
    with contextlib.suppress(APIError):
        for event in decode_events(API, body):
            events.append(event)  # noqa: PERF402 - what came before the error is to be kept
    return events


def check_answer(response: APIResponse, error: DelugeError | None, expected: dict[str, Any]) -> None:
    assert response.completion == expected["text"]
    assert response.thinking == expected["thinking"]
    assert response.content.refusal == (expected.get("refusal") or "")
    assert response.raw_finish_reason == expected["finish_reason"]
    calls = [
        {
            "id": call.id,
            "name": call.name,
            "arguments": call.arguments,
            "arguments_text": call.arguments_text,
        }
        for call in response.tool_calls
    ]
    fields = ("id", "name", "arguments", "arguments_text")
    assert calls == [{name: call[name] for name in fields} for call in expected["tool_calls"]]
    check_usage(response, expected["usage"])
    if expected["error"] is None:
        assert error is None
    else:
        assert isinstance(error, APIError)
        assert expected["error"][1] in error.message


def check_usage(response: APIResponse, expected: dict[str, Any] | None) -> None:
    if expected is None:
        assert response.usage is None
        return
    usage = response.usage
    assert usage is not None
    assert usage.raw is not None
    output = expected["output"]
    reasoning = expected["reasoning"] or 0
    if reasoning and usage.raw.get("total_tokens") == expected["input"] + output + reasoning:
        output += reasoning  # xAI: our convention has reasoning within the output
    found = (
        usage.input_tokens,
        usage.output_tokens,
        usage.cache_read_tokens,
        usage.cache_write_tokens,
        usage.reasoning_tokens,
    )
    names = ("cache_read", "cache_write", "reasoning")
    assert found == (expected["input"], output, *(expected[name] for name in names))
    assert not usage.estimated


def test_decodes_as_expected_whole_and_in_pieces(recording: Recording) -> None:
    body = recording.body
    takes = [[body], cuts.at_random(body, seed=1, most=1_000)]
    if len(body) <= MOST_BYTES_ONE_BY_ONE:
        takes.append(cuts.every(body, 1))
    for chunks in takes:
        check_answer(*outcome_of(chunks), recording.expected)


def test_events_obey_the_grammar(recording: Recording) -> None:
    events = read(recording.body)
    check_grammar(events, is_complete=recording.expected["error"] is None)
    assert sum(type(event) is TextDelta and bool(event.text) for event in events) == recording.expected["n_text_deltas"]


def frame_ends(body: bytes) -> list[tuple[int, bytes]]:
    """Return where the data of each one-line frame ends, and the data; read with a regular expression."""
    return [(found.end(1), found[1]) for found in re.finditer(rb"(?:^|(?<=[\r\n]))[ ]?data:[ ]?([^\r\n]*)", body)]


def is_terminal(data: bytes) -> bool:
    if data.strip() == b"[DONE]":
        return True
    choices = json.loads(data).get("choices") or ()
    return any(choice.get("finish_reason") and not choice.get("index") for choice in choices)


def terminal_end(body: bytes) -> int:
    """Return how many bytes a body must have for its answer to be complete."""
    return next((end for end, data in frame_ends(body) if data.strip() and is_terminal(data)), len(body) + 1)


def cut_positions(body: bytes) -> list[int]:
    """Return where to cut: everywhere, or around the ends of frames and at some other places."""
    if IS_SOAK:
        return list(range(len(body) + 1))
    dice = random.Random(len(body))
    ends = [end for end, _ in frame_ends(body)]
    if len(ends) > MOST_BORDERS:
        ends = [*ends[:3], *dice.sample(ends[3:-5], MOST_BORDERS - 8), *ends[-5:]]
    near = {end + offset for end in (*ends, min(terminal_end(body), len(body))) for offset in range(-2, 4)}
    others = {dice.randrange(len(body) + 1) for _ in range(20)}
    return sorted(position for position in near | others if position <= len(body))


class PrefixReader:
    """Feeds a body from cut to cut; at each one looks at what a copy of the decoder makes of an end there."""

    def __init__(self, body: bytes, text: str) -> None:
        row = ProviderRow(id="recording", otel_name="recording", adapter=API, base_url="")
        model = ModelRow(id="recording", name="recording", provider=row.id)
        call = Call(model=model, provider=row, conversation=Conversation())
        self._decoder: Decoder = OpenAIChat().decoder(call)
        self._body = body
        self._text = text
        self._fed = 0
        self._read = 0

    def end_at(self, position: int) -> Decoder:
        """Return the decoder as the end of the body at `position` leaves it."""
        self._read = self._after(self._decoder.feed(self._body[self._fed : position]))
        self._fed = position
        decoder = copy.deepcopy(self._decoder)
        self._after(decoder.close())
        return decoder

    def _after(self, events: list[Event]) -> int:
        """Return how much of the whole text is read after `events`; all of theirs must continue it."""
        read = self._read
        for event in events:
            if isinstance(event, TextDelta):
                assert self._text.startswith(event.text, read)
                read += len(event.text)
        return read


def test_a_cut_is_a_success_if_and_only_if_the_answer_was_complete(recording: Recording) -> None:
    body, expected = recording.body, recording.expected
    complete_from = terminal_end(body)
    error_from = len(body) + 1
    if expected["error"] is not None:
        error_from = next(end for end, data in frame_ends(body) if b'"error"' in data)
    reader = PrefixReader(body, expected["text"])
    outcomes = set()
    for position in cut_positions(body):
        decoder = reader.end_at(position)
        if position >= complete_from:
            assert decoder.error is None
            assert decoder.is_finished
        elif position >= error_from:
            assert isinstance(decoder.error, APIError)
        else:
            assert isinstance(decoder.error, TruncatedError)
            assert not decoder.is_finished
        outcomes.add(type(decoder.error))
    assert TruncatedError in outcomes
    assert (type(None) in outcomes) == (expected["error"] is None)


def test_what_is_left_of_a_cut_answer_is_in_the_error(recording: Recording) -> None:
    body, expected = recording.body, recording.expected
    dice = random.Random(len(body))
    for position in (0, *(dice.randrange(min(terminal_end(body), len(body))) for _ in range(3))):
        partial, error = outcome_of(cuts.at_random(body[:position], seed=position))
        if expected["error"] is None:
            assert isinstance(error, TruncatedError)
        else:
            assert isinstance(error, TruncatedError | APIError)
        assert expected["text"].startswith(partial.completion)
        assert expected["thinking"].startswith(partial.thinking)
        assert partial.finish_reason is None
        for call, whole in zip(partial.tool_calls, expected["tool_calls"], strict=False):
            assert whole["name"] == call.name
            assert whole["arguments_text"].startswith(call.arguments_text)
            assert call.arguments_error == "the call was cut off"
