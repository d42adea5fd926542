"""The state that encoders of protocols with parts share: which part is open, which calls are known, what restarts."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar

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
from lm_deluge.growing_parts import AudioPieces
from lm_deluge.prompt.media import Media
from lm_deluge.prompt.parts import AudioPart
from lm_deluge.ui.approvals import ApprovalKey, check_key
from lm_deluge.ui.frame_encoder import (
    DataPart,
    ErrorText,
    FrameEncoder,
    Handler,
    UIEvent,
    attempt_fields,
    encode_json,
    handler_of,
)

__all__ = ["OpenCall", "PartEncoder", "media_url"]


class OpenCall:
    """A tool call of the answer.

    Attributes:
        head: Its frame of a piece of arguments, up to the piece.
        has_arguments: Whether pieces of arguments were written.
    """

    __slots__ = ("has_arguments", "head", "started")

    def __init__(self, started: ToolCallStarted, head: bytes) -> None:
        self.started = started
        self.head = head
        self.has_arguments = False


def media_url(media: Media) -> str | None:
    """Return the URL of a medium, with its data in it; None for one that only its provider can read."""
    return media.url or (media.data_url() if media.data is not None else None)


class PartEncoder(FrameEncoder):
    """Base of the encoders whose protocols have parts, calls, and frames for pieces of them.

    The frame of a piece is its head, which is made once per part, the piece as JSON, and `}`. All pieces of a part that
    arrive in one read become one frame.

    Args:
        approval_key: Signs the requests for approval; see `approval_id`.
        denied: Ids of the calls that the user has denied in the request: their frames are among the first ones.
        error_text: Returns the text that the client gets for an error.
    """

    def __init__(
        self,
        *,
        approval_key: ApprovalKey | None = None,
        denied: Collection[str] = (),
        error_text: ErrorText | None = None,
    ) -> None:
        super().__init__(error_text=error_text)
        check_key(approval_key)
        self._approval_key = approval_key
        self._denied = denied
        self._out: list[bytes] = []  # frames of this read
        self._pieces: list[str] = []  # of the part with this head, not yet in a frame
        self._head = b""
        self._open_kind: type | None = None  # the open text: `TextDelta` or `ReasoningDelta`
        self._open_head = b""
        self._calls: dict[int, OpenCall] = {}  # of this round
        self._known_calls: set[str] = set()
        self._audio: AudioPieces | None = None
        self._sources: set[str] = set()  # keys of the sources that were written
        self._has_parts = False  # whether this round wrote any

    def frames(self, events: Sequence[UIEvent]) -> bytes:
        """Return the frames for the events of one read.

        Raises:
            ConfigurationError: One of them is no event.
        """
        if self.is_over:
            return b""
        if len(events) == 1 and type(events[0]) is TextDelta and self._open_kind is TextDelta:  # nearly always
            text = events[0].text
            if text:
                return b"%b%b}\n\n" % (self._open_head, encode_json(text))
        for event in events:
            handler_of(self.HANDLERS, event)(self, event)
        return self._taken()

    def _taken(self) -> bytes:
        """Return the frames since the last call."""
        if self._pieces:
            self._flush()
        out = self._out
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        return data

    def _emit(self, fields: Mapping[str, Any]) -> None:
        """Write one frame."""
        if self._pieces:
            self._flush()
        self._out.append(b"data: %b\n\n" % encode_json(fields))

    def _write(self, head: bytes, piece: str) -> None:
        """Add a piece to the part with this head."""
        if head is not self._head:
            if self._pieces:
                self._flush()
            self._head = head
        self._pieces.append(piece)

    def _flush(self) -> None:
        pieces = self._pieces
        text = pieces[0] if len(pieces) == 1 else "".join(pieces)
        pieces.clear()
        self._out.append(b"%b%b}\n\n" % (self._head, encode_json(text)))

    # Text

    def _add_text(self, event: TextDelta | RefusalDelta) -> None:
        if event.text:
            if self._open_kind is not TextDelta:
                self._open_text(TextDelta)
            self._write(self._open_head, event.text)

    def _add_reasoning(self, event: ReasoningDelta) -> None:
        if event.text:
            if self._open_kind is not ReasoningDelta:
                self._open_text(ReasoningDelta)
            self._write(self._open_head, event.text)

    def _open_text(self, kind: type) -> None:
        self._close_parts()
        self._has_parts = True
        self._open_kind = kind
        self._open_head = self._start_text(kind)

    def _close_parts(self) -> None:
        """Close the open text, and write the audio that is complete."""
        if self._open_kind is not None:
            self._end_text(self._open_kind)
            self._open_kind = None
        audio, self._audio = self._audio, None
        if audio is not None:
            part = audio.part()
            if isinstance(part, AudioPart):
                self._add_file(media_url(part.media) or "", part.media.media_type or "")

    @abstractmethod
    def _start_text(self, kind: type) -> bytes:
        """Write the start of a text, or of reasoning; return the head of its pieces."""

    @abstractmethod
    def _end_text(self, kind: type) -> None:
        """Write the end of that part."""

    # Calls

    def _start_call(self, event: ToolCallStarted) -> None:
        self._close_parts()
        self._has_parts = True
        self._known_calls.add(event.id)
        self._calls[event.index] = OpenCall(event, self._open_call(event))

    def _add_arguments(self, event: ToolCallDelta) -> None:
        call = self._calls.get(event.index)
        if call is not None and event.arguments:
            call.has_arguments = True
            self._write(call.head, event.arguments)

    def _finish_call(self, event: ToolCallFinished) -> None:
        if event.index not in self._calls:
            self._start_call(ToolCallStarted(event.index, event.id, event.name, event.custom))
        self._close_call(self._calls.pop(event.index), event)

    def _name_call(self, event: ToolProgress | ToolResult) -> None:
        """Write the call that an event belongs to if it was made in an earlier answer: clients look for it."""
        if event.call_id not in self._known_calls:
            self._finish_call(ToolCallFinished(-1, event.call_id, event.name, "", {}))

    def _add_progress(self, event: ToolProgress) -> None:
        self._name_call(event)
        self._write_progress(event)

    def _add_result(self, event: ToolResult) -> None:
        if event.error is not None and event.call_id in self._denied:
            return
        self._close_parts()
        self._name_call(event)
        self._write_result(event)
        for part in event.media:
            url = media_url(part.media)
            if url is not None:
                self._add_file(url, part.media.media_type or "")

    @abstractmethod
    def _open_call(self, event: ToolCallStarted) -> bytes:
        """Write the start of a call; return the head of the pieces of its arguments."""

    @abstractmethod
    def _close_call(self, call: OpenCall, event: ToolCallFinished) -> None:
        """Write that the arguments of a call are complete."""

    @abstractmethod
    def _write_progress(self, event: ToolProgress) -> None:
        """Write the progress of a tool."""

    @abstractmethod
    def _write_result(self, event: ToolResult) -> None:
        """Write the result of a call."""

    # Media and sources

    def _add_media(self, event: MediaDelta) -> None:
        if event.transcript:
            self._add_text(TextDelta(event.transcript))
        if not event.media_type.startswith("audio/"):
            self._close_parts()
            self._add_file(event.url or f"data:{event.media_type};base64,{event.data}", event.media_type)
        elif event.url:
            self._add_file(event.url, event.media_type)
        elif event.data:
            self._audio = self._audio or AudioPieces(event)
            self._audio.add(event)

    def _add_citation(self, event: Citation) -> None:
        key = event.url or event.title
        if key and key not in self._sources:
            self._sources.add(key)
            self._has_parts = True
            self._add_source(event, f"source-{len(self._sources)}")

    def _add_file(self, url: str, media_type: str) -> None:
        self._has_parts = True
        self._write_file(url, media_type)

    @abstractmethod
    def _add_source(self, event: Citation, source_id: str) -> None:
        """Write a source."""

    @abstractmethod
    def _write_file(self, url: str, media_type: str) -> None:
        """Write a file."""

    # Attempts and rounds

    def _add_attempt(self, event: Attempt) -> None:
        discarded: Mapping[str, Any] = {}
        if not event.goes_on:
            self._pieces.clear()
            if self._has_parts:
                discarded = self._discard_round()
            self._forget_round()
        self._emit_data(DataPart("attempt", {**attempt_fields(event), **discarded}, transient=True))

    def _start_round(self, event: RoundStarted) -> None:
        self._note(event)
        self._close_parts()
        self._next_round(event)
        self._forget_round()

    def _forget_round(self) -> None:
        self._known_calls -= {call.started.id for call in self._calls.values()}
        self._open_kind, self._audio = None, None
        self._calls, self._sources, self._has_parts = {}, set(), False

    @abstractmethod
    def _discard_round(self) -> Mapping[str, Any]:
        """Take back the parts of this round; return what the client has to know for that."""

    @abstractmethod
    def _next_round(self, event: RoundStarted) -> None:
        """Write that the model answers again."""

    @abstractmethod
    def _emit_data(self, event: DataPart) -> None:
        """Write data of the application."""

    def _add_data(self, event: DataPart) -> None:
        self._emit_data(event)

    def _remember(self, event: ResponseStarted | UsageReported | ResponseFinished) -> None:
        self._note(event)

    def _skip(self, event: ProviderPart) -> None:
        """Write nothing: opaque data of a provider is of no use to a user interface, and goes back from the server."""

    HANDLERS: ClassVar[dict[type, Handler]] = {
        ResponseStarted: _remember,
        TextDelta: _add_text,
        ReasoningDelta: _add_reasoning,
        RefusalDelta: _add_text,
        ToolCallStarted: _start_call,
        ToolCallDelta: _add_arguments,
        ToolCallFinished: _finish_call,
        Citation: _add_citation,
        MediaDelta: _add_media,
        ProviderPart: _skip,
        UsageReported: _remember,
        Attempt: _add_attempt,
        ToolProgress: _add_progress,
        ToolResult: _add_result,
        RoundStarted: _start_round,
        ResponseFinished: _remember,
        DataPart: _add_data,
    }
