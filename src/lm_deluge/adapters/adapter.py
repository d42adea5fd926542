"""The contract between a wire API and the rest of the library.

An adapter builds the HTTP request of a `Call` and decodes the response into events. Adapters are pure: no `async`, no
environment, no clock, no logging. Their only input is the `Call` and the bytes of the response.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

from lm_deluge.config import PromptCache, SamplingParams
from lm_deluge.errors import APIError, DelugeError
from lm_deluge.events import Event
from lm_deluge.hidden import HidingStruct
from lm_deluge.models.rows import ModelRow, ProviderRow
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.parts import Part
from lm_deluge.prompt.tool import ProviderTool, Tool
from lm_deluge.wire.http import HttpRequest

__all__ = ["Adapter", "Call", "Decoder", "Resumable", "ResumableDecoder", "SendsByModel"]


class Call(HidingStruct, frozen=True, gc=False, kw_only=True):
    """Everything that a request is built from, except the credentials.

    Attributes:
        base_url: URL of the provider, without a trailing slash; the adapter appends the path of its API.
        output: JSON schema that the response must follow, or None.
        is_streamed: Whether to request a stream rather than one JSON document.
        cache: The part of the prompt that the provider is asked to cache; None sends no cache marks.
        background: Ask the provider to finish the response even if the connection is lost, and to store it for a while.
        extra_headers: Added to the request; they replace headers of the same name.
        extra_body: Top-level fields added to the request's JSON; they replace fields of the same name.
        max_event_bytes: Limit of a single event of the stream, in bytes.
        warnings: The kinds of parts that are left out of the request because the provider cannot take them back, and
            the parameters that the model ignores, as `capabilities.with_warnings` names them.
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
    """State machine that turns the bytes of one response, streamed or plain, into events.

    Call `expect` once, then `feed` for each read, then `close` at the end of the body. The methods never raise: a fault
    is stored in `error` and the events decoded before the fault are returned as usual. The events must not depend on
    where the body is cut into reads.

    Attributes:
        error: The fault that ended decoding, or None. After it is set, `feed` and `close` return no events.
    """

    error: DelugeError | None

    @property
    def is_flowing(self) -> bool:
        """Whether the last `feed` was in the middle of a stream: nothing has ended, failed or broken yet."""
        ...

    @property
    def is_complete(self) -> bool:
        """Whether the response would be a success if its body ended now: the terminal event was decoded."""
        ...

    @property
    def is_finished(self) -> bool:
        """Whether `ResponseFinished` was returned. Further bytes of the body yield no events."""
        ...

    @property
    def failure(self) -> DelugeError | None:
        """The error that the provider reported, if its reason may still follow; else None."""
        ...

    @property
    def ignored(self) -> int:
        """Number of frames that were skipped, because their type is unknown or they came after the end."""
        ...

    def expect(self, content_type: str) -> None:
        """Set the response's Content-Type, before the first `feed`. It is only a hint: many hosts send a wrong type."""
        ...

    def feed(self, data: bytes) -> list[Event]:
        """Decode the next bytes of the body; return the events that they complete, possibly none."""
        ...

    def close(self) -> list[Event]:
        """Signal the end of the body; return the last events. Sets `error` if the terminal event is missing."""
        ...


class Adapter(Protocol):
    """Implementation of one wire API: builds requests, decodes responses and errors.

    An adapter has no state; each call gets its own `Decoder`. A new adapter is listed in `catalog.py`.

    Attributes:
        name: Name of the wire API, unique; provider rows refer to it, for example `openai-chat`.
        sends: Types of parts of assistant messages that the API accepts in a request. Parts of other types, from a
            model of another provider for example, are left out of the request with a warning.
        echoes: Values of `ProviderDataPart.kind` that the adapter sends back, to the provider that produced them only.
    """

    name: ClassVar[str]
    sends: ClassVar[frozenset[type[Part]]]
    echoes: ClassVar[frozenset[str]]

    def build_request(self, call: Call) -> HttpRequest:
        """Return the HTTP request for `call`. The transport adds the credentials.

        Raises:
            ConfigurationError: The API or the model does not support a parameter or part of the call
                (`UnsupportedParameterError`), or the prompt is invalid (`InvalidPromptError`).
        """
        ...

    def decoder(self, call: Call) -> Decoder:
        """Return a new decoder for one successful response to `call`.

        The decoder must handle a stream and a plain JSON document, because hosts send either regardless of the request.
        """
        ...

    def parse_response(self, call: Call, body: bytes) -> list[Event]:
        """Return the events of a plain response; they obey the same grammar as the events of a stream.

        Args:
            call: The call that the body answers.
            body: The complete body of a response with status 200.

        Raises:
            DelugeError: The body contains an error (`APIError`) or is not a response of this API (`ProtocolError`).
        """
        ...

    def classify_error(self, status: int, headers: Mapping[str, str], body: bytes) -> APIError:
        """Return the error of a response whose status is not a success.

        Args:
            status: The HTTP status.
            headers: Headers of the response, names in lower case.
            body: The body of the response; it may be empty, cut off, or the HTML page of a proxy.
        """
        ...


@runtime_checkable
class ResumableDecoder(Decoder, Protocol):
    """A decoder whose response can be resumed in a second connection after its stream broke off."""

    @property
    def resume_point(self) -> tuple[str, int] | None:
        """Response id and sequence number of the last decoded event, or None if the response cannot be resumed."""
        ...

    def reopen(self) -> None:
        """Clear `error` and the incomplete frame; the next bytes are of a stream that starts after `resume_point`."""
        ...


@runtime_checkable
class Resumable(Protocol):
    """Additional methods of an adapter whose API has a background mode: responses outlive their connection.

    The decoders of such an adapter are `ResumableDecoder`s.
    """

    def build_resume(self, call: Call, response_id: str, cursor: int) -> HttpRequest:
        """Return the request that streams the events of a response after sequence number `cursor`."""
        ...

    def build_cancel(self, call: Call, response_id: str) -> HttpRequest:
        """Return the request that cancels a response at the provider."""
        ...


@runtime_checkable
class SendsByModel(Protocol):
    """Additional method of an adapter whose request format, and so the parts that it accepts, depends on the model."""

    def sends_to(self, model: ModelRow) -> tuple[frozenset[type[Part]], frozenset[str]]:
        """Return the `sends` and the `echoes` for one model. Those of the adapter are the union over all models."""
        ...
