"""Gemini's batches at Google AI: upload a file of requests, download a file of responses.

https://ai.google.dev/gemini-api/docs/batch-api, https://ai.google.dev/api/batch-api (2026-11). The API also takes
requests inline, up to 20 MB, but then each poll returns all responses. Files work for any size, so only they are used.
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
from lm_deluge.adapters.gemini_generate.request import wire_name
from lm_deluge.adapters.http_request import build_side_request
from lm_deluge.errors import APIError, ProtocolError
from lm_deluge.wire.http import HttpRequest

__all__ = ["GeminiBatch"]

_UPLOAD_URL = "x-goog-upload-url"
_CANCELLED = 1  # google.rpc.Code.CANCELLED
# https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto (2026-11): errors in a
# batch have these codes, mapped here to HTTP statuses.
_STATUS_OF_CODE = {
    2: 500,
    3: 400,
    4: 504,
    5: 404,
    6: 409,
    7: 403,
    8: 429,
    9: 400,
    10: 409,
    11: 400,
    12: 501,
    13: 500,
    14: 503,
    15: 500,
    16: 401,
}
# Without their prefix: the REST API writes BATCH_STATE_..., its guide and Vertex write JOB_STATE_... (2026-11).
_PHASES: dict[str, Phase] = {
    "PENDING": "validating",
    "SUCCEEDED": "ended",
    "FAILED": "failed",
    "CANCELLED": "cancelled",
    "EXPIRED": "expired",
}
_PAGE = 100  # batches per page: few requests, and each response stays small
_MOST_PAGES = 20  # 2,000 batches: more than an account submits between a lost submission and its search


class _Output(msgspec.Struct, frozen=True, rename="camel"):
    responses_file: str | None = None


class _Stats(msgspec.Struct, frozen=True, rename="camel"):
    request_count: int | str = 0
    pending_request_count: int | str = 0


class _Metadata(msgspec.Struct, frozen=True, rename="camel"):
    state: str = ""
    display_name: str = ""
    output: _Output | None = None
    batch_stats: _Stats | None = None


class _Operation(msgspec.Struct):
    name: str
    done: bool = False
    metadata: _Metadata = _Metadata()
    response: _Output | None = None
    error: dict[str, Any] | None = None


class _Page(msgspec.Struct, rename="camel"):
    operations: list[_Operation] = []
    next_page_token: str = ""


class _File(msgspec.Struct):
    name: str


class _Uploaded(msgspec.Struct):
    file: _File


class _Line(msgspec.Struct):
    key: str = ""
    response: msgspec.Raw = msgspec.Raw(b"null")
    error: dict[str, Any] | None = None


class GeminiBatch:
    """The batch API `gemini-batch`. Google documents no limit of requests; ours bounds the memory used."""

    name: ClassVar[str] = "gemini-batch"
    max_requests: ClassVar[int] = 100_000
    max_bytes: ClassVar[int] = 2_000_000_000
    separator: ClassVar[bytes] = b"\n"

    def encode_item(self, call: Call, custom_id: str, request: HttpRequest) -> bytes:
        """Return a request as a line of the uploaded file."""
        return msgspec.json.encode({"key": custom_id, "request": msgspec.Raw(request.body)})

    def submit(self, call: Call, items: Items, batch: str) -> Exchanges[str]:
        """Upload the file of requests and create the batch; return the batch's name."""
        file = yield from _upload(call, items, batch)
        content = {"batch": {"displayName": batch, "inputConfig": {"fileName": file}}}
        collection, name = wire_name(call.model.name)
        path = f"/v1beta/{collection}/{quote(name, safe='')}:batchGenerateContent"
        created = yield build_side_request(call, method="POST", path=path, content=content)
        return read_document(created.body, _Operation).name

    def build_poll(self, call: Call, handle: str) -> HttpRequest:
        """Return the request that reads the state of a batch."""
        return build_side_request(call, path=f"/v1beta/{quote(handle)}")

    def read_state(self, body: bytes) -> BatchState:
        """Return the state in the response to a poll."""
        operation = read_document(body, _Operation)
        output = operation.response or operation.metadata.output
        stats = operation.metadata.batch_stats
        phase = _phase(operation)
        return BatchState(
            handle=operation.name,
            phase=phase,
            results=() if output is None or output.responses_file is None else (output.responses_file,),
            error=_classify(operation.error or {}) if phase == "failed" else None,
            is_complete=phase != "ended" or (output is not None and output.responses_file is not None),
            finished=None if stats is None else int(stats.request_count) - int(stats.pending_request_count),
            total=None if stats is None else int(stats.request_count),
        )

    def build_results(self, call: Call, state: BatchState) -> list[HttpRequest]:
        """Return the request for the file of responses."""
        query = [("alt", "media")]
        return [
            build_side_request(call, path=f"/download/v1beta/{quote(file)}:download", query=query)
            for file in state.results
        ]

    def read_result(self, line: bytes) -> BatchResult:
        """Parse one line of the file of responses."""
        read = read_document(line, _Line)
        if bytes(read.response) not in (b"null", b"{}"):
            return BatchResult(custom_id=read.key, body=bytes(read.response))
        return BatchResult(custom_id=read.key, error=_classify(read.error or {}))

    def build_cancel(self, call: Call, handle: str) -> HttpRequest:
        """Return the request that cancels a batch."""
        return build_side_request(call, method="POST", path=f"/v1beta/{quote(handle)}:cancel")

    def search(self, call: Call, batch: str, *, count: int, since: float) -> Exchanges[list[ListedBatch]]:
        """Search the list of batches for our name. The list has no documented order, so each page is searched."""
        query = [("pageSize", str(_PAGE))]
        for _ in range(_MOST_PAGES):
            answer = yield build_side_request(call, path="/v1beta/batches", query=query)
            page = read_document(answer.body, _Page)
            for each in page.operations:
                if each.metadata.display_name == batch:
                    return [ListedBatch(each.name, is_ours=True)]
            if not page.next_page_token:
                break
            query = [("pageSize", str(_PAGE)), ("pageToken", page.next_page_token)]
        return []


