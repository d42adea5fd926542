"""OpenAI's Batch API: a file of requests is uploaded, a file of responses is downloaded. Other hosts have it too.

https://platform.openai.com/docs/guides/batch, https://platform.openai.com/docs/api-reference/batch (2026-11)
"""

from __future__ import annotations

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
    Phase,
    batch_ended,
    read_document,
)
from lm_deluge.adapters.errors import classify_in_band
from lm_deluge.adapters.http_request import build_side_request
from lm_deluge.errors import APIError, ConfigurationError
from lm_deluge.wire.http import HttpRequest

__all__ = ["OpenAIBatch"]

_NAME = "lm_deluge_batch"  # key of our name of the batch in the metadata
_ENDPOINTS = {"openai-chat": "/v1/chat/completions", "openai-responses": "/v1/responses"}
_PHASES: dict[str, Phase] = {
    "validating": "validating",
    "completed": "ended",
    "expired": "expired",
    "cancelled": "cancelled",
    "failed": "failed",
}
_LOST = {
    "batch_expired": ("expired before this request's turn", "expired"),
    "batch_cancelled": ("was cancelled before this request's turn", "cancelled"),
}
# A refused file is a bad request (400), unless the account has too many requests or tokens enqueued (429).
_STATUS_OF_REFUSAL = {"token_limit_exceeded": 429, "request_limit_exceeded": 429}
_PAGE = 100  # the largest `limit` that GET /batches accepts (api-reference/batch, 2026-11)
# Bounds the search to the newest 2,000 batches: enough for a busy account, and only 20 requests.
_MOST_PAGES = 20
# Seconds that the provider's clock may lag ours. Far more than real clocks differ; it costs a few pages at most.
_SKEW_S = 3_600.0


class _Counts(msgspec.Struct):
    total: int | None = None
    completed: int = 0
    failed: int = 0


class _Batch(msgspec.Struct):
    id: str
    status: str = ""
    output_file_id: str | None = None
    error_file_id: str | None = None
    errors: Any = None
    request_counts: _Counts | None = None
    metadata: Any = None
    created_at: float = 0


class _Page(msgspec.Struct):
    data: list[_Batch]
    has_more: bool = False


class _File(msgspec.Struct):
    id: str


class _Response(msgspec.Struct):
    status_code: int = 200
    request_id: str | None = None
    body: msgspec.Raw = msgspec.Raw(b"{}")


class _Line(msgspec.Struct):
    custom_id: str = ""
    response: _Response | None = None
    error: dict[str, Any] | None = None


