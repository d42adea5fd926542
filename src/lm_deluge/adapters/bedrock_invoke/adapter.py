"""The adapter of Amazon Bedrock's native API, whose requests and responses have the format of the model's vendor.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModelWithResponseStream.html
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from lm_deluge.adapters.adapter import Call, Decoder
from lm_deluge.adapters.anthropic_messages.request import ECHOES, SENDS
from lm_deluge.adapters.bedrock_converse.blocks import CONTENT_BLOCK
from lm_deluge.adapters.bedrock_converse.errors import classify_bedrock_error
from lm_deluge.adapters.bedrock_converse.stream import REDACTED, SERVER_TOOL, SIGNATURE
from lm_deluge.adapters.bedrock_invoke.request import build_invoke_body, build_invoke_headers
from lm_deluge.adapters.bedrock_invoke.stream import InvokePayload
from lm_deluge.adapters.body_decoder import BodyDecoder
from lm_deluge.adapters.http_request import build_http_request
from lm_deluge.adapters.openai_chat.think_tags import TaggedDecoder, TagSplitter, has_think_tags
from lm_deluge.errors import APIError
from lm_deluge.events import Event
from lm_deluge.prompt.parts import FilePart, ImagePart, Part
from lm_deluge.wire.eventstream import MEDIA_TYPE, EventStreamDecoder
from lm_deluge.wire.http import HttpRequest

__all__ = ["BedrockInvoke"]


class BedrockInvoke:
    """The adapter `bedrock-invoke`."""

    name: ClassVar[str] = "bedrock-invoke"
    sends: ClassVar[frozenset[type[Part]]] = SENDS | {ImagePart, FilePart}
    echoes: ClassVar[frozenset[str]] = ECHOES | {SIGNATURE, REDACTED, SERVER_TOOL, CONTENT_BLOCK, "reasoning_details"}

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
        owner = call.provider.opaque_owner
        decoder = BodyDecoder(
            InvokePayload(owner, call.model.id),
            lambda body, events: InvokePayload(owner, call.model.id).read_document(body, events),
            max_event_bytes=call.max_event_bytes,
            framing=EventStreamDecoder,
        )
        return TaggedDecoder(decoder) if has_think_tags(call) else decoder

    def parse_response(self, call: Call, body: bytes) -> list[Event]:
        """Return the events of a response that is not streamed."""
        events: list[Event] = []
        InvokePayload(call.provider.opaque_owner, call.model.id).read_document(body, events)
        return TagSplitter().split(events) if has_think_tags(call) else events

    def classify_error(self, status: int, headers: Mapping[str, str], body: bytes) -> APIError:
        """Return the exception for an HTTP error response."""
        return classify_bedrock_error(status, headers, body)
