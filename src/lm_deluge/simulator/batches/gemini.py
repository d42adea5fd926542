"""Gemini's files and batches, as the server implements them.

See https://ai.google.dev/api/batch-api and https://ai.google.dev/api/files.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from lm_deluge.errors import BadRequestError
from lm_deluge.simulator.batches.jobs import (
    BatchHandler,
    BatchReply,
    BatchRequest,
    BatchStore,
    SimulatedBatch,
    parsed_object,
)
from lm_deluge.simulator.http import Request, parse_number

__all__ = ["GEMINI_BATCH_ROUTES"]

_API = "gemini"
_ENCODER = "gemini-generate"
# google.rpc.Code by HTTP status: https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto.
_CODES = {400: 3, 401: 16, 403: 7, 404: 5, 429: 8, 500: 13, 503: 14, 504: 4}
_STATES = {
    "in_progress": "BATCH_STATE_RUNNING",
    "ended": "BATCH_STATE_SUCCEEDED",
    "failed": "BATCH_STATE_FAILED",
    "expired": "BATCH_STATE_EXPIRED",
    "cancelled": "BATCH_STATE_CANCELLED",
}
_ERRORS = {
    "failed": {"code": 3, "message": "The batch was refused.", "status": "INVALID_ARGUMENT"},
    "cancelled": {"code": 1, "message": "The operation was cancelled."},
    "expired": {"code": 4, "message": "The batch expired."},
}
_TYPE = "type.googleapis.com/google.ai.generativelanguage.v1main.GenerateContentBatch"


def _upload(store: BatchStore, request: Request, path_params: dict[str, str], url: str) -> BatchReply:
    """Receive a file by the resumable protocol: a start request, then the bytes in one or more requests."""
    commands = request.headers.get("x-goog-upload-command", "")
    if commands == "start":
        file = store.new_id("files/")
        store.files[file] = b""
        upload_url = f"{url}/upload/v1beta/files?upload_id={file.removeprefix('files/')}&upload_protocol=resumable"
        return BatchReply.of({}, ("x-goog-upload-url", upload_url), ("x-goog-upload-status", "active"))
    file = f"files/{request.query.get('upload_id')}"
    offset = parse_number(request.headers.get("x-goog-upload-offset", ""))
    if "upload" not in commands or offset != len(store.file(file)):
        raise _bad_request("The upload offset is not the number of bytes received so far.")
    store.files[file] += request.body
    is_final = "finalize" in commands
    content = {"file": _file_object(store, file, url)} if is_final else {}
    return BatchReply.of(content, ("x-goog-upload-status", "final" if is_final else "active"))


def _file_object(store: BatchStore, file: str, url: str) -> dict[str, Any]:
    return {
        "name": file,
        "mimeType": "application/jsonl",
        "sizeBytes": str(len(store.file(file))),
        "uri": f"{url}/v1beta/{file}",
        "state": "ACTIVE",
        "source": "UPLOADED",
    }


def _show_file(store: BatchStore, request: Request, path_params: dict[str, str], url: str) -> BatchReply:
    return BatchReply.of(_file_object(store, f"files/{path_params['id']}", url))


def _download(store: BatchStore, request: Request, path_params: dict[str, str], url: str) -> BatchReply:
    return BatchReply(store.file(f"files/{path_params['id']}"), "application/octet-stream")


def _create(store: BatchStore, request: Request, path_params: dict[str, str], url: str) -> BatchReply:
    batch = parsed_object(request.body).get("batch")
    fields = batch if isinstance(batch, dict) else {}
    config = fields.get("inputConfig") or fields.get("input_config") or {}
    file = config.get("fileName") or config.get("file_name")
    if file:
        items = [parsed_object(line) for line in store.file(file).split(b"\n") if line.strip()]
    else:
        items = (config.get("requests") or {}).get("requests") or []
    if not items or not all(isinstance(item.get("request"), dict) for item in items):
        raise _bad_request("A batch needs requests, inline or in a file.")
    requests = [
        store.answer(item.get("key", ""), _ENCODER, item["request"], model=path_params["model"]) for item in items
    ]
    detail = {"model": f"models/{path_params['model']}", "is_inline": not file, "items": items}
    name = fields.get("displayName") or fields.get("display_name") or ""
    return BatchReply.of(_batch_object(store, store.add("batches/", _API, requests, name=name, detail=detail)))


def _show(store: BatchStore, request: Request, path_params: dict[str, str], url: str) -> BatchReply:
    job = store.find(f"batches/{path_params['id']}", _API)
    job.polls += 1
    return BatchReply.of(_batch_object(store, job))


def _list(store: BatchStore, request: Request, path_params: dict[str, str], url: str) -> BatchReply:
    jobs = store.list(_API)
    size, start = request.query_number("pageSize", 50), request.query_number("pageToken", 0)
    shown = [_batch_object(store, job) for job in jobs[start : start + size]]
    rest = {"nextPageToken": str(start + size)} if len(jobs) > start + size else {}
    return BatchReply.of({"operations": shown, **rest})


def _cancel(store: BatchStore, request: Request, path_params: dict[str, str], url: str) -> BatchReply:
    job = store.find(f"batches/{path_params['id']}", _API)
    if job.phase == "in_progress":
        job.is_cancelled = True
    return BatchReply.of({})


def _batch_object(store: BatchStore, job: SimulatedBatch) -> dict[str, Any]:
    """Return the operation. Unlike with other providers, an expired or cancelled batch has no results at all."""
    phase, created = job.phase, datetime.fromtimestamp(job.created, UTC).isoformat()
    counts = job.counts()
    metadata = {
        "@type": _TYPE,
        "model": job.detail["model"],
        "displayName": job.name,
        "state": _STATES[phase],
        "createTime": created,
        "updateTime": created,
        "name": job.id,
        "batchStats": {
            "requestCount": str(counts["total"]),
            "pendingRequestCount": str(counts["processing"]),
            "successfulRequestCount": str(counts["answered"]),
        },
    }
    shown: dict[str, Any] = {"name": job.id, "metadata": metadata, "done": phase != "in_progress"}
    if phase in _ERRORS:
        return {**shown, "error": _ERRORS[phase]}
    if phase == "ended":
        output = _output(store, job)
        return {**shown, "metadata": {**metadata, "output": output}, "response": {"@type": f"{_TYPE}Output", **output}}
    return shown


def _output(store: BatchStore, job: SimulatedBatch) -> dict[str, Any]:
    if job.detail["is_inline"]:
        pairs = zip(job.detail["items"], job.requests, strict=True)
        lines = [
            {**({"metadata": item["metadata"]} if "metadata" in item else {}), **_result(each)} for item, each in pairs
        ]
        return {"inlinedResponses": {"inlinedResponses": lines}}
    file = f"files/batch-{job.id.removeprefix('batches/')}"
    lines = [{"key": each.name, **_result(each)} for each, _ in job.outcomes()]
    store.files[file] = BatchReply.of_lines(lines).data
    return {"responsesFile": file}


def _result(each: BatchRequest) -> dict[str, Any]:
    if each.status < 400:  # noqa: PLR2004
        return {"response": msgspec.Raw(each.body)}
    error = msgspec.json.decode(each.body).get("error", {})
    return {"error": {"code": _CODES.get(each.status, 2), "message": error.get("message", "")}}


def _bad_request(message: str) -> BadRequestError:
    return BadRequestError(message, status_code=400, type="INVALID_ARGUMENT")


_VERSION = "/v1(?:beta|alpha)?"  # the official SDK uses v1 by default (google-genai 3.6)
GEMINI_BATCH_ROUTES: tuple[tuple[str, str, BatchHandler], ...] = (
    ("POST", rf"/upload{_VERSION}/files", _upload),
    ("GET", rf"{_VERSION}/files/(?P<id>[^/:]+)", _show_file),
    ("GET", rf"(?:/download)?{_VERSION}/files/(?P<id>[^/:]+):download", _download),
    ("POST", rf"{_VERSION}/models/(?P<model>[^/:]+):batchGenerateContent", _create),
    ("GET", rf"{_VERSION}/batches", _list),
    ("GET", rf"{_VERSION}/batches/(?P<id>[^/:]+)", _show),
    ("POST", rf"{_VERSION}/batches/(?P<id>[^/:]+):cancel", _cancel),
)
"""Method, pattern of the path, and handler of each route."""
