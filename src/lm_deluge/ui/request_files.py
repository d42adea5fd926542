"""Files in requests of browsers. A path in a request never makes a server read its own files."""

from __future__ import annotations

from typing import Any

from lm_deluge.errors import ChatRequestError, InvalidPromptError
from lm_deluge.prompt.media import Media, load_media
from lm_deluge.prompt.parts import AudioPart, FilePart, ImagePart

__all__ = ["file_part"]

_ENCODED = 4 / 3  # characters of base64 per byte
_HEAD = 200  # characters: the longest media type and its parameters


def file_part(url: str, media_type: Any, name: Any, *, at: str, max_bytes: int) -> ImagePart | FilePart | AudioPart:
    """Return the part of a file.

    Args:
        url: A data URL, or one with http or https.
        media_type: As the browser states it; for data URLs the data decides.
        name: The name of the file.
        at: Where the file is in the request, for messages.
        max_bytes: A larger file is not decoded.

    Raises:
        ChatRequestError: The URL has another scheme, or its data is damaged, too large, or of another type.
    """
    named = name if isinstance(name, str) else None
    stated = media_type if isinstance(media_type, str) else None
    if url.startswith(("http://", "https://")):
        return _part(stated, Media(url=url, media_type=stated, filename=named))
    if not url.startswith("data:"):
        raise ChatRequestError(f"{at}.url is neither a data URL nor one with http or https")
    if len(url) > max_bytes * _ENCODED + _HEAD:
        raise ChatRequestError(f"a file has more than {max_bytes:,} bytes")
    declared = url[5:_HEAD].partition(",")[0].partition(";")[0] or stated or ""
    kind = declared.partition("/")[0]
    try:
        media = load_media(url, kind=kind if kind in ("image", "audio") else "file", filename=named)
    except InvalidPromptError as error:
        raise ChatRequestError(f"{at}.url: {error.message}") from None
    return _part(media.media_type, media)


def _part(media_type: str | None, media: Media) -> ImagePart | FilePart | AudioPart:
    kind = (media_type or "").partition("/")[0]
    if kind == "image":
        return ImagePart(media)
    return AudioPart(media) if kind == "audio" else FilePart(media)
