"""Faults of the bytes of a stream: characters, lines, events, compression, content types."""

from __future__ import annotations

import importlib
import json
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec

from lm_deluge.errors import MissingExtraError
from lm_deluge.events import Event, TextDelta
from lm_deluge.simulator.faults.fault import SSE, EditPlan, Parameters, Row
from lm_deluge.simulator.plan import Frame, Pause, Repeat, Site, Step, WirePlan
from lm_deluge.wire.sse import encode_sse

__all__ = ["WIRE_FAULTS"]

_BOM = b"\xef\xbb\xbf"
_MIB = 2**20
_AFTER: dict[str, Any] = {"after": 3}
# Long enough for a client to read one piece before the next one comes.
_SPLIT_PAUSE_S = 0.002


def _split_utf8(plan: WirePlan, params: Parameters) -> WirePlan:
    """Cut inside every character that has several bytes; a frame without any, in its middle."""
    body: list[Step] = []
    for step in plan.body:
        pieces = _pieces(step.data) if isinstance(step, Frame) else []
        if len(pieces) < 2:  # noqa: PLR2004 - nothing to cut
            body.append(step)
            continue
        body.append(replace(step, data=pieces[0]) if isinstance(step, Frame) else step)
        for piece in pieces[1:]:
            body += [Pause(_SPLIT_PAUSE_S), Frame(piece)]
    return replace(plan, body=tuple(body))


