"""An answer plan: the steps to send, as a value. A fault is a function from one plan to another."""

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

__all__ = [
    "AnswerContext",
    "Close",
    "Frame",
    "Hang",
    "Pause",
    "Raw",
    "Repeat",
    "Reset",
    "Step",
    "WirePlan",
    "build_plan",
]

_DELTAS = (TextDelta, ReasoningDelta, RefusalDelta, ToolCallStarted, ToolCallDelta, MediaDelta)


@dataclass(frozen=True, slots=True)
class Frame:
    """Bytes of the body that are sent in one write.

    Attributes:
        event: The event that the bytes encode, or None. A pause comes before deltas only.
        is_first: Whether this is the first frame of its event: some APIs encode an event in several frames.
    """

    data: bytes
    event: Event | None = None
    is_first: bool = True

    @property
    def is_delta(self) -> bool:
        """Whether the frame starts a delta of the answer."""
        return self.is_first and isinstance(self.event, _DELTAS)


@dataclass(frozen=True, slots=True)
class Pause:
    """Send nothing for some seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Repeat:
    """Send the same bytes of the body `times` times, or until the client disconnects if `times` is None."""

    data: bytes
    every_s: float = 0.0
    times: int | None = None


@dataclass(frozen=True, slots=True)
class Hang:
    """Send nothing more and keep the connection open until the client disconnects."""


@dataclass(frozen=True, slots=True)
class Raw:
    """Send bytes on the connection without the framing of the body."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Reset:
    """Reset the connection (RST)."""


@dataclass(frozen=True, slots=True)
class Close:
    """Close the connection in order (FIN), before the end of the answer."""


Step: TypeAlias = Frame | Pause | Repeat | Hang | Raw | Reset | Close


@dataclass(frozen=True, slots=True)
class AnswerContext:
    """The request that an answer is planned for, and the encoder of its wire API.

    Attributes:
        port: The port that the simulator listens on.
        path: The path of the request.
        now: The time of the request, in seconds since 1970.
    """

    encoder: Encoder
    request: ParsedRequest
    port: int
    path: str
    now: float


@dataclass(frozen=True, slots=True)
class WirePlan:
    """The plan of one answer.

    Attributes:
        before: Steps before the status line.
        framing: How the body ends: with the last chunk, after `content-length` bytes, or when the connection closes.
        length: The value of `content-length`; None for the real length of the body.
        lazy_frames: Frames that are encoded while the body is sent; they come before `body`.
        events: The events that the body encodes, before a fault edits its bytes.
        after: What happens to the connection after the answer. `close_on_next_request` keeps it open, and closes it
            without an answer when the next request arrives.
    """

    context: AnswerContext
    body: tuple[Step, ...]
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    before: tuple[Step, ...] = ()
    framing: Literal["chunked", "length", "close"] = "chunked"
    length: int | None = None
    version: str = "HTTP/1.1"
    after: Literal["keep", "close", "close_on_next_request"] = "keep"
    is_stream: bool = True
    lazy_frames: Iterable[Frame] = ()
    events: tuple[Event, ...] = ()

    def with_headers(self, **headers: str) -> WirePlan:
        """Return a plan with the headers added or replaced. An underscore in an argument name becomes a hyphen."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        kept = tuple(pair for pair in self.headers if pair[0] not in named)
        return replace(self, headers=(*kept, *named.items()))

    def without_header(self, name: str) -> WirePlan:
        """Return a plan without the header `name`."""
        return replace(self, headers=tuple(pair for pair in self.headers if pair[0] != name))

    def encoded(self) -> WirePlan:
        """Return a plan with every lazy frame encoded into `body`, where a fault can edit it."""
        return replace(self, body=(*self.lazy_frames, *self.body), lazy_frames=())

    def with_document(self, status: int, content_type: str, data: bytes) -> WirePlan:
        """Return a plan whose answer is a single document with this status."""
        plan = replace(self, status=status, body=(Frame(data),), lazy_frames=(), framing="length", is_stream=False)
        return plan.with_headers(content_type=content_type)

    def map_frames(self, edit: Callable[[bytes], bytes]) -> WirePlan:
        """Return a plan with `edit` applied to the bytes of every frame."""
        return replace(self, body=tuple(_edited(step, edit) for step in self.body))

    def split(self, after: int) -> tuple[tuple[Step, ...], tuple[Step, ...]]:
        """Cut the body after the first `after` deltas, at the latest before the finish of the answer.

        A plain answer is cut in the middle of its only frame.
        """
        if not self.is_stream:
            return _halves(self.body)
        count = 0
        for position, step in enumerate(self.body):
            if isinstance(step, Frame):
                if isinstance(step.event, ResponseFinished) or (step.is_delta and count == after):
                    return self.body[:position], self.body[position:]
                count += step.is_delta
        return self.body, ()

    def insert(self, after: int, *steps: Step) -> WirePlan:
        """Return a plan with `steps` inserted after the first `after` deltas."""
        head, rest = self.split(after)
        return replace(self, body=(*head, *steps, *rest))


def _edited(step: Step, edit: Callable[[bytes], bytes]) -> Step:
    return replace(step, data=edit(step.data)) if isinstance(step, Frame) else step


def _halves(body: tuple[Step, ...]) -> tuple[tuple[Step, ...], tuple[Step, ...]]:
    data = b"".join(step.data for step in body if isinstance(step, Frame))
    middle = len(data) // 2
    return (Frame(data[:middle]),), (Frame(data[middle:]),)


def build_plan(context: AnswerContext, events: Sequence[Event]) -> WirePlan:
    """Return the plan of a healthy answer, streamed or plain as the request wants it.

    A streamed answer is encoded while it is sent, so that a thousand streams that start at the same time do not wait
    until all of them are encoded.
    """
    created = int(context.now)
    if not context.request.is_streamed:
        data = context.encoder.encode_response(events, created=created)
        plan = WirePlan(context, (Frame(data),), framing="length", is_stream=False)
        return plan.with_headers(content_type="application/json")
    last: Event | None = None
    is_new = True

    def tracked_events() -> Iterable[Event]:
        nonlocal last, is_new
        for event in events:
            last, is_new = event, True
            yield event

    def frame_of(data: bytes) -> Frame:
        nonlocal is_new
        is_first, is_new = is_new, False
        return Frame(data, last, is_first)

    # The encoder yields a frame as soon as it can, so a frame encodes the last event that the encoder has taken.
    frames = context.encoder.encode_stream(tracked_events(), created=created, include_usage=context.request.wants_usage)
    lazy_frames = (frame_of(data) for data in frames)
    return WirePlan(context, (), lazy_frames=lazy_frames, events=tuple(events)).with_headers(
        content_type=context.encoder.stream_type, cache_control="no-cache"
    )
