"""Recorded responses of many hosts: their content, for any cut into reads, and partial responses of broken streams."""

from __future__ import annotations

import contextlib
import copy
import random
from typing import Any

import pytest

import cuts
import recordings
from grammar import check_grammar
from lm_deluge.adapters.adapter import Call, Decoder
from lm_deluge.adapters.catalog import find_adapter
from lm_deluge.errors import APIError, DelugeError, TruncatedError
from lm_deluge.events import Event, TextDelta
from lm_deluge.models.rows import ModelRow, ProviderRow
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.response import APIResponse
from lm_deluge.testing.decode import decode_events
from oracles import Oracle, find_oracles
from recordings import IS_SOAK, Recording, outcome_of

ORACLES = find_oracles()
CASES = [(api, name) for api in sorted(ORACLES) for name in recordings.names(api)]
pytestmark = pytest.mark.skipif(not CASES, reason=recordings.REASON)

# Every cut of every body takes minutes. By default only small bodies are read byte by byte, and of long ones
# not every frame is cut.
MOST_BYTES_ONE_BY_ONE = 10**9 if IS_SOAK else 5_000
MOST_BORDERS = 10**9 if IS_SOAK else 20


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def recording(request: pytest.FixtureRequest) -> Recording:
    found = recordings.load(*request.param)
    oracle = ORACLES[request.param[0]]
    expected = {**found.expected, **oracle.overlooked([data for _, data in oracle.frame_ends(found.body)])}
    return found._replace(about={**found.about, "expected": expected})


def oracle_of(recording: Recording) -> Oracle:
    return ORACLES[recording.about["api"]]


def read(recording: Recording) -> list[Event]:
    """Return all events, including those before an error."""
    events: list[Event] = []
    with contextlib.suppress(APIError):
        for event in decode_events(recording.about["api"], recording.body):
            events.append(event)  # noqa: PERF402 - events before the error are kept
    return events


def check_answer(response: APIResponse, error: DelugeError | None, recording: Recording) -> None:
    expected = recording.expected
    assert response.completion == expected["text"]
    assert response.thinking == expected["thinking"]
    assert response.content.refusal == (expected.get("refusal") or "")
    if expected["error"] is None:
        assert error is None
        assert response.raw_finish_reason == expected["finish_reason"]
    else:
        assert isinstance(error, APIError)
        assert expected["error"][1] in error.message
    check_calls(response, expected["tool_calls"])
    check_usage(response, recording)


def check_calls(response: APIResponse, expected: list[dict[str, Any]]) -> None:
    assert len(response.tool_calls) == len(expected)
    for call, wanted in zip(response.tool_calls, expected, strict=True):
        if wanted["id"]:  # for an API without ids the adapter generates an id
            assert call.id == wanted["id"]
        assert (call.name, call.custom) == (wanted["name"], wanted.get("custom", False))
        if not call.custom:
            assert call.arguments == wanted["arguments"]
        if "arguments_text" in wanted:
            assert call.arguments_text == wanted["arguments_text"]


def check_usage(response: APIResponse, recording: Recording) -> None:
    expected = recording.expected["usage"]
    if expected is None:
        assert response.usage is None
        return
    usage = response.usage
    assert usage is not None
    assert usage.raw is not None
    found = {
        "input": usage.input_tokens,
        "output": usage.output_tokens,
        "cache_read": usage.cache_read_tokens,
        "cache_write": usage.cache_write_tokens,
        "reasoning": usage.reasoning_tokens,
    }
    assert found == oracle_of(recording).usage(expected, usage.raw)
    assert not usage.estimated


def test_decodes_as_expected_whole_and_in_pieces(recording: Recording) -> None:
    body = recording.body
    takes = [[body], cuts.at_random(body, seed=1, most=1_000)]
    if len(body) <= MOST_BYTES_ONE_BY_ONE:
        takes.append(cuts.every(body, 1))
    for chunks in takes:
        check_answer(*outcome_of(recording.about["api"], chunks), recording)


def test_events_obey_the_grammar(recording: Recording) -> None:
    events = read(recording)
    check_grammar(events, is_complete=recording.expected["error"] is None)
    assert sum(type(event) is TextDelta and bool(event.text) for event in events) == recording.expected["n_text_deltas"]


