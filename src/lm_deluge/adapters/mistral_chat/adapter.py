"""Adapter for Mistral's chat completions, which resemble OpenAI's but have typed pieces of content.

https://docs.mistral.ai/api/#tag/chat
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from lm_deluge.adapters.adapter import Call
from lm_deluge.adapters.body_decoder import BodyDecoder
from lm_deluge.adapters.errors import classify_status
from lm_deluge.adapters.http_request import build_http_request
from lm_deluge.adapters.mistral_chat.request import SIGNATURE, build_body
from lm_deluge.adapters.mistral_chat.stream import MistralPayload
from lm_deluge.errors import APIError
from lm_deluge.events import Event
from lm_deluge.prompt.parts import Part, ReasoningPart, TextPart, ToolCallPart
from lm_deluge.wire.http import HttpRequest

__all__ = ["MistralChat"]


class MistralChat:
    """The adapter `mistral-chat`."""

    name: ClassVar[str] = "mistral-chat"
    sends: ClassVar[frozenset[type[Part]]] = frozenset({TextPart, ReasoningPart, ToolCallPart})
    echoes: ClassVar[frozenset[str]] = frozenset({SIGNATURE})

    def build_request(self, call: Call) -> HttpRequest:
        """Return the HTTP request for `call`, without credentials."""
        return build_http_request(call, build_body(call), path="/v1/chat/completions")

    def decoder(self, call: Call) -> BodyDecoder:
        """Return a new decoder for the response to `call`, streamed or plain."""
        payload = MistralPayload(call.provider.opaque_owner)
        return BodyDecoder(payload, payload.read_document, max_event_bytes=call.max_event_bytes)

    def parse_response(self, call: Call, body: bytes) -> list[Event]:
        """Return the events of a plain response, parsed as a stream of one chunk whose delta is the message."""
        events: list[Event] = []
        MistralPayload(call.provider.opaque_owner).read_document(body, events)
        return events

    def classify_error(self, status: int, headers: Mapping[str, str], body: bytes) -> APIError:
        """Return the error of a response whose status is not a success."""
        return classify_status(status, headers, body)
