"""Images, files and audio: loading them and detecting their media types."""

from __future__ import annotations

import base64
import binascii
from io import BytesIO
from pathlib import Path
from typing import TypeAlias

import msgspec

from lm_deluge.errors import InvalidPromptError

__all__ = ["Media", "MediaSource", "load_media", "sniff_media_type"]

MediaSource: TypeAlias = str | Path | bytes | bytearray | BytesIO
"""A path, the bytes themselves, an http(s) URL (sent as it is, never fetched) or a data URL."""

# Offset in the file, bytes at that offset, media type.
_SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"GIF87a", "image/gif"),
    (0, b"GIF89a", "image/gif"),
    (8, b"WEBP", "image/webp"),
    (8, b"WAVE", "audio/wav"),
    (0, b"%PDF-", "application/pdf"),
    (0, b"ID3", "audio/mpeg"),
    (0, b"\xff\xfb", "audio/mpeg"),
    (0, b"\xff\xf3", "audio/mpeg"),
    (0, b"OggS", "audio/ogg"),
    (0, b"fLaC", "audio/flac"),
)

_UNKNOWN = "application/octet-stream"
# Media types of text files by the suffix of their names; other text is `text/plain`.
_TEXT_TYPES = {
    "md": "text/markdown",
    "markdown": "text/markdown",
    "csv": "text/csv",
    "json": "application/json",
    "html": "text/html",
    "htm": "text/html",
    "xml": "text/xml",
    "css": "text/css",
    "js": "text/javascript",
    "py": "text/x-python",
}
# The beginnings of media types whose data is not text, even where it happens to be valid UTF-8, as a small PDF may be.
_BINARY_TYPES = (
    *("image/", "audio/", "video/", "font/", "application/pdf", "application/msword", "application/vnd."),
    *("application/zip", "application/gzip"),
)


class Media(msgspec.Struct, frozen=True, kw_only=True):
    """An image, file or audio: `data` with its `media_type`, or a `url`, or the provider's `file_id`."""

    media_type: str | None = None
    data: bytes | None = None
    url: str | None = None
    file_id: str | None = None
    filename: str | None = None

    @property
    def text(self) -> str | None:
        """The data as text if it is a text file: UTF-8 without NUL, and not of a binary media type; otherwise None."""
        media_type = self.media_type or _UNKNOWN
        if self.data is None or (media_type.startswith(_BINARY_TYPES) and media_type != "image/svg+xml"):
            return None
        return _decoded_text(self.data)

    def base64(self) -> str:
        """Return `data` as base64 text."""
        return base64.b64encode(self.data or b"").decode("ascii")

    def data_url(self) -> str:
        """Return `data` as a data URL."""
        return f"data:{self.media_type};base64,{self.base64()}"


def sniff_media_type(data: bytes) -> str | None:
    """Return the media type detected from the first bytes, or None."""
    for offset, magic, media_type in _SIGNATURES:
        if data.startswith(magic, offset):
            return media_type
    return None


def _decoded_text(data: bytes) -> str | None:
    if b"\0" in data:
        return None
    try:
        return data.decode("utf-8-sig")  # without the byte order mark that Windows programs write
    except UnicodeDecodeError:
        return None


def load_media(
    source: MediaSource | Media, *, kind: str, media_type: str | None = None, filename: str | None = None
) -> Media:
    """Return `source` as a medium of `kind` ("image", "audio" or "file").

    A file that is UTF-8 without NUL is text; the suffix of its name decides about the media type.

    Raises:
        InvalidPromptError: The file cannot be read, the data is not of this kind, or the URL has another scheme.
    """
    if isinstance(source, Media):
        return source if filename is None else msgspec.structs.replace(source, filename=filename)
    if isinstance(source, str) and source.startswith(("http://", "https://")):
        return Media(url=str.__str__(source), media_type=media_type, filename=filename)
    if isinstance(source, bytes | bytearray):
        data = bytes(source)
    elif isinstance(source, BytesIO):
        data = source.getvalue()
    elif isinstance(source, str) and source.startswith("data:"):
        media_type, data = _parse_data_url(source, media_type)
    elif isinstance(source, str | Path):
        data, filename = _read_file(source, kind), filename or Path(source).name
    else:
        raise InvalidPromptError(f"{type(source).__name__} is no {kind}: pass a path, bytes, a URL or a data URL")
    return Media(media_type=_checked_type(data, kind, media_type, filename), data=data, filename=filename)


def _read_file(source: str | Path, kind: str) -> bytes:
    if "://" in str(source)[:16]:
        raise InvalidPromptError(f"the URL of the {kind} is neither http, https nor data")
    try:
        return Path(source).read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a path"
        raise InvalidPromptError(f"cannot read the {kind} {Path(str(source)[:200]).name!r}: {reason}") from error


def _parse_data_url(url: str, media_type: str | None) -> tuple[str | None, bytes]:
    head, comma, payload = url[5:].partition(",")
    declared, *flags = head.split(";")
    if not comma or "base64" not in flags:
        raise InvalidPromptError("a data URL must read data:<media type>;base64,<data>")
    try:
        return media_type or declared or None, base64.b64decode(payload, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidPromptError("the data URL's base64 text is damaged") from error


def _checked_type(data: bytes, kind: str, declared: str | None, filename: str | None) -> str:
    if not data:
        raise InvalidPromptError(f"the {kind} is empty")
    found = sniff_media_type(data)
    if kind == "file":
        given = found if declared in (None, _UNKNOWN) else declared
        return given or _text_type(data, filename) or _UNKNOWN
    if found is None or not found.startswith(f"{kind}/"):
        actual = found or "data of an unknown format"
        known = sorted({media_type for *_, media_type in _SIGNATURES if media_type.startswith(kind)})
        raise InvalidPromptError(f"these bytes are no {kind} but {actual}", hint=f"Known: {', '.join(known)}.")
    return found


def _text_type(data: bytes, filename: str | None) -> str | None:
    if _decoded_text(data) is None:
        return None
    return _TEXT_TYPES.get((filename or "").rpartition(".")[2].lower(), "text/plain")
