"""Server-sent events: the standard, its test suites, reads of any size, limits."""

from __future__ import annotations

import json
import pickle
import tracemalloc
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import cuts
from lm_deluge.errors import ResponseLimitError
from lm_deluge.wire.sse import ServerSentEvent, SSEDecoder, encode_sse
from sse_reference import interpret

HERE = Path(__file__).parent
FORMAT_CASES = json.loads((HERE / "sse_format_cases.json").read_text())["cases"]
CONTRACT = json.loads((HERE / "sse_contract_cases.json").read_text())

Dispatched = list[tuple[str, str, str]]


def dispatched(chunks: Iterable[bytes]) -> Dispatched:
    """Return (type, data, last event id at the end of the read) of each event."""
    decoder = SSEDecoder()
    return [(frame.event, frame.text, decoder.last_event_id) for chunk in chunks for frame in decoder.feed(chunk)]


def without_ids(events: Dispatched) -> list[tuple[str, str]]:
    return [(event, data) for event, data, _ in events]


@pytest.mark.parametrize("case", FORMAT_CASES, ids=lambda case: case["name"])
@pytest.mark.parametrize("cut", ["whole", "byte by byte", "pairs", "random"])
def test_web_platform_format_cases(case: dict, cut: str) -> None:
    stream = case["stream"].encode("latin-1")
    expected = [tuple(event) for event in case["events"]]
    takes = {
        "whole": [[stream]],
        "byte by byte": [cuts.every(stream, 1)],
        "pairs": [cuts.every(stream, 2)],
        "random": [cuts.at_random(stream, seed, 7) for seed in range(20)],
    }
    for chunks in takes[cut]:
        assert without_ids(dispatched(chunks)) == expected


def test_the_reference_parser_agrees_with_the_format_cases() -> None:
    for case in FORMAT_CASES:
        found = interpret(case["stream"].encode("latin-1")).events
        assert without_ids(found) == [tuple(event) for event in case["events"]], case["name"]


@pytest.mark.parametrize("case", CONTRACT["cases"], ids=lambda case: case["name"])
def test_contract_cases(case: dict) -> None:
    chunks = [chunk.encode("latin-1") for chunk in case["chunks"]]
    assert dispatched(chunks) == [tuple(event) for event in case["events"]]


