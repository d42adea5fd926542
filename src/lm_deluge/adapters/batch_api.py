"""The contract of a provider's own batch API: many requests are handed over at once and answered within a day.

As an adapter, such an API is pure functions. What takes several requests, a submission say, is a generator: it yields a
request, is sent what came back, and returns what it found. The requests in a batch are those that the adapters build,
and what comes back is read by them, so a batched answer is what a direct one would have been.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping
from typing import ClassVar, Literal, Protocol, TypeAlias, TypeVar

import msgspec

from lm_deluge.adapters.adapter import Call
from lm_deluge.errors import APIError, BatchEndedError, ContentTypeError
from lm_deluge.wire.http import HttpRequest, Pieces

__all__ = [
    "BatchAPI",
    "BatchResult",
    "BatchState",
    "Exchanges",
    "HttpAnswer",
    "Items",
    "Phase",
    "Sighting",
    "batch_ended",
    "custom_id",
    "index_in",
    "read_document",
]

Phase: TypeAlias = Literal["validating", "in_progress", "ended", "expired", "cancelled", "failed"]

_CUSTOM_ID = re.compile(r"([0-9a-z]{1,40})-([0-9]{1,9})")


class HttpAnswer(msgspec.Struct, frozen=True):
    """What a request was answered with; names of headers are in lower case."""

    headers: Mapping[str, str]
    body: bytes

    def __repr__(self) -> str:
        return f"HttpAnswer({len(self.body)} bytes)"


T = TypeVar("T")
Exchanges: TypeAlias = Generator[HttpRequest, HttpAnswer, T]


class Items(Protocol):
    """The encoded requests of a batch, on the disk."""

    count: int

    def framed(self, prefix: bytes, suffix: bytes) -> Pieces:
        """Return a body: the items with the API's separator between them, and something around them."""
        ...


class BatchState(msgspec.Struct, frozen=True, kw_only=True):
    """How far a batch has come.

    Attributes:
        handle: What the provider knows it by.
        results: Where its results lie: names that `build_results` understands.
        error: Why it failed as a whole; None where it did not.
        finished: Requests that are over, and `total`: all of them; None where the provider does not say.
    """

    handle: str
    phase: Phase
    results: tuple[str, ...] = ()
    error: APIError | None = None
    finished: int | None = None
    total: int | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing more becomes of it."""
        return self.phase not in ("validating", "in_progress")


class BatchResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one request.

    Attributes:
        custom_id: Which one it is; empty where the line does not say.
        body: The answer, or for a `status` that is none the error, as the adapter reads it.
        error: The error, where it has no such body.
        request_id: The provider's id of the request.
    """

    custom_id: str
    body: bytes = b""
    status: int = 200
    error: APIError | None = None
    request_id: str | None = None


class Sighting(msgspec.Struct, frozen=True):
    """A batch in the provider's list. `is_ours` is None where only its results can tell."""

    handle: str
    is_ours: bool | None


class BatchAPI(Protocol):
    """How one provider takes batches.

    Attributes:
        max_requests, max_bytes: What one batch may have; larger ones are split.
        separator: What stands between two items.
    """

    name: ClassVar[str]
    max_requests: ClassVar[int]
    max_bytes: ClassVar[int]
    separator: ClassVar[bytes]

    def encode_item(self, call: Call, custom_id: str, request: HttpRequest) -> bytes:
        """Return a request as it stands in a batch, on one line without a line end."""
        ...

    def submit(self, call: Call, items: Items, batch: str) -> Exchanges[str]:
        """Hand a batch over; return its handle. Only the last request begins it.

        Args:
            call: One of the batch: all are to the same model.
            items: What to send.
            batch: Our name for it, by which `search` finds it where the API has a place for that.
        """
        ...

    def build_poll(self, call: Call, handle: str) -> HttpRequest:
        """Return the request for the state of a batch."""
        ...

    def read_state(self, body: bytes) -> BatchState:
        """Return the state that a poll was answered with.

        Raises:
            ContentTypeError: It is none.
        """
        ...

    def build_results(self, call: Call, state: BatchState) -> list[HttpRequest]:
        """Return the requests for the results: lines of JSON."""
        ...

    def read_result(self, line: bytes) -> BatchResult:
        """Return what a line of the results says."""
        ...

    def build_cancel(self, call: Call, handle: str) -> HttpRequest:
        """Return the request that ends a batch early. What is finished by then keeps its answer."""
        ...

    def search(self, call: Call, batch: str, *, count: int, since: float) -> Exchanges[list[Sighting]]:
        """Look for a batch whose submission was not seen to its end.

        Args:
            call: One of the batch.
            batch: Our name for it.
            count: How many requests it has.
            since: When it was handed over at the earliest, in seconds since 1970.
        """
        ...


def custom_id(batch: str, index: int) -> str:
    """Return the name of a request within a batch. It suits the narrowest rule: ^[a-zA-Z0-9_-]{1,64}$ (Anthropic)."""
    return f"{batch}-{index}"


def index_in(batch: str, name: str) -> int | None:
    """Return which request of a batch has this name; None where it is of another batch."""
    found = _CUSTOM_ID.fullmatch(name)
    return int(found[2]) if found and found[1] == batch else None


def batch_ended(why: str, code: str) -> BatchEndedError:
    """Return the error of a request that a batch left without an answer."""
    return BatchEndedError(f"the provider's batch {why}", code=code, hint="Ask it again in another batch.")


def read_document(body: bytes, kind: type[T]) -> T:
    """Return the JSON of an answer.

    Raises:
        ContentTypeError: It is none, or not of this kind.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ContentTypeError("the batch API answered in no form of its own", reason="json", excerpt=body) from None