def _pieces(data: bytes) -> list[bytes]:
    cuts = [at for at in range(1, len(data)) if 0x80 <= data[at] < 0xC0] or [len(data) // 2]  # noqa: PLR2004 - 10xxxxxx
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def _byte_by_byte(plan: WirePlan, params: Parameters) -> WirePlan:
    body = [_split_step(step) for step in plan.body]
    return replace(plan, body=tuple(step for steps in body for step in steps))


def _split_step(step: Step) -> list[Step]:
    if not isinstance(step, Frame):
        return [step]
    return [replace(step, data=step.data[:1]), *(Frame(step.data[at : at + 1]) for at in range(1, len(step.data)))]


def _invalid_utf8(plan: WirePlan, params: Parameters) -> WirePlan:
    """Put two bytes that are no UTF-8 into the text of a delta."""
    before, rest = plan.split(params["after"])
    step = rest[0] if rest else None
    if not isinstance(step, Frame):
        return plan
    said = msgspec.json.encode(step.event.text if isinstance(step.event, TextDelta) else "")
    spoiled = step.data.replace(said, said[:-1] + b'\xff\xfe"', 1)
    return replace(plan, body=(*before, replace(step, data=spoiled), *rest[1:]))


def _bom(plan: WirePlan, params: Parameters) -> WirePlan:
    first, *rest = plan.body
    data = first.data if isinstance(first, Frame) else b""
    return replace(plan, body=(Frame(_BOM + data), *rest))


def _late_bom(plan: WirePlan, params: Parameters) -> WirePlan:
    """Send a delta a second time, behind a mark that makes its field an unknown one."""
    _, rest = plan.split(params["after"])
    ghost = next((step.data for step in rest if isinstance(step, Frame)), b"data: {}\n\n")
    return plan.insert(params["after"], Frame(_BOM + ghost))


def _line_ends(*ends: bytes) -> EditPlan:
    def edit(plan: WirePlan, params: Parameters) -> WirePlan:
        count = 0

        def with_ends(data: bytes) -> bytes:
            nonlocal count
            pieces = data.split(b"\n")
            written = pieces[0]
            for piece in pieces[1:]:
                written += ends[count % len(ends)] + piece
                count += 1
            return written

        return plan.map_frames(with_ends)

    return edit


def _text(text: str) -> Callable[[list[Event], Site, Parameters], list[Event]]:
    """Return an edit that puts `text` into the answer."""

    def edit(events: list[Event], site: Site, params: Parameters) -> list[Event]:
        seen = 0
        for position, event in enumerate(events):
            if isinstance(event, TextDelta):
                if seen == params["after"]:
                    return [*events[:position], TextDelta(text), *events[position:]]
                seen += 1
        return events

    return edit


def _between(data: bytes) -> EditPlan:
    """Return an edit that puts bytes before every frame."""

    def edit(plan: WirePlan, params: Parameters) -> WirePlan:
        return plan.map_frames(lambda frame: data + frame)

    return edit


def _multiline_data(plan: WirePlan, params: Parameters) -> WirePlan:
    def spread(frame: bytes) -> bytes:
        if not frame.startswith(b"data: {"):
            return frame
        return encode_sse(json.dumps(json.loads(frame[6:]), indent=1, ensure_ascii=False).encode())

    return plan.map_frames(spread)


def _unterminated(plan: WirePlan, params: Parameters) -> WirePlan:
    *others, last = plan.body
    data = last.data if isinstance(last, Frame) else b""
    return replace(plan, body=(*others, Frame(data.rstrip(b"\r\n"))))


def _huge_line(plan: WirePlan, params: Parameters) -> WirePlan:
    piece = 2**16
    times = -(-int(params["size"]) // piece)
    return plan.insert(params["after"], Frame(b'data: {"'), Repeat(b"x" * piece, 0.0, times), Frame(b'":0}\n\n'))


def _huge_event(plan: WirePlan, params: Parameters) -> WirePlan:
    line = b"data: " + b" " * 1017 + b"\n"
    times = -(-int(params["size"]) // len(line))
    return plan.insert(params["after"], Frame(b"data: {\n"), Repeat(line, 0.0, times), Frame(b"data: }\n\n"))


def _insert(data: bytes) -> EditPlan:
    def edit(plan: WirePlan, params: Parameters) -> WirePlan:
        return plan.insert(params["after"], Frame(data))

    return edit


def _compressed(coding: str, make: Callable[[Parameters], tuple[Callable[[bytes], bytes], Callable[[], bytes]]]) -> Row:
    def edit(plan: WirePlan, params: Parameters) -> WirePlan:
        compress, finish = make(params)
        coded = plan.map_frames(compress).with_headers(content_encoding=coding)
        return replace(coded, body=(*coded.body, Frame(finish())))

    return Row(f"the body is compressed with {coding}, flushed at every event", edit, only_streams=False)


def _zlib(wbits: int) -> tuple[Callable[[bytes], bytes], Callable[[], bytes]]:
    coder = zlib.compressobj(wbits=wbits)
    return lambda data: coder.compress(data) + coder.flush(zlib.Z_SYNC_FLUSH), coder.flush


def _brotli(params: Parameters) -> tuple[Callable[[bytes], bytes], Callable[[], bytes]]:
    coder = _need("brotli").Compressor()
    return lambda data: coder.process(data) + coder.flush(), coder.finish


def _zstd(params: Parameters) -> tuple[Callable[[bytes], bytes], Callable[[], bytes]]:
    library = _need("zstandard")
    coder = library.ZstdCompressor().compressobj()
    return lambda data: coder.compress(data) + coder.flush(library.COMPRESSOBJ_FLUSH_BLOCK), coder.flush


def _need(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(f"this fault needs the package {module}", hint="Install lm-deluge[speed].") from error


def _gzip_bomb(plan: WirePlan, params: Parameters) -> WirePlan:
    """Send comments, small lines all of them, that are a thousand times larger than their bytes."""
    coder = zlib.compressobj(wbits=31)
    head = b"".join(coder.compress(step.data) for step in plan.split(params["after"])[0] if isinstance(step, Frame))
    head += coder.flush(zlib.Z_FULL_FLUSH)
    # After a full flush nothing refers back, so the same block may stand there any number of times.
    block = coder.compress((b":" + b" " * 1022 + b"\n") * 1024) + coder.flush(zlib.Z_FULL_FLUSH)
    bomb = replace(plan, body=(Frame(head), Repeat(block, 0.0, int(params["size"]) // _MIB)))
    return bomb.with_headers(content_encoding="gzip")


def _truncated_gzip(plan: WirePlan, params: Parameters) -> WirePlan:
    """End the compressed body in order, but without its last block and checksum."""
    coder = zlib.compressobj(wbits=31)
    data = b"".join(coder.compress(step.data) for step in plan.body if isinstance(step, Frame)) + coder.flush()
    cut = replace(plan, body=(Frame(data[: len(data) // 2]),))
    return cut.with_headers(content_encoding="gzip")


def _unknown_encoding(plan: WirePlan, params: Parameters) -> WirePlan:
    return plan.with_headers(content_encoding=params["coding"])


_PAGE = b"""<!DOCTYPE html>
<html><head><title>Welcome to the hotel</title></head><body><h1>Please log in to use the network</h1></body></html>
"""


def _html_200(plan: WirePlan, params: Parameters) -> WirePlan:
    return plan.with_document(200, "text/html; charset=utf-8", _PAGE)


def _content_type(plan: WirePlan, params: Parameters) -> WirePlan:
    return plan.with_headers(content_type=params["type"])


def _no_content_type(plan: WirePlan, params: Parameters) -> WirePlan:
    return plan.without_header("content-type")


def _empty_body(plan: WirePlan, params: Parameters) -> WirePlan:
    return replace(plan, body=())


_ESCAPES = "\x1b[31mred\x1b]0;title\x07\x9b2J\x08\x7f\r\0"
_LINES = "a\u2028b\u2029c\x85d\x0be\x0cf"

_ROWS: dict[str, Row] = {
    "split_utf8": Row("every character of several bytes arrives in pieces", _split_utf8),
    "byte_by_byte": Row("every byte is an HTTP chunk of its own", _byte_by_byte, only_streams=False),
    "invalid_utf8": Row("a delta holds bytes that are no UTF-8", _invalid_utf8, defaults=_AFTER),
    "bom": Row("a byte order mark opens the body", _bom, only_streams=False),
    "late_bom": Row(
        "a byte order mark stands before a later event, which is to be ignored", _late_bom, defaults=_AFTER
    ),
    "crlf": Row("lines end with CR LF", _line_ends(b"\r\n")),
    "cr_only": Row("lines end with CR", _line_ends(b"\r")),
    "mixed_newlines": Row("lines end with CR, LF and CR LF in turn", _line_ends(b"\r\n", b"\n", b"\r")),
    "u2028": Row("the text holds U+2028, U+2029, U+0085, VT and FF", edit_events=_text(_LINES), defaults=_AFTER),
    "escapes": Row(
        "the text holds control characters that a terminal would obey", edit_events=_text(_ESCAPES), defaults=_AFTER
    ),
    "comments": Row("comments stand between the events", _between(b": keep-alive\n\n:\n\n")),
    "multiline_data": Row("the JSON of each event is spread over several data lines", _multiline_data),
    "event_without_data": Row("events with a name or an id and no data", _between(b"event: ping\n\nid: 7\n\n")),
    "unknown_fields": Row("events have fields that the standard does not know", _between(b"foo: bar\nretry: soon\n")),
    "empty_data": Row("events whose data is empty", _between(b"data:\n\ndata\n\n")),
    "nul": Row(
        "NUL in an id, in a comment and, escaped, in the text",
        _between(b"id: a\0b\n:\0\n"),
        _text("nul:\0."),
        defaults=_AFTER,
    ),
    "unterminated_last_event": Row("the body ends behind the end mark, without a blank line", _unterminated),
    "huge_line": Row("one line of `size` bytes, 17 MiB by default", _huge_line, defaults={**_AFTER, "size": 17 * _MIB}),
    "huge_event": Row(
        "one event of many lines, `size` bytes, 17 MiB by default", _huge_event, defaults={**_AFTER, "size": 17 * _MIB}
    ),
    "gzip": _compressed("gzip", lambda _params: _zlib(31)),
    "deflate": _compressed("deflate", lambda _params: _zlib(15)),
    "raw_deflate": replace(
        _compressed("deflate", lambda _params: _zlib(-15)),
        description="the body is compressed with deflate, without the wrapper that RFC 9110 asks for",
    ),
    "br": _compressed("br", _brotli),
    "zstd": _compressed("zstd", _zstd),
    "gzip_bomb": Row(
        "`size` bytes of comments, 300 MiB by default, in a thousandth of that",
        _gzip_bomb,
        defaults={**_AFTER, "size": 300 * _MIB},
    ),
    "truncated_gzip": Row("a gzip body that ends in its middle, in order", _truncated_gzip, only_streams=False),
    "unknown_encoding": Row(
        "the body claims a coding that nobody knows",
        _unknown_encoding,
        defaults={"coding": "x-rot13"},
        only_streams=False,
    ),
    "not_json": Row("the data of an event is no JSON", _insert(b'data: {"choices": [oops\n\n'), defaults=_AFTER),
    "html_200": Row("200, and the page of a captive portal", _html_200, only_streams=False, is_refusal=True),
    "wrong_content_type": Row(
        "the stream claims to be another `type`", _content_type, defaults={"type": "text/html"}, only_streams=False
    ),
    "no_content_type": Row("the answer has no content type", _no_content_type, only_streams=False),
    "empty_body": Row("200, and no byte of a body", _empty_body, only_streams=False, is_refusal=True),
}

_OF_LINES = (
    *("bom", "late_bom", "crlf", "cr_only", "mixed_newlines", "comments", "multiline_data", "event_without_data"),
    *(
        "unknown_fields",
        "empty_data",
        "nul",
        "unterminated_last_event",
        "huge_line",
        "huge_event",
        "gzip_bomb",
        "not_json",
    ),
)
WIRE_FAULTS: dict[str, Row] = {
    name: replace(row, needs=SSE) if name in _OF_LINES else row for name, row in _ROWS.items()
}
