"""Compressed bodies, decoded as they come, and never into more than was bargained for.

A few kilobytes of gzip can hold hundreds of megabytes: beyond 8 MiB a body may not be more than a hundred times
as large as what was sent.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from lm_deluge.errors import ContentTypeError, ProtocolError, ResponseLimitError

__all__ = ["ACCEPTED_CODINGS", "ContentDecoder"]

ACCEPTED_CODINGS = "gzip, deflate"
"""The value of `accept-encoding`: the codings that need no further package. Some proxies send others unasked; they are
decoded where the package is installed."""

_FREE_BYTES = 8 * 2**20
_MOST_RATIO = 100
_STEP = 64 * 2**10


class _Decompressor(Protocol):
    def pieces(self, data: bytes) -> Iterator[bytes]: ...

    @property
    def is_whole(self) -> bool: ...


class _Zlib:
    """gzip and deflate; deflate comes with and without its zlib header."""

    def __init__(self, window: int) -> None:
        self._window = window
        self._inner = zlib.decompressobj(window)
        self._is_new = True

    def pieces(self, data: bytes) -> Iterator[bytes]:
        while data:
            try:
                piece = self._inner.decompress(data, _STEP)
            except zlib.error:
                if not self._is_new or self._window != zlib.MAX_WBITS:
                    raise
                self._window = -zlib.MAX_WBITS
                self._inner = zlib.decompressobj(self._window)
                continue
            self._is_new = False
            data = self._inner.unconsumed_tail
            if self._inner.eof and self._inner.unused_data:
                data = self._inner.unused_data
                self._inner = zlib.decompressobj(self._window)
            if piece:
                yield piece

    @property
    def is_whole(self) -> bool:
        return self._inner.eof or self._is_new


class _InSmallSteps:
    """brotli and zstandard, whose bindings know no limit of output: so they get little at a time."""

    def __init__(self, decompress: Callable[[bytes], bytes]) -> None:
        self._decompress = decompress

    def pieces(self, data: bytes) -> Iterator[bytes]:
        for start in range(0, len(data), 256):
            piece = self._decompress(data[start : start + 256])
            if piece:
                yield piece

    is_whole = True


def _brotli() -> _Decompressor:
    import brotli  # type: ignore[import-untyped]  # ships no types

    return _InSmallSteps(brotli.Decompressor().process)


def _zstandard() -> _Decompressor:
    import zstandard

    return _InSmallSteps(zstandard.ZstdDecompressor(max_window_size=2**27).decompressobj().decompress)


_CODINGS: dict[str, Callable[[], _Decompressor]] = {
    "gzip": lambda: _Zlib(zlib.MAX_WBITS | 16),
    "x-gzip": lambda: _Zlib(zlib.MAX_WBITS | 16),
    "deflate": lambda: _Zlib(zlib.MAX_WBITS),
    "br": _brotli,
    "zstd": _zstandard,
}


class ContentDecoder:
    """Decodes the body of one answer.

    Raises:
        ContentTypeError: The coding is unknown here.
    """

    def __init__(self, coding: str) -> None:
        self._coding = coding
        self._received = 0
        self._decoded = 0
        try:
            self._inner = _CODINGS[coding]()
        except KeyError:
            raise self._unknown("is unknown") from None
        except ImportError:
            raise self._unknown("needs a package that is not installed") from None

    def decode(self, data: bytes) -> bytes:
        """Return what the next bytes hold; maybe nothing.

        Raises:
            ProtocolError: They are not in the coding that the headers name.
            ResponseLimitError: They hold far more than was sent.
        """
        self._received += len(data)
        pieces = []
        try:
            for piece in self._inner.pieces(data):
                self._decoded += len(piece)
                self._check()
                pieces.append(piece)
        except Exception as error:
            if isinstance(error, ProtocolError):
                raise
            raise ProtocolError(f"the body is not {self._coding}, as its headers say", reason="framing") from error
        return b"".join(pieces)

    @property
    def is_whole(self) -> bool:
        """Whether the compressed data has its end."""
        return self._inner.is_whole

    def _check(self) -> None:
        if self._decoded > _FREE_BYTES and self._decoded > _MOST_RATIO * self._received:
            raise ResponseLimitError(
                f"the compressed body holds more than {_MOST_RATIO} times what was sent", reason="limit"
            )

    def _unknown(self, why: str) -> ContentTypeError:
        return ContentTypeError(
            f"the body's content-encoding {self._coding[:40]!r} {why}",
            reason="content_type",
            hint="Install lm-deluge[speed] for brotli and zstandard, or have the proxy send gzip.",
        )


def content_decoder(headers: Any) -> ContentDecoder | None:
    """Return the decoder that the headers call for, None for a plain body."""
    coding = headers.get("content-encoding", "").strip().lower()
    return None if coding in ("", "identity") else ContentDecoder(coding)
