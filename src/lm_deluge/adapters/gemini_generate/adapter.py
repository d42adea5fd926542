"""The adapter of Gemini's `generateContent`, as Google AI and Vertex serve it.

https://ai.google.dev/api/generate-content#method:-models.streamgeneratecontent
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import ClassVar

import msgspec

from lm_deluge.adapters.adapter import Call
from lm_deluge.adapters.body_decoder import BodyDecoder
from lm_deluge.adapters.errors import classify_status
from lm_deluge.adapters.gemini_generate.contents import ECHOES
from lm_deluge.adapters.gemini_generate.count import build_count
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
    count_field: ClassVar[str] = "totalTokens"
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

    def build_count(self, call: Call) -> HttpRequest:
        """Return the request that counts the tokens of the prompt."""
        return build_count(call)

    def decoder(self, call: Call) -> BodyDecoder:
        """Return a new decoder for the response to `call`, streamed or not."""
        payload = GeminiPayload(call.provider.opaque_owner)
        return BodyDecoder(
            payload,
            partial(_read_document, payload),
            max_event_bytes=call.max_event_bytes,
            # Without `alt=sse`, which some proxies drop, the stream is a JSON array.
            array_framing=JSONArrayDecoder,
        )

    def parse_response(self, call: Call, body: bytes) -> list[Event]:
        """Return the events of a response that is not streamed, which is read as a stream of one chunk.

        Raises:
            ProtocolError: The JSON has no candidate with a finish reason.
            APIError: The JSON is an error.
        """
        events: list[Event] = []
        _read_document(GeminiPayload(call.provider.opaque_owner), body, events)
        return events

    def classify_error(self, status: int, headers: Mapping[str, str], body: bytes) -> APIError:
        """Return the exception for an HTTP error response."""
        return classify_status(status, headers, body)


def _read_document(payload: GeminiPayload, body: bytes, events: list[Event]) -> None:
    payload.handle(ServerSentEvent(body), events)
    if not payload.is_complete:
        raise ProtocolError(
            "the response is JSON, but has no candidate with a finish reason",
            reason="order",
            excerpt=body,
            billed="maybe",
        )
    payload.finish(events)
