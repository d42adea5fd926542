"""Incremental decompression of bodies, protected against decompression bombs.

A few kilobytes of gzip can expand to hundreds of megabytes, and a hundred bytes of brotli, too. Beyond 8 MiB, the
decompressed body may be at most a hundred times as large as the compressed one, and no read may expand to more than
16 MiB. A coding that the request does not accept is refused, even if it could be decompressed.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from lm_deluge.errors import ContentTypeError, ProtocolError, ResponseLimitError
from lm_deluge.extras import install_hint

__all__ = ["ACCEPTED_CODINGS", "ContentDecoder"]

ACCEPTED_CODINGS = "gzip, deflate"
"""The default value of `accept-encoding`: the codings that need no further package. `extra_headers` may ask for `br`
and `zstd`, if their packages are installed."""

_FREE_BYTES = 8 * 2**20  # not checked below: harmless to memory, and small bodies of repeated text may exceed the ratio
_MOST_RATIO = 100  # answers compress far less, bombs about 1,000 times, the maximum of deflate
_MOST_OF_A_READ = 16 * 2**20  # a read has at most 256 KiB, so that a body of the ratio above stays below it
_STEP = 64 * 2**10  # decompressed at once: bounds the memory before the size is checked
_ZSTD_INPUT = 64  # bytes at a time: a block of 4 bytes may expand to 128 KiB (RFC 8878, section 3.1.1.2), so 2 MiB
_ZSTD_WINDOW = 8 * 2**20  # the largest window that HTTP allows (RFC 9659)


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


class _Brotli:
    """brotli, with the output limit that version 1.2 of the package has."""

    def __init__(self) -> None:
        import brotli  # type: ignore[import-untyped]  # ships no types

        self._inner = brotli.Decompressor()
        self._is_new = True

    def pieces(self, data: bytes) -> Iterator[bytes]:
        self._is_new = self._is_new and not data
        while True:
            piece = self._inner.process(data, output_buffer_limit=_STEP)
            data = b""
            if piece:
                yield piece
            if self._inner.can_accept_more_data() or self._inner.is_finished():
                return

    @property
    def is_whole(self) -> bool:
        return self._is_new or bool(self._inner.is_finished())


class _Zstandard:
    """zstandard, whose package cannot limit the output: it gets a few bytes at a time."""

    def __init__(self) -> None:
        import zstandard

        self._inner = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj()
        self._is_new = True

    def pieces(self, data: bytes) -> Iterator[bytes]:
        self._is_new = self._is_new and not data
        for start in range(0, len(data), _ZSTD_INPUT):
            piece = self._inner.decompress(data[start : start + _ZSTD_INPUT])
            if piece:
                yield piece

    @property
    def is_whole(self) -> bool:
        return self._is_new or self._inner.eof


_CODINGS: dict[str, Callable[[], _Decompressor]] = {
    "gzip": lambda: _Zlib(zlib.MAX_WBITS | 16),
    "x-gzip": lambda: _Zlib(zlib.MAX_WBITS | 16),
    "deflate": lambda: _Zlib(zlib.MAX_WBITS),
    "br": _Brotli,
    "zstd": _Zstandard,
}


class ContentDecoder:
    """Decompresses the body of one response.

    Args:
        coding: The response's `content-encoding`, in lower case.
        accepted: The request's `accept-encoding`.

    Raises:
        ContentTypeError: The coding is unknown, was not requested, or its package is not installed.
    """

    def __init__(self, coding: str, accepted: str = ACCEPTED_CODINGS) -> None:
        self._coding = coding
        if coding in _CODINGS and not _accepts(accepted, coding):
            raise self._refused("was not requested", f"Have the proxy send gzip, or set accept-encoding to {coding}.")
        self._received = 0
        self._decoded = 0
        try:
            self._inner = _CODINGS[coding]()
        except KeyError:
            raise self._refused("is unknown", "Have the proxy send gzip.") from None
        except ImportError:
            hint = install_hint("brotli zstandard", otherwise="have the proxy send gzip")
            raise self._refused("needs a package that is not installed", hint) from None

    def decode(self, data: bytes) -> bytes:
        """Feed the next bytes; return the decompressed bytes, which may be empty.

        Raises:
            ProtocolError: The bytes are not in the coding that the headers declare.
            ResponseLimitError: The decompressed body is far larger than the compressed one.
        """
        self._received += len(data)
        decoded = bytearray()
        try:
            for piece in self._inner.pieces(data):
                decoded += piece
                self._check(len(decoded))
        except Exception as error:
            if isinstance(error, ProtocolError):
                raise
            raise ProtocolError(f"the body is not {self._coding}, contrary to its headers", reason="framing") from error
        self._decoded += len(decoded)
        return bytes(decoded)

    @property
    def is_whole(self) -> bool:
        """Whether the compressed data is complete."""
        return self._inner.is_whole

    def _check(self, of_this_read: int) -> None:
        total = self._decoded + of_this_read
        if of_this_read > _MOST_OF_A_READ or (total > _FREE_BYTES and total > _MOST_RATIO * self._received):
            raise ResponseLimitError(
                f"the decompressed body is more than {_MOST_RATIO} times as large as the compressed one", reason="limit"
            )

    def _refused(self, why: str, hint: str) -> ContentTypeError:
        return ContentTypeError(
            f"the body's content-encoding {self._coding[:40]!r} {why}", reason="content_type", hint=hint
        )


def _accepts(accepted: str, coding: str) -> bool:
    names = [item.partition(";")[0].strip().lower() for item in accepted.split(",")]
    return coding.removeprefix("x-") in names or "*" in names


def content_decoder(headers: Mapping[str, str], accepted: str) -> ContentDecoder | None:
    """Return the decoder for the `content-encoding` of the headers, None for a plain body.

    Args:
        headers: Of the response.
        accepted: The request's `accept-encoding`.
    """
    coding = headers.get("content-encoding", "").strip().lower()
    return None if coding in ("", "identity") else ContentDecoder(coding, accepted)
