"""OpenAI's Responses API, and every host that speaks it.

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
    """The decoder of this API. A plain answer is read by the same payload: it may be the rest of a streamed one."""

    def __init__(self, payload: ResponsesPayload, *, max_event_bytes: int) -> None:
        super().__init__(payload, lambda body: _parse_document(payload, body), max_event_bytes=max_event_bytes)
        self._responses = payload

    @property
    def place(self) -> tuple[str, int] | None:
        """The id of the answer and the number of the last event that was read."""
        payload = self._responses
        return None if payload.response_id is None or payload.cursor is None else (payload.response_id, payload.cursor)

    def reopen(self) -> None:
        """Go on with the bytes of another answer, behind the last event that was read."""
        super().reopen()
        self._responses.go_on()


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
            "the answer is JSON, but no finished response", reason="order", excerpt=body, billed="maybe"
        )
    return events


class OpenAIResponses:
    """The adapter `openai-responses`."""

    name: ClassVar[str] = "openai-responses"
    sends: ClassVar[frozenset[type[Part]]] = frozenset({TextPart, RefusalPart, ToolCallPart})
    echoes: ClassVar[frozenset[str]] = ECHOED

    def build_request(self, call: Call) -> HttpRequest:
        """Return the request, without credentials."""
        return build_http_request(call, build_responses_body(call), path=_PATH)

    def decoder(self, call: Call) -> BodyDecoder:
        """Return a fresh state machine for the answer to `call`, streamed or plain."""
        return _Decoder(ResponsesPayload(call.provider.opaque_owner), max_event_bytes=call.max_event_bytes)

    def parse_response(self, call: Call, body: bytes) -> list[Event]:
        """Return the events of a plain answer."""
        return _parse_document(ResponsesPayload(call.provider.opaque_owner), body)

    def build_resume(self, call: Call, response_id: str, cursor: int) -> HttpRequest:
        """Return the request for the rest of an answer (https://platform.openai.com/docs/guides/background)."""
        query = [("stream", "true"), ("starting_after", str(cursor))]
        query += [("include[]", name) for name in wanted_extras(call)]
        return build_bare_request(call, method="GET", path=_PATH, below=f"/{quote(response_id, safe='')}", query=query)

    def build_cancel(self, call: Call, response_id: str) -> HttpRequest:
        """Return the request that ends an answer at the provider."""
        return build_bare_request(call, method="POST", path=_PATH, below=f"/{quote(response_id, safe='')}/cancel")

    def classify_error(self, status: int, headers: Mapping[str, str], body: bytes) -> APIError:
        """Return the error that an answer with this status stands for."""
        return classify_status(status, headers, body)
