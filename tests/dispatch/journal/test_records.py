"""The format of a journal and its state: any sequence of records, any cut, any flipped byte."""

import io
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_deluge.dispatch.journal.records import (
    MOST_BYTES,
    Damage,
    Done,
    Failed,
    Handle,
    Header,
    Intent,
    JournalEntry,
    JournalState,
    Record,
    Submit,
    decode_record,
    encode_record,
    fingerprint_of,
    payload_of,
    scan,
)
from lm_deluge.errors import JournalError

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
IDS = st.sampled_from(["0", "1", "a\nb", "ü"])
ATTEMPTS = st.integers(1, 3)
VALUES: Any = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**80), 2**80) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda each: st.lists(each, max_size=3) | st.dictionaries(TEXTS, each, max_size=3),
    max_leaves=6,
)
RESPONSES = st.dictionaries(TEXTS, VALUES, max_size=3)
OUTCOMES = st.builds(Done, IDS, ATTEMPTS, RESPONSES) | st.builds(
    Failed, IDS, ATTEMPTS, st.booleans(), RESPONSES | st.none()
)
NAMES = st.sampled_from(["k1", "k2"])
BATCHES = st.builds(Submit, NAMES, st.lists(IDS, max_size=3, unique=True).map(tuple), ATTEMPTS, st.floats(0, 2e9)) | (
    st.builds(Handle, NAMES, st.just("acme"), st.sampled_from(["", "batch_1"]))
)
RECORDS = st.builds(Intent, IDS, ATTEMPTS) | OUTCOMES | BATCHES
LOGS = st.lists(RECORDS, max_size=8)
HEADER = Header(1, "f" * 64)


def written(records: list[Record]) -> bytes:
    return b"".join(map(encode_record, records))


def good(body: bytes) -> list[tuple[int, JournalEntry]]:
    return [(offset, found) for offset, found in scan(io.BytesIO(body)) if isinstance(found, JournalEntry)]


def damage(body: bytes) -> list[tuple[int, Damage]]:
    return [(offset, found) for offset, found in scan(io.BytesIO(body)) if isinstance(found, Damage)]


def read_again(body: bytes) -> list[Record]:
    return [decode_record(payload_of(body[offset:])) for offset, _ in good(body)]


@given(LOGS)
def test_what_is_written_is_read(records: list[Record]) -> None:
    body = written([HEADER, *records])
    assert read_again(body) == [HEADER, *records]
    assert damage(body) == []
    assert body.count(b"\n") == len(records) + 1
    entries = [entry for _, entry in good(body)]
    assert entries[1:] == [JournalEntry.of(record) for record in records]
    assert (entries[0].kind, entries[0].fingerprint) == ("journal", "f" * 64)


@given(LOGS)
def test_a_cut_at_any_byte_leaves_all_whole_records_and_a_tail(records: list[Record]) -> None:
    lines = [encode_record(record) for record in records]
    body = b"".join(lines)
    ends = [sum(map(len, lines[: count + 1])) for count in range(len(lines))]
    for cut in range(len(body) + 1):
        whole = sum(end - 1 <= cut for end in ends)  # all of the payload is there, its line end or not
        assert len(good(body[:cut])) == whole
        start = ends[whole - 1] if whole else 0
        torn = [(start, Damage(cut - start, is_tail=True))] if cut > start else []
        assert damage(body[:cut]) == torn


@given(LOGS.filter(bool), st.data())
def test_a_flipped_bit_is_never_taken_for_another_record(records: list[Record], data: st.DataObject) -> None:
    body = written(records)
    where = data.draw(st.integers(0, len(body) - 1))
    flipped = bytearray(body)
    flipped[where] ^= 1 << data.draw(st.integers(0, 7))
    found = read_again(bytes(flipped))
    lines = [(offset, record) for (offset, _), record in zip(good(body), records, strict=True)]
    untouched = [record for offset, record in lines if not offset <= where < offset + len(encode_record(record))]
    hit = next(index for index, (offset, _) in enumerate(lines) if where < offset + len(encode_record(lines[index][1])))
    if found == records:  # a digit in upper case, or a blank for a zero: the numbers are the same; or the last line end
        assert flipped[where] in b" \n" or chr(flipped[where]).isalnum() or where == len(body) - 1
        return
    assert all(record in records for record in found)
    bad = damage(bytes(flipped))
    assert next(offset for offset, _ in bad) == lines[hit][0]
    # A lost line end takes the next record with it.
    assert len(found) >= len(untouched) - 1
    assert sum(each.length for _, each in bad) + len(written(found)) == len(body)


