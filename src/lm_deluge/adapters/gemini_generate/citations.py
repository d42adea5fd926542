"""The sources of a grounded answer: `groundingMetadata` and `citationMetadata` into citations.

https://ai.google.dev/api/generate-content#GroundingMetadata (read 2026-11): positions are bytes of UTF-8; here they are
characters.
"""

from __future__ import annotations

from typing import Any

import msgspec

from lm_deluge.events import Citation, Event
from lm_deluge.wire.tolerant_json import convert_tolerantly

__all__ = ["CitationMetadata", "GroundingMetadata", "Sources"]


class _Place(msgspec.Struct, gc=False, rename="camel"):
    uri: str | None = None
    source_uri: str | None = None
    title: str | None = None


class _Segment(msgspec.Struct, gc=False, rename="camel"):
    start_index: int | None = None
    end_index: int | None = None
    text: str | None = None


class _Annotation(msgspec.Struct, gc=False):
    url: str | None = None
    document_uri: str | None = None
    title: str | None = None
    file_name: str | None = None
    name: str | None = None


class _ByteRange(msgspec.Struct, gc=False):
    start_index: int | None = None
    end_index: int | None = None


class _Support(msgspec.Struct, gc=False, rename="camel"):
    segment: _Segment | None = None
    grounding_chunk_indices: list[int] | None = None


class _SearchEntryPoint(msgspec.Struct, gc=False, rename="camel"):
    rendered_content: str | None = None


class GroundingMetadata(msgspec.Struct, gc=False, rename="camel"):
    """What a search, a map or a store of files brought, and which words of the answer rest on it."""

    grounding_chunks: list[Any] | None = None
    grounding_supports: list[Any] | None = None
    search_entry_point: _SearchEntryPoint | None = None


class CitationMetadata(msgspec.Struct, gc=False, rename="camel"):
    """What of the answer is known from elsewhere; Gemini and Vertex call the list differently."""

    citation_sources: list[Any] | None = None
    citations: list[Any] | None = None


class Sources:
    """Makes citations, each once, although chunks repeat what earlier ones said."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._encoded = b""
        self._told: set[tuple[str | None, str | None, int | None, int | None]] = set()
        self._waiting: dict[tuple[str | None, str | None], Any] = {}  # found, but no words rest on it yet
        self.search_suggestions = ""

    def add_text(self, text: str) -> None:
        """Note a piece of the answer, in which positions are."""
        self._pieces.append(text)

    def add_grounding(self, metadata: GroundingMetadata, events: list[Event]) -> None:
        """Take what a chunk says of grounding."""
        if metadata.search_entry_point is not None:
            self.search_suggestions = metadata.search_entry_point.rendered_content or self.search_suggestions
        chunks = metadata.grounding_chunks or []
        places = [_place_of(chunk) for chunk in chunks]
        for place, chunk in zip(places, chunks, strict=True):
            self._waiting.setdefault((_url(place), place.title), chunk)
        for raw in metadata.grounding_supports or ():
            support = convert_tolerantly(raw, _Support) or _Support()
            start, end = self._range(support.segment)
            for index in support.grounding_chunk_indices or ():
                if 0 <= index < len(chunks):
                    found = {"groundingChunk": chunks[index], "groundingSupport": raw}
                    self._tell(Citation(_url(places[index]), places[index].title, start, end, found), events)

    def add_citations(self, metadata: CitationMetadata, events: list[Event]) -> None:
        """Take what a chunk says of recitation."""
        for raw in [*(metadata.citation_sources or ()), *(metadata.citations or ())]:
            place, segment = convert_tolerantly(raw, _Place), convert_tolerantly(raw, _Segment)
            if place is not None:
                self._tell(Citation(place.uri, place.title, *self._range(segment), raw), events)

    def add_annotation(self, raw: Any, events: list[Event]) -> None:
        """Take an annotation of the Interactions API: of a page, a file or a place."""
        found, segment = convert_tolerantly(raw, _Annotation), convert_tolerantly(raw, _ByteRange) or _ByteRange()
        if found is not None:
            url, title = found.url or found.document_uri, found.title or found.file_name or found.name
            span = self._range(_Segment(segment.start_index, segment.end_index))
            self._tell(Citation(url, title, *span, raw), events)

    def finish(self, events: list[Event]) -> None:
        """Tell of sources on which no words in particular rest."""
        cited = {told[:2] for told in self._told}
        for key, chunk in self._waiting.items():
            if key not in cited:
                self._tell(Citation(*key, raw={"groundingChunk": chunk}), events)

    def _tell(self, citation: Citation, events: list[Event]) -> None:
        key = (citation.url, citation.title, citation.start, citation.end)
        if key not in self._told and (citation.url or citation.title):
            self._told.add(key)
            events.append(citation)

    def _range(self, segment: _Segment | None) -> tuple[int | None, int | None]:
        """Return where the segment is, in characters. Its text decides where the numbers, of a part, lead elsewhere."""
        if segment is None or segment.end_index is None:
            return None, None
        if self._pieces:
            self._encoded += "".join(self._pieces).encode("utf-8", "surrogatepass")
            self._pieces.clear()
        start, end = max(segment.start_index or 0, 0), max(segment.end_index, 0)
        wanted = (segment.text or "").encode("utf-8", "surrogatepass")
        if wanted and self._encoded[start:end] != wanted:
            found = self._encoded.find(wanted)
            if found >= 0:
                start, end = found, found + len(wanted)
        return self._characters(start), self._characters(end)

    def _characters(self, size: int) -> int:
        return len(self._encoded[:size].decode("utf-8", "ignore"))


def _place_of(chunk: Any) -> _Place:
    """Return the source in a chunk, which names its kind: `web`, `retrievedContext`, `maps`, `image`."""
    kinds = chunk.values() if isinstance(chunk, dict) else ()
    return next((found for each in kinds if (found := convert_tolerantly(each, _Place)) is not None), _Place())


def _url(place: _Place) -> str | None:
    return place.uri or place.source_uri
