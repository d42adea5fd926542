"""AWS event streams: vectors of its C library, reads of any size, flipped bits, and botocore as a second decoder."""

from __future__ import annotations

import json
import struct
import zlib

import pytest
from botocore.eventstream import EventStreamBuffer
from hypothesis import given
from hypothesis import strategies as st

import cuts
from lm_deluge.errors import ProtocolError, ResponseLimitError
from lm_deluge.wire.eventstream import EventStreamDecoder, encode_event_message
from lm_deluge.wire.sse import ServerSentEvent

EMPTY = bytes.fromhex("000000100000000005c248eb7d98c8ff")
NO_HEADERS = bytes.fromhex("0000001d00000000fd528c5a7b27666f6f273a27626172277dc3653936")
ONE_HEADER = bytes.fromhex(
    "0000003d0000002007fd83960c636f6e74656e742d747970650700106170706c69636174696f6e2f6a736f6e"
    "7b27666f6f273a27626172277d8d9c08b1"
)

EVENT = {":event-type": "chunk", ":content-type": "application/json", ":message-type": "event"}
texts = st.text(min_size=1, max_size=12)
heads = st.dictionaries(texts, st.text(max_size=30), max_size=3)
messages = st.lists(st.tuples(st.binary(max_size=60), st.just(EVENT) | heads), max_size=6)


def read(chunks: list[bytes], limit: int = 2**24) -> tuple[list[ServerSentEvent], ProtocolError | None]:
    decoder = EventStreamDecoder(limit)
    frames = [frame for chunk in chunks for frame in decoder.feed(chunk)]
    decoder.close()
    return frames, decoder.error


def sealed(head: bytes, payload: bytes = b"") -> bytes:
    """Return a message with these bytes as headers and correct checksums."""
    start = struct.pack(">II", 16 + len(head) + len(payload), len(head))
    message = start + struct.pack(">I", zlib.crc32(start)) + head + payload
    return message + struct.pack(">I", zlib.crc32(message))


def test_the_vectors() -> None:
    assert read([EMPTY]) == ([ServerSentEvent(b"")], None)
    assert read([NO_HEADERS]) == ([ServerSentEvent(b"{'foo':'bar'}")], None)
    assert read([ONE_HEADER]) == ([ServerSentEvent(b"{'foo':'bar'}")], None)
    assert encode_event_message(b"") == EMPTY
    assert encode_event_message(b"{'foo':'bar'}") == NO_HEADERS
    assert encode_event_message(b"{'foo':'bar'}", {"content-type": "application/json"}) == ONE_HEADER


@given(messages, st.lists(st.integers(0, 400), max_size=8))
def test_any_cut_gives_the_same_frames(written: list[tuple[bytes, dict[str, str]]], positions: list[int]) -> None:
    body = b"".join(encode_event_message(payload, head) for payload, head in written)
    whole = read([body])
    assert whole == ([ServerSentEvent(payload, head.get(":event-type", "")) for payload, head in written], None)
    assert read(cuts.at(body, positions)) == whole
    assert read(cuts.every(body, 1)) == whole


@given(messages)
def test_botocore_reads_what_is_written(written: list[tuple[bytes, dict[str, str]]]) -> None:
    buffer = EventStreamBuffer()
    buffer.add_data(b"".join(encode_event_message(payload, head) for payload, head in written))
    assert [(message.payload, message.headers) for message in buffer] == written


@pytest.mark.parametrize("message", [EMPTY, ONE_HEADER, encode_event_message(b'{"a": 1}', EVENT)])
def test_every_flipped_bit_is_noticed(message: bytes) -> None:
    for position in range(len(message)):
        for bit in range(8):
            broken = bytearray(message)
            broken[position] ^= 1 << bit
            frames, error = read([EMPTY, bytes(broken), EMPTY])
            assert frames == [ServerSentEvent(b"")]
            assert isinstance(error, ProtocolError)
            assert error.reason == "framing"


def test_after_an_error_nothing_more_is_read() -> None:
    decoder = EventStreamDecoder()
    assert decoder.feed(EMPTY + b"\1" * 12) == [ServerSentEvent(b"")]
    assert decoder.feed(EMPTY) == []


