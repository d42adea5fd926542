"""Adapter for OpenAI's Chat Completions API and for all hosts that are compatible with it.

https://platform.openai.com/docs/api-reference/chat-streaming
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import ClassVar

from lm_deluge.adapters.adapter import Call, Decoder
from lm_deluge.adapters.body_decoder import BodyDecoder
from lm_deluge.adapters.errors import classify_status
from lm_deluge.adapters.http_request import build_http_request
from lm_deluge.adapters.openai_chat.request import build_chat_body
from lm_deluge.adapters.openai_chat.stream import ChatPayload
from lm_deluge.adapters.openai_chat.think_tags import TaggedDecoder, TagSplitter
from lm_deluge.errors import APIError, ProtocolError
from lm_deluge.events import Event
from lm_deluge.prompt.parts import AudioPart, Part, RefusalPart, TextPart, ToolCallPart
from lm_deluge.wire.http import HttpRequest
from lm_deluge.wire.sse import ServerSentEvent

__all__ = ["OpenAIChat"]


class OpenAIChat:
    """The adapter `openai-chat`."""

    name: ClassVar[str] = "openai-chat"
    sends: ClassVar[frozenset[type[Part]]] = frozenset({TextPart, RefusalPart, ToolCallPart, AudioPart})
    echoes: ClassVar[frozenset[str]] = frozenset({"reasoning_details"})

    def build_request(self, call: Call) -> HttpRequest:
        """Return the HTTP request for `call`, without credentials."""
        return build_http_request(call, build_chat_body(call), path="/chat/completions")

    def decoder(self, call: Call) -> Decoder:
        """Return a new decoder for the response to `call`, streamed or plain."""
        payload = ChatPayload(call.provider.id)
        decoder = BodyDecoder(payload, partial(_parse_document, payload), max_event_bytes=call.max_event_bytes)
        return TaggedDecoder(decoder) if has_think_tags(call) else decoder

    def parse_response(self, call: Call, body: bytes) -> list[Event]:
        """Return the events of a plain response."""
        events = _parse_document(ChatPayload(call.provider.id), body)
        return TagSplitter().split(events) if has_think_tags(call) else events

    def classify_error(self, status: int, headers: Mapping[str, str], body: bytes) -> APIError:
        """Return the error of a response whose status is not a success."""
        return classify_status(status, headers, body)


def has_think_tags(call: Call) -> bool:
    """Whether the answer's text contains its reasoning in tags. The model's row has precedence over its host's."""
    of_model = call.model.capabilities.think_tags
    return call.provider.quirks.think_tags if of_model is None else of_model


def _parse_document(payload: ChatPayload, body: bytes) -> list[Event]:
    """Parse a plain response as a stream of one chunk whose delta is the message."""
    events: list[Event] = []
    payload.handle(ServerSentEvent(body), events)
    if not payload.is_complete:
        raise ProtocolError(
            "the answer is JSON, but not a chat completion", reason="order", excerpt=body, billed="maybe"
        )
    payload.finish_document(events)
    return events
