"""Rules that hold for every answer: the last frame is terminal, and a success only after the real end."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm_deluge.errors import StreamInterruptedError
from lm_deluge.events import (
    Attempt,
    Citation,
    MediaDelta,
    ProviderPart,
    ReasoningDelta,
    RefusalDelta,
    ResponseFinished,
    ResponseStarted,
    RoundStarted,
    TextDelta,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
    ToolProgress,
    ToolResult,
    UsageReported,
)
from lm_deluge.response import APIResponse
from lm_deluge.ui import DataPart, encode, frame_encoder
from lm_deluge.ui.frame_encoder import UIEvent
from lm_deluge.usage import Usage
from ui.judges import AGUIJudge, VercelJudge, decoded

TEXTS = st.text(max_size=4)
DELTAS = (
    TEXTS.map(TextDelta)
    | TEXTS.map(ReasoningDelta)
    | TEXTS.map(RefusalDelta)
    | st.builds(Citation, st.sampled_from([None, "https://a.test"]), st.sampled_from([None, "A"]))
    | st.sampled_from([MediaDelta("image/png", "cG5n"), MediaDelta("audio/wav", "UklG", transcript="la")])
    | st.just(ProviderPart("p", "signature", {"x": 1}))
    | st.just(UsageReported(Usage(input_tokens=1, output_tokens=2)))
    | st.just(Attempt(2, "ServerError", "", 0.0, "m", goes_on=True))
    | st.just(DataPart("note", [1]))
)


@st.composite
def rounds(draw: st.DrawFn, number: int, first_index: int) -> tuple[list[UIEvent], int]:
    """Draw the events of a round: attempts that are discarded, then one with calls and their results."""
    events: list[UIEvent] = [] if number == 1 else [RoundStarted(number)]
    index = first_index
    for is_kept in [*([False] * draw(st.integers(0, 2))), True]:
        index = first_index
        calls: list[list[UIEvent]] = []
        for _ in range(draw(st.integers(0, 3))):
            call_id = f"call-{index}"
            pieces = [ToolCallDelta(index, text) for text in draw(st.lists(TEXTS, max_size=2))]
            finished = ToolCallFinished(index, call_id, "f", "{}", {})
            calls.append([ToolCallStarted(index, call_id, "f"), *pieces, finished])
            index += 1
        while calls:  # calls in parallel arrive in turns
            if draw(st.booleans()):
                events.append(draw(DELTAS))
            call = draw(st.sampled_from(calls))
            events.append(call.pop(0))
            calls = [each for each in calls if each]
        events += draw(st.lists(DELTAS, max_size=4))
        if not is_kept:
            events.append(Attempt(2, "ServerError", "", 0.0, "m"))
    for call in range(first_index, index):
        events += draw(st.lists(st.just(ToolProgress(f"call-{call}", "f", 1)), max_size=1))
        events.append(ToolResult(f"call-{call}", "f", draw(TEXTS), draw(st.sampled_from([None, "failed"]))))
    return events, index


@st.composite
def answers(draw: st.DrawFn) -> list[UIEvent]:
    events: list[UIEvent] = [ResponseStarted("r", "m")]
    index = 0
    for number in range(1, 1 + draw(st.integers(1, 3))):
        more, index = draw(rounds(number, index))
        events += more
    return [*events, ResponseFinished("stop")]


def frames(protocol: Any, events: list[UIEvent], error: Exception | None = None, **options: Any) -> bytes:
    def raising() -> Any:
        yield from events
        if error is not None:
            raise error

    return b"".join(encode(protocol, raising(), **options))


@settings(max_examples=60, deadline=None)
@given(answers(), st.data())
def test_whole_and_broken_answers(events: list[UIEvent], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(events) - 1))
    error = data.draw(st.sampled_from([None, StreamInterruptedError("the connection broke")]))
    asked = data.draw(st.sampled_from([None, [{"id": "u", "role": "user", "content": "Hi"}]]))
    assert VercelJudge().read(frames("vercel-ui", events)).end == "finish"
    assert VercelJudge().read(frames("vercel-ui", events[:cut], error)).end == "error"
    assert AGUIJudge().read(frames("ag-ui", events, messages=asked)).end == "success"
    assert AGUIJudge().read(frames("ag-ui", events[:cut], error, messages=asked)).end == "RUN_ERROR"
    whole, broken = decoded(frames("openai-chat", events)), decoded(frames("openai-chat", events[:cut], error))
    restarts = any(type(event) is Attempt and not event.goes_on for event in events)
    assert whole[-1] == "[DONE]" or (restarts and "error" in whole[-1])
    assert "error" in broken[-1]
    assert "[DONE]" not in broken


@settings(max_examples=60, deadline=None)
@given(answers(), st.data())
def test_a_stop_anywhere_is_a_terminal_frame_that_is_no_success(events: list[UIEvent], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(events) - 1))
    for protocol, judge, end in (("vercel-ui", VercelJudge, "abort"), ("ag-ui", AGUIJudge, "cancelled")):
        encoder = frame_encoder(protocol)  # type: ignore[arg-type]
        written = encoder.start() + encoder.frames(events[:cut]) + encoder.end(APIResponse())
        assert judge().read(written).end == end
        assert encoder.frames(events) == encoder.end() == b""


@settings(max_examples=60, deadline=None)
@given(answers(), st.data())
def test_the_division_into_reads_changes_nothing_of_the_message(events: list[UIEvent], data: st.DataObject) -> None:
    bounds = sorted(data.draw(st.sets(st.integers(1, max(1, len(events) - 1)))))
    reads = [events[start:end] for start, end in zip([0, *bounds], [*bounds, len(events)], strict=True)]
    for protocol in ("vercel-ui", "ag-ui"):
        encoder = frame_encoder(protocol, message_id="m")  # type: ignore[arg-type]
        written = encoder.start() + b"".join(map(encoder.frames, reads)) + encoder.end()
        if protocol == "vercel-ui":
            assert VercelJudge().read(written).parts == VercelJudge().read(frames(protocol, events)).parts
        else:
            single = AGUIJudge().read(frames(protocol, events, message_id="m"))
            assert AGUIJudge().read(written).texts == single.texts


@pytest.mark.parametrize("protocol", ["vercel-ui", "ag-ui", "openai-chat"])
def test_each_event_alone_is_harmless(protocol: Any) -> None:
    """An application yields what it likes: no order of events breaks the frames."""
    odd = [ToolCallDelta(3, "x"), ToolCallFinished(4, "c", "f", "{}", {}), RoundStarted(1), ToolProgress("z", "f", 1)]
    written = frames(protocol, [*odd, ResponseFinished("length")])
    judge: Any = {"vercel-ui": VercelJudge, "ag-ui": AGUIJudge}.get(protocol)
    assert judge is None or judge().read(written).end in ("finish", "success")
