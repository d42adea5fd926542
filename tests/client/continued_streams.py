"""Streams that break and go on: a model that says one text, and what an answer of it must be."""

from __future__ import annotations

import functools
import random
from collections.abc import Iterator, Sequence
from typing import Any

from client.continued import anchor_in, in_pieces, rest_of
from grammar import check_grammar
from lm_deluge import LLMClient
from lm_deluge.client.stream import Stream
from lm_deluge.dispatch.scheduling.runner import Runner
from lm_deluge.encoders.encoder import ParsedRequest
from lm_deluge.events import (
    Attempt,
    Event,
    ResponseFinished,
    ResponseStarted,
    TextDelta,
    UsageReported,
)
from lm_deluge.response import APIResponse, ResponseBuilder
from lm_deluge.simulator import Script, Simulator
from lm_deluge.simulator.faults.catalog import Fault
from lm_deluge.usage import Usage


def client_of(sim: Simulator, model: str | Sequence[str] = "gpt-4o", **options: Any) -> LLMClient:
    first = model if isinstance(model, str) else model[0]
    url = sim.base_url if "gpt" in first else sim.url
    options = {"on_break": "continue", "progress": "none", **options}
    return LLMClient(model, base_url=url, api_key="test-key", **options)


def hurried(client: LLMClient) -> LLMClient:
    """Let the pauses between attempts take no time."""
    client.dispatcher.make_runner(functools.partial(Runner, chance=lambda: 0.0))
    return client


class Model:
    """Says one text, whatever it is asked: from the beginning, behind words of its own, or behind its last words.

    Attributes:
        usages: What it reported, in order.
    """

    def __init__(self, text: str, *, variant: str = "anchor", cuts: Sequence[int] = (), seed: str = "") -> None:
        self.text = text
        self.variant = variant
        self.usages: list[Usage] = []
        self._cuts = iter(cuts)
        self._rng = random.Random(seed)

    def __call__(self, request: ParsedRequest) -> Script:
        last = request.conversation[-1]
        anchor = anchor_in(last.completion)
        if last.role == "assistant":
            said = self.text if self.variant == "echo" else self.text[len(last.completion) :]
        elif anchor is not None:
            shown = request.conversation[-2].completion
            said = rest_of(self.text, shown, anchor, self.variant, self._rng)
        else:
            said = self.text
        pieces = list(self._pieces(said, next(self._cuts, None)))
        usage = Usage(input_tokens=self._rng.randint(50, 99), output_tokens=self._rng.randint(1_000, 9_999))
        self.usages.append(usage)
        start = [ResponseStarted("answer-1", request.model), UsageReported(usage)]
        return Script(events=[*start, *map(TextDelta, pieces), UsageReported(usage), ResponseFinished("stop")])

    def _pieces(self, said: str, cut: int | None) -> Iterator[str]:
        """Cut what is said so that `cut` characters come in one piece, and the fault hits the next one."""
        if cut is not None:
            yield said[:cut]
            said = said[cut:]
        yield from in_pieces(said, self._rng)


BREAK = Fault("cut_chunk", after=1)


async def read_on(stream: Stream, events: list[Event]) -> None:
    while batch := await stream.next_batch():
        events += batch


async def read_all(stream: Stream, events: list[Event]) -> None:
    async with stream:
        await read_on(stream, events)


async def events_of(client: LLMClient, prompt: Any = "Tell me.", **options: Any) -> tuple[list[Event], APIResponse]:
    events: list[Event] = []
    stream = client.stream(prompt, **options)
    await read_all(stream, events)
    return events, stream.response


def check_joined(events: list[Event], response: APIResponse, whole: str, *, in_silence: int = 0) -> None:
    check_grammar(events)
    assert [type(event) for event in events].count(ResponseStarted) == 1
    assert [type(event) for event in events].count(ResponseFinished) == 1
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == whole
    assert response.completion == whole
    assert not response.is_error
    folded = ResponseBuilder()
    folded.add_all(events)
    of_events = folded.response()
    for name in ("content", "finish_reason", "raw_finish_reason", "response_id", "model_external", "citations"):
        assert getattr(of_events, name) == getattr(response, name), name
    assert of_events.usage in (None, response.usage)
    notes = [event for event in events if isinstance(event, Attempt)]
    assert all(note.goes_on for note in notes)
    assert response.stats.attempts == 1 + len(notes) + in_silence
