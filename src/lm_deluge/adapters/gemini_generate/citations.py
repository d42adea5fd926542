"""Convert `groundingMetadata` and `citationMetadata` into citations.

https://ai.google.dev/api/generate-content#GroundingMetadata (read 2026-11): positions are in bytes of UTF-8; a
`Citation` has them in characters.
"""

from __future__ import annotations

from bisect import bisect
from typing import Any

import msgspec

from lm_deluge.events import Citation, Event
from lm_deluge.wire.tolerant_json import SkipReport, convert_tolerantly

__all__ = ["CitationCollector", "CitationMetadata", "GroundingMetadata"]


class _Source(msgspec.Struct, gc=False, rename="camel"):
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
    start_index: int | None = None
    end_index: int | None = None


class _Support(msgspec.Struct, gc=False, rename="camel"):
    segment: _Segment | None = None
    grounding_chunk_indices: list[int] | None = None


class _SearchEntryPoint(msgspec.Struct, gc=False, rename="camel"):
    rendered_content: str | None = None


class GroundingMetadata(msgspec.Struct, gc=False, rename="camel"):
    """The sources found by a search, map or file search tool, and the ranges of text that they support."""

    grounding_chunks: list[Any] | None = None
    grounding_supports: list[Any] | None = None
    web_search_queries: list[str] | None = None
    search_entry_point: _SearchEntryPoint | None = None


class CitationMetadata(msgspec.Struct, gc=False, rename="camel"):
    """The ranges of text that are recited from a source. Gemini and Vertex have different names for the list."""

    citation_sources: list[Any] | None = None
    citations: list[Any] | None = None


# Characters of a block of the text's index. Converting a position decodes one block, so that its time does not depend
# on the length of the text; an index entry for 512 characters is small beside them.
_BLOCK = 512
# Searches of the whole text that may fail. Segments that are not in the text cost a search each, of the whole text.
_MOST_FAILED_SEARCHES = 100


