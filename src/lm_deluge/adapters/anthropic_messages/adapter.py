"""The adapter of Anthropic's Messages API, as Anthropic and Google's Vertex AI serve it.

https://platform.claude.com/docs/en/api/messages
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import ClassVar

from lm_deluge.adapters.adapter import Call
from lm_deluge.adapters.anthropic_messages.count import build_count
from lm_deluge.adapters.anthropic_messages.request import ECHOES, SENDS, build_messages_body
from lm_deluge.adapters.anthropic_messages.stream import AnthropicPayload
from lm_deluge.adapters.body_decoder import BodyDecoder
from lm_deluge.adapters.errors import classify_status
from lm_deluge.adapters.http_request import build_http_request
from lm_deluge.errors import APIError, ProtocolError
from lm_deluge.events import Event
from lm_deluge.prompt.parts import Part
from lm_deluge.wire.http import HttpRequest
from lm_deluge.wire.sse import ServerSentEvent

__all__ = ["AnthropicMessages"]


class AnthropicMessages:
    """The adapter `anthropic-messages`."""

    name: ClassVar[str] = "anthropic-messages"
    sends: ClassVar[frozenset[type[Part]]] = SENDS
    count_field: ClassVar[str] = "input_tokens"
    echoes: ClassVar[frozenset[str]] = ECHOES

    def build_request(self, call: Call) -> HttpRequest:
        """Return the request, without credentials."""
        body = build_messages_body(call, version=call.provider.quirks.anthropic_version)
        return build_http_request(call, body, path="/v1/messages")

    def build_count(self, call: Call) -> HttpRequest:
        """Return the request that counts the tokens of the prompt."""
        return build_count(call)

    def decoder(self, call: Call) -> BodyDecoder:
        """Return a new decoder for the response to `call`, streamed or not."""
        payload = _payload_for(call)
        return BodyDecoder(payload, partial(_read_document, payload), max_event_bytes=call.max_event_bytes)

    def parse_response(self, call: Call, body: bytes) -> list[Event]:
        """Return the events of a response that is not streamed.

        Raises:
            ProtocolError: The JSON is not a message.
            APIError: The JSON is an error.
        """
        events: list[Event] = []
        _read_document(_payload_for(call), body, events)
        return events

    def classify_error(self, status: int, headers: Mapping[str, str], body: bytes) -> APIError:
        """Return the exception for an HTTP error response."""
        return classify_status(status, headers, body)


def _payload_for(call: Call) -> AnthropicPayload:
    return AnthropicPayload(call.provider.opaque_owner, call.model.id)


def _read_document(payload: AnthropicPayload, body: bytes, events: list[Event]) -> None:
    payload.handle(ServerSentEvent(body), events)
    if not payload.is_finished:
        raise ProtocolError("the response is JSON, but not a message", reason="order", excerpt=body, billed="maybe")
