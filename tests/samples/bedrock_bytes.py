"""Builders of bodies of Bedrock's streams, independent of our encoders."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from typing import Any


def message(payload: bytes, **headers: str) -> bytes:
    """Return one message of an event stream; `_` in the names of headers becomes `-`."""
    head = b"".join(
        bytes([len(name) + 1])
        + b":"
        + name.replace("_", "-").encode()
        + b"\x07"
        + struct.pack(">H", len(value))
        + value.encode()
        for name, value in headers.items()
    )
    start = struct.pack(">II", 16 + len(head) + len(payload), len(head))
    start += struct.pack(">I", zlib.crc32(start))
    return start + head + payload + struct.pack(">I", zlib.crc32(start + head + payload))


def event(kind: str, fields: Any) -> bytes:
    payload = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
    return message(payload, event_type=kind, content_type="application/json", message_type="event")


def exception(kind: str, fields: Any) -> bytes:
    payload = json.dumps(fields).encode()
    return message(payload, exception_type=kind, content_type="application/json", message_type="exception")


def converse(*events: dict[str, Any]) -> bytes:
    """Return a stream of Converse; each event maps its name to its fields."""
    return b"".join(event(name, fields) for each in events for name, fields in each.items())


def block_start(index: int, **start: Any) -> dict[str, Any]:
    return {"contentBlockStart": {"contentBlockIndex": index, "start": start}}


def block_delta(index: int, **delta: Any) -> dict[str, Any]:
    return {"contentBlockDelta": {"contentBlockIndex": index, "delta": delta}}


def block_stop(index: int) -> dict[str, Any]:
    return {"contentBlockStop": {"contentBlockIndex": index}}


def stop(reason: str = "end_turn") -> dict[str, Any]:
    return {"messageStop": {"stopReason": reason}}


def metadata(**usage: int) -> dict[str, Any]:
    return {"metadata": {"usage": usage, "metrics": {"latencyMs": 1}}}


BEGIN = {"messageStart": {"role": "assistant"}}


def chunk(fields: Any) -> bytes:
    """Return a chunk of the native API."""
    data = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
    return event("chunk", {"bytes": base64.b64encode(data).decode(), "p": "abc"})


def chunks(*pieces: Any) -> bytes:
    return b"".join(chunk(piece) for piece in pieces)