class CitationCollector:
    """Emits each citation once, although chunks repeat the metadata of earlier chunks.

    Args:
        report: Gets the values that are omitted because of their type.
    """

    def __init__(self, report: SkipReport) -> None:
        self._report = report
        self._pieces: list[str] = []  # of the text, not encoded yet
        self._encoded = bytearray()
        self._length = 0  # in characters
        self._starts = [0]  # of the blocks of text, in bytes
        self._characters_before = [0]  # each of these blocks
        self._emitted: set[tuple[str | None, str | None, int | None, int | None]] = set()
        self._uncited: dict[tuple[str | None, str | None], Any] = {}  # sources that support no range of text so far
        self._last: GroundingMetadata | None = None  # metadata whose ranges were all within the text
        self._last_annotation: Any = None  # the same of an annotation
        self._found: dict[tuple[int, int, bytes], int] = {}  # positions of the segments that were found by a search
        self._found_to = 0  # end of the last one
        self._failed_searches = 0
        self.search_suggestions = ""
        self.searches: set[str] = set()  # queries of Google's searches

    def add_text(self, text: str) -> None:
        """Append a piece of the response's text, to which the positions refer."""
        self._pieces.append(text)

    def add_grounding(self, metadata: GroundingMetadata, events: list[Event]) -> None:
        """Emit the citations in the grounding metadata of a chunk."""
        if metadata == self._last:
            return
        self.searches.update(metadata.web_search_queries or ())
        if metadata.search_entry_point is not None:
            self.search_suggestions = metadata.search_entry_point.rendered_content or self.search_suggestions
        chunks = metadata.grounding_chunks or []
        is_final = True
        sources = [self._source_of(chunk) for chunk in chunks]
        for source, chunk in zip(sources, chunks, strict=True):
            self._uncited.setdefault((_url(source), source.title), chunk)
        for raw in metadata.grounding_supports or ():
            support = convert_tolerantly(raw, _Support, self._report) or _Support()
            start, end = self._range(support.segment)
            is_final = is_final and self._is_within(support.segment)
            for index in support.grounding_chunk_indices or ():
                if 0 <= index < len(chunks):
                    found = {"groundingChunk": chunks[index], "groundingSupport": raw}
                    self._emit(Citation(_url(sources[index]), sources[index].title, start, end, found), events)
        # Chunks repeat the metadata. Ranges of text that is still to come have to be computed again.
        self._last = metadata if is_final else None

    def add_citations(self, metadata: CitationMetadata, events: list[Event]) -> None:
        """Emit the citations in the citation metadata of a chunk."""
        for raw in [*(metadata.citation_sources or ()), *(metadata.citations or ())]:
            source, segment = convert_tolerantly(raw, _Source, self._report), convert_tolerantly(raw, _Segment)
            if source is not None:
                self._emit(Citation(source.uri, source.title, *self._range(segment), raw), events)

    def add_annotation(self, raw: Any, events: list[Event]) -> None:
        """Emit the citation of an annotation of the Interactions API: a page, a file or a place on a map."""
        if raw == self._last_annotation:
            return
        found = convert_tolerantly(raw, _Annotation, self._report)
        if found is not None:
            url, title = found.url or found.document_uri, found.title or found.file_name or found.name
            segment = _Segment(found.start_index, found.end_index)
            span = self._range(segment)
            self._last_annotation = raw if self._is_within(segment) else None
            self._emit(Citation(url, title, *span, raw), events)

    def finish(self, events: list[Event]) -> None:
        """Emit the sources that support no particular range of text."""
        cited = {key[:2] for key in self._emitted}
        for key, chunk in self._uncited.items():
            if key not in cited:
                self._emit(Citation(*key, raw={"groundingChunk": chunk}), events)

    def _emit(self, citation: Citation, events: list[Event]) -> None:
        key = (citation.url, citation.title, citation.start, citation.end)
        if key not in self._emitted and (citation.url or citation.title):
            self._emitted.add(key)
            events.append(citation)

    def _range(self, segment: _Segment | None) -> tuple[int | None, int | None]:
        """Return the range of the segment in characters.

        The positions count from the start of a part, so if they do not match the segment's text, the text is searched.
        """
        if segment is None or segment.end_index is None:
            return None, None
        if self._pieces:
            self._encode()
        start, end = max(segment.start_index or 0, 0), max(segment.end_index, 0)
        wanted = (segment.text or "").encode("utf-8", "surrogatepass")
        if wanted and self._encoded[start:end] != wanted:
            found = self._search(start, end, wanted)
            if found >= 0:
                start, end = found, found + len(wanted)
        return self._characters(start), self._characters(end)

    def _is_within(self, segment: _Segment | None) -> bool:
        return segment is None or (segment.end_index or 0) <= len(self._encoded)

    def _search(self, start: int, end: int, wanted: bytes) -> int:
        """Return the position of a segment's text, -1 if there is none. Segments are in the order of the text."""
        known = self._found.get((start, end, wanted))
        if known is not None:
            return known
        found = self._encoded.find(wanted, self._found_to)
        if found < 0 and self._failed_searches < _MOST_FAILED_SEARCHES:
            found = self._encoded.find(wanted)
            self._failed_searches += found < 0
        if found >= 0:
            self._found_to = found + len(wanted)
            self._found[start, end, wanted] = found
        return found

    def _encode(self) -> None:
        """Encode the text since the last call, and extend the index."""
        text = self._pieces[0] if len(self._pieces) == 1 else "".join(self._pieces)
        self._pieces.clear()
        for start in range(0, len(text), _BLOCK):
            if self._length - self._characters_before[-1] >= _BLOCK:
                self._starts.append(len(self._encoded))
                self._characters_before.append(self._length)
            block = text[start : start + _BLOCK]
            self._encoded += block.encode("utf-8", "surrogatepass")
            self._length += len(block)

    def _characters(self, size: int) -> int:
        """Return the number of characters in the first `size` bytes of the text."""
        length = len(self._encoded)
        size = min(length, size)
        if self._length == length:  # all ASCII
            return size
        at = bisect(self._starts, size) - 1
        return self._characters_before[at] + len(self._encoded[self._starts[at] : size].decode("utf-8", "ignore"))

    def _source_of(self, chunk: Any) -> _Source:
        """Return the source in a chunk, whose only key is its kind: `web`, `retrievedContext`, `maps`, `image`."""
        if not isinstance(chunk, dict):
            self._report.skip_value(chunk)
            return _Source()
        for each in chunk.values():
            found = convert_tolerantly(each, _Source, self._report)
            if found is not None:
                return found
        return _Source()


def _url(source: _Source) -> str | None:
    return source.uri or source.source_uri
