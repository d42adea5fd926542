"""Adapter for OpenAI's Responses API and for all hosts that are compatible with it.

https://platform.openai.com/docs/api-reference/responses
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar
from urllib.parse import quote

import msgspec

from lm_deluge.adapters.adapter import Call
from lm_deluge.adapters.body_decoder import BodyDecoder, in_band_error, not_json
from lm_deluge.adapters.errors import classify_status
from lm_deluge.adapters.http_request import build_bare_request, build_http_request
from lm_deluge.adapters.openai_responses.count import build_count
from lm_deluge.adapters.openai_responses.items import ECHOED
from lm_deluge.adapters.openai_responses.request import build_responses_body, wanted_extras
from lm_deluge.adapters.openai_responses.stream import ResponsesPayload
from lm_deluge.errors import APIError, ProtocolError
from lm_deluge.events import Event
from lm_deluge.prompt.parts import Part, RefusalPart, TextPart, ToolCallPart
from lm_deluge.wire.http import HttpRequest
from lm_deluge.wire.sse import ServerSentEvent
from lm_deluge.wire.tolerant_json import NotJSONError, TolerantDecoder

__all__ = ["OpenAIResponses"]

_PATH = "/responses"


class _Error(msgspec.Struct, gc=False):
    error: Any = None
    detail: Any = None


_ERROR = TolerantDecoder(_Error)


class _Decoder(BodyDecoder):
    """The decoder of this API. A plain document uses the same payload: it may continue a stream that broke."""

    def __init__(self, payload: ResponsesPayload, *, max_event_bytes: int) -> None:
        super().__init__(
            payload, lambda body, events: events.extend(_parse_document(payload, body)), max_event_bytes=max_event_bytes
        )
        self._responses = payload

    @property
    def resume_point(self) -> tuple[str, int] | None:
        """Response id and sequence number of the last decoded event, or None if either is unknown."""
        payload = self._responses
        return None if payload.response_id is None or payload.cursor is None else (payload.response_id, payload.cursor)

    def reopen(self) -> None:
        """Clear the fault; the next bytes are of a stream that continues after `resume_point`."""
        super().reopen()
        self._responses.resume()


def _parse_document(payload: ResponsesPayload, body: bytes) -> list[Event]:
    frame = ServerSentEvent(body)
    events: list[Event] = []
    try:
        payload.handle_document(body, events)
    except NotJSONError:
        raise not_json(frame) from None
    if not payload.is_finished:
        if _ERROR.decode(body) not in (None, _Error()):
            raise in_band_error(frame)
        raise ProtocolError(
            "the answer is JSON, but not a finished response", reason="order", excerpt=body, billed="maybe"
        )
    return events


class OpenAIResponses:
    """The adapter `openai-responses`."""

    name: ClassVar[str] = "openai-responses"
    sends: ClassVar[frozenset[type[Part]]] = frozenset({TextPart, RefusalPart, ToolCallPart})
    count_field: ClassVar[str] = "input_tokens"
    echoes: ClassVar[frozenset[str]] = ECHOED

    def build_request(self, call: Call) -> HttpRequest:
        """Return the HTTP request for `call`, without credentials."""
        return build_http_request(call, build_responses_body(call), path=_PATH)

    def build_count(self, call: Call) -> HttpRequest:
        """Return the request that counts the tokens of the prompt."""
        return build_count(call)

    def decoder(self, call: Call) -> BodyDecoder:
        """Return a new decoder for the response to `call`, streamed or plain."""
        return _Decoder(ResponsesPayload(call.provider.opaque_owner), max_event_bytes=call.max_event_bytes)

    def parse_response(self, call: Call, body: bytes) -> list[Event]:
        """Return the events of a plain response."""
        return _parse_document(ResponsesPayload(call.provider.opaque_owner), body)

    def build_resume(self, call: Call, response_id: str, cursor: int) -> HttpRequest:
        """Return the request for the events after `cursor`; see https://platform.openai.com/docs/guides/background."""
        query = [("stream", "true"), ("starting_after", str(cursor))]
        query += [("include[]", name) for name in wanted_extras(call)]
        return build_bare_request(call, method="GET", path=_PATH, below=f"/{quote(response_id, safe='')}", query=query)

    def build_cancel(self, call: Call, response_id: str) -> HttpRequest:
        """Return the request that cancels a response at the provider."""
        return build_bare_request(call, method="POST", path=_PATH, below=f"/{quote(response_id, safe='')}/cancel")

    def classify_error(self, status: int, headers: Mapping[str, str], body: bytes) -> APIError:
        """Return the error of a response whose status is not a success."""
        return classify_status(status, headers, body)