def terminal_end(recording: Recording) -> int:
    """Return the number of bytes after which the response is complete."""
    oracle, body = oracle_of(recording), recording.body
    ends = (end for end, data in oracle.frame_ends(body) if data.strip() and oracle.is_terminal(data))
    return next(ends, len(body) + 1)


def cut_positions(recording: Recording) -> list[int]:
    """Return the positions to cut at: all, or those near the ends of frames and some random positions."""
    body = recording.body
    if IS_SOAK:
        return list(range(len(body) + 1))
    dice = random.Random(len(body))
    ends = [end for end, _ in oracle_of(recording).frame_ends(body)]
    if len(ends) > MOST_BORDERS:
        ends = [*ends[:3], *dice.sample(ends[3:-5], MOST_BORDERS - 8), *ends[-5:]]
    near = {end + offset for end in (*ends, min(terminal_end(recording), len(body))) for offset in range(-2, 4)}
    others = {dice.randrange(len(body) + 1) for _ in range(20)}
    return sorted(position for position in near | others if position <= len(body))


class PrefixReader:
    """Feeds a body from cut to cut; at each cut, closes a copy of the decoder."""

    def __init__(self, recording: Recording) -> None:
        api = recording.about["api"]
        row = ProviderRow(id="recording", otel_name="recording", adapter=api, base_url="")
        model = ModelRow(id="recording", name="recording", provider=row.id)
        call = Call(model=model, provider=row, conversation=Conversation())
        self._decoder: Decoder = find_adapter(api).decoder(call)
        self._body = recording.body
        self._text = recording.expected["text"]
        self._fed = 0
        self._read = 0

    def end_at(self, position: int) -> Decoder:
        """Return a copy of the decoder, closed at `position`."""
        self._read = self._after(self._decoder.feed(self._body[self._fed : position]))
        self._fed = position
        decoder = copy.deepcopy(self._decoder)
        self._after(decoder.close())
        return decoder

    def _after(self, events: list[Event]) -> int:
        """Return the length of the text after `events`, whose text must continue the expected text."""
        read = self._read
        for event in events:
            if isinstance(event, TextDelta):
                assert self._text.startswith(event.text, read)
                read += len(event.text)
        return read


def test_a_cut_is_a_success_if_and_only_if_the_answer_was_complete(recording: Recording) -> None:
    body, expected, oracle = recording.body, recording.expected, oracle_of(recording)
    if recording.name in oracle.by_hand:
        pytest.skip(oracle.by_hand[recording.name])
    complete_from = terminal_end(recording)
    error_from = len(body) + 1
    if expected["error"] is not None:
        error_from = next(end for end, data in oracle.frame_ends(body) if oracle.is_error(data))
    reader = PrefixReader(recording)
    outcomes = set()
    for position in cut_positions(recording):
        decoder = reader.end_at(position)
        if error_from <= position:
            assert isinstance(decoder.error, APIError)
        elif position >= complete_from:
            assert decoder.error is None
            assert decoder.is_finished
        else:
            assert isinstance(decoder.error, TruncatedError)
            assert not decoder.is_finished
        outcomes.add(type(decoder.error))
    assert TruncatedError in outcomes
    assert (type(None) in outcomes) == (expected["error"] is None)


def test_the_error_contains_the_partial_response(recording: Recording) -> None:
    body, expected = recording.body, recording.expected
    if recording.name in oracle_of(recording).by_hand:
        pytest.skip(oracle_of(recording).by_hand[recording.name])
    dice = random.Random(len(body))
    for position in (0, *(dice.randrange(min(terminal_end(recording), len(body))) for _ in range(3))):
        partial, error = outcome_of(recording.about["api"], cuts.at_random(body[:position], seed=position))
        if expected["error"] is None:
            assert isinstance(error, TruncatedError)
        else:
            assert isinstance(error, TruncatedError | APIError)
        assert expected["text"].startswith(partial.completion)
        assert expected["thinking"].startswith(partial.thinking)
        assert partial.finish_reason is None
        for call, whole in zip(partial.tool_calls, expected["tool_calls"], strict=False):
            assert whole["name"] == call.name
            assert (whole.get("arguments_text") or call.arguments_text).startswith(call.arguments_text)
