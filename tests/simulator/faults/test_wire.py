"""Each fault of the bytes of a stream puts the described bytes on the wire."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Callable

import brotli
import pytest
import zstandard

from lm_deluge import errors
from lm_deluge.simulator import Simulator
from lm_deluge.simulator.faults.wire import WIRE_FAULTS
from simulator.checks import Checks, failing, healthy
from simulator.raw_client import TEXT, Reply, ask

check = Checks(WIRE_FAULTS)


@pytest.mark.parametrize("name", WIRE_FAULTS)
async def test_the_bytes_match_the_description(name: str) -> None:
    await check.run(name)


def test_every_fault_is_checked() -> None:
    check.assert_complete()


@check("split_utf8")
def _(reply: Reply) -> None:
    assert healthy(reply).completion == TEXT
    assert any(not _is_utf8(chunk) for chunk in reply.chunks)
    assert all(not re.search("[üß🌊]", chunk.decode("utf-8", "ignore")) for chunk in reply.chunks)


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


@check("byte_by_byte")
def _(reply: Reply) -> None:
    assert healthy(reply).completion == TEXT
    assert {len(chunk) for chunk in reply.chunks} == {1}


@check("invalid_utf8")
def _(reply: Reply) -> None:
    assert b"\xff\xfe" in reply.body
    assert healthy(reply).completion.replace("\ufffd\ufffd", "") == TEXT


@check("bom")
def _(reply: Reply) -> None:
    assert reply.body.startswith(b"\xef\xbb\xbfdata:")
    assert healthy(reply).completion == TEXT


@check("late_bom")
def _(reply: Reply) -> None:
    assert b"\n\n\xef\xbb\xbfdata:" in reply.body
    assert healthy(reply).completion == TEXT


@check("crlf")
def _(reply: Reply) -> None:
    assert reply.body.count(b"\n") == reply.body.count(b"\r\n") > 10
    assert healthy(reply).completion == TEXT


@check("cr_only")
def _(reply: Reply) -> None:
    assert b"\n" not in reply.body
    assert healthy(reply).completion == TEXT


@check("mixed_newlines")
def _(reply: Reply) -> None:
    ends = set(re.findall(rb"\r\n|\r|\n", reply.body))
    assert ends == {b"\r\n", b"\r", b"\n"}
    assert healthy(reply).completion == TEXT


@check("u2028")
def _(reply: Reply) -> None:
    text = healthy(reply).completion
    assert all(character in text for character in "\u2028\u2029\x85\x0b\x0c")
    assert "\u2028".encode() in reply.body


@check("escapes")
def _(reply: Reply) -> None:
    text = healthy(reply).completion
    assert "\x1b[31mred\x1b]0;title\x07\x9b2J\x08\x7f\r\0" in text


@check("comments")
def _(reply: Reply) -> None:
    assert reply.body.count(b": keep-alive\n\n:\n\n") == len(reply.chunks)
    assert healthy(reply).completion == TEXT


@check("multiline_data")
def _(reply: Reply) -> None:
    assert b'data: {\ndata:  "id"' in reply.body
    assert healthy(reply).completion == TEXT


@check("event_without_data")
def _(reply: Reply) -> None:
    assert b"event: ping\n\nid: 7\n\n" in reply.body
    assert healthy(reply).completion == TEXT


@check("unknown_fields")
def _(reply: Reply) -> None:
    assert b"foo: bar\nretry: soon\ndata:" in reply.body
    assert healthy(reply).completion == TEXT


@check("empty_data")
def _(reply: Reply) -> None:
    assert b"data:\n\ndata\n\n" in reply.body
    assert healthy(reply).completion == TEXT


@check("nul")
def _(reply: Reply) -> None:
    assert b"id: a\0b\n:\0\n" in reply.body
    assert "nul:\0." in healthy(reply).completion


@check("unterminated_last_event")
def _(reply: Reply) -> None:
    assert reply.body.endswith(b"\n\ndata: [DONE]")
    assert healthy(reply).completion == TEXT


@check("huge_line")
def _(reply: Reply) -> None:
    assert max(map(len, reply.body.split(b"\n"))) > 200_000
    assert healthy(reply).completion == TEXT


@check("huge_event")
def _(reply: Reply) -> None:
    event = max(reply.body.split(b"\n\n"), key=len)
    assert len(event) > 200_000
    assert max(map(len, event.split(b"\n"))) < 2_000
    assert healthy(reply).completion == TEXT


CODINGS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.decompress),
    "deflate": ("deflate", zlib.decompress),
    "raw_deflate": ("deflate", lambda data: zlib.decompress(data, -15)),
    "br": ("br", brotli.decompress),
    "zstd": ("zstd", lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data)),
}


@pytest.mark.parametrize("name", CODINGS)
async def test_compressed_bodies_are_flushed_at_every_event(name: str) -> None:
    async with Simulator(TEXT) as sim:
        reply = await ask(sim, name)
    coding, decompress = CODINGS[name]
    assert reply.header("content-encoding") == coding
    assert len(reply.chunks) > 10
    reply.body = decompress(reply.body)
    assert healthy(reply).completion == TEXT


@check(*CODINGS)
def _(reply: Reply) -> None:
    assert b"data: {" not in reply.body
    assert reply.is_whole


@check("gzip_bomb")
def _(reply: Reply) -> None:
    data = zlib.decompressobj(31).decompress(reply.body)
    assert len(data) > 3 * 2**20
    assert len(reply.body) < len(data) / 200
    assert reply.header("content-encoding") == "gzip"


@check("truncated_gzip")
def _(reply: Reply) -> None:
    assert reply.is_whole
    with pytest.raises(EOFError):
        gzip.decompress(reply.body)


@check("unknown_encoding")
def _(reply: Reply) -> None:
    assert reply.header("content-encoding") == "x-rot13"


@check("not_json")
def _(reply: Reply) -> None:
    error = failing(reply, errors.ProtocolError)
    assert TEXT.startswith(error.partial.completion)


@check("html_200")
def _(reply: Reply) -> None:
    assert (reply.status, reply.header("content-type")) == (200, "text/html; charset=utf-8")
    failing(reply, errors.ContentTypeError)


@check("wrong_content_type")
def _(reply: Reply) -> None:
    assert reply.header("content-type") == "text/html"
    assert healthy(reply).completion == TEXT


@check("no_content_type")
def _(reply: Reply) -> None:
    assert "content-type" not in dict(reply.headers)
    assert healthy(reply).completion == TEXT


@check("empty_body")
def _(reply: Reply) -> None:
    assert (reply.status, reply.body, reply.is_whole) == (200, b"", True)
    failing(reply, errors.TruncatedError)
