"""Anthropic's Message Batches: one POST submits the whole batch, the results are lines of JSON.

https://platform.claude.com/docs/en/build-with-claude/batch-processing (2026-11)
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar
from urllib.parse import quote

import msgspec

from lm_deluge.adapters.adapter import Call
from lm_deluge.adapters.batch_api import (
    BatchResult,
    BatchState,
    Exchanges,
    Items,
    ListedBatch,
    batch_ended,
    read_document,
)
from lm_deluge.adapters.errors import classify_in_band
from lm_deluge.adapters.http_request import build_side_request
from lm_deluge.wire.http import HttpRequest

__all__ = ["AnthropicBatch"]

_PATH = "/v1/messages/batches"
# Result types without a response: the reason and the code for `batch_ended`.
_UNANSWERED = {
    "expired": ("expired before this request's turn", "expired"),
    "canceled": ("was cancelled before this request's turn", "cancelled"),
}
_PAGE = 100  # batches per page: few requests, and each response stays small
_MOST_PAGES = 20  # 2,000 batches: more than an account submits between a lost submission and its search
# Tolerated difference of the clocks: long enough for a badly set one, short enough to skip old batches.
_SKEW_S = 3_600.0


class _Counts(msgspec.Struct):
    processing: int = 0
    succeeded: int = 0
    errored: int = 0
    canceled: int = 0
    expired: int = 0

    @property
    def finished(self) -> int:
        return self.succeeded + self.errored + self.canceled + self.expired

    @property
    def total(self) -> int:
        return self.processing + self.finished


class _Batch(msgspec.Struct):
    id: str
    processing_status: str = ""
    request_counts: _Counts | None = None
    created_at: str = ""


class _Page(msgspec.Struct):
    data: list[_Batch]
    has_more: bool = False
    last_id: str | None = None


class _Result(msgspec.Struct, frozen=True):
    type: str = ""
    message: msgspec.Raw = msgspec.Raw(b"{}")
    error: dict[str, Any] | None = None


class _Line(msgspec.Struct):
    custom_id: str = ""
    result: _Result = _Result()


class AnthropicBatch:
    """The batch API `anthropic-batch`."""

    name: ClassVar[str] = "anthropic-batch"
    max_requests: ClassVar[int] = 100_000
    max_bytes: ClassVar[int] = 256_000_000
    separator: ClassVar[bytes] = b",\n"

    def encode_item(self, call: Call, custom_id: str, request: HttpRequest) -> bytes:
        """Return a request as an element of the JSON list `requests`."""
        return msgspec.json.encode({"custom_id": custom_id, "params": msgspec.Raw(request.body)})

    def submit(self, call: Call, items: Items, batch: str) -> Exchanges[str]:
        """Submit the whole batch in one request; return its id."""
        headers = {"content-type": "application/json"}
        request = build_side_request(call, method="POST", path=_PATH, headers=headers)
        created = yield msgspec.structs.replace(request, pieces=items.framed(b'{"requests":[', b"]}"))
        return read_document(created.body, _Batch).id

    def build_poll(self, call: Call, handle: str) -> HttpRequest:
        """Return the request that reads the state of a batch."""
        return build_side_request(call, path=f"{_PATH}/{quote(handle, safe='')}")

    def read_state(self, body: bytes) -> BatchState:
        """Return the state in the response to a poll. Expired and cancelled batches have the state `ended` too."""
        batch = read_document(body, _Batch)
        counts = batch.request_counts
        return BatchState(
            handle=batch.id,
            phase="ended" if batch.processing_status == "ended" else "in_progress",
            results=(batch.id,),
            finished=None if counts is None else counts.finished,
            total=None if counts is None else counts.total,
        )

    def build_results(self, call: Call, state: BatchState) -> list[HttpRequest]:
        """Return the request for the results.

        The state also contains a URL (`results_url`). It is not used: at Anthropic it equals this one, and a gateway
        could name another host, which must not receive the API key.
        """
        headers = {"accept": "application/binary"}
        return [
            build_side_request(call, path=f"{_PATH}/{quote(name, safe='')}/results", headers=headers)
            for name in state.results
        ]

    def read_result(self, line: bytes) -> BatchResult:
        """Parse one line of the results."""
        read = read_document(line, _Line)
        result = read.result
        if result.type == "succeeded":
            return BatchResult(custom_id=read.custom_id, body=bytes(result.message))
        if result.type in _UNANSWERED:
            return BatchResult(custom_id=read.custom_id, error=batch_ended(*_UNANSWERED[result.type]))
        # The error has the shape of an HTTP error body, {"type": "error", "error": {...}}, but no status.
        error = classify_in_band(result.error or {})
        request_id = (result.error or {}).get("request_id")
        return BatchResult(
            custom_id=read.custom_id, error=error, request_id=request_id if isinstance(request_id, str) else None
        )

    def build_cancel(self, call: Call, handle: str) -> HttpRequest:
        """Return the request that cancels a batch."""
        return build_side_request(call, method="POST", path=f"{_PATH}/{quote(handle, safe='')}/cancel")

    def search(self, call: Call, batch: str, *, count: int, since: float) -> Exchanges[list[ListedBatch]]:
        """List the batches of `count` requests created after `since`, newest first.

        The API has no field for our batch name, so `is_ours` is None: only the results show the custom ids.
        """
        found: list[ListedBatch] = []
        query = [("limit", str(_PAGE))]
        for _ in range(_MOST_PAGES):
            answer = yield build_side_request(call, path=_PATH, query=query)
            page = read_document(answer.body, _Page)
            recent = [each for each in page.data if _seconds(each.created_at) >= since - _SKEW_S]
            found += [ListedBatch(each.id, is_ours=None) for each in recent if _total(each) in (None, count)]
            if not page.has_more or len(recent) < len(page.data) or not page.last_id:
                break
            query = [("limit", str(_PAGE)), ("after_id", page.last_id)]
        return found


def _total(batch: _Batch) -> int | None:
    return None if batch.request_counts is None else batch.request_counts.total


def _seconds(text: str) -> float:
    """Return a time in seconds since 1970, or infinity if it cannot be parsed, so that the batch counts as recent."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        return float("inf")