@pytest.mark.parametrize("terminator", CONTRACT["terminators"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize("size", CONTRACT["chunk_sizes"], ids=["one chunk", "1 byte", "2 bytes"])
@pytest.mark.parametrize("case", CONTRACT["terminator_inputs_with_bar_for_line_end"], ids=lambda case: case[0])
def test_contract_line_terminators(case: list, size: int, terminator: str) -> None:
    _, text, expected = case
    chunks = cuts.every(text.replace("|", terminator).encode(), size)
    assert dispatched(chunks) == [("", data, "") for data in expected]


@pytest.mark.parametrize("size", CONTRACT["payload_sizes"])
@pytest.mark.parametrize("read", [0, 1_024, 4_096, 65_536])
def test_contract_payload_sizes(size: int, read: int) -> None:
    stream = b"data: " + b"x" * size + b"\n\n"
    assert dispatched(cuts.every(stream, read)) == [("", "x" * size, "")]


STANDARD_EXAMPLES = {
    "three messages": (
        (
            b"data: This is the first message.\n\ndata: This is the second message, it\ndata: has two lines.\n\n"
            b"data: This is the third message.\n\n"
        ),
        [
            ("", "This is the first message."),
            ("", "This is the second message, it\nhas two lines."),
            ("", "This is the third message."),
        ],
    ),
    "add and remove": (
        b"event: add\ndata: 73857293\n\nevent: remove\ndata: 2153\n\nevent: add\ndata: 113411\n\n",
        [("add", "73857293"), ("remove", "2153"), ("add", "113411")],
    ),
    "stock quote": (b"data: YHOO\ndata: +2\ndata: 10\n\n", [("", "YHOO\n+2\n10")]),
    "four blocks, the last one cut": (
        b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n",
        [("", "first event"), ("", "second event")],
    ),
    "empty strings and a newline": (b"data\n\ndata\ndata\n\ndata:", [("", ""), ("", "\n")]),
    "the blank behind the colon": (b"data:test\n\ndata: test\n\n", [("", "test"), ("", "test")]),
}


@pytest.mark.parametrize("name", STANDARD_EXAMPLES)
@pytest.mark.parametrize("size", [0, 1, 3])
def test_examples_of_the_standard(name: str, size: int) -> None:
    stream, expected = STANDARD_EXAMPLES[name]
    assert without_ids(dispatched(cuts.every(stream, size))) == expected


def test_the_id_of_the_four_blocks_is_set_and_reset() -> None:
    decoder = SSEDecoder()
    seen = []
    for block in (b": test stream\n\n", b"data: first event\nid: 1\n\n", b"data:second event\nid\n\n"):
        decoder.feed(block)
        seen.append(decoder.last_event_id)
    assert seen == ["", "1", ""]


_TEXTS = st.one_of(
    st.sampled_from(
        [b"", b" ", b"  x", b"\xe2\x80\xa8", b"\xc2\x85", b"\x0b\x0c", b"\0", b"\xf0\x9f", b"\xff", b":", b"1000"]
    ),
    st.text(max_size=6).map(lambda text: text.encode().replace(b"\r", b"").replace(b"\n", b"")),
    st.binary(max_size=6).map(lambda raw: raw.replace(b"\r", b"").replace(b"\n", b"")),
)
_NAMES = st.sampled_from([b"data", b"event", b"id", b"retry", b"", b"Data", b" data", b"data\0", b"unknown"])
_LINES = st.one_of(
    st.tuples(_NAMES, st.sampled_from([b":", b": ", b""]), _TEXTS).map(b"".join),
    st.just(b""),
    st.just(b"data: {}"),
    _TEXTS,
)
_ENDS = st.sampled_from([b"\n", b"\r", b"\r\n"])
_STREAMS = st.tuples(
    st.sampled_from([b"", b"\xef\xbb\xbf", b"\xef\xbb", b"\xef"]),
    st.lists(st.tuples(_LINES, _ENDS).map(b"".join), max_size=14).map(b"".join),
    st.sampled_from([b"", b"data: tail", b"\r", b"\n\n", b"data: [DONE]"]),
).map(b"".join)


@given(_STREAMS, st.lists(st.integers(0, 200), max_size=20))
@example(b"id: 1\ndata: x\n\n", [6])
@example(b"data: x\r\n\r\ndata: y\n\n", [8, 9, 10])
@example(b"id: 1\n\ndata: x\n\nid: 2\n", [7])
@settings(max_examples=250, deadline=None)
def test_any_cut_of_any_stream_means_what_the_standard_says(stream: bytes, positions: list[int]) -> None:
    expected = interpret(stream)
    for chunks in ([stream], cuts.every(stream, 1), cuts.at(stream, positions)):
        decoder = SSEDecoder()
        frames = [frame for chunk in chunks for frame in decoder.feed(chunk)]
        assert [(frame.event, frame.text) for frame in frames] == without_ids(expected.events)
        assert (decoder.last_event_id, decoder.retry_ms) == (expected.last_event_id, expected.retry_ms)


@given(_STREAMS)
@settings(max_examples=200, deadline=None)
def test_byte_by_byte_each_event_has_the_id_that_the_standard_gives_it(stream: bytes) -> None:
    assert dispatched(cuts.every(stream, 1)) == interpret(stream).events


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=8))
@settings(max_examples=150, deadline=None)
def test_random_bytes_mean_what_the_standard_says(stream: bytes, positions: list[int]) -> None:
    expected = without_ids(interpret(stream).events)
    assert without_ids(dispatched(cuts.at(stream, positions))) == expected


def test_a_bom_is_stripped_wherever_it_is_cut() -> None:
    stream = b"\xef\xbb\xbfdata: x\n\n"
    for position in range(len(stream) + 1):
        assert dispatched(cuts.at(stream, [position])) == [("", "x", "")]


def test_a_stream_that_is_only_half_a_bom_has_no_event() -> None:
    decoder = SSEDecoder()
    assert decoder.feed(b"\xef\xbb") == []
    assert decoder.close() is None


