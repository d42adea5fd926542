"""Passes a stream on as its provider sent it, for clients that speak the provider's own API.

Frames are passed on unchanged and whole, so that a heartbeat, or an error after a break, never stands inside a frame.
Left out are frames that no client can read: clients raise errors of their JSON parser for them. After the last frame of
the API nothing is passed on, and a stream without one gets it, as soon as the answer is known to be complete.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

from lm_deluge.wire.server_frames import FRAME_END, split_frames

__all__ = ["RELAY_ENDS", "Relay", "RelayEnd"]

_LONGEST_END = 4  # bytes of the longest end of a frame: two times CR LF
_LINE = re.compile(rb"\r\n|\n|\r")
_USUAL = re.compile(rb"(?:event: ?[\w.]+\r?\n)?data: ?(\{[^\r\n]*\})\r?\n\r?\n")


class RelayEnd(NamedTuple):
    """The last frame of an API.

    Attributes:
        marks: Texts of which one stands in the last frame.
        frame: The last frame of a complete answer; None if it has more in it than its kind.
    """

    marks: tuple[bytes, ...]
    frame: bytes | None


RELAY_ENDS: dict[str, RelayEnd] = {
    "openai-chat": RelayEnd((b"[DONE]",), b"data: [DONE]\n\n"),
    "anthropic-messages": RelayEnd((b"message_stop",), b'event: message_stop\ndata: {"type":"message_stop"}\n\n'),
    "openai-responses": RelayEnd((b"response.completed", b"response.incomplete", b"response.failed"), None),
}


class Relay:
    """One stream that is passed on.

    Args:
        end: The last frame of the API; None for an API without one.
        is_sse: Whether frames are server-sent events, or lines.
        keeps_usage: Whether the client wants the frame of Chat Completions that has only the usage.
    """

    def __init__(self, end: RelayEnd | None, *, is_sse: bool, keeps_usage: bool) -> None:
        self._end = end
        self._is_sse = is_sse
        self._keeps_usage = keeps_usage
        self._pieces: list[bytes] = []  # of a frame whose end has not arrived
        self._tail = b""  # their last bytes
        self._has_ended = False

    def feed(self, data: bytes, *, is_complete: bool) -> bytes:
        """Return the frames that are whole after the next bytes.

        Args:
            data: The next bytes of the provider's stream.
            is_complete: Whether the answer is complete with them.
        """
        if self._has_ended:
            return b""
        # Only what is new is searched: an image in a frame arrives in many reads.
        new, self._tail = self._tail + data, (self._tail + data[-_LONGEST_END:])[-_LONGEST_END:]
        self._pieces.append(data)
        if not (FRAME_END if self._is_sse else _LINE).search(new):
            return b""
        frames, rest = self._cut(b"".join(self._pieces))
        self._pieces, self._tail = [rest], rest[-_LONGEST_END:]
        return b"".join(self._kept(frames, is_complete=is_complete))

    def close(self) -> bytes:
        """Return what is missing at the end of a complete answer."""
        rest, self._pieces = b"".join(self._pieces), []
        kept = b""
        if rest.strip() and not self._has_ended:
            frames, _ = self._cut(rest + (b"\n\n" if self._is_sse else b"\n"))
            kept = b"".join(self._kept(frames, is_complete=True))
        if self._has_ended or self._end is None or self._end.frame is None:
            return kept
        self._has_ended = True
        return kept + self._end.frame

    def _cut(self, data: bytes) -> tuple[list[bytes], bytes]:
        if not self._is_sse:
            *lines, rest = data.split(b"\n")
            return [line + b"\n" for line in lines], rest
        *frames, rest = split_frames(data)
        return frames, rest

    def _kept(self, frames: Iterable[bytes], *, is_complete: bool) -> Iterator[bytes]:
        for frame in frames:
            if self._has_ended:
                return
            if not self._is_sse:
                yield frame
                continue
            if not _is_readable(frame) or (not self._keeps_usage and _has_only_usage(frame)):
                continue
            if is_complete and self._end is not None and any(mark in frame for mark in self._end.marks):
                self._has_ended = True
            yield frame


def _is_readable(frame: bytes) -> bool:
    """Whether clients can read a frame: a comment, the end mark of Chat Completions, or JSON in UTF-8."""
    match = _USUAL.fullmatch(frame)
    if match is not None:
        return _is_json(match[1])
    lines = [line for line in _LINE.split(frame) if line]
    fields = [line.partition(b":") for line in lines]
    data = b"\n".join(value.removeprefix(b" ") for name, _, value in fields if name == b"data")
    if not data:
        return all(line.startswith(b":") for line in lines)
    return data.strip() == b"[DONE]" or _is_json(data)


def _is_json(data: bytes) -> bool:
    try:
        data.decode()
        msgspec.json.decode(data, type=msgspec.Raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return True


def _has_only_usage(frame: bytes) -> bool:
    """Whether a frame of Chat Completions has the usage and nothing else."""
    if b'"usage"' not in frame or b"[]" not in frame:
        return False
    data = frame[frame.find(b"{") : frame.rfind(b"}") + 1]
    try:
        chunk = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return chunk.get("choices") == [] and isinstance(chunk.get("usage"), dict)
