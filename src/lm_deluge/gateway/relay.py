"""Passes a response on as its provider sent it, for clients that speak the provider's own API.

The bytes are cut at the ends of frames only, so that a heartbeat, or an error after a break, never stands in a frame.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

__all__ = ["FrameCutter", "drop_usage_frame"]

# The ends of a server-sent event; https://html.spec.whatwg.org/multipage/server-sent-events.html
_SSE_ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")
_LINE_ENDS = (b"\n",)


class FrameCutter:
    """Holds the beginning of a frame back until the rest of it has arrived.

    Args:
        is_sse: Whether frames are server-sent events, or lines.
        edit: Applied to the complete frames before they are passed on.
    """

    __slots__ = ("_edit", "_ends", "_rest")

    def __init__(self, *, is_sse: bool, edit: Callable[[bytes], bytes] | None = None) -> None:
        self._ends = _SSE_ENDS if is_sse else _LINE_ENDS
        self._edit = edit
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        """Return what is complete after the next bytes."""
        if self._rest:
            data = self._rest + data
        cut = 0
        for end in self._ends:
            position = data.rfind(end)
            if position >= 0:
                cut = max(cut, position + len(end))
        self._rest = data[cut:]
        if not cut:
            return b""
        whole = data[:cut]
        return whole if self._edit is None else self._edit(whole)

    def close(self) -> bytes:
        """Return what is left at the end of the body."""
        rest, self._rest = self._rest, b""
        return rest if self._edit is None or not rest else self._edit(rest)


def drop_usage_frame(frames: bytes) -> bytes:
    """Return frames of Chat Completions without the one that only reports usage, which the client did not ask for."""
    if b'"usage"' not in frames or b'"choices"' not in frames:
        return frames
    kept = []
    for line in frames.splitlines(keepends=True):
        if line.startswith(b"data:") and _is_usage_only(line[5:]):
            continue
        kept.append(line)
    return b"".join(kept)


def _is_usage_only(data: bytes) -> bool:
    if b'"choices":[]' not in data.replace(b" ", b""):
        return False
    try:
        chunk = msgspec.json.decode(data)
    except msgspec.DecodeError:
        return False
    return isinstance(chunk, dict) and not chunk.get("choices") and isinstance(chunk.get("usage"), dict)
