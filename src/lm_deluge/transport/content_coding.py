"""Incremental decompression of bodies, protected against decompression bombs.

A few kilobytes of gzip can expand to hundreds of megabytes. Beyond 8 MiB, the decompressed body may be at most a
hundred times as large as the compressed one.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from lm_deluge.errors import ContentTypeError, ProtocolError, ResponseLimitError, install_hint

__all__ = ["ACCEPTED_CODINGS", "ContentDecoder"]

ACCEPTED_CODINGS = "gzip, deflate"
"""The value of `accept-encoding`: the codings that need no further package. Some proxies send others unasked; they are
decoded where the package is installed."""

_FREE_BYTES = 8 * 2**20  # not checked below: harmless to memory, and small bodies of repeated text may exceed the ratio
_MOST_RATIO = 100  # answers compress far less, bombs about 1,000 times, the maximum of deflate
_STEP = 64 * 2**10  # decompressed at once: bounds the memory before the size is checked


class _Decompressor(Protocol):
    def pieces(self, data: bytes) -> Iterator[bytes]: ...

    @property
    def is_whole(self) -> bool: ...


class _Zlib:
    """gzip and deflate; servers send deflate with and without a zlib header."""

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
    """brotli and zstandard: their bindings cannot limit the output, so they get only 256 bytes of input at a time."""

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
    """Decompresses the body of one response.

    Raises:
        ContentTypeError: The coding is unknown, or its package is not installed.
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
        """Feed the next bytes; return the decompressed bytes, which may be empty.

        Raises:
            ProtocolError: The bytes are not in the coding that the headers declare.
            ResponseLimitError: The decompressed body is far larger than the compressed one.
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
            raise ProtocolError(f"the body is not {self._coding}, contrary to its headers", reason="framing") from error
        return b"".join(pieces)

    @property
    def is_whole(self) -> bool:
        """Whether the compressed data is complete."""
        return self._inner.is_whole

    def _check(self) -> None:
        if self._decoded > _FREE_BYTES and self._decoded > _MOST_RATIO * self._received:
            raise ResponseLimitError(
                f"the decompressed body is more than {_MOST_RATIO} times as large as the compressed one", reason="limit"
            )

    def _unknown(self, why: str) -> ContentTypeError:
        return ContentTypeError(
            f"the body's content-encoding {self._coding[:40]!r} {why}",
            reason="content_type",
            hint=install_hint("brotli zstandard", otherwise="have the proxy send gzip"),
        )


def content_decoder(headers: Any) -> ContentDecoder | None:
    """Return the decoder for the `content-encoding` of the headers, None for a plain body."""
    coding = headers.get("content-encoding", "").strip().lower()
    return None if coding in ("", "identity") else ContentDecoder(coding)
