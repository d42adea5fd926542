"""OpenAI's Responses API, and every host that speaks it.

https://platform.openai.com/docs/api-reference/responses
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from lm_deluge.errors import APIError, ProtocolError
from lm_deluge.events import Event
from lm_deluge.prompt.parts import Part, RefusalPart, TextPart, ToolCallPart
from lm_deluge.providers.adapter import Call
from lm_deluge.providers.body import BodyDecoder, in_band_error, not_json
from lm_deluge.providers.error_bodies import classify_status
from lm_deluge.providers.http_request import build_http_request
from lm_deluge.providers.openai_responses_request import build_responses_body
from lm_deluge.providers.openai_responses_stream import ResponsesPayload
from lm_deluge.providers.responses_items import ECHOED
from lm_deluge.wire.http import HttpRequest
from lm_deluge.wire.sse import ServerSentEvent
from lm_deluge.wire.tolerant_json import NotJSONError

__all__ = ["OpenAIResponses"]


class OpenAIResponses:
    """The adapter `openai-responses`."""

    name: ClassVar[str] = "openai-responses"
    sends: ClassVar[frozenset[type[Part]]] = frozenset({TextPart, RefusalPart, ToolCallPart})
    echoes: ClassVar[frozenset[str]] = ECHOED

    def build_request(self, call: Call) -> HttpRequest:
        """Return the request, without credentials."""
        return build_http_request(call, build_responses_body(call), path="/responses")

    def decoder(self, call: Call) -> BodyDecoder:
        """Return a fresh state machine for the answer to `call`, streamed or plain."""
        return BodyDecoder(
            ResponsesPayload(call.provider.opaque_owner),
            lambda body: self.parse_response(call, body),
            max_event_bytes=call.max_event_bytes,
        )

    def parse_response(self, call: Call, body: bytes) -> list[Event]:
        """Return the events of a plain answer."""
        payload = ResponsesPayload(call.provider.opaque_owner)
        frame = ServerSentEvent(body)
        events: list[Event] = []
        try:
            payload.handle_document(body, events)
        except NotJSONError:
            raise not_json(frame) from None
        if not payload.is_finished:
            if b'"error"' in body or b'"detail"' in body:
                raise in_band_error(frame)
            raise ProtocolError(
                "the answer is JSON, but no finished response", reason="order", excerpt=body, billed="maybe"
            )
        return events

    def classify_error(self, status: int, headers: Mapping[str, str], body: bytes) -> APIError:
        """Return the error that an answer with this status stands for."""
        return classify_status(status, headers, body)