@given(st.lists(st.binary(max_size=40), max_size=6), LOGS)
def test_any_bytes_between_records_are_damage_and_no_more(junk: list[bytes], records: list[Record]) -> None:
    clean = [each.replace(b"\n", b"") + b"\n" for each in junk]
    lines = [encode_record(record) for record in records]
    mixed = [line for pair in zip(lines, clean, strict=False) for line in pair] + lines[len(clean) :]
    body = b"".join(mixed)
    assert read_again(body) == records
    assert sum(each.length for _, each in damage(body)) == len(body) - len(b"".join(lines))


@pytest.mark.parametrize("size", [1, 7, 30])
def test_lines_that_are_too_long_come_in_pieces_and_are_one_damage(size: int) -> None:
    lines = [encode_record(Intent("1", 1)), b"x" * 95 + b"\n", encode_record(Intent("2", 1))]
    pieces = [lines[1][at : at + size] for at in range(0, 96, size)]
    found = list(scan([lines[0], *pieces, lines[2]]))
    start = len(lines[0])
    assert found[1] == (start, Damage(96, is_tail=False))
    assert found[2] == (start + 96, JournalEntry("intent", "2", 1))


def test_zeros_at_the_end_are_a_tail() -> None:
    """After a power cut the file may have its new length, with zeros in place of the data."""
    line = encode_record(Intent("1", 1))
    assert damage(line + b"\0" * 5_000) == [(len(line), Damage(5_000, is_tail=True))]


def test_a_record_of_a_newer_version_is_no_damage() -> None:
    line = encode_record(Intent("1", 1)).replace(b"intent", b"invent")
    assert damage(line) == [(0, Damage(len(line), is_tail=False))]
    payload = line[18:-1]
    newer = b"%08x %08x %b\n" % (len(payload), zlib.crc32(payload), payload)
    with pytest.raises(JournalError, match="does not know") as caught:
        list(scan([encode_record(HEADER), newer]))
    assert caught.value.offset == len(encode_record(HEADER))


@pytest.mark.parametrize("response", [{"text": "half a character: \ud800"}, {"x": object()}, {"x": {(1, 2): 3}}])
def test_what_is_no_json_is_refused_and_not_shown(response: dict[str, Any]) -> None:
    with pytest.raises(JournalError, match="does not fit into JSON") as caught:
        encode_record(Done("1", 1, response))
    assert "half" not in repr(vars(caught.value)) + str(caught.value)
    assert caught.value.__cause__ is None


def test_an_answer_that_could_not_be_read_again_is_refused() -> None:
    longest = MOST_BYTES - 19 - len(encode_record(Done("1", 1, {"x": ""}))) + 19
    with pytest.raises(JournalError, match="too long for a journal"):
        encode_record(Done("1", 1, {"x": "x" * (longest + 1)}))


def folded(*records: Record) -> JournalState:
    state = JournalState()
    for offset, entry in good(written([HEADER, *records])):
        state.add(entry, offset)
    return state


def read_slowly(records: list[Record]) -> tuple[set[tuple[str, int]], set[tuple[str, int]]]:
    """Return the attempts without an outcome, and the attempts in a batch with a handle."""
    waiting: set[tuple[str, int]] = set()
    batches: dict[str, tuple[set[tuple[str, int]], str]] = {}
    for record in records:
        if isinstance(record, Submit):
            batches[record.batch] = {(call, record.attempt) for call in record.ids}, ""
            waiting |= batches[record.batch][0]
        elif isinstance(record, Handle):
            calls = batches.get(record.batch, (set(), ""))[0]
            batches[record.batch] = calls, record.handle
            waiting -= set() if record.handle else calls
        elif isinstance(record, Intent):
            waiting.add((record.id, record.attempt))
        else:
            waiting.discard((record.id, record.attempt))
    return waiting, {each for calls, handle in batches.values() if handle for each in calls}


