"""Newline-delimited JSON in reads of any size."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cuts
from lm_deluge.errors import ResponseLimitError
from lm_deluge.wire.ndjson import NDJSONDecoder

LINES = st.lists(st.binary(max_size=20).map(lambda line: line.replace(b"\n", b"x")), max_size=6)


def lines_of(pieces: list[bytes], *, limit: int = 1_000) -> tuple[list[bytes], NDJSONDecoder]:
    """Return all lines as the body decoder gets them, including an unfinished last line."""
    decoder = NDJSONDecoder(limit)
    lines: list[bytes] = []
    for piece in pieces:
        plain = decoder.maybe_feed_plain(piece)
        lines += [frame.data for frame in decoder.feed(piece)] if plain is None else plain
    last = decoder.close()
    return lines + ([last.data] if last is not None else []), decoder


@given(LINES, st.lists(st.integers(0, 150), max_size=6), st.booleans())
def test_any_cut_gives_the_same_lines(lines: list[bytes], positions: list[int], has_end: bool) -> None:
    body = b"\n".join(lines) + (b"\n" if has_end else b"")
    wanted = [line for line in body.split(b"\n") if line.strip()]
    assert lines_of(cuts.at(body, positions))[0] == wanted
    assert lines_of(cuts.every(body, 1))[0] == wanted


def test_lines_end_at_lf_alone() -> None:
    body = '{"a":"\u2028\u0085"}\r\n\r\n \n{"b":\r1}'.encode()
    assert lines_of([body])[0] == ['{"a":"\u2028\u0085"}\r'.encode(), b'{"b":\r1}']


def test_a_line_is_given_out_as_soon_as_its_end_came() -> None:
    decoder = NDJSONDecoder()
    assert decoder.maybe_feed_plain(b'{"a":1}') == []
    assert decoder.maybe_feed_plain(b'\n{"b"') == [b'{"a":1}']
    assert decoder.maybe_feed_plain(b":2}\n") == [b'{"b":2}']
    assert decoder.close() is None


@pytest.mark.parametrize("size", [0, 1, 7])
def test_a_line_that_is_too_long_is_an_error_behind_those_before(size: int) -> None:
    body = b'{"a":1}\n' + b"x" * 50 + b'\n{"b":2}\n'
    lines, decoder = lines_of(cuts.every(body, size), limit=20)
    assert lines == [b'{"a":1}']
    assert isinstance(decoder.error, ResponseLimitError)
    assert (decoder.error.reason, str(decoder.error)[:44]) == ("limit", "a line of the stream is larger than 20 bytes")
    assert decoder.maybe_feed_plain(b"{}\n") is None
    assert decoder.feed(b"{}\n") == []


def test_a_line_without_end_does_not_grow_for_ever() -> None:
    decoder = NDJSONDecoder(100)
    for _ in range(50):
        if decoder.maybe_feed_plain(b"x" * 10) is None:
            decoder.feed(b"x" * 10)
    assert decoder.error is not None
    assert decoder.close() is None


def test_many_short_lines_in_one_read_may_be_more_than_the_limit() -> None:
    body = b'{"a":1}\n' * 100
    assert lines_of([body], limit=20)[0] == [b'{"a":1}'] * 100


def test_how_a_stream_begins() -> None:
    assert NDJSONDecoder().may_begin(b'{"model"')
    assert not NDJSONDecoder().may_begin(b"data: {")
