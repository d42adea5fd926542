"""Positions of citations, from bytes to characters, in texts of any length."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from lm_deluge.adapters.gemini_generate.citations import CitationCollector, GroundingMetadata
from lm_deluge.events import Citation, Event

URL = "https://a.test"


class NoReport:
    """A report that must not get anything."""

    def skip_value(self, value: Any) -> None:
        raise AssertionError(value)


def grounding(*segments: dict[str, Any]) -> GroundingMetadata:
    supports = [{"segment": each, "groundingChunkIndices": [0]} for each in segments]
    return GroundingMetadata([{"web": {"uri": URL, "title": "A"}}], supports)


def ranges(events: list[Event]) -> list[tuple[int | None, int | None]]:
    return [(event.start, event.end) for event in events if isinstance(event, Citation)]


@given(st.lists(st.text("aé世\U0001f600", max_size=1_500), max_size=4), st.data())
def test_positions_are_in_characters(texts: list[str], data: st.DataObject) -> None:
    collector, events, text = CitationCollector(NoReport()), [], ""
    expected = []
    for piece in texts:
        collector.add_text(piece)
        text += piece
        start, end = sorted(data.draw(st.tuples(*[st.integers(0, len(text))] * 2)))
        at = [len(text[:position].encode()) for position in (start, end)]
        collector.add_grounding(grounding({"startIndex": at[0], "endIndex": at[1], "text": text[start:end]}), events)
        if (start, end) not in expected:
            expected.append((start, end))
    assert ranges(events) == expected


def test_a_segment_counted_from_the_start_of_its_part_is_searched() -> None:
    collector, events = CitationCollector(NoReport()), []
    collector.add_text("One. Two. Öne. Two.")
    words = [(1, "Two."), (1, "Two."), (6, "Two."), (0, "One."), (9, "Six.")]
    segments = [{"startIndex": start, "endIndex": start + 4, "text": word} for start, word in words]
    for count in (2, 5):
        collector.add_grounding(grounding(*segments[:count]), events)
    assert ranges(events) == [(5, 9), (15, 19), (0, 4), (9, 12)]  # the last one is not in the text


def test_repeated_metadata_is_read_again_only_while_its_text_is_incomplete() -> None:
    collector, events = CitationCollector(NoReport()), []
    metadata = grounding({"startIndex": 0, "endIndex": 4, "text": "word"})
    for _ in range(3):
        collector.add_text("wo")
        collector.add_grounding(metadata, events)
    assert ranges(events) == [(0, 2), (0, 4)]
