"""Interface of an encoder: the server's side of one wire API."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import msgspec

from lm_deluge.config import PromptCache, SamplingParams
from lm_deluge.encoders.event_writer import EventWriter
from lm_deluge.errors import APIError
from lm_deluge.events import Event
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.tool import ProviderTool, Tool

__all__ = ["Encoder", "Endpoint", "LoadRequest", "ParsedRequest", "StreamWriter"]


class ParsedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request of a client, parsed from its body.

    Attributes:
        is_streamed: Whether the client wants a stream rather than one document.
        wants_usage: Whether a stream must report its usage; a document always does.
        output: JSON schema that the response must follow, or None.
        cache: The part of the prompt to cache, or None if the marks of the request match no `PromptCache` value.
        extra: Fields of the body that have no counterpart here, to be passed on unchanged.
        raw: The decoded body.
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
    """A path of an API. The text of a group named `model` in the pattern is passed to `parse_request`.

    Attributes:
        pattern: Regular expression of the whole path; the text of its groups is percent-decoded.
        is_streamed: Whether requests to this path are streamed; None if the body decides.
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


class StreamWriter:
    """Writes one streamed response while its events arrive.

    Args:
        writer: The state of the response.
        frame: Returns the bytes of what `writer` returns for an event.
        fail: Returns the frames that end the response with an error. No frame follows them.
    """

    def __init__(
        self, writer: EventWriter[Any], frame: Callable[[Any], bytes], fail: Callable[[APIError], bytes]
    ) -> None:
        self._writer = writer
        self._frame = frame
        self.fail = fail

    def write(self, events: Iterable[Event]) -> bytes:
        """Return the frames that the events complete."""
        frame, write = self._frame, self._writer.write
        return b"".join([frame(item) for event in events for item in write(event)])


class LoadRequest(NamedTuple):
    """A request that has a server load a model, or unload it, and asks the model for nothing.

    Attributes:
        model: Name of the model.
        answer: The body of the response.
    """

    model: str
    answer: bytes


class _ReadLoad(Protocol):
    def __call__(self, body: bytes, *, created: int) -> LoadRequest | None: ...


def _read_no_load(body: bytes, *, created: int) -> LoadRequest | None:
    return None


class _OpenStream(Protocol):
    def __call__(self, *, created: int, include_usage: bool) -> StreamWriter: ...


@dataclass(frozen=True, slots=True)
class Encoder:
    """The functions of one wire API.

    Attributes:
        parse_request: Parse the body of a request; raises `BadRequestError` if the request cannot be answered.
        encode_stream: Yield the frames of a streamed response, each as soon as the events that complete it are read.
            `created` is in seconds since 1970.
        encode_response: Return the same response as one document.
        encode_error: Return the body of a response with an error status.
        encode_stream_error: Return the frame that reports an error after the start of a stream.
        open_stream: Return a writer for events that arrive one after the other; None for an API that no gateway serves.
        routes: The paths of the API.
        stream_type: The content type of a stream.
        is_sse: Whether streams are server-sent events.
        id_prefix: The prefix of response ids.
        read_load: Return the model that a request loads, and the answer to it; None: it asks a model for something.
    """

    name: str
    parse_request: _ParseRequest
    encode_stream: _EncodeStream
    encode_response: _EncodeResponse
    encode_error: _EncodeError
    encode_stream_error: _EncodeError
    routes: tuple[Endpoint, ...]
    open_stream: _OpenStream | None = None
    stream_type: str = "text/event-stream; charset=utf-8"
    is_sse: bool = True
    id_prefix: str = ""
    read_load: _ReadLoad = _read_no_load