def test_a_cr_at_the_end_of_a_read_dispatches_at_once() -> None:
    decoder = SSEDecoder()
    assert decoder.feed(b"data: x\r\r") == [ServerSentEvent(b"x")]
    assert decoder.feed(b"\ndata: y\n\r") == [ServerSentEvent(b"y")]
    assert decoder.feed(b"\n") == []
    assert decoder.feed(b"data: z\r\n\r\n") == [ServerSentEvent(b"z")]


def test_empty_reads_change_nothing() -> None:
    assert dispatched([b"", b"data: x\r", b"", b"\n\r", b"", b"\n", b"data: y\n\n"]) == [("", "x", ""), ("", "y", "")]


def test_an_id_counts_only_with_a_blank_line_behind_it() -> None:
    decoder = SSEDecoder()
    decoder.feed(b"id: 1\ndata: x\n\nid: 2\ndata: cut")
    assert decoder.last_event_id == "1"


def test_retry_takes_digits_and_nothing_else() -> None:
    decoder = SSEDecoder()
    seen = []
    for value in (b"3000", b"-1", b"1.5", b"", b"1000x", b"\xd9\xa1", b"9" * 5_000, b"0"):
        decoder.feed(b"retry: %b\n" % value)
        seen.append(decoder.retry_ms)
    assert seen == [3000] * 7 + [0]


def test_the_end_hands_out_the_event_that_it_cut() -> None:
    decoder = SSEDecoder()
    assert decoder.feed(b"event: a\ndata: x\ndata: y") == []
    assert decoder.close() == ServerSentEvent(b"x\ny", "a")
    assert decoder.close() is None
    finished = SSEDecoder()
    finished.feed(b"data: x\n\n")
    assert finished.close() is None


def test_an_event_beyond_the_limit_ends_the_reading() -> None:
    decoder = SSEDecoder(max_event_bytes=10)
    assert decoder.feed(b"data: whole\n\ndata: far too long for it\n\ndata: later\n\n") == [ServerSentEvent(b"whole")]
    assert isinstance(decoder.error, ResponseLimitError)
    assert decoder.error.reason == "limit"
    assert str(decoder.error) == (
        "an event of the stream is larger than 10 bytes. Raise max_event_bytes if such events are expected."
    )
    for later in (b"data: x\n\n", b"data: x", b"\n\n", b"event: a\ndata: x\r\n\r\n"):
        assert decoder.feed(later) == []
    assert decoder.close() is None
    assert str(pickle.loads(pickle.dumps(decoder.error))) == str(decoder.error)  # noqa: S301 - our own bytes


@pytest.mark.parametrize("size", [0, 1, 3])
def test_the_limit_is_of_one_event_not_of_the_stream(size: int) -> None:
    stream = b"data: 0123456789\n\n" * 50 + b"data: 01234\ndata: 6789\n\n" * 50
    decoder = SSEDecoder(max_event_bytes=20)
    frames = [frame for chunk in cuts.every(stream, size) for frame in decoder.feed(chunk)]
    assert decoder.error is None
    assert [frame.data for frame in frames] == [b"0123456789"] * 50 + [b"01234\n6789"] * 50


@pytest.mark.parametrize(
    "line",
    [b"data: xxxxxxx\n", b"data\n", b"data:\r\n", b"x" * 50, b": comment without an end "],
    ids=["data lines", "empty data lines", "empty data lines with CRLF", "a line without an end", "an endless comment"],
)
def test_an_event_without_an_end_is_cut_off_and_its_memory_freed(line: bytes) -> None:
    limit = 20_000
    decoder = SSEDecoder(max_event_bytes=limit)
    fed = 0
    tracemalloc.start()
    try:
        while decoder.error is None and fed < 20 * limit:
            assert decoder.feed(line) == []
            fed += len(line)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert decoder.error is not None
    assert peak < 3 * limit
    assert held < limit // 10


@pytest.mark.parametrize("size", [200, 4_096, 1_000_000])
def test_memory_and_work_are_linear_in_a_large_event(size: int) -> None:
    length = 8 * 2**20
    stream = memoryview(b"data: " + b"x" * length + b"\n\n")
    decoder = SSEDecoder()
    frames: list[ServerSentEvent] = []
    tracemalloc.start()
    try:
        for start in range(0, len(stream), size):
            frames += decoder.feed(bytes(stream[start : start + size]))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [len(frame.data) for frame in frames] == [length]
    assert peak < 3.3 * length


