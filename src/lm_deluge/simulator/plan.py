"""What is going to be sent, as a value: so that a fault is a function from one plan to another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from lm_deluge.encoders.encoder import Encoder, ParsedRequest
from lm_deluge.events import (
    Event,
    MediaDelta,
    ReasoningDelta,
    RefusalDelta,
    ResponseFinished,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
)

__all__ = ["Close", "Frame", "Hang", "Pause", "Raw", "Repeat", "Reset", "Site", "Step", "WirePlan", "build_plan"]

_DELTAS = (TextDelta, ReasoningDelta, RefusalDelta, ToolCallStarted, ToolCallDelta, MediaDelta)


@dataclass(frozen=True, slots=True)
class Frame:
    """Bytes of the body, sent at once; `event` is what they say. Only deltas keep the pace.

    Attributes:
        is_first: It is the first one that says so: some APIs write several frames for one event.
    """

    data: bytes
    event: Event | None = None
    is_first: bool = True

    @property
    def is_delta(self) -> bool:
        """Whether a piece of the answer begins with it."""
        return self.is_first and isinstance(self.event, _DELTAS)


@dataclass(frozen=True, slots=True)
class Pause:
    """Seconds in which nothing is sent."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Repeat:
    """The same bytes of the body again and again, `times` times or until the client leaves."""

    data: bytes
    every_s: float = 0.0
    times: int | None = None


@dataclass(frozen=True, slots=True)
class Hang:
    """Nothing any more, on an open connection, until the client leaves."""


@dataclass(frozen=True, slots=True)
class Raw:
    """Bytes on the connection itself, past the framing of the body."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Reset:
    """The connection dies: RST."""


@dataclass(frozen=True, slots=True)
class Close:
    """The connection is closed in order, but too early: FIN."""


Step: TypeAlias = Frame | Pause | Repeat | Hang | Raw | Reset | Close


@dataclass(frozen=True, slots=True)
class Site:
    """Where and for whom an answer is planned.

    Attributes:
        port: Where the simulator listens.
        path: What was asked for.
        now: Seconds since 1970.
    """

    encoder: Encoder
    request: ParsedRequest
    port: int
    path: str
    now: float


@dataclass(frozen=True, slots=True)
class WirePlan:
    """One answer.

    Attributes:
        before: Steps in front of the status line.
        framing: How the end of the body is told: by chunks, by its length, or by closing the connection.
        length: What `content-length` says; None for the truth.
        unwritten: Frames of the body that are made while it is sent, in front of `body`.
        events: The answer that the body says, before any edit of its bytes.
        after: What becomes of the connection. `doom` leaves it open and closes it upon the next request.
    """

    site: Site
    body: tuple[Step, ...]
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    before: tuple[Step, ...] = ()
    framing: Literal["chunked", "length", "close"] = "chunked"
    length: int | None = None
    version: str = "HTTP/1.1"
    after: Literal["keep", "close", "doom"] = "keep"
    is_stream: bool = True
    unwritten: Iterable[Frame] = ()
    events: tuple[Event, ...] = ()

    def with_headers(self, **headers: str) -> WirePlan:
        """Return the plan with headers in place of those of the same name; `_` stands for `-`."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        kept = tuple(pair for pair in self.headers if pair[0] not in named)
        return replace(self, headers=(*kept, *named.items()))

    def without_header(self, name: str) -> WirePlan:
        """Return the plan without a header."""
        return replace(self, headers=tuple(pair for pair in self.headers if pair[0] != name))

    def written(self) -> WirePlan:
        """Return the plan with its whole body written, as a fault wants it."""
        return replace(self, body=(*self.unwritten, *self.body), unwritten=())

    def with_document(self, status: int, content_type: str, data: bytes) -> WirePlan:
        """Return a plan that answers with one document instead."""
        plan = replace(self, status=status, body=(Frame(data),), unwritten=(), framing="length", is_stream=False)
        return plan.with_headers(content_type=content_type)

    def map_frames(self, edit: Callable[[bytes], bytes]) -> WirePlan:
        """Return the plan with the bytes of every frame changed."""
        return replace(self, body=tuple(_edited(step, edit) for step in self.body))

    def split(self, after: int) -> tuple[tuple[Step, ...], tuple[Step, ...]]:
        """Cut the body behind the first `after` deltas, at the latest before the end of the answer.

        A plain answer is cut in the middle of its one frame.
        """
        if not self.is_stream:
            return _halves(self.body)
        seen = 0
        for position, step in enumerate(self.body):
            if isinstance(step, Frame):
                if isinstance(step.event, ResponseFinished) or (step.is_delta and seen == after):
                    return self.body[:position], self.body[position:]
                seen += step.is_delta
        return self.body, ()

    def insert(self, after: int, *steps: Step) -> WirePlan:
        """Return the plan with steps behind the first `after` deltas."""
        before, rest = self.split(after)
        return replace(self, body=(*before, *steps, *rest))


def _edited(step: Step, edit: Callable[[bytes], bytes]) -> Step:
    return replace(step, data=edit(step.data)) if isinstance(step, Frame) else step


def _halves(body: tuple[Step, ...]) -> tuple[tuple[Step, ...], tuple[Step, ...]]:
    data = b"".join(step.data for step in body if isinstance(step, Frame))
    middle = len(data) // 2
    return (Frame(data[:middle]),), (Frame(data[middle:]),)


def build_plan(site: Site, events: Sequence[Event]) -> WirePlan:
    """Return the plan of a healthy answer, streamed or plain as the request wants it.

    A streamed one is written as it is sent: a thousand that begin together do not wait for each other's end.
    """
    created = int(site.now)
    if not site.request.is_streamed:
        data = site.encoder.encode_response(events, created=created)
        plan = WirePlan(site, (Frame(data),), framing="length", is_stream=False)
        return plan.with_headers(content_type="application/json")
    last: Event | None = None
    is_new = True

    def watched() -> Iterable[Event]:
        nonlocal last, is_new
        for event in events:
            last, is_new = event, True
            yield event

    def read_off(data: bytes) -> Frame:
        nonlocal is_new
        was_new, is_new = is_new, False
        return Frame(data, last, was_new)

    # The encoder writes a frame as soon as it can, so the last event that it took is the one in the frame.
    frames = site.encoder.encode_stream(watched(), created=created, include_usage=site.request.wants_usage)
    unwritten = (read_off(data) for data in frames)
    return WirePlan(site, (), unwritten=unwritten, events=tuple(events)).with_headers(
        content_type=site.encoder.stream_type, cache_control="no-cache"
    )
