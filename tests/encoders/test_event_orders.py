"""Events in an order that no single provider sends, in every wire API: interleaved calls, and a second start."""

from __future__ import annotations

import pytest

from lm_deluge.encoders.catalog import encoder_names, find_encoder
from lm_deluge.events import (
    Event,
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

START, USAGE = ResponseStarted("id-1", "m-1"), UsageReported(Usage(input_tokens=1, output_tokens=2))
ARGUMENTS = [('{"a":', "1}"), ('{"b":', "2}"), ('{"c":', "3}")]
WHOLE = [{"a": 1}, {"b": 2}, {"c": 3}]


def started(index: int) -> ToolCallStarted:
    return ToolCallStarted(index, f"call-{index}", f"f{index}")


def piece(index: int, number: int) -> ToolCallDelta:
    return ToolCallDelta(index, ARGUMENTS[index][number])


def finished(index: int) -> ToolCallFinished:
    return ToolCallFinished(index, f"call-{index}", f"f{index}", "".join(ARGUMENTS[index]), WHOLE[index])


INTERLEAVED: dict[str, list[Event]] = {
    "in turns": [
        *(started(index) for index in range(3)),
        *(piece(index, number) for number in range(2) for index in range(3)),
        *(finished(index) for index in range(3)),
    ],
    "ended backwards": [started(0), piece(0, 0), started(1), piece(1, 0), piece(1, 1), finished(1), started(2),
                        piece(0, 1), piece(2, 0), piece(2, 1), finished(2), finished(0)],
    "with text between": [started(0), piece(0, 0), TextDelta("text"), piece(0, 1), started(1), piece(1, 0),
                          piece(1, 1), finished(0), finished(1), started(2), piece(2, 0), piece(2, 1), finished(2)],
}  # fmt: skip


@pytest.mark.parametrize("api", encoder_names())
@pytest.mark.parametrize("order", INTERLEAVED)
def test_interleaved_calls_keep_their_arguments(api: str, order: str) -> None:
    events = [START, *INTERLEAVED[order], USAGE, ResponseFinished("tool_calls")]
    for body in (b"".join(encode_events(api, events)), find_encoder(api).encode_response(events)):
        calls = decode_body(api, body).tool_calls
        assert sorted((call.name, str(call.arguments)) for call in calls) == [
            (f"f{index}", str(WHOLE[index])) for index in range(3)
        ]


@pytest.mark.parametrize("api", encoder_names())
@pytest.mark.parametrize("model", ["m", "anthropic.claude-x", "amazon.nova-x", "meta.llama3-x"])
def test_a_second_start_writes_nothing(api: str, model: str) -> None:
    start = ResponseStarted("id-1", model)
    once = [start, TextDelta("a"), TextDelta("b"), USAGE, ResponseFinished("stop")]
    twice = [start, TextDelta("a"), ResponseStarted("id-2", "other"), *once[2:]]
    assert b"".join(encode_events(api, twice)) == b"".join(encode_events(api, once))
    assert list(encode_events(api, [start, start])) == list(encode_events(api, [start]))