@given(
    st.text().filter(lambda text: "\r" not in text),
    st.text(st.characters(blacklist_characters="\r\n\0", blacklist_categories=["Cs"])),
    st.none() | st.text(st.characters(blacklist_characters="\r\n\0", blacklist_categories=["Cs"])),
)
@settings(max_examples=200, deadline=None)
def test_what_is_encoded_is_read_back(text: str, event: str, event_id: str | None) -> None:
    decoder = SSEDecoder()
    assert decoder.feed(encode_sse(text.encode(), event=event, event_id=event_id)) == [
        ServerSentEvent(text.encode(), event)
    ]
    assert decoder.last_event_id == (event_id or "")


def test_encoded_bytes() -> None:
    assert encode_sse(b"[DONE]") == b"data: [DONE]\n\n"
    assert encode_sse(b"a\nb", event="e", event_id="7") == b"event: e\nid: 7\ndata: a\ndata: b\n\n"
    assert encode_sse(b"", event_id="") == b"id: \ndata: \n\n"


_TYPED_LINES = st.sampled_from(
    [
        b"event: a",
        b"event: b",
        b"event:c",
        b"data: x",
        b"data: ",
        b"data:y",
        b": z",
        b"id: 1",
        b"event: a\r",
        b"",
        b"data",
    ]
)
_TYPED_FRAMES = st.one_of(
    st.tuples(
        st.sampled_from([b"a", b"b.c", b"\xc3\xa9", b""]), st.sampled_from([b"{}", b"x", b"", b"\xff", b"data: "])
    ).map(lambda pair: b"event: %b\ndata: %b\n\n" % pair),
    st.lists(_TYPED_LINES, max_size=4).map(lambda lines: b"\n".join(lines) + b"\n\n"),
    st.just(b"data: plain\n\n"),
)


@given(st.lists(_TYPED_FRAMES, max_size=8), st.lists(st.integers(0, 200), max_size=6))
@settings(max_examples=400, deadline=None)
def test_events_of_a_type_are_read_in_one_go_as_one_by_one(parts: list[bytes], positions: list[int]) -> None:
    stream = b"data: first\n\n" + b"".join(parts)
    expected = interpret(stream)
    for chunks in ([stream], cuts.at(stream, positions), [b"data: first\n\n", *parts]):
        decoder = SSEDecoder()
        frames = [frame for chunk in chunks for frame in decoder.feed(chunk)]
        assert [(frame.event, frame.text) for frame in frames] == without_ids(expected.events)
        assert decoder.last_event_id == expected.last_event_id


@pytest.mark.parametrize("size", [1, 3, 100])
def test_a_field_error_is_data_of_an_event_of_this_type(size: int) -> None:
    """Not in the standard: https://github.com/ggml-org/llama.cpp/issues/16104."""
    stream = b'data: a\n\nerror: {"code":500}\n\nerror\n\nerror:\n\ndata: b\n\nerror:{\nerror:}\r\n\r\n'
    assert without_ids(dispatched(cuts.every(stream, size))) == [
        ("", "a"),
        ("error", '{"code":500}'),
        ("", "b"),
        ("error", "{\n}"),
    ]


TYPED = [
    b"event: a\ndata: {}\n\n",
    b"event: a\ndata: x\n\n",
    b"event: a\ndata: 1\ndata: 2\n\n",
    b"event: a\ndata: x\r\n\r\n",
    b"event: a\nid: 7\ndata: x\n\n",
    b"event: a\n\n",
    b"event: a\ndata: x\n\nevent: a\ndata: y\n\n",
    b"event: a\ndata: x\n",
    b"\n",
]


@given(st.lists(st.sampled_from(TYPED), max_size=8))
def test_typed_events_in_reads_of_their_own_are_those_of_the_whole_stream(reads: list[bytes]) -> None:
    decoder, whole = SSEDecoder(), SSEDecoder()
    found = [event for read in reads for event in decoder.feed(read)]
    data = b"".join(reads)
    assert found == [event for position in range(len(data)) for event in whole.feed(data[position : position + 1])]
