"""Gemini's `generateContent`, at Google AI and at Vertex.

https://ai.google.dev/api/generate-content#method:-models.streamgeneratecontent
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import msgspec

from lm_deluge.adapters.adapter import Call
from lm_deluge.adapters.body_decoder import BodyDecoder
from lm_deluge.adapters.errors import classify_status
from lm_deluge.adapters.gemini_generate.contents import ECHOES
from lm_deluge.adapters.gemini_generate.request import build_generate_body, wire_name
from lm_deluge.adapters.gemini_generate.stream import GeminiPayload
from lm_deluge.adapters.http_request import build_http_request
from lm_deluge.errors import APIError, ProtocolError
from lm_deluge.events import Event
from lm_deluge.prompt.parts import ImagePart, Part, TextPart, ToolCallPart
from lm_deluge.wire.http import HttpRequest
from lm_deluge.wire.json_array import JSONArrayDecoder
from lm_deluge.wire.sse import ServerSentEvent

__all__ = ["GeminiGenerate"]


class GeminiGenerate:
    """The adapter `gemini-generate`."""

    name: ClassVar[str] = "gemini-generate"
    sends: ClassVar[frozenset[type[Part]]] = frozenset({TextPart, ToolCallPart, ImagePart})
    echoes: ClassVar[frozenset[str]] = ECHOES

    def build_request(self, call: Call) -> HttpRequest:
        """Return the request, without credentials."""
        collection, name = wire_name(call.model.name)
        return build_http_request(
            msgspec.structs.replace(call, model=msgspec.structs.replace(call.model, name=name)),
            build_generate_body(call),
            path=f"/v1beta/{collection}/{{model}}:generateContent",
            stream_path=f"/v1beta/{collection}/{{model}}:streamGenerateContent?alt=sse",
        )

    def decoder(self, call: Call) -> BodyDecoder:
        """Return a fresh state machine for the answer to `call`, streamed or plain."""
        return BodyDecoder(
            GeminiPayload(call.provider.opaque_owner),
            lambda body: self.parse_response(call, body),
            max_event_bytes=call.max_event_bytes,
            # What a stream is where a proxy lost `alt=sse`.
            array_framing=JSONArrayDecoder,
        )

    def parse_response(self, call: Call, body: bytes) -> list[Event]:
        """Return the events of a plain answer: it is a stream of one chunk."""
        payload = GeminiPayload(call.provider.opaque_owner)
        events: list[Event] = []
        payload.handle(ServerSentEvent(body), events)
        if not payload.is_complete:
            raise ProtocolError(
                "the answer is JSON, but no candidate with a finish reason",
                reason="order",
                excerpt=body,
                billed="maybe",
            )
        payload.finish(events)
        return events

    def classify_error(self, status: int, headers: Mapping[str, str], body: bytes) -> APIError:
        """Return the error that an answer with this status stands for."""
        return classify_status(status, headers, body)
