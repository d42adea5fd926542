"""The adapter of Amazon Bedrock's Converse: one API for all models on Bedrock.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import ClassVar

from lm_deluge.adapters.adapter import Call
from lm_deluge.adapters.bedrock_converse.blocks import CONTENT_BLOCK
from lm_deluge.adapters.bedrock_converse.count import build_count
from lm_deluge.adapters.bedrock_converse.errors import classify_bedrock_error
from lm_deluge.adapters.bedrock_converse.request import build_converse_body
from lm_deluge.adapters.bedrock_converse.stream import REDACTED, SERVER_TOOL, SIGNATURE, ConversePayload
from lm_deluge.adapters.body_decoder import BodyDecoder
from lm_deluge.adapters.http_request import build_http_request
from lm_deluge.errors import APIError
from lm_deluge.events import Event
from lm_deluge.prompt.parts import FilePart, ImagePart, Part, TextPart, ToolCallPart
from lm_deluge.wire.eventstream import MEDIA_TYPE, EventStreamDecoder
from lm_deluge.wire.http import HttpRequest

__all__ = ["BedrockConverse"]


class BedrockConverse:
    """The adapter `bedrock-converse`."""

    name: ClassVar[str] = "bedrock-converse"
    sends: ClassVar[frozenset[type[Part]]] = frozenset({TextPart, ToolCallPart, ImagePart, FilePart})
    count_field: ClassVar[str] = "inputTokens"
    echoes: ClassVar[frozenset[str]] = frozenset({SIGNATURE, REDACTED, SERVER_TOOL, CONTENT_BLOCK})

    def build_request(self, call: Call) -> HttpRequest:
        """Return the request, without credentials."""
        return build_http_request(
            call,
            build_converse_body(call),
            path="/model/{model}/converse",
            stream_path="/model/{model}/converse-stream",
            stream_type=MEDIA_TYPE,
        )

    def build_count(self, call: Call) -> HttpRequest:
        """Return the request that counts the tokens of the prompt."""
        return build_count(call)

    def decoder(self, call: Call) -> BodyDecoder:
        """Return a new decoder for the response to `call`, streamed or not."""
        payload = ConversePayload(call.provider.opaque_owner)
        return BodyDecoder(
            payload,
            partial(_read_document, payload),
            max_event_bytes=call.max_event_bytes,
            framing=EventStreamDecoder,
        )

    def parse_response(self, call: Call, body: bytes) -> list[Event]:
        """Return the events of a response that is not streamed, the same as those of a stream with its blocks."""
        events: list[Event] = []
        _read_document(ConversePayload(call.provider.opaque_owner), body, events)
        return events

    def classify_error(self, status: int, headers: Mapping[str, str], body: bytes) -> APIError:
        """Return the exception for an HTTP error response."""
        return classify_bedrock_error(status, headers, body)


def _read_document(payload: ConversePayload, body: bytes, events: list[Event]) -> None:
    payload.read_document(body, events)
