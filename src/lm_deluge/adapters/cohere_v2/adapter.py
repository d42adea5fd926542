"""Adapter for Cohere's Chat API, version 2.

https://docs.cohere.com/v2/reference/chat-stream
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import ClassVar

from lm_deluge.adapters.adapter import Call
from lm_deluge.adapters.body_decoder import BodyDecoder
from lm_deluge.adapters.cohere_v2.request import TOOL_PLAN, build_body
from lm_deluge.adapters.cohere_v2.stream import CoherePayload
from lm_deluge.adapters.errors import classify_status
from lm_deluge.adapters.http_request import build_http_request
from lm_deluge.errors import APIError
from lm_deluge.events import Event
from lm_deluge.prompt.parts import Part, ReasoningPart, TextPart, ToolCallPart
from lm_deluge.wire.http import HttpRequest

__all__ = ["CohereV2"]


class CohereV2:
    """The adapter `cohere-v2`."""

    name: ClassVar[str] = "cohere-v2"
    sends: ClassVar[frozenset[type[Part]]] = frozenset({TextPart, ReasoningPart, ToolCallPart})
    echoes: ClassVar[frozenset[str]] = frozenset({TOOL_PLAN})

    def build_request(self, call: Call) -> HttpRequest:
        """Return the HTTP request for `call`, without credentials."""
        return build_http_request(call, build_body(call), path="/v2/chat")

    def decoder(self, call: Call) -> BodyDecoder:
        """Return a new decoder for the response to `call`, streamed or plain."""
        payload = CoherePayload(call.provider.opaque_owner)
        return BodyDecoder(payload, partial(_read_document, payload), max_event_bytes=call.max_event_bytes)

    def parse_response(self, call: Call, body: bytes) -> list[Event]:
        """Return the events of a plain response."""
        events: list[Event] = []
        _read_document(CoherePayload(call.provider.opaque_owner), body, events)
        return events

    def classify_error(self, status: int, headers: Mapping[str, str], body: bytes) -> APIError:
        """Return the error of a response whose status is not a success."""
        return classify_status(status, headers, body)


def _read_document(payload: CoherePayload, body: bytes, events: list[Event]) -> None:
    payload.add_document(body, events)