def _upload(call: Call, items: Items, batch: str) -> Exchanges[str]:
    """Upload the file in one request of the resumable protocol; return its name.

    https://ai.google.dev/api/files#method:-media.upload
    """
    pieces = items.framed(b"", b"\n")
    start = {
        "x-goog-upload-protocol": "resumable",
        "x-goog-upload-command": "start",
        "x-goog-upload-header-content-length": str(len(pieces)),
        "x-goog-upload-header-content-type": "application/jsonl",
    }
    file = {"file": {"displayName": batch, "mimeType": "application/jsonl"}}
    session = yield build_side_request(call, method="POST", path="/upload/v1beta/files", headers=start, content=file)
    url = session.headers.get(_UPLOAD_URL)
    if not url:
        raise ProtocolError("the provider returned no upload URL for the batch", reason="order")
    finish = {
        "content-type": "application/jsonl",
        "x-goog-upload-offset": "0",
        "x-goog-upload-command": "upload, finalize",
    }
    request = build_side_request(call, method="POST", path="/upload/v1beta/files", headers=finish)
    uploaded = yield msgspec.structs.replace(request, url=url, pieces=pieces)
    return read_document(uploaded.body, _Uploaded).file.name


def _phase(operation: _Operation) -> Phase:
    state = operation.metadata.state.rpartition("STATE_")[2]
    if state in _PHASES or not operation.done:
        return _PHASES.get(state, "in_progress")
    if operation.error is None:
        return "ended"
    return "cancelled" if operation.error.get("code") == _CANCELLED else "failed"


def _classify(error: dict[str, Any]) -> APIError:
    code = error.get("code")
    if code == _CANCELLED:
        return batch_ended("was cancelled before this request's turn", "cancelled")
    status = _STATUS_OF_CODE.get(code) if isinstance(code, int) else None
    return classify_in_band({"error": error}, status=status)
