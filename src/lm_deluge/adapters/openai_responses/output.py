"""Turn the items of a response into events, each piece of content once, whichever events contain it.

The API sends the content of an item up to four times: in deltas, in the `done` events of its pieces, in the finished
item, and in the last event, which repeats all items. Hosts omit any of these, and some cut or change the later ones. So
each of them is reconciled with the content so far by the rule of `adapters/snapshot.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lm_deluge.adapters.openai_responses.frames import Piece, Source
from lm_deluge.adapters.openai_responses.items import opaque_of
from lm_deluge.adapters.openai_responses.output_items import OutputItem, OutputItems, TextPiece
from lm_deluge.adapters.openai_responses.pieces import (
    ARGUMENTS,
    arguments_of,
    content_of,
    pieces_of,
    report_wrong_types,
    string_of,
)
from lm_deluge.adapters.snapshot import extend_json, is_same_json, joined, rest_of
from lm_deluge.adapters.tool_call_fragments import KeyedCalls, parse_arguments
from lm_deluge.events import (
    Citation,
    Event,
    MediaDelta,
    ProviderPart,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    TokenLogprob,
)
from lm_deluge.wire.tolerant_json import SkipReport, convert_tolerantly

__all__ = ["ResponseOutput"]

JSON = dict[str, Any]
_WITH_TEXT = ("message", "reasoning")
_IDENTITY = ("type", "file_id", "index")  # fields that distinguish citations, beside those of `Source`
# For a finished piece: the streamed piece or None, the offset in it, and the text that was not streamed; None if the
# finished and the streamed text disagree.
_Plan = tuple[TextPiece | None, int, str | None]
_Tokens = tuple[TokenLogprob, ...]


class ResponseOutput:
    """The output of one response.

    Args:
        provider: Owner of opaque data.
        calls: Receives the tool calls; their keys are the items.
        start: Appends `ResponseStarted` if it is missing. Called before each event.
        ignore: Counts an event that could not be used or has no new content.
        report: Gets the values that are omitted because of their type.

    Attributes:
        has_refusal: Whether there is a refusal.
        differs: Whether a snapshot disagrees with the streamed content.
    """

    def __init__(
        self,
        provider: str,
        calls: KeyedCalls,
        start: Callable[[list[Event]], None],
        ignore: Callable[[], None],
        report: SkipReport,
    ) -> None:
        self.has_refusal = False
        self.differs = False
        self.items = OutputItems()
        self._provider = provider
        self._calls = calls
        self._start = start
        self._ignore = ignore
        self._report = report
        self._length = 0  # characters of the response's text
        self._sources: set[tuple[Any, ...]] = set()
        self._last: OutputItem | None = None  # the item of the last event

    # --- texts ---

    def find_piece(self, item: OutputItem, field: str, index: int) -> TextPiece:
        """Return the piece of an item that a delta belongs to."""
        return item.piece(field, index) or item.add_piece(field, index, self._length)

    def add_text(self, item: OutputItem, piece: TextPiece, text: str, logprobs: _Tokens, events: list[Event]) -> None:
        """Emit a piece of a text, a refusal or reasoning."""
        if not text and not logprobs:
            return
        self._start(events)
        self._last = item
        piece.add(text)
        if piece.field == "text":
            self._length += len(text)
            events.append(TextDelta(text, logprobs))
        elif piece.field == "refusal":
            self.has_refusal = True
            events.append(RefusalDelta(text))
        else:
            events.append(ReasoningDelta(text))

    def add_delta(self, piece: TextPiece, text: str, events: list[Event]) -> None:
        """Emit a further delta of a piece of text: the fast path for nearly all events."""
        piece.add(text)
        self._length += len(text)
        events.append(TextDelta(text))

    def end_piece(
        self, item: OutputItem, field: str, index: int, whole: Piece, event: str, events: list[Event]
    ) -> None:
        """Reconcile a finished piece, which may have another index than its deltas."""
        text = content_of(whole)
        piece = item.piece(field, index)
        rest = None if piece is None else piece.rest_of(text)
        if rest is None and text:
            open_pieces = [each for each in item.texts(field) if event not in each.done and each.length]
            for each in open_pieces:
                rest = each.rest_of(text)
                if rest is not None:
                    piece = each
                    break
            else:
                if piece is None and open_pieces:
                    item.late.append((field, index, whole))
                    return
        if piece is None:
            if not text:
                return
            piece, rest = self.find_piece(item, field, index), text
        piece.done.add(event)
        self._add_rest(item, piece, rest, whole, events)
        self._cite_all(piece.start, whole, events)

    def _add_rest(
        self, item: OutputItem, piece: TextPiece, rest: str | None, whole: Piece, events: list[Event]
    ) -> None:
        if rest is None:
            self.differs = True
        elif rest:
            if piece.length and self._last is not item:
                self.differs = True  # the text goes on in another item, so the rest is out of order
            self.add_text(item, piece, rest, () if piece.length else tuple(whole.logprobs or ()), events)

    def _end_texts(self, item: OutputItem, data: JSON, events: list[Event]) -> None:
        """Reconcile all pieces of a finished message or of finished reasoning."""
        wholes = pieces_of(data)
        plans: dict[str, list[_Plan]] = {}
        for field, index, whole in wholes:
            if field not in plans:
                plans[field] = self._plan(item, field, [each for each in wholes if each[0] == field])[::-1]
            piece, offset, rest = plans[field].pop()
            if piece is None and (rest or whole.logprobs):
                piece = item.add_piece(field, index, self._length)
            if piece is not None:
                self._add_rest(item, piece, rest, whole, events)
            start = self._length if piece is None else piece.start + offset
            self._cite_all(start, whole, events)
        item.late.clear()

    def _plan(self, item: OutputItem, field: str, wholes: list[tuple[str, int, Piece]]) -> list[_Plan]:
        """Compare the finished pieces of a field with the streamed ones, first joined, then one by one.

        Joined, because their indexes in the stream and in the finished item may differ.
        """
        texts = [content_of(whole) for _, _, whole in wholes]
        streamed = item.texts(field)
        rest = rest_of(joined(streamed), "".join(texts))
        if rest is None:
            return self._plan_each(item, field, wholes)
        if not streamed and self._is_reasoning_again(item, field, "".join(texts)):
            return [(None, 0, "") for _ in texts]
        plan: list[_Plan] = []
        before, total = 0, sum(piece.length for piece in streamed)
        for text in texts:
            known = max(0, min(len(text), total - before))
            piece, offset = _piece_at(streamed, before) if known else (None, 0)
            if known and known < len(text):
                piece, offset = streamed[-1], streamed[-1].length - known
            plan.append((piece, offset, text[known:]))
            before += len(text)
        return plan

    @staticmethod
    def _is_reasoning_again(item: OutputItem, field: str, text: str) -> bool:
        """Whether the other field of reasoning has the same text: some hosts send it as a summary and as content."""
        other = {"summary": "reasoning", "reasoning": "summary"}.get(field)
        return bool(other and text) and "".join(joined(item.texts(other or ""))) == text

    @staticmethod
    def _plan_each(item: OutputItem, field: str, wholes: list[tuple[str, int, Piece]]) -> list[_Plan]:
        free = dict.fromkeys(item.texts(field))
        found: dict[int, TextPiece] = {}
        for must_agree in (True, False):
            for has_index in (True, False):
                for position, (_, index, whole) in enumerate(wholes):
                    if position in found or not content_of(whole):
                        continue
                    candidate = item.piece(field, index) if has_index else next(iter(free), None)
                    if candidate not in free or candidate is None:
                        continue
                    if not must_agree or candidate.rest_of(content_of(whole)) is not None:
                        found[position] = candidate
                        del free[candidate]
        plan: list[_Plan] = []
        for position, (_, _, whole) in enumerate(wholes):
            piece = found.get(position)
            text = content_of(whole)
            plan.append((piece, 0, text if piece is None else piece.rest_of(text)))
        return plan

    # --- citations ---

    def cite(self, item: OutputItem, index: int, raw: Any, events: list[Event]) -> None:
        """Emit a citation that is an event of its own."""
        piece = item.piece("text", index)
        self._cite(self._length if piece is None else piece.start, raw, events)

    def _cite_all(self, start: int, whole: Piece, events: list[Event]) -> None:
        for raw in whole.annotations or ():
            self._cite(start, raw, events)

    def _cite(self, first: int, raw: Any, events: list[Event]) -> None:
        source = convert_tolerantly(raw, Source, self._report)
        if source is None:
            return
        # The API's offsets are relative to the piece, ours to the text of the response.
        start = None if source.start_index is None else source.start_index + first
        end = None if source.end_index is None else source.end_index + first
        identity = (first, start, end, source.url, source.title, source.filename, *map(str, map(raw.get, _IDENTITY)))
        if identity not in self._sources:
            self._sources.add(identity)
            self._start(events)
            events.append(Citation(source.url, source.title or source.filename, start, end, raw))

    # --- calls ---

    def add_arguments(self, item: OutputItem, fragment: str, events: list[Event]) -> None:
        """Add a fragment of the arguments of a call. Until the call has a name and an id, it is only kept."""
        if item.is_closed:
            self._ignore()
            return
        item.arguments.add(fragment)
        if item.is_started:
            self._last = item
            self._calls.add(events, item, fragment)

    def end_arguments(self, item: OutputItem, whole: str, events: list[Event]) -> None:
        """Reconcile finished arguments."""
        rest = item.arguments.rest_of(whole)
        if rest is None:
            self.differs = self.differs or not is_same_json(str(item.arguments), whole)
        elif rest and item.is_closed:
            self.differs = True
        elif rest:
            self.add_arguments(item, rest, events)

    def name_call(self, item: OutputItem, name: str, call_id: str, events: list[Event]) -> None:
        """Note name and id of a call, and announce it when both are known."""
        self.differs = self.differs or (item.name not in ("", name or item.name))
        self.differs = self.differs or (item.call_id not in ("", call_id or item.call_id))
        item.name = item.name or name
        item.call_id = item.call_id or call_id
        if item.name and item.call_id:
            self._announce(item, events)

    def _announce(self, item: OutputItem, events: list[Event]) -> None:
        if item.is_started:
            return
        item.is_started = True
        self._start(events)
        self._last = item
        is_custom = item.kind == "custom_tool_call"
        self._calls.start(events, item, item.call_id or min(item.ids, default=""), item.name, custom=is_custom)
        self._calls.add(events, item, str(item.arguments))

    def _end_call(self, item: OutputItem, data: JSON, events: list[Event], *, is_last: bool) -> None:
        self.name_call(item, string_of(data.get("name")), string_of(data.get("call_id")), events)
        whole = arguments_of(data)
        self.end_arguments(item, whole, events)
        if is_last:
            self._announce(item, events)
        if item.is_started and not item.is_closed and (is_last or self._is_whole(item, whole)):
            self._close_call(item, events)

    @staticmethod
    def _is_whole(item: OutputItem, whole: str) -> bool:
        """Whether the arguments of a finished item need not be compared with the last event to be complete."""
        if item.is_confirmed:
            return True
        if item.kind == "custom_tool_call":
            return bool(whole)
        text = str(item.arguments)
        return bool(text) and parse_arguments(text)[1] is None

    def _close_call(self, item: OutputItem, events: list[Event]) -> None:
        item.is_closed = True
        self._calls.finish(events, item)

    # --- items ---

    def begin(self, index: int | None, data: JSON, events: list[Event]) -> None:
        """Start an item."""
        report_wrong_types(data, self._report)
        self._start(events)
        item = self.items.begin(index, data)
        if item.held is None and not item.is_done:
            item.held = data
        if item.kind in ARGUMENTS:
            self.name_call(item, string_of(data.get("name")), string_of(data.get("call_id")), events)

    def end(self, index: int | None, data: JSON, events: list[Event]) -> None:
        """Reconcile a finished item."""
        report_wrong_types(data, self._report)
        self._start(events)
        self._settle(self.items.end(index, data), data, events)

    def end_all(self, output: list[Any], events: list[Event], *, is_last: bool) -> None:
        """Reconcile the items of the last event; with `is_last`, complete the items that no event finished."""
        items = []
        for data in output:
            if isinstance(data, dict):
                report_wrong_types(data, self._report)
                items.append(data)
            else:
                self._report.skip_value(data)
        for position, (found, data) in enumerate(self.items.match(items)):
            item = self.items.identify(found, position, data)
            self._settle(item, data, events, is_last=is_last)
        if is_last:
            for item in list(self.items.all):
                self._complete(item, events)

    def _settle(self, item: OutputItem, data: JSON, events: list[Event], *, is_last: bool = False) -> None:
        before = len(events)
        was_done, item.is_done = item.is_done, True
        if item.kind in ARGUMENTS:
            self._end_call(item, data, events, is_last=is_last)
            if not item.is_started:
                item.held, item.is_done = data, False
                return
        elif item.kind in _WITH_TEXT:
            self._end_texts(item, data, events)
        elif item.kind == "image_generation_call":
            self._end_image(item, data, events)
        self._keep_opaque(item, data, events)
        if was_done and not is_last and len(events) == before:
            self._ignore()

    def _complete(self, item: OutputItem, events: list[Event]) -> None:
        """Complete an item that no event finished, from the event that started it."""
        for field, index, whole in item.late:
            self._add_rest(item, item.add_piece(field, index, self._length), content_of(whole), whole, events)
        item.late.clear()
        held = item.held or {"type": item.kind}
        if item.kind in ARGUMENTS and not item.is_closed:
            if item.arguments.length:
                held = {**held, ARGUMENTS[item.kind]: ""}
            self._end_call(item, held, events, is_last=True)
            self._keep_opaque(item, held, events)
        elif item.kind in _WITH_TEXT and not item.is_done and not item.pieces:
            self._end_texts(item, held, events)

    def _end_image(self, item: OutputItem, data: JSON, events: list[Event]) -> None:
        result = string_of(data.get("result"))
        if result and not item.has_media:
            item.has_media = True
            kind = string_of(data.get("output_format")) or "png"
            events.append(MediaDelta(f"image/{kind}", result, id=string_of(data.get("id")) or None))

    def _keep_opaque(self, item: OutputItem, data: JSON, events: list[Event]) -> None:
        """Emit the data of an item that must be sent back, or again if a later event has more of them."""
        found = opaque_of(data)
        if found is None:
            return
        kind, opaque = found
        if item.opaque is not None:
            longer = extend_json(item.opaque, opaque)
            if longer is item.opaque:
                return
            opaque = longer
        item.opaque = opaque
        is_beside = item.kind in ("message", *ARGUMENTS)
        if not is_beside or self._last in (None, item) or self._last.kind != item.kind:
            # The next request adds data beside a message or a call to the part before them, so it must be their own.
            self._start(events)
            events.append(ProviderPart(self._provider, kind, opaque))
            self._last = item


def _piece_at(pieces: list[TextPiece], offset: int) -> tuple[TextPiece | None, int]:
    """Return the piece at an offset in the joined text of `pieces`, and the offset in this piece."""
    for piece in pieces:
        if offset < piece.length:
            return piece, offset
        offset -= piece.length
    return None, 0
