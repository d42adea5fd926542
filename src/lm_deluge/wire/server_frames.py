"""Whole server-sent events in bytes, for code that passes them on or keeps them without decoding them."""

from __future__ import annotations

import re

__all__ = ["FRAME_END", "split_frames"]

# The end of a server-sent event; https://html.spec.whatwg.org/multipage/server-sent-events.html
FRAME_END = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")


def split_frames(data: bytes) -> list[bytes]:
    """Return the server-sent events in whole frames, each with the blank line at its end."""
    frames, start = [], 0
    for match in FRAME_END.finditer(data):
        frames.append(data[start : match.end()])
        start = match.end()
    return [*frames, data[start:]]
