"""Decode the chunks of Mistral's chat completions: their differences from Chat Completions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lm_deluge.adapters.mistral_chat.request import SIGNATURE
from lm_deluge.adapters.openai_chat.stream import ChatPayload
from lm_deluge.events import Citation, Event, MediaDelta, ProviderPart, TextDelta

__all__ = ["MistralPayload"]

_NO_ID = "null"  # Mistral's SDK, and servers built with it, write this text for a missing id


class MistralPayload(ChatPayload):
    """State machine for one stream of chunks, whose content may be a list of typed pieces."""

    def add_piece(self, piece: Any, events: list[Event]) -> None:
        """Decode a typed piece of content."""
        kind = piece.get("type") if isinstance(piece, dict) else None
        if kind == "text" and isinstance(piece.get("text"), str) and "thinking" not in piece:  # nearly all pieces
            if piece["text"]:
                events.append(TextDelta(piece["text"]))
            return
        special = _SPECIAL.get(kind) if isinstance(kind, str) else None
        if special is not None:
            special(self, piece, events)
        else:
            super().add_piece(piece, events)

    def add_tool_call(self, call: Any, events: list[Event]) -> None:
        """Decode a fragment of a tool call. The id `null` means no id, except in the first fragment of the response."""
        if call.id == _NO_ID and self.has_calls:
            call.id = None
        super().add_tool_call(call, events)

    def add_thinking(self, piece: dict[str, Any], events: list[Event]) -> None:
        """Decode a thought, which may contain references and a signature."""
        super().add_piece(piece, events)
        inner = piece.get("thinking")
        for each in inner if isinstance(inner, list) else ():
            if isinstance(each, dict) and each.get("type") in ("reference", "tool_reference"):
                self.add_reference(each, events)
        signature = piece.get("signature")
        if isinstance(signature, str) and signature:
            events.append(ProviderPart(self._owner, SIGNATURE, signature))

    def add_reference(self, piece: dict[str, Any], events: list[Event]) -> None:
        """Decode a reference to a source: a result of Mistral's own tools, or the number of a client's document."""
        url, title = piece.get("url"), piece.get("title")
        events.append(Citation(_text_or_none(url), _text_or_none(title), raw=piece))

    def add_image(self, piece: dict[str, Any], events: list[Event]) -> None:
        """Decode an image, inline or by URL."""
        image = piece.get("image_url")
        url = image.get("url") if isinstance(image, dict) else image
        if not isinstance(url, str) or not url:
            self.skip_value(url)
            return
        head, comma, data = url.partition(";base64,")
        is_inline = bool(comma) and head.startswith("data:")
        events.append(MediaDelta(head[5:], data) if is_inline else MediaDelta("image/*", url=url))


def _text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


_SPECIAL: dict[str, Callable[[MistralPayload, dict[str, Any], list[Event]], None]] = {
    "thinking": MistralPayload.add_thinking,
    "reference": MistralPayload.add_reference,
    "tool_reference": MistralPayload.add_reference,
    "image_url": MistralPayload.add_image,
}
