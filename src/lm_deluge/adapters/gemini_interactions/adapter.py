"""The adapter of Gemini's Interactions API.

https://ai.google.dev/gemini-api/docs/interactions
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import ClassVar

from lm_deluge.adapters.adapter import Call
from lm_deluge.adapters.body_decoder import BodyDecoder, not_json
from lm_deluge.adapters.errors import classify_status
from lm_deluge.adapters.gemini_interactions.request import ECHOES, build_interaction_body
from lm_deluge.adapters.gemini_interactions.stream import Interaction, InteractionsPayload, check_document
from lm_deluge.adapters.http_request import build_http_request
from lm_deluge.errors import APIError, TruncatedError
from lm_deluge.events import Event
from lm_deluge.prompt.parts import ImagePart, Part, TextPart, ToolCallPart
from lm_deluge.wire.http import HttpRequest
from lm_deluge.wire.sse import ServerSentEvent
from lm_deluge.wire.tolerant_json import NotJSONError, TolerantDecoder

__all__ = ["GeminiInteractions"]

_DOCUMENT = TolerantDecoder(Interaction)


class GeminiInteractions:
    """The adapter `gemini-interactions`."""

    name: ClassVar[str] = "gemini-interactions"
    sends: ClassVar[frozenset[type[Part]]] = frozenset({TextPart, ToolCallPart, ImagePart})
    echoes: ClassVar[frozenset[str]] = ECHOES

    def build_request(self, call: Call) -> HttpRequest:
        """Return the request, without credentials."""
        return build_http_request(call, build_interaction_body(call), path="/v1beta/interactions")

    def decoder(self, call: Call) -> BodyDecoder:
        """Return a new decoder for the response to `call`, streamed or not."""
        payload = InteractionsPayload(call.provider.opaque_owner)
        return BodyDecoder(payload, partial(_read_document, payload), max_event_bytes=call.max_event_bytes)

    def parse_response(self, call: Call, body: bytes) -> list[Event]:
        """Return the events of a response that is not streamed, the same as those of a stream with its steps.

        Raises:
            ProtocolError: The body is not an interaction.
            TruncatedError: The interaction is not finished.
            APIError: The interaction is an error.
        """
        events: list[Event] = []
        _read_document(InteractionsPayload(call.provider.opaque_owner), body, events)
        return events

    def classify_error(self, status: int, headers: Mapping[str, str], body: bytes) -> APIError:
        """Return the exception for an HTTP error response."""
        return classify_status(status, headers, body)


def _read_document(payload: InteractionsPayload, body: bytes, events: list[Event]) -> None:
    try:
        document = _DOCUMENT.decode(body, payload)
    except NotJSONError:
        raise not_json(ServerSentEvent(body)) from None
    payload.read_interaction(check_document(document, body), events)
    if not payload.is_finished:
        raise TruncatedError(
            "the interaction is not finished",
            hint="Background interactions are not polled: remove background from extra_body.",
            billed="maybe",
        )