STORIES: dict[str, tuple[list[Record], str | None, list[tuple[str, int]], int]] = {
    "nothing": ([], None, [], 0),
    "sent": ([Intent("1", 1)], "in_flight", [("1", 1)], 1),
    "answered": ([Intent("1", 1), Done("1", 1, {})], "done", [], 0),
    "to be tried again": ([Intent("1", 1), Failed("1", 1)], "waiting", [], 1),
    "tried again": ([Intent("1", 1), Failed("1", 1), Intent("1", 2)], "in_flight", [("1", 2)], 2),
    "given up": ([Intent("1", 1), Failed("1", 1), Intent("1", 2), Failed("1", 2, True)], "failed", [], 2),
    "sent after a crash": ([Intent("1", 1), Intent("1", 2), Done("1", 2, {})], "done", [("1", 1)], 0),
    "both of a pair are done": (
        [Intent("1", 1), Intent("1", 2), Done("1", 2, {}), Done("1", 1, {})],
        "done",
        [],
        0,
    ),
    "the other of a pair fails": ([Intent("1", 1), Intent("1", 2), Done("1", 1, {}), Failed("1", 2)], "done", [], 0),
    "a new try after giving up": ([Intent("1", 1), Failed("1", 1, True), Intent("1", 2)], "in_flight", [("1", 2)], 2),
    "its intent was lost": ([Done("1", 1, {})], "done", [], 0),
    "its intent was lost, it failed": ([Failed("1", 3, True)], "failed", [], 3),
    "handed over": ([Submit("k", ("1", "2"), 1)], "in_flight", [("1", 1), ("2", 1)], 1),
    "at the provider": ([Submit("k", ("1", "2"), 1), Handle("k", "acme", "b")], "in_flight", [], 1),
    "answered in a batch": ([Submit("k", ("1",), 1), Handle("k", "acme", "b"), Done("1", 1, {})], "done", [], 0),
    "never came to the provider": ([Submit("k", ("1", "2"), 1), Handle("k", "acme", "")], "waiting", [], 1),
    "refused in a batch": ([Submit("k", ("1",), 3), Handle("k", "acme", ""), Failed("1", 3, True)], "failed", [], 3),
    "handed over again": (
        [Submit("k", ("1",), 1), Handle("k", "acme", ""), Submit("l", ("1",), 2), Handle("l", "acme", "b")],
        "in_flight",
        [],
        2,
    ),
    "a handle of what was lost": ([Handle("k", "acme", "b")], None, [], 0),
    "sent once more though done": ([Intent("1", 1), Done("1", 1, {}), Intent("1", 2)], "done", [("1", 2)], 0),
}


@pytest.mark.parametrize("name", STORIES)
def test_a_log_says_how_far_a_call_has_come(name: str) -> None:
    records, status, ambiguous, attempts = STORIES[name]
    state = folded(Intent("other", 1), Done("other", 1, {}), *records)
    assert state.status("1") == status
    assert list(state.ambiguous) == ambiguous
    assert state.attempts("1") == attempts
    assert state.status("other") == "done"


@given(LOGS)
def test_the_fold_agrees_with_a_slow_reading(records: list[Record]) -> None:
    state = folded(*records)
    body = written([HEADER, *records])
    answers = [record for record in records if isinstance(record, Done)]
    assert set(state.done) == {record.id for record in answers}
    for call, offset in state.done.items():
        first = next(record for record in answers if record.id == call)
        assert decode_record(payload_of(body[offset:])) == first
    waiting, known = read_slowly(records)
    assert set(state.ambiguous) == waiting - known
    assert {(call, batch.attempt) for batch in state.open_batches for call in state.waiting_in(batch)} == {
        (call, batch.attempt) for batch in state.batches.values() for call in batch.ids
    } & waiting


def test_the_fingerprint_is_of_inputs_in_order_and_of_options() -> None:
    options = {"model": "m", "temperature": 0.5}
    one = fingerprint_of(options, [b"ab", b"c"])
    assert one == fingerprint_of(dict(options), iter([b"ab", b"c"]))
    others = [
        fingerprint_of(options, [b"a", b"bc"]),
        fingerprint_of(options, [b"c", b"ab"]),
        fingerprint_of(options, [b"ab", b"c", b""]),
        fingerprint_of({**options, "temperature": 0.6}, [b"ab", b"c"]),
    ]
    assert len({one, *others}) == 5
    assert len(one) == 64