class OpenAIBatch:
    """The batch API `openai-batch`."""

    name: ClassVar[str] = "openai-batch"
    max_requests: ClassVar[int] = 50_000  # per input file (api-reference/batch, 2026-11)
    max_bytes: ClassVar[int] = 200_000_000  # 200 MB per input file, same page
    separator: ClassVar[bytes] = b"\n"

    def encode_item(self, call: Call, custom_id: str, request: HttpRequest) -> bytes:
        """Return a request as a line of the input file."""
        item = {"custom_id": custom_id, "method": "POST", "url": _endpoint(call)}
        return msgspec.json.encode({**item, "body": msgspec.Raw(request.body)})

    def submit(self, call: Call, items: Items, batch: str) -> Exchanges[str]:
        """Upload the input file, then create the batch."""
        uploaded = yield _build_upload(call, items, batch)
        content = {
            "input_file_id": read_document(uploaded.body, _File).id,
            "endpoint": _endpoint(call),
            "completion_window": "24h",
            "metadata": {_NAME: batch},
        }
        created = yield build_side_request(call, method="POST", path="/batches", content=content)
        return read_document(created.body, _Batch).id

    def build_poll(self, call: Call, handle: str) -> HttpRequest:
        """Return the request for the state of a batch."""
        return build_side_request(call, path=f"/batches/{quote(handle, safe='')}")

    def read_state(self, body: bytes) -> BatchState:
        """Parse the body of a response to a poll."""
        batch = read_document(body, _Batch)
        counts = batch.request_counts or _Counts()
        # OpenAI creates no output or error file if it would be empty (guides/batch, "Retrieve the results", 2026-11).
        files = (batch.output_file_id, batch.error_file_id)
        return BatchState(
            handle=batch.id,
            phase=_PHASES.get(batch.status, "in_progress"),
            results=tuple(file for file in files if file),
            error=_refusal(batch) if batch.status == "failed" else None,
            is_complete=_has_all_files(batch, counts),
            finished=None if counts.total is None else counts.completed + counts.failed,
            total=counts.total,
        )

    def build_results(self, call: Call, state: BatchState) -> list[HttpRequest]:
        """Return the requests that download the output file and the error file."""
        headers = {"accept": "application/binary"}
        return [
            build_side_request(call, path=f"/files/{quote(file, safe='')}/content", headers=headers)
            for file in state.results
        ]

    def read_result(self, line: bytes) -> BatchResult:
        """Parse a line of the output file or the error file."""
        read = read_document(line, _Line)
        if read.response is not None:
            answer = read.response
            return BatchResult(
                custom_id=read.custom_id,
                body=bytes(answer.body),
                status=answer.status_code,
                request_id=answer.request_id or None,
            )
        error = read.error or {}
        lost = _LOST.get(str(error.get("code")))
        return BatchResult(
            custom_id=read.custom_id, error=batch_ended(*lost) if lost else classify_in_band({"error": error})
        )

    def build_cancel(self, call: Call, handle: str) -> HttpRequest:
        """Return the request that cancels a batch."""
        return build_side_request(call, method="POST", path=f"/batches/{quote(handle, safe='')}/cancel")

    def search(self, call: Call, batch: str, *, count: int, since: float) -> Exchanges[list[ListedBatch]]:
        """Find the batch with our name in its metadata, in the list of batches, newest first."""
        query = [("limit", str(_PAGE))]
        for _ in range(_MOST_PAGES):
            answer = yield build_side_request(call, path="/batches", query=query)
            page = read_document(answer.body, _Page)
            for each in page.data:
                if isinstance(each.metadata, dict) and each.metadata.get(_NAME) == batch:
                    return [ListedBatch(each.id, is_ours=True)]
            if not page.has_more or not page.data or page.data[-1].created_at < since - _SKEW_S:
                break
            query = [("limit", str(_PAGE)), ("after", page.data[-1].id)]
        return []


def _endpoint(call: Call) -> str:
    endpoint = _ENDPOINTS.get(call.provider.adapter)
    if endpoint is None:
        raise ConfigurationError(
            f"the batch API of {call.provider.id} does not take the wire API {call.provider.adapter}"
        )
    return endpoint


def _build_upload(call: Call, items: Items, batch: str) -> HttpRequest:
    """Return the request that uploads the input file. Encoded JSON has no CR, so no item can contain the boundary."""
    boundary = f"lm-deluge-{batch}"
    prefix = (
        f'--{boundary}\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        f'--{boundary}\r\ncontent-disposition: form-data; name="file"; filename="{batch}.jsonl"\r\n'
        "content-type: application/jsonl\r\n\r\n"
    )
    headers = {"content-type": f"multipart/form-data; boundary={boundary}"}
    request = build_side_request(call, method="POST", path="/files", headers=headers)
    pieces = items.framed(prefix.encode(), f"\r\n--{boundary}--\r\n".encode())
    return msgspec.structs.replace(request, pieces=pieces)


def _has_all_files(batch: _Batch, counts: _Counts) -> bool:
    """Whether a batch that is over names the files of its results.

    A completed batch may have none yet: https://github.com/openai/openai-cookbook/issues/1564 (2024-11). Requests that
    failed may be in the only file, whatever its name.
    """
    if batch.status == "failed":
        return True
    if batch.output_file_id or batch.error_file_id:
        return bool(batch.output_file_id) or not counts.completed
    return counts.total == 0 or (batch.status != "completed" and not counts.completed and not counts.failed)


def _refusal(batch: _Batch) -> APIError:
    """Return the error of a batch that failed validation: the first reason in the list, with its line of the file."""
    # Compatible hosts send the bare list in place of an object with `data`.
    reasons = batch.errors.get("data") if isinstance(batch.errors, dict) else batch.errors
    first = reasons[0] if isinstance(reasons, list) and reasons and isinstance(reasons[0], dict) else {}
    status = _STATUS_OF_REFUSAL.get(str(first.get("code")), 400)
    error = classify_in_band({"error": first}, status=status)
    line = first.get("line")
    at = f", at line {line} of the file" if isinstance(line, int) else ""
    why = error.message if first.get("message") else "the provider gave no reason"
    error.message = f"the provider refused the batch{at}: {why}"
    return error
