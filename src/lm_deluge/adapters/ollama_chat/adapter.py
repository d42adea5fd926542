"""Adapter for Ollama's native chat API.

https://docs.ollama.com/api/chat
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import ClassVar

from lm_deluge.adapters.adapter import Call
from lm_deluge.adapters.body_decoder import BodyDecoder
from lm_deluge.adapters.errors import classify_status
from lm_deluge.adapters.http_request import build_http_request
from lm_deluge.adapters.ollama_chat.request import build_body, with_merged_options
from lm_deluge.adapters.ollama_chat.stream import OllamaPayload
from lm_deluge.errors import APIError, ProtocolError
from lm_deluge.events import Event
from lm_deluge.prompt.parts import Part, ReasoningPart, TextPart, ToolCallPart
from lm_deluge.wire.http import HttpRequest
from lm_deluge.wire.ndjson import NDJSONDecoder
from lm_deluge.wire.sse import ServerSentEvent, SSEDecoder

__all__ = ["OllamaChat"]


class OllamaChat:
    """The adapter `ollama-chat`."""

    name: ClassVar[str] = "ollama-chat"
    sends: ClassVar[frozenset[type[Part]]] = frozenset({TextPart, ReasoningPart, ToolCallPart})
    echoes: ClassVar[frozenset[str]] = frozenset()

    def build_request(self, call: Call) -> HttpRequest:
        """Return the HTTP request for `call`, without credentials."""
        body = build_body(call)
        return build_http_request(
            with_merged_options(call, body), body, path="/api/chat", stream_type="application/x-ndjson"
        )

    def decoder(self, call: Call) -> BodyDecoder:
        """Return a new decoder for the response to `call`, streamed or plain."""
        payload = OllamaPayload()
        return BodyDecoder(
            payload,
            partial(_read_document, payload),
            max_event_bytes=call.max_event_bytes,
            # A plain response is one document, which a proxy may have formatted over several lines.
            framing=NDJSONDecoder if call.is_streamed else SSEDecoder,
        )

    def parse_response(self, call: Call, body: bytes) -> list[Event]:
        """Return the events of a plain response, parsed as a stream of one line."""
        events: list[Event] = []
        _read_document(OllamaPayload(), body, events)
        return events

    def classify_error(self, status: int, headers: Mapping[str, str], body: bytes) -> APIError:
        """Return the error of a response whose status is not a success."""
        return classify_status(status, headers, body)


def _read_document(payload: OllamaPayload, body: bytes, events: list[Event]) -> None:
    payload.handle(ServerSentEvent(body), events)
    if not payload.is_finished:
        raise ProtocolError(
            "the answer is JSON, but not a finished chat response", reason="order", excerpt=body, billed="maybe"
        )
