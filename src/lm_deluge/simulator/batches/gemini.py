"""Gemini's files and batches, from the server's side: https://ai.google.dev/api/batch-api, https://ai.google.dev/api/files."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from lm_deluge.errors import BadRequestError
from lm_deluge.simulator.batches.jobs import BatchHandler, BatchJob, BatchReply, BatchRequest, BatchStore, parsed_object
from lm_deluge.simulator.http import Request

__all__ = ["GEMINI_BATCH_ROUTES"]

_API = "gemini"
_ENCODER = "gemini-generate"
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


def _upload(store: BatchStore, request: Request, found: dict[str, str], url: str) -> BatchReply:
    """Take a file by the resumable protocol: a start, then its bytes, in one piece or several."""
    commands = request.headers.get("x-goog-upload-command", "")
    if commands == "start":
        file = store.new_id("files/")
        store.files[file] = b""
        place = f"{url}/upload/v1beta/files?upload_id={file.removeprefix('files/')}&upload_protocol=resumable"
        return BatchReply.of({}, ("x-goog-upload-url", place), ("x-goog-upload-status", "active"))
    file = f"files/{request.query.get('upload_id')}"
    if "upload" not in commands or int(request.headers.get("x-goog-upload-offset", "-1")) != len(store.file(file)):
        raise _bad("The upload does not go on where it stopped.")
    store.files[file] += request.body
    is_final = "finalize" in commands
    shown = {"file": _shown_file(store, file, url)} if is_final else {}
    return BatchReply.of(shown, ("x-goog-upload-status", "final" if is_final else "active"))


def _shown_file(store: BatchStore, file: str, url: str) -> dict[str, Any]:
    return {
        "name": file,
        "mimeType": "application/jsonl",
        "sizeBytes": str(len(store.file(file))),
        "uri": f"{url}/v1beta/{file}",
        "state": "ACTIVE",
        "source": "UPLOADED",
    }


def _show_file(store: BatchStore, request: Request, found: dict[str, str], url: str) -> BatchReply:
    return BatchReply.of(_shown_file(store, f"files/{found['id']}", url))


def _give_file(store: BatchStore, request: Request, found: dict[str, str], url: str) -> BatchReply:
    return BatchReply(store.file(f"files/{found['id']}"), "application/octet-stream")


def _create(store: BatchStore, request: Request, found: dict[str, str], url: str) -> BatchReply:
    batch = parsed_object(request.body).get("batch")
    asked = batch if isinstance(batch, dict) else {}
    config = asked.get("inputConfig") or asked.get("input_config") or {}
    file = config.get("fileName") or config.get("file_name")
    if file:
        items = [parsed_object(line) for line in store.file(file).split(b"\n") if line.strip()]
    else:
        items = (config.get("requests") or {}).get("requests") or []
    if not items or not all(isinstance(item.get("request"), dict) for item in items):
        raise _bad("A batch needs requests, of its own or in a file.")
    requests = [store.answer(item.get("key", ""), _ENCODER, item["request"], model=found["model"]) for item in items]
    detail = {"model": f"models/{found['model']}", "is_inline": not file, "items": items}
    name = asked.get("displayName") or asked.get("display_name") or ""
    return BatchReply.of(_shown(store, store.add("batches/", _API, requests, name=name, detail=detail)))


def _show(store: BatchStore, request: Request, found: dict[str, str], url: str) -> BatchReply:
    job = store.find(f"batches/{found['id']}", _API)
    job.polls += 1
    return BatchReply.of(_shown(store, job))


def _list(store: BatchStore, request: Request, found: dict[str, str], url: str) -> BatchReply:
    jobs = store.list(_API)
    size, start = int(request.query.get("pageSize", "50")), int(request.query.get("pageToken", "0"))
    shown = [_shown(store, job) for job in jobs[start : start + size]]
    rest = {"nextPageToken": str(start + size)} if len(jobs) > start + size else {}
    return BatchReply.of({"operations": shown, **rest})


def _cancel(store: BatchStore, request: Request, found: dict[str, str], url: str) -> BatchReply:
    job = store.find(f"batches/{found['id']}", _API)
    if job.phase == "in_progress":
        job.is_cancelled = True
    return BatchReply.of({})


def _shown(store: BatchStore, job: BatchJob) -> dict[str, Any]:
    """Return the operation. A batch that expired or was cancelled has no results at all, unlike at other providers."""
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
            "pendingRequestCount": str(counts["under_way"]),
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


def _output(store: BatchStore, job: BatchJob) -> dict[str, Any]:
    if job.detail["is_inline"]:
        named = zip(job.detail["items"], job.requests, strict=True)
        lines = [
            {**({"metadata": item["metadata"]} if "metadata" in item else {}), **_result(each)} for item, each in named
        ]
        return {"inlinedResponses": {"inlinedResponses": lines}}
    file = f"files/batch-{job.id.removeprefix('batches/')}"
    lines = [{"key": each.name, **_result(each)} for each, _ in job.outcomes()]
    store.files[file] = BatchReply.of_lines(lines).data
    return {"responsesFile": file}


def _result(each: BatchRequest) -> dict[str, Any]:
    if each.status < 400:  # noqa: PLR2004
        return {"response": msgspec.Raw(each.body)}
    told = msgspec.json.decode(each.body).get("error", {})
    return {"error": {"code": _CODES.get(each.status, 2), "message": told.get("message", "")}}


def _bad(message: str) -> BadRequestError:
    return BadRequestError(message, status_code=400, type="INVALID_ARGUMENT")


_VERSION = "/v1(?:beta|alpha)?"  # the official client's default is v1 by now (google-genai 3.6)
GEMINI_BATCH_ROUTES: tuple[tuple[str, str, BatchHandler], ...] = (
    ("POST", rf"/upload{_VERSION}/files", _upload),
    ("GET", rf"{_VERSION}/files/(?P<id>[^/:]+)", _show_file),
    ("GET", rf"(?:/download)?{_VERSION}/files/(?P<id>[^/:]+):download", _give_file),
    ("POST", rf"{_VERSION}/models/(?P<model>[^/:]+):batchGenerateContent", _create),
    ("GET", rf"{_VERSION}/batches", _list),
    ("GET", rf"{_VERSION}/batches/(?P<id>[^/:]+)", _show),
    ("POST", rf"{_VERSION}/batches/(?P<id>[^/:]+):cancel", _cancel),
)
"""Method, path and handler."""
