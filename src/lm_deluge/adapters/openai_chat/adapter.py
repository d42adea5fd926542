"""Adapter for OpenAI's Chat Completions API and for all hosts that are compatible with it.

https://platform.openai.com/docs/api-reference/chat-streaming
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from lm_deluge.adapters.adapter import Call, Decoder
from lm_deluge.adapters.body_decoder import BodyDecoder
from lm_deluge.adapters.capabilities import ends_with_prefill
from lm_deluge.adapters.errors import classify_status
from lm_deluge.adapters.http_request import build_http_request
from lm_deluge.adapters.openai_chat.opaque_fields import REASONING_DETAILS, REASONING_ITEM, THOUGHT_SIGNATURE
from lm_deluge.adapters.openai_chat.request import build_chat_body
from lm_deluge.adapters.openai_chat.stream import ChatPayload
from lm_deluge.adapters.openai_chat.think_tags import TaggedDecoder, TagSplitter, has_think_tags
from lm_deluge.adapters.openai_responses.count import build_chat_count
from lm_deluge.errors import APIError
from lm_deluge.events import Event
from lm_deluge.prompt.parts import AudioPart, Part, RefusalPart, TextPart, ToolCallPart
from lm_deluge.wire.http import HttpRequest

__all__ = ["OpenAIChat"]


class OpenAIChat:
    """The adapter `openai-chat`."""

    name: ClassVar[str] = "openai-chat"
    sends: ClassVar[frozenset[type[Part]]] = frozenset({TextPart, RefusalPart, ToolCallPart, AudioPart})
    count_field: ClassVar[str] = "input_tokens"
    echoes: ClassVar[frozenset[str]] = frozenset({REASONING_DETAILS, REASONING_ITEM, THOUGHT_SIGNATURE})

    def build_request(self, call: Call) -> HttpRequest:
        """Return the HTTP request for `call`, without credentials."""
        body = build_chat_body(call)
        path = call.provider.quirks.prefill_path
        if path and ends_with_prefill(call):
            body["messages"][-1]["prefix"] = True
            if call.base_url == call.provider.base_url:
                return build_http_request(call, body, path=path)
        return build_http_request(call, body, path="/chat/completions")

    def build_count(self, call: Call) -> HttpRequest | None:
        """Return the request that counts the tokens of the prompt, through the Responses API."""
        return build_chat_count(call)

    def decoder(self, call: Call) -> Decoder:
        """Return a new decoder for the response to `call`, streamed or plain."""
        payload = _payload(call)
        decoder = BodyDecoder(payload, payload.read_document, max_event_bytes=call.max_event_bytes)
        may_have_tags = call.provider.quirks.think_tags or call.model.capabilities.think_tags
        return TaggedDecoder(decoder) if may_have_tags and has_think_tags(call) else decoder

    def parse_response(self, call: Call, body: bytes) -> list[Event]:
        """Return the events of a plain response."""
        events: list[Event] = []
        _payload(call).read_document(body, events)
        return TagSplitter().split(events) if has_think_tags(call) else events

    def classify_error(self, status: int, headers: Mapping[str, str], body: bytes) -> APIError:
        """Return the error of a response whose status is not a success."""
        return classify_status(status, headers, body)


def _payload(call: Call) -> ChatPayload:
    return ChatPayload(call.provider.opaque_owner, has_finish_reasons=call.provider.quirks.finish_reasons)
