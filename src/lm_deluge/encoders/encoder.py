"""The contract of an encoder: one wire API, seen from the server's side."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from lm_deluge.config import PromptCache, SamplingParams
from lm_deluge.errors import APIError
from lm_deluge.events import Event
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.tool import ProviderTool, Tool

__all__ = ["Encoder", "Endpoint", "ParsedRequest"]


class ParsedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a client asks, read from the body of its request.

    Attributes:
        is_streamed: The answer is to come piece by piece.
        wants_usage: A streamed answer is to report its tokens; a plain one always does.
        output: JSON schema that the answer is to follow, or None.
        cache: What of the prompt is to be cached, as far as one of our words says it.
        extra: Fields of the body that nothing here reads, to be passed on as they are.
        raw: The body itself.
    """

    model: str
    conversation: Conversation
    params: SamplingParams = SamplingParams()
    is_streamed: bool = False
    wants_usage: bool = False
    tools: tuple[Tool | ProviderTool, ...] = ()
    output: dict[str, Any] | None = None
    cache: PromptCache | None = None
    extra: dict[str, Any] = {}
    raw: dict[str, Any] = {}


class Endpoint(msgspec.Struct, frozen=True):
    """A path under which an API is asked. Groups named `model` in the pattern are handed to `parse_request`.

    Attributes:
        pattern: Regular expression of the whole path; percent signs in what it finds are resolved.
        is_streamed: Whether the path says that the answer is to come piece by piece; None: the body says it.
    """

    pattern: str
    is_streamed: bool | None = None


class _ParseRequest(Protocol):
    def __call__(self, body: bytes, *, model: str | None = None, is_streamed: bool | None = None) -> ParsedRequest: ...


class _EncodeStream(Protocol):
    def __call__(self, events: Iterable[Event], *, created: int = 0, include_usage: bool = True) -> Iterator[bytes]: ...


class _EncodeResponse(Protocol):
    def __call__(self, events: Iterable[Event], *, created: int = 0) -> bytes: ...


class _EncodeError(Protocol):
    def __call__(self, error: APIError) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Encoder:
    """The functions of one wire API.

    Attributes:
        parse_request: Read a request's body; raises `BadRequestError` for one that cannot be answered.
        encode_stream: Write a streamed answer, one frame at a time: a frame comes out as soon as the events
            that it is made of went in. `created` is in seconds since 1970.
        encode_response: Write the same answer in one piece.
        encode_error: Write the body of an answer whose status says that it is an error.
        encode_stream_error: Write the frame by which a stream fails after it began.
        routes: The paths under which it is asked.
        stream_type: The content type of a stream.
        is_sse: Its streams are server-sent events.
        id_prefix: How ids of its answers begin.
    """

    name: str
    parse_request: _ParseRequest
    encode_stream: _EncodeStream
    encode_response: _EncodeResponse
    encode_error: _EncodeError
    encode_stream_error: _EncodeError
    routes: tuple[Endpoint, ...]
    stream_type: str = "text/event-stream; charset=utf-8"
    is_sse: bool = True
    id_prefix: str = ""
