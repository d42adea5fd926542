"""The items of a response as far as they are streamed, and how an event finds the item that it belongs to.

Hosts are careless with ids and indexes: GitHub Copilot sends a new id with every event, OpenRouter another id in the
last event (seen 2025-11 and 2026-02); others omit the index, or send 0 with each item. So an item is found by id and
index together, then by id, then by index, and in the last event also by its content.
"""

from __future__ import annotations

from typing import Any

from lm_deluge.adapters.openai_responses.frames import Piece
from lm_deluge.adapters.openai_responses.pieces import ARGUMENTS, arguments_of, content_of, pieces_of, string_of
from lm_deluge.adapters.snapshot import StreamedText, agrees, extend_json, joined

__all__ = ["OutputItem", "OutputItems", "TextPiece"]

JSON = dict[str, Any]

# Items with texts, and the name for both types of calls: a delta of arguments may come before the type is known.
_WITH_TEXT = ("message", "reasoning")
_CALL = "call"

# Streamed items that are compared with an item of the last event whose id and index are unknown. A trade-off: a
# response has few items without ids, and comparing all with all would take quadratic time.
_MOST_CANDIDATES = 16


class TextPiece(StreamedText):
    """A piece of an item, as streamed so far.

    Attributes:
        field: What kind of text it is: text, refusal, summary or reasoning.
        start: Its offset in the text of the response, for citations.
        done: Names of the events that finished it.
    """

    __slots__ = ("done", "field", "start")

    def __init__(self, field: str, start: int) -> None:
        super().__init__()
        self.field = field
        self.start = start
        self.done: set[str] = set()


class OutputItem:
    """An item as far as it is streamed.

    Attributes:
        kind: Its type, guessed from its deltas until an event contains it.
        index: Its `output_index`, or None.
        ids: The provider's ids of the item; some hosts send another one with each event.
        pieces: Its texts, in order of appearance.
        is_announced: It began with `output_item.added`.
        is_done: It was finished by `output_item.done` or by the last event.
        opaque: The data that were emitted for the item, or None.
        has_media: Its image was emitted.
        late: Finished pieces that belong to none of the streamed pieces for certain: field, index and piece.
        held: The item as an event contains it, read at the end if nothing else completes the item.
        call_id: The id of the call, or "".
        name: The name of the tool, or "".
        arguments: The arguments of the call.
        is_started: `ToolCallStarted` was emitted.
        is_closed: `ToolCallFinished` was emitted.
        is_confirmed: A `done` event repeated the arguments of the call.
    """

    def __init__(self, kind: str, index: int | None, item_id: str, *, is_guess: bool = False) -> None:
        self.kind = kind
        self.is_guess = is_guess
        self.index = index
        self.ids = {item_id} if item_id else set()
        self.pieces: list[TextPiece] = []
        self.is_announced = False
        self.is_done = False
        self.opaque: JSON | None = None
        self.has_media = False
        self.late: list[tuple[str, int, Piece]] = []
        self.held: JSON | None = None
        self._by_index: dict[tuple[str, int], TextPiece] = {}
        self.call_id = ""
        self.name = ""
        self.arguments = StreamedText()
        self.is_started = False
        self.is_closed = False
        self.is_confirmed = False

    def piece(self, field: str, index: int) -> TextPiece | None:
        """Return the piece with this index, or None."""
        return self._by_index.get((field, index))

    def add_piece(self, field: str, index: int, start: int) -> TextPiece:
        """Add a piece. If the index is taken, the first piece keeps it."""
        piece = TextPiece(field, start)
        self.pieces.append(piece)
        self._by_index.setdefault((field, index), piece)
        return piece

    def texts(self, field: str) -> list[TextPiece]:
        """Return the pieces of a field, in order of appearance."""
        return [piece for piece in self.pieces if piece.field == field]

    def fits(self, kind: str) -> bool:
        """Whether the item is, or may be, of this type."""
        return self.kind == kind or (self.is_guess and _group(self.kind) == _group(kind))

    def is_other_call(self, data: JSON) -> bool:
        """Whether both call ids are known and differ."""
        return self.call_id not in ("", string_of(data.get("call_id")) or self.call_id)

    def agrees(self, data: JSON) -> bool:
        """Whether a finished item may be this one, by its content: one of the two begins with the other."""
        if data.get("type") in ARGUMENTS:
            has_same_name = self.name in ("", string_of(data.get("name")) or self.name)
            return has_same_name and self.arguments.agrees(arguments_of(data))
        if self.kind in _WITH_TEXT:
            whole = pieces_of(data)
            return all(
                agrees(joined(self.texts(field)), "".join(content_of(each) for own, _, each in whole if own == field))
                for field in {piece.field for piece in self.pieces}
            )
        if self.opaque is None:
            return True
        old, new = ({**each, "id": None, "status": None} for each in (self.opaque, data))
        return bool(extend_json(old, new) == {**old, **new})


