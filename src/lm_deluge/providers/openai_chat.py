"""OpenAI's Chat Completions, and every host that speaks it.

https://platform.openai.com/docs/api-reference/chat-streaming
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import msgspec

from lm_deluge.errors import APIError, InvalidPromptError, ProtocolError
from lm_deluge.events import Event
from lm_deluge.providers.adapter import Call
from lm_deluge.providers.body import SSEBodyDecoder
from lm_deluge.providers.chat_shape import build_chat_body
from lm_deluge.providers.error_bodies import classify_status
from lm_deluge.providers.openai_chat_stream import ChatPayload
from lm_deluge.wire.http import HttpRequest
from lm_deluge.wire.sse import ServerSentEvent

__all__ = ["OpenAIChat"]


class OpenAIChat:
    """The adapter `openai-chat`."""

    name: ClassVar[str] = "openai-chat"

    def build_request(self, call: Call) -> HttpRequest:
        """Return the request, without credentials."""
        headers = {
            "content-type": "application/json",
            "accept": "text/event-stream" if call.is_streamed else "application/json",
            **{name.lower(): value for name, value in call.extra_headers.items()},
        }
        try:
            body = msgspec.json.encode(build_chat_body(call))
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            # Its text names a type or a position, never what the prompt says.
            raise InvalidPromptError(f"the request does not fit into JSON: {error}") from error
        return HttpRequest(f"{call.base_url}/chat/completions", headers, body)

    def decoder(self, call: Call) -> SSEBodyDecoder:
        """Return a fresh state machine for the answer to `call`, streamed or plain."""
        return SSEBodyDecoder(
            ChatPayload(call.provider.id),
            lambda body: self.parse_response(call, body),
            max_event_bytes=call.max_event_bytes,
        )

    def parse_response(self, call: Call, body: bytes) -> list[Event]:
        """Return the events of a plain answer: it is read as a stream of one chunk, whose message is the delta."""
        payload = ChatPayload(call.provider.id)
        events: list[Event] = []
        payload.handle(ServerSentEvent(body), events)
        if not payload.is_complete:
            raise ProtocolError(
                "the answer is JSON, but no chat completion", reason="order", excerpt=body, billed="maybe"
            )
        payload.finish_document(events)
        return events

    def classify_error(self, status: int, headers: Mapping[str, str], body: bytes) -> APIError:
        """Return the error that an answer with this status stands for."""
        return classify_status(status, headers, body)
