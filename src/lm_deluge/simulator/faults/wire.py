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
from lm_deluge.extras import install_hint
from lm_deluge.simulator.faults.fault import SSE, EditPlan, FaultSpec, Parameters
from lm_deluge.simulator.plan import AnswerContext, Frame, Pause, Repeat, Step, WirePlan
from lm_deluge.wire.sse import encode_sse

__all__ = ["WIRE_FAULTS"]

_BOM = b"\xef\xbb\xbf"
_MIB = 2**20  # bytes
_AFTER: dict[str, Any] = {"after": 3}  # deltas: the answer has visible text, and most of it is to come
# Long enough that a client reads each piece separately, short enough that hundreds of pieces take a second.
_SPLIT_PAUSE_S = 0.002


def _split_utf8(plan: WirePlan, params: Parameters) -> WirePlan:
    """Cut each frame inside every multi-byte character; cut a frame without multi-byte characters in its middle."""
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
    cuts = [at for at in range(1, len(data)) if 0x80 <= data[at] < 0xC0] or [len(data) // 2]  # noqa: PLR2004 - continuation bytes are 10xxxxxx
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def _byte_by_byte(plan: WirePlan, params: Parameters) -> WirePlan:
    body = [_split_step(step) for step in plan.body]
    return replace(plan, body=tuple(step for steps in body for step in steps))


def _split_step(step: Step) -> list[Step]:
    if not isinstance(step, Frame):
        return [step]
    return [replace(step, data=step.data[:1]), *(Frame(step.data[at : at + 1]) for at in range(1, len(step.data)))]


def _invalid_utf8(plan: WirePlan, params: Parameters) -> WirePlan:
    """Insert two bytes that are not UTF-8 into the text of a delta."""
    before, rest = plan.split(params["after"])
    step = rest[0] if rest else None
    if not isinstance(step, Frame):
        return plan
    text = msgspec.json.encode(step.event.text if isinstance(step.event, TextDelta) else "")
    invalid = step.data.replace(text, text[:-1] + b'\xff\xfe"', 1)
    return replace(plan, body=(*before, replace(step, data=invalid), *rest[1:]))


def _bom(plan: WirePlan, params: Parameters) -> WirePlan:
    first, *rest = plan.body
    data = first.data if isinstance(first, Frame) else b""
    return replace(plan, body=(Frame(_BOM + data), *rest))


def _late_bom(plan: WirePlan, params: Parameters) -> WirePlan:
    """Send a delta twice. A byte order mark before the copy makes its field name unknown, so clients must ignore it."""
    _, rest = plan.split(params["after"])
    copy = next((step.data for step in rest if isinstance(step, Frame)), b"data: {}\n\n")
    return plan.insert(params["after"], Frame(_BOM + copy))


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


def _inserted_delta(text: str) -> Callable[[list[Event], AnswerContext, Parameters], list[Event]]:
    """Return an edit that inserts a delta with `text` into the answer."""

    def edit(events: list[Event], context: AnswerContext, params: Parameters) -> list[Event]:
        deltas = 0
        for position, event in enumerate(events):
            if isinstance(event, TextDelta):
                if deltas == params["after"]:
                    return [*events[:position], TextDelta(text), *events[position:]]
                deltas += 1
        return events

    return edit


def _before_each_frame(data: bytes) -> EditPlan:
    """Return an edit that inserts bytes before every frame."""

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


def _compressed(
    coding: str, make: Callable[[Parameters], tuple[Callable[[bytes], bytes], Callable[[], bytes]]]
) -> FaultSpec:
    def edit(plan: WirePlan, params: Parameters) -> WirePlan:
        compress, finish = make(params)
        coded = plan.map_frames(compress).with_headers(content_encoding=coding)
        return replace(coded, body=(*coded.body, Frame(finish())))

    return FaultSpec(f"the body is compressed with {coding}, flushed at every event", edit, only_streams=False)


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
        raise MissingExtraError(f"this fault needs the package {module}", hint=install_hint(module)) from error


def _gzip_bomb(plan: WirePlan, params: Parameters) -> WirePlan:
    """Send short comment lines that decompress to about a thousand times their size."""
    coder = zlib.compressobj(wbits=31)
    head = b"".join(coder.compress(step.data) for step in plan.split(params["after"])[0] if isinstance(step, Frame))
    head += coder.flush(zlib.Z_FULL_FLUSH)
    # After a full flush the compressor refers to no earlier data, so the same block can be repeated.
    block = coder.compress((b":" + b" " * 1022 + b"\n") * 1024) + coder.flush(zlib.Z_FULL_FLUSH)
    bomb = replace(plan, body=(Frame(head), Repeat(block, 0.0, int(params["size"]) // _MIB)))
    return bomb.with_headers(content_encoding="gzip")


def _truncated_gzip(plan: WirePlan, params: Parameters) -> WirePlan:
    """End the body in order after half of the compressed bytes, without the last block and the checksum."""
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

_SPECS: dict[str, FaultSpec] = {
    "split_utf8": FaultSpec("every multi-byte character arrives in pieces", _split_utf8),
    "byte_by_byte": FaultSpec("every byte is a separate HTTP chunk", _byte_by_byte, only_streams=False),
    "invalid_utf8": FaultSpec("a delta contains bytes that are not UTF-8", _invalid_utf8, defaults=_AFTER),
    "bom": FaultSpec("the body starts with a byte order mark", _bom, only_streams=False),
    "late_bom": FaultSpec(
        "a byte order mark precedes a later event, which clients must ignore", _late_bom, defaults=_AFTER
    ),
    "crlf": FaultSpec("lines end with CR LF", _line_ends(b"\r\n")),
    "cr_only": FaultSpec("lines end with CR", _line_ends(b"\r")),
    "mixed_newlines": FaultSpec("lines end with CR, LF and CR LF in turn", _line_ends(b"\r\n", b"\n", b"\r")),
    "u2028": FaultSpec(
        "the text contains U+2028, U+2029, U+0085, VT and FF", edit_events=_inserted_delta(_LINES), defaults=_AFTER
    ),
    "escapes": FaultSpec(
        "the text contains control characters that a terminal would execute",
        edit_events=_inserted_delta(_ESCAPES),
        defaults=_AFTER,
    ),
    "comments": FaultSpec("comments between the events", _before_each_frame(b": keep-alive\n\n:\n\n")),
    "multiline_data": FaultSpec("the JSON of each event spans several data lines", _multiline_data),
    "event_without_data": FaultSpec(
        "events with a name or an id but no data", _before_each_frame(b"event: ping\n\nid: 7\n\n")
    ),
    "unknown_fields": FaultSpec(
        "events with fields that the standard does not define", _before_each_frame(b"foo: bar\nretry: soon\n")
    ),
    "empty_data": FaultSpec("events with empty data", _before_each_frame(b"data:\n\ndata\n\n")),
    "nul": FaultSpec(
        "NUL in an id, in a comment and (escaped) in the text",
        _before_each_frame(b"id: a\0b\n:\0\n"),
        _inserted_delta("nul:\0."),
        defaults=_AFTER,
    ),
    "unterminated_last_event": FaultSpec("the body ends after the end mark, without a blank line", _unterminated),
    "huge_line": FaultSpec(
        "one line of `size` bytes, 17 MiB by default", _huge_line, defaults={**_AFTER, "size": 17 * _MIB}
    ),
    "huge_event": FaultSpec(
        "one event of many lines, `size` bytes in total, 17 MiB by default",
        _huge_event,
        defaults={**_AFTER, "size": 17 * _MIB},
    ),
    "gzip": _compressed("gzip", lambda _params: _zlib(31)),
    "deflate": _compressed("deflate", lambda _params: _zlib(15)),
    "raw_deflate": replace(
        _compressed("deflate", lambda _params: _zlib(-15)),
        description="the body is compressed with deflate, without the zlib wrapper that RFC 9110 requires",
    ),
    "br": _compressed("br", _brotli),
    "zstd": _compressed("zstd", _zstd),
    "gzip_bomb": FaultSpec(
        "`size` bytes of comments, 300 MiB by default, compressed to a thousandth",
        _gzip_bomb,
        defaults={**_AFTER, "size": 300 * _MIB},
    ),
    "truncated_gzip": FaultSpec(
        "a gzip body without its second half, ended in order", _truncated_gzip, only_streams=False
    ),
    "unknown_encoding": FaultSpec(
        "the answer has a content-encoding that does not exist",
        _unknown_encoding,
        defaults={"coding": "x-rot13"},
        only_streams=False,
    ),
    "not_json": FaultSpec("the data of an event is not JSON", _insert(b'data: {"choices": [oops\n\n'), defaults=_AFTER),
    "html_200": FaultSpec("200 with the page of a captive portal", _html_200, only_streams=False, replaces_answer=True),
    "wrong_content_type": FaultSpec(
        "the answer has another content type, `type`", _content_type, defaults={"type": "text/html"}, only_streams=False
    ),
    "no_content_type": FaultSpec("the answer has no content type", _no_content_type, only_streams=False),
    "empty_body": FaultSpec("200 with an empty body", _empty_body, only_streams=False, replaces_answer=True),
}

_SSE_ONLY = (
    *("bom", "late_bom", "crlf", "cr_only", "mixed_newlines", "comments", "multiline_data", "event_without_data"),
    *("unknown_fields", "empty_data", "nul", "unterminated_last_event", "huge_line", "huge_event", "gzip_bomb"),
    "not_json",
)
WIRE_FAULTS: dict[str, FaultSpec] = {
    name: replace(spec, needs=SSE) if name in _SSE_ONLY else spec for name, spec in _SPECS.items()
}