class OutputItems:
    """The items of one response, in order of appearance."""

    def __init__(self) -> None:
        self.all: list[OutputItem] = []
        self._by_id: dict[str, OutputItem] = {}
        self._by_call_id: dict[str, OutputItem] = {}
        self._by_index: dict[tuple[int | None, str], OutputItem] = {}
        self._last: dict[str, OutputItem] = {}

    def find_for_delta(self, kind: str, index: int | None, item_id: str) -> OutputItem:
        """Return the item that a fragment belongs to, or a new one; `kind` is the type that the item should have."""
        found = self._find(kind, index, item_id)
        if found is not None and index is None and item_id and item_id not in found.ids and found.is_done:
            found = None
        return found or self._add(OutputItem(kind, index, item_id, is_guess=True))

    def begin(self, index: int | None, data: JSON) -> OutputItem:
        """Return the item that `output_item.added` starts, or an open item that it repeats."""
        item_id = string_of(data.get("id"))
        found = self._find(str(data.get("type")), index, string_of(data.get("id")))
        if found is not None and found.is_done and None not in (index, found.index) and index != found.index:
            found = None  # the host uses the id again
        if found is not None and item_id not in found.ids:
            is_other = found.is_announced and item_id and found.ids
            if found.is_done or is_other or found.is_other_call(data):
                found = None
        found = self.identify(found, index, data)
        found.is_announced = True
        return found

    def end(self, index: int | None, data: JSON) -> OutputItem:
        """Return the item that `output_item.done` finishes; a new one if no event before belongs to it."""
        found = self._find(str(data.get("type")), index, string_of(data.get("id")))
        if found is not None and not self._is_same(found, data):
            found = None
        return self.identify(found, index, data)

    @staticmethod
    def _is_same(found: OutputItem, data: JSON) -> bool:
        item_id = string_of(data.get("id"))
        if item_id in found.ids:
            return True
        if found.is_other_call(data):
            return False
        if found.is_done:
            return not (item_id and found.ids) and found.agrees(data)
        return True

    def identify(self, item: OutputItem | None, index: int | None, data: JSON) -> OutputItem:
        """Note type and ids of an item, None for a new item."""
        kind, item_id, call_id = str(data.get("type")), string_of(data.get("id")), string_of(data.get("call_id"))
        if item is None:
            item = self._add(OutputItem(kind, index, item_id))
        item.kind, item.is_guess = kind, False
        if item_id:
            item.ids.add(item_id)
            self._by_id[item_id] = item
        if call_id:
            self._by_call_id.setdefault(call_id, item)
        return item

    def match(self, output: list[JSON]) -> list[tuple[OutputItem | None, JSON]]:
        """Return the items of the last event, each with the streamed item that it repeats, or None.

        In the last event an item may have another id and another index than in the stream.
        """
        found: dict[int, OutputItem] = {}
        free = dict.fromkeys(item for item in self.all)
        for find in (self._with_both, self._with_ids, self._at_index, self._with_content, self._at_index_only):
            for position, data in enumerate(output):
                item = find(position, data, free) if position not in found else None
                if item is not None and item in free:
                    del free[item]
                    found[position] = item
        return [(found.get(position), data) for position, data in enumerate(output)]

    def _with_both(self, position: int, data: JSON, free: dict[OutputItem, None]) -> OutputItem | None:
        item = self._by_index.get((position, _group(str(data.get("type")))))
        return item if item is not None and string_of(data.get("id")) in item.ids else None

    def _with_ids(self, position: int, data: JSON, free: dict[OutputItem, None]) -> OutputItem | None:
        kind = str(data.get("type"))
        for known, field in ((self._by_call_id, "call_id"), (self._by_id, "id")):
            item = known.get(string_of(data.get(field)))
            if item is not None and item.fits(kind) and item in free:
                return item
        return None

    def _at_index(self, position: int, data: JSON, free: dict[OutputItem, None]) -> OutputItem | None:
        item = self._at_index_only(position, data, free)
        return item if item is not None and item.agrees(data) else None

    def _with_content(self, position: int, data: JSON, free: dict[OutputItem, None]) -> OutputItem | None:
        kind = str(data.get("type"))
        checked = 0
        for item in free:
            if item.fits(kind) and not item.is_other_call(data):
                if item.agrees(data):
                    return item
                checked += 1
                if checked == _MOST_CANDIDATES:
                    break
        return None

    def _at_index_only(self, position: int, data: JSON, free: dict[OutputItem, None]) -> OutputItem | None:
        kind = str(data.get("type"))
        for index in (position, None):
            item = self._by_index.get((index, _group(kind)))
            if item is not None and item in free and item.fits(kind) and not item.is_other_call(data):
                # Two items that are neither texts nor calls are the same only if their data are.
                is_own = kind in _WITH_TEXT or kind in ARGUMENTS
                return item if is_own or item.agrees(data) else None
        return None

    def _find(self, kind: str, index: int | None, item_id: str) -> OutputItem | None:
        """Return the item of a type with this index and id, else with this id, else with this index.

        Without an index it is the last item of the type.
        """
        at_index = self._last.get(_group(kind)) if index is None else self._by_index.get((index, _group(kind)))
        if at_index is not None and not at_index.fits(kind):
            at_index = None
        if at_index is not None and (not item_id or not at_index.ids or item_id in at_index.ids):
            return at_index
        with_id = self._by_id.get(item_id)
        if with_id is None or not with_id.fits(kind):
            return at_index
        # Some hosts use an id again: an open item at the index is more likely than a finished one.
        return at_index if with_id.is_done and at_index is not None and not at_index.is_done else with_id

    def _add(self, item: OutputItem) -> OutputItem:
        self.all.append(item)
        self._by_index[item.index, _group(item.kind)] = item
        self._last[_group(item.kind)] = item
        for known in item.ids:
            self._by_id[known] = item
        return item


def _group(kind: str) -> str:
    return _CALL if kind in ARGUMENTS else kind
