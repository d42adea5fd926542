"""The parts of an answer, as the page shows them, from its events."""

from hypothesis import given
from hypothesis import strategies as st

from lm_deluge.events import (
    Attempt,
    Citation,
    Event,
    ReasoningDelta,
    RefusalDelta,
    ResponseFinished,
    ResponseStarted,
    RoundStarted,
    TextDelta,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
    ToolResult,
)
from lm_deluge.gateway.page.answers.shown_parts import ShownParts

RESTART = Attempt(2, "TruncatedError", "cut", 0.0, "gpt-4o")


def parts_of(*events: Event) -> list[dict[str, object]]:
    shown = ShownParts()
    shown.add_all(events)
    return shown.parts()


@given(st.lists(st.text(max_size=5)), st.integers(0, 5))
def test_text_is_whole_wherever_it_is_read(pieces: list[str], looked_at: int) -> None:
    shown = ShownParts()
    for number, piece in enumerate(pieces):
        shown.add_all([TextDelta(piece)])
        if number == looked_at:
            assert shown.text() == "".join(pieces[: number + 1])
    assert shown.parts() == ([{"type": "text", "text": "".join(pieces)}] if any(pieces) else [])


def test_characters_are_whole() -> None:
    assert parts_of(TextDelta("a\ud83d"), TextDelta("\ude00b"))[0]["text"] == "a\U0001f600b"
    assert parts_of(TextDelta("a\ud83d"), TextDelta("b"))[0]["text"] == "a\ufffdb"


def test_parts_keep_their_order_and_sources_come_last() -> None:
    found = parts_of(
        ResponseStarted("1", "m"),
        ReasoningDelta("Hm"),
        ReasoningDelta("."),
        TextDelta("A"),
        Citation(url="https://a.example", title="A"),
        TextDelta("B"),
        Citation(url="https://a.example"),
        Citation(title="without an address"),
        RefusalDelta("C"),
        ResponseFinished("stop"),
    )
    assert found == [
        {"type": "reasoning", "text": "Hm."},
        {"type": "text", "text": "ABC"},
        {"type": "source", "url": "https://a.example", "title": "A"},
    ]


def call(index: int, name: str, text: str, arguments: object) -> list[Event]:
    start = [ToolCallStarted(index, f"id{index}", name), *(ToolCallDelta(index, each) for each in text)]
    return [*start, ToolCallFinished(index, f"id{index}", name, text, arguments)]


def test_calls_have_their_arguments_and_results() -> None:
    growing = parts_of(ToolCallStarted(0, "id0", "add"), ToolCallDelta(0, '{"x'))
    assert growing[0]["arguments"] == '{"x'
    found = parts_of(
        *call(0, "add", '{"x":1}', {"x": 1}),
        *call(1, "add", "{broken", None),
        ToolResult("id1", "add", "", "ValueError: no"),
        ToolResult("id0", "add", "2"),
        ToolResult("unknown", "add", "3"),
    )
    empty = {"type": "tool", "name": "add"}
    assert found == [
        {**empty, "id": "id0", "arguments": {"x": 1}, "result": "2", "error": None},
        {**empty, "id": "id1", "arguments": "{broken", "result": "", "error": "ValueError: no"},
    ]


def test_a_restart_takes_back_its_own_round_only() -> None:
    first = [TextDelta("one"), Citation(url="https://a.example"), *call(0, "add", "{}", {})]
    second = [RoundStarted(2), TextDelta("two"), Citation(url="https://b.example")]
    kept = parts_of(*first, ToolResult("id0", "add", "1"), *second, RESTART, TextDelta("again"))
    assert [part.get("text") or part.get("url") or part.get("result") for part in kept] == [
        "one",
        "1",
        "again",
        "https://a.example",
    ]
    assert parts_of(*first, RESTART, TextDelta("new")) == [{"type": "text", "text": "new"}]
    goes_on = Attempt(2, "TruncatedError", "cut", 0.0, "gpt-4o", goes_on=True)
    assert parts_of(TextDelta("a"), goes_on, TextDelta("b")) == [{"type": "text", "text": "ab"}]
