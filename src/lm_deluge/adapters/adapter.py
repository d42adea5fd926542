"""The contract between a wire API and the rest of the house.

An adapter is four functions and one state machine: no `async`, no environment, no clock, no logging. What it
needs comes in a `Call`; what it makes are an `HttpRequest` and events.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

import msgspec

from lm_deluge.config import PromptCache, SamplingParams
from lm_deluge.errors import APIError, DelugeError
from lm_deluge.events import Event
from lm_deluge.models.rows import ModelRow, ProviderRow
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.parts import Part
from lm_deluge.prompt.tool import ProviderTool, Tool
from lm_deluge.wire.http import HttpRequest

__all__ = ["Adapter", "Call", "Decoder", "Resumable", "ResumableDecoder"]


class Call(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Everything that one request is made from, but the key.

    Attributes:
        base_url: Where the provider is, without a trailing slash.
        output: JSON schema that the answer is to follow, or None.
        is_streamed: Whether the answer is to come piece by piece.
        cache: What of the prompt the provider is to cache, where it wants to be told.
        background: The provider is to go on with the answer when the connection dies, and to keep it for a while.
        extra_body: Merged into the request's JSON; wins.
        max_event_bytes: Largest single event of the answer.
        warnings: What of the conversation the provider cannot take, and is not sent; see `fit.losses`.
    """

    model: ModelRow
    provider: ProviderRow
    conversation: Conversation
    base_url: str = ""
    params: SamplingParams = SamplingParams()
    tools: tuple[Tool | ProviderTool, ...] = ()
    output: dict[str, Any] | None = None
    is_streamed: bool = True
    cache: PromptCache | None = None
    background: bool = False
    extra_headers: Mapping[str, str] = {}
    extra_body: Mapping[str, Any] = {}
    max_event_bytes: int = 16 * 2**20
    warnings: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Call({self.model.id!r} at {self.provider.id!r}, {self.conversation!r})"


class Decoder(Protocol):
    """Turns the bytes of one answer into events.

    Nothing is raised: a fault stands in `error`, behind the events that were read before it, so that none of
    them is lost.

    Attributes:
        error: What is wrong with the stream; once set, nothing more comes.
    """

    error: DelugeError | None

    @property
    def is_complete(self) -> bool:
        """Whether an end of the body now is a success."""
        ...

    @property
    def is_finished(self) -> bool:
        """Whether `ResponseFinished` was returned."""
        ...

    @property
    def ignored(self) -> int:
        """How many frames were passed over."""
        ...

    def expect(self, content_type: str) -> None:
        """Take the answer's content type, before the first byte."""
        ...

    def feed(self, data: bytes) -> list[Event]:
        """Take the next bytes; return the events that they complete."""
        ...

    def close(self) -> list[Event]:
        """Take the end of the body; sets `error` where the answer has no terminal event."""
        ...


class Adapter(Protocol):
    """How one wire API is written and read.

    Attributes:
        sends: The kinds of parts of the model's own messages that it can send back. Others are left out, with a
            warning: they came from a model of another provider.
        echoes: The kinds of opaque data that it sends back to whom they came from.
    """

    name: ClassVar[str]
    sends: ClassVar[frozenset[type[Part]]]
    echoes: ClassVar[frozenset[str]]

    def build_request(self, call: Call) -> HttpRequest:
        """Return the request, without credentials.

        Raises:
            ConfigurationError: The API or the model cannot take what the call asks.
        """
        ...

    def decoder(self, call: Call) -> Decoder:
        """Return a fresh state machine for the answer to `call`, streamed or plain."""
        ...

    def parse_response(self, call: Call, body: bytes) -> list[Event]:
        """Return the events of a plain answer.

        Raises:
            DelugeError: It is none, or an error.
        """
        ...

    def classify_error(self, status: int, headers: Mapping[str, str], body: bytes) -> APIError:
        """Return the error that an answer with this status stands for."""
        ...


@runtime_checkable
class ResumableDecoder(Decoder, Protocol):
    """A decoder whose answer can be taken up again where its stream broke off."""

    @property
    def place(self) -> tuple[str, int] | None:
        """The id of the answer and the number of the last event that was read; None where it cannot be taken up."""
        ...

    def reopen(self) -> None:
        """Forget the fault and the frame that it cut; the bytes that come next go on behind `place`."""
        ...


@runtime_checkable
class Resumable(Protocol):
    """What an adapter has besides where its provider goes on with an answer nobody listens to (background mode)."""

    def build_resume(self, call: Call, response_id: str, cursor: int) -> HttpRequest:
        """Return the request for the rest of an answer, behind the event of that number."""
        ...

    def build_cancel(self, call: Call, response_id: str) -> HttpRequest:
        """Return the request that ends an answer at the provider."""
        ...
