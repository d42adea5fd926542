"""The contract of a provider's own batch API: many requests are submitted at once and answered within a day.

Like an adapter, a batch API consists of pure functions. An operation that takes several HTTP requests, such as a
submission, is a generator: it yields each `HttpRequest`, is sent the `HttpAnswer`, and returns the result of the
operation. The adapters build the requests in a batch and parse its results, so the response to a batched request has
the same events as the response to a direct request.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping
from typing import ClassVar, Literal, Protocol, TypeAlias, TypeVar

import msgspec

from lm_deluge.adapters.adapter import Call
from lm_deluge.errors import APIError, BatchEndedError, ContentTypeError
from lm_deluge.hidden import HidingStruct
from lm_deluge.wire.http import HttpRequest, Pieces
from lm_deluge.wire.tolerant_json import mend_json

__all__ = [
    "BatchAPI",
    "BatchResult",
    "BatchState",
    "Exchanges",
    "HttpAnswer",
    "Items",
    "ListedBatch",
    "Phase",
    "batch_ended",
    "custom_id",
    "index_in",
    "read_document",
]

Phase: TypeAlias = Literal["validating", "in_progress", "ended", "expired", "cancelled", "failed"]

# Names built by `custom_id`. Names in batches of other programs on the same account should not match.
_CUSTOM_ID = re.compile(r"([0-9a-z]{1,40})-([0-9]{1,9})")


class HttpAnswer(HidingStruct, frozen=True):
    """Headers and body of a successful HTTP response; names of headers are in lower case."""

    headers: Mapping[str, str]
    body: bytes

    def __repr__(self) -> str:
        return f"HttpAnswer({len(self.body)} bytes)"


T = TypeVar("T")
Exchanges: TypeAlias = Generator[HttpRequest, HttpAnswer, T]
"""An operation of one or more HTTP requests: yields each request, is sent its answer, returns a `T`."""


class Items(Protocol):
    """The encoded requests of a batch, stored on disk; `count` is their number."""

    count: int

    def framed(self, prefix: bytes, suffix: bytes) -> Pieces:
        """Return a request body: `prefix`, the items with the API's separator between them, `suffix`."""
        ...


class BatchState(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a batch at the provider.

    Attributes:
        handle: The provider's id of the batch.
        phase: What the provider does with the batch; after `expired` and `cancelled` it may have some results.
        results: Ids or URLs of the result files, as `build_results` expects them; empty until there are results.
        error: The reason why the whole batch failed; None if it did not fail.
        is_complete: Whether `results` has all results of a batch that is over. A provider may report the end before it
            names the files.
        finished: Number of requests that are answered or failed; None if the provider does not report the number.
        total: Number of requests in the batch; None if the provider does not report the number.
    """

    handle: str
    phase: Phase
    results: tuple[str, ...] = ()
    error: APIError | None = None
    is_complete: bool = True
    finished: int | None = None
    total: int | None = None

    @property
    def is_over(self) -> bool:
        """Whether the state is final: the provider processes no more requests of the batch."""
        return self.phase not in ("validating", "in_progress")


class BatchResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one request of a batch.

    Attributes:
        custom_id: The name of the request, see `custom_id()`; empty if the line has no name.
        body: JSON for the adapter: for `parse_response` if `status` is 200, else for `classify_error`.
        status: The HTTP status that a direct request would have had.
        error: The error of a request that has no body, because the batch expired for example; else None.
        request_id: The provider's id of the request, or None.
    """

    custom_id: str
    body: bytes = b""
    status: int = 200
    error: APIError | None = None
    request_id: str | None = None


class ListedBatch(msgspec.Struct, frozen=True):
    """An entry of the provider's list of batches that may be the batch that `BatchAPI.search` looks for.

    Attributes:
        handle: The provider's id of the batch.
        is_ours: Whether the batch is the right one; None if only the names in its results can show that.
    """

    handle: str
    is_ours: bool | None


class BatchAPI(Protocol):
    """Implementation of one batch API. A new one is listed in `batch_catalog.py`.

    Attributes:
        name: Name of the batch API, unique; provider rows refer to it, for example `openai-batch`.
        max_requests: Most requests of one batch; the caller splits larger batches.
        max_bytes: Most bytes of the encoded items of one batch; the caller splits larger batches.
        separator: Bytes between two items in the body of a submission.
    """

    name: ClassVar[str]
    max_requests: ClassVar[int]
    max_bytes: ClassVar[int]
    separator: ClassVar[bytes]

    def encode_item(self, call: Call, custom_id: str, request: HttpRequest) -> bytes:
        """Return a request in the form that a batch contains: one line of JSON without the line end."""
        ...

    def submit(self, call: Call, items: Items, batch: str) -> Exchanges[str]:
        """Submit a batch; return its handle.

        Only the last request of the exchange may start the batch: an interruption before it leaves nothing running.

        Args:
            call: Any call of the batch; all calls of a batch have the same model.
            items: The encoded requests.
            batch: Our name of the batch. It is sent as metadata, if the API has any, so that `search` finds the batch.
        """
        ...

    def build_poll(self, call: Call, handle: str) -> HttpRequest:
        """Return the request for the state of a batch."""
        ...

    def read_state(self, body: bytes) -> BatchState:
        """Parse the body of a response to a poll.

        Raises:
            ContentTypeError: The body is not the state of a batch.
        """
        ...

    def build_results(self, call: Call, state: BatchState) -> list[HttpRequest]:
        """Return the requests that download the results, in JSON lines."""
        ...

    def read_result(self, line: bytes) -> BatchResult:
        """Parse a line of the results.

        Raises:
            ContentTypeError: The line is not a result.
        """
        ...

    def build_cancel(self, call: Call, handle: str) -> HttpRequest:
        """Return the request that cancels a batch. Requests that are answered by then keep their results."""
        ...

    def search(self, call: Call, batch: str, *, count: int, since: float) -> Exchanges[list[ListedBatch]]:
        """Find a batch whose submission was interrupted before the provider's response arrived.

        Args:
            call: Any call of the batch.
            batch: Our name of the batch.
            count: Number of requests in the batch.
            since: Earliest time of the submission, in seconds since 1970.

        Returns:
            The candidates; empty if the provider has no such batch.
        """
        ...


def custom_id(batch: str, index: int) -> str:
    """Return the name of a request within a batch. It matches the strictest rule, Anthropic's ^[a-zA-Z0-9_-]{1,64}$."""
    return f"{batch}-{index}"


def index_in(batch: str, name: str) -> int | None:
    """Return the index of the request with this name; None if the name belongs to another batch."""
    found = _CUSTOM_ID.fullmatch(name)
    return int(found[2]) if found and found[1] == batch else None


def batch_ended(why: str, code: str) -> BatchEndedError:
    """Return the error of a request that the batch did not answer; `why` completes "the provider's batch ..."."""
    return BatchEndedError(f"the provider's batch {why}", code=code, hint="Send the request again in another batch.")


def read_document(body: bytes, kind: type[T]) -> T:
    """Decode a JSON body of the batch API.

    Raises:
        ContentTypeError: The body is not JSON, or does not have the fields of `kind`.
    """
    decode = msgspec.json.Decoder(kind).decode
    try:
        return decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        return decode(mend_json(body))
    except (msgspec.DecodeError, RecursionError):
        raise ContentTypeError(
            "the batch API's answer is not in its documented format", reason="json", excerpt=body
        ) from None