def test_a_cut_message_does_not_count() -> None:
    for end in range(len(ONE_HEADER)):
        assert read([ONE_HEADER[:end]]) == ([], None)


def test_a_message_beyond_the_limit_is_refused_before_it_came() -> None:
    start = struct.pack(">II", 2**20, 0)
    frames, error = read([start + struct.pack(">I", zlib.crc32(start))], limit=1_024)
    assert frames == []
    assert isinstance(error, ResponseLimitError)
    assert "larger than 1024 bytes" in str(error)


@pytest.mark.parametrize(("total", "headers"), [(15, 0), (0, 0), (16, 1), (40, 2**31)])
def test_impossible_lengths(total: int, headers: int) -> None:
    start = struct.pack(">II", total, headers)
    frames, error = read([start + struct.pack(">I", zlib.crc32(start))])
    assert frames == []
    assert error is not None
    assert error.reason == "framing"


def test_headers_of_all_types_are_passed_over() -> None:
    kinds = {0: b"", 1: b"", 2: b"\1", 3: b"\1\2", 4: b"1234", 5: b"12345678", 6: b"\0\3abc", 8: b"12345678"}
    head = b"".join(b"\2h%d" % kind + bytes([kind]) + value for kind, value in kinds.items())
    head += b"\2h9\x09" + b"\x2a" * 16 + b"\x0b:event-type\x07\0\5chunk"
    assert read([sealed(head, b"{}")]) == ([ServerSentEvent(b"{}", "chunk")], None)


@pytest.mark.parametrize("head", [b"\1", b"\1a", b"\1a\x07", b"\1a\x07\0\5abc", b"\1a\x0a", b"\1a\x04\0", b"\5a"])
def test_headers_that_cannot_be_read(head: bytes) -> None:
    frames, error = read([sealed(head)])
    assert frames == []
    assert error is not None
    assert "headers of a message cannot be read" in str(error)


def test_an_exception_is_a_frame_with_its_name_in_the_data() -> None:
    head = {":message-type": "exception", ":exception-type": "throttlingException", ":content-type": "application/json"}
    ((frame,), _) = read([encode_event_message(b'{"message": "Slow down", "originalStatusCode": 429}', head)])
    assert frame.event == "error"
    assert json.loads(frame.data) == {
        "error": {"code": "throttlingException", "message": "Slow down", "originalStatusCode": 429}
    }


@pytest.mark.parametrize(
    ("payload", "headers", "message"),
    [
        (b"", {":error-code": "InternalError", ":error-message": "Oops"}, "Oops"),
        (b"no JSON", {":error-code": "InternalError"}, "no JSON"),
        (b'"text"', {":error-code": "InternalError"}, "text"),
        (b"[1]", {":error-code": "InternalError"}, None),
        (b"\xff", {":error-code": "InternalError"}, "\ufffd"),
        (b'{"Message": "Denied"}', {":error-code": "InternalError"}, "Denied"),
    ],
)
def test_an_error_may_have_headers_only(payload: bytes, headers: dict[str, str], message: str | None) -> None:
    ((frame,), _) = read([encode_event_message(payload, {":message-type": "error", **headers})])
    error = json.loads(frame.data)["error"]
    assert (error["code"], error["message"]) == ("InternalError", message)


def test_work_is_linear() -> None:
    """Decoding a message from many small reads is linear: no byte is copied more than a few times."""
    message = encode_event_message(b"x" * 2**16, EVENT)
    decoder = EventStreamDecoder()
    for byte in message[:-1]:
        assert decoder.feed(bytes([byte])) == []
    assert len(decoder.feed(message[-1:])) == 1


def test_more_heads_than_are_remembered() -> None:
    written = [(b"{}", {":event-type": f"type-{number}"}) for number in range(200)]
    frames, error = read([encode_event_message(payload, head) for payload, head in written])
    assert error is None
    assert [frame.event for frame in frames] == [head[":event-type"] for _, head in written]


def test_what_a_stream_can_begin_with() -> None:
    decoder = EventStreamDecoder()
    assert decoder.may_begin(EMPTY[:5])
    assert not decoder.may_begin(b"data:")
