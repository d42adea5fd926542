"""The adapter of Amazon Bedrock's native API, whose requests and responses have the format of the model's vendor.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModelWithResponseStream.html
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import ClassVar

from lm_deluge.adapters.adapter import Call, Decoder
from lm_deluge.adapters.anthropic_messages.adapter import AnthropicMessages
from lm_deluge.adapters.bedrock_converse.adapter import BedrockConverse
from lm_deluge.adapters.bedrock_converse.errors import classify_bedrock_error
from lm_deluge.adapters.bedrock_converse.models import Family, find_family
from lm_deluge.adapters.bedrock_invoke.request import build_invoke_body, build_invoke_headers
from lm_deluge.adapters.bedrock_invoke.stream import InvokePayload
from lm_deluge.adapters.body_decoder import BodyDecoder
from lm_deluge.adapters.http_request import build_http_request
from lm_deluge.adapters.openai_chat.adapter import OpenAIChat
from lm_deluge.adapters.openai_chat.think_tags import TaggedDecoder, TagSplitter, has_think_tags
from lm_deluge.errors import APIError
from lm_deluge.events import Event
from lm_deluge.models.rows import ModelRow
from lm_deluge.prompt.parts import Part, TextPart
from lm_deluge.wire.eventstream import MEDIA_TYPE, EventStreamDecoder
from lm_deluge.wire.http import HttpRequest

__all__ = ["BedrockInvoke"]

# The wire API whose messages a family of models takes. Text completion models take only text.
_BY_FAMILY: dict[Family, type[AnthropicMessages | BedrockConverse | OpenAIChat]] = {
    "claude": AnthropicMessages,
    "nova": BedrockConverse,
    "chat": OpenAIChat,
}
_FORMATS = tuple(_BY_FAMILY.values())


class BedrockInvoke:
    """The adapter `bedrock-invoke`."""

    name: ClassVar[str] = "bedrock-invoke"
    sends: ClassVar[frozenset[type[Part]]] = frozenset[type[Part]]().union(*(of.sends for of in _FORMATS))
    echoes: ClassVar[frozenset[str]] = frozenset[str]().union(*(of.echoes for of in _FORMATS))

    def sends_to(self, model: ModelRow) -> tuple[frozenset[type[Part]], frozenset[str]]:
        """Return the parts that the model's native format has: those of its vendor's API, or only text."""
        of = _BY_FAMILY.get(find_family(model.name))
        return (frozenset({TextPart}), frozenset()) if of is None else (of.sends, of.echoes)

    def build_request(self, call: Call) -> HttpRequest:
        """Return the request, without credentials."""
        return build_http_request(
            call,
            build_invoke_body(call),
            path="/model/{model}/invoke",
            stream_path="/model/{model}/invoke-with-response-stream",
            headers=build_invoke_headers(call),
            stream_type=MEDIA_TYPE,
        )

    def decoder(self, call: Call) -> Decoder:
        """Return a new decoder for the response to `call`, streamed or not."""
        payload = _payload_for(call)
        decoder = BodyDecoder(
            payload,
            partial(_read_document, payload),
            max_event_bytes=call.max_event_bytes,
            framing=EventStreamDecoder,
        )
        return TaggedDecoder(decoder) if has_think_tags(call) else decoder

    def parse_response(self, call: Call, body: bytes) -> list[Event]:
        """Return the events of a response that is not streamed."""
        events: list[Event] = []
        _read_document(_payload_for(call), body, events)
        return TagSplitter().split(events) if has_think_tags(call) else events

    def classify_error(self, status: int, headers: Mapping[str, str], body: bytes) -> APIError:
        """Return the exception for an HTTP error response."""
        return classify_bedrock_error(status, headers, body)


def _payload_for(call: Call) -> InvokePayload:
    return InvokePayload(call.provider.opaque_owner, call.model.id)


def _read_document(payload: InvokePayload, body: bytes, events: list[Event]) -> None:
    payload.read_document(body, events)
