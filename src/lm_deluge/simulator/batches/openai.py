"""OpenAI's files and batches, as the server implements them: https://platform.openai.com/docs/api-reference/batch."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from lm_deluge.errors import BadRequestError
from lm_deluge.simulator.batches.jobs import BatchHandler, BatchReply, BatchStore, SimulatedBatch, parsed_object
from lm_deluge.simulator.http import Request

__all__ = ["OPENAI_BATCH_ROUTES"]

_API = "openai"
_ENCODERS = {"/v1/chat/completions": "openai-chat", "/v1/responses": "openai-responses"}
_MOST_REQUESTS = 50_000  # the documented limit of the API
_STATUSES = {"ended": "completed"}
_UNANSWERED = {
    "expired": ("batch_expired", "This request could not be executed before the completion window expired."),
    "cancelled": ("batch_cancelled", "This request was not executed: the batch was cancelled."),
}
_WINDOW_S = 86_400  # the only completion window of the API is 24 hours


class _InvalidFileError(Exception):
    """An input file that makes the whole batch fail, as opposed to an error of the HTTP request."""

    def __init__(self, code: str, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.error = {"code": code, "message": message, "param": None, "line": line}


def _upload(store: BatchStore, request: Request, path_params: dict[str, str], url: str) -> BatchReply:
    fields = _form(request)
    if fields.get("purpose") != b"batch" or "file" not in fields:
        raise _bad_request("A file upload needs a form with the fields purpose='batch' and file.")
    file_id = store.new_id("file-")
    store.files[file_id] = fields["file"]
    return BatchReply.of(_file_object(store, file_id))


def _show_file(store: BatchStore, request: Request, path_params: dict[str, str], url: str) -> BatchReply:
    return BatchReply.of(_file_object(store, path_params["id"]))


def _download(store: BatchStore, request: Request, path_params: dict[str, str], url: str) -> BatchReply:
    return BatchReply(store.file(path_params["id"]), "application/octet-stream")


def _file_object(store: BatchStore, file_id: str) -> dict[str, Any]:
    size = len(store.file(file_id))
    return {
        "id": file_id,
        "object": "file",
        "bytes": size,
        "created_at": 0,
        "filename": "batch.jsonl",
        "purpose": "batch",
        "status": "processed",
    }


def _create(store: BatchStore, request: Request, path_params: dict[str, str], url: str) -> BatchReply:
    fields = parsed_object(request.body)
    endpoint, file_id = fields.get("endpoint"), fields.get("input_file_id")
    if endpoint not in _ENCODERS or not isinstance(file_id, str) or fields.get("completion_window") != "24h":
        raise _bad_request("A batch needs input_file_id, a supported endpoint, and a completion_window of 24h.")
    detail: dict[str, Any] = {"input_file_id": file_id, "endpoint": endpoint}
    requests = []
    try:
        lines = _read_lines(store.file(file_id), endpoint)
        requests = [store.answer(line["custom_id"], _ENCODERS[endpoint], line["body"]) for line in lines]
        refusal = "The batch was refused." if store.plan.ends == "failed" else ""
        detail["error"] = {"code": "invalid_request", "message": refusal, "param": None, "line": 1}
    except _InvalidFileError as error:
        refusal, detail["error"] = str(error), error.error
    job = store.add("batch_", _API, requests, name=fields.get("metadata"), detail=detail, refusal=refusal)
    shown = _batch_object(store, job)
    return BatchReply.of({**shown, "status": "validating", "errors": None})


def _read_lines(data: bytes, endpoint: str) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    seen: set[str] = set()
    for number, raw in enumerate(filter(bytes.strip, data.split(b"\n")), start=1):
        try:
            line = msgspec.json.decode(raw, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise _InvalidFileError("invalid_json_line", "This line is not parseable as valid JSON.", number) from None
        name = line.get("custom_id")
        if not isinstance(name, str) or not isinstance(line.get("body"), dict) or line.get("method") != "POST":
            raise _InvalidFileError(
                "missing_required_parameter", "A line needs custom_id, method, url and body.", number
            )
        if line.get("url") != endpoint:
            raise _InvalidFileError(
                "mismatched_endpoint", "The url of this line is not the endpoint of the batch.", number
            )
        if name in seen:
            raise _InvalidFileError("duplicate_custom_id", "Another line has the same custom_id.", number)
        seen.add(name)
        lines.append(line)
    if not lines:
        raise _InvalidFileError("empty_file", "The input file is empty.")
    if len(lines) > _MOST_REQUESTS:
        raise _InvalidFileError("too_many_tasks", f"The batch has more than {_MOST_REQUESTS} requests.")
    if len({line["body"].get("model") for line in lines}) > 1:
        raise _InvalidFileError("mismatched_model", "All requests of a batch must use the same model.")
    return lines


def _show(store: BatchStore, request: Request, path_params: dict[str, str], url: str) -> BatchReply:
    job = store.find(path_params["id"], _API)
    job.polls += 1
    return BatchReply.of(_batch_object(store, job))


def _list(store: BatchStore, request: Request, path_params: dict[str, str], url: str) -> BatchReply:
    jobs, has_more = store.page(_API, request.query.get("after"), request.query_number("limit", 20))
    shown = [_batch_object(store, job) for job in jobs]
    ends = {"first_id": shown[0]["id"], "last_id": shown[-1]["id"]} if shown else {}
    return BatchReply.of({"object": "list", "data": shown, "has_more": has_more, **ends})


def _cancel(store: BatchStore, request: Request, path_params: dict[str, str], url: str) -> BatchReply:
    job = store.find(path_params["id"], _API)
    if job.phase != "in_progress":
        raise _bad_request(f"Cannot cancel a batch with status '{_STATUSES.get(job.phase, job.phase)}'.", 409)
    job.is_cancelled = True
    return BatchReply.of({**_batch_object(store, job), "status": "cancelling"})


def _batch_object(store: BatchStore, job: SimulatedBatch) -> dict[str, Any]:
    phase = job.phase
    counts = job.counts()
    files = _write_files(store, job) if phase not in ("in_progress", "failed") else {}
    return {
        "id": job.id,
        "object": "batch",
        "endpoint": job.detail["endpoint"],
        "errors": {"object": "list", "data": [job.detail["error"]]} if phase == "failed" else None,
        "input_file_id": job.detail["input_file_id"],
        "completion_window": "24h",
        "status": _STATUSES.get(phase, phase),
        "output_file_id": None,
        "error_file_id": None,
        "created_at": int(job.created),
        "expires_at": int(job.created) + _WINDOW_S,
        "request_counts": {
            "total": counts["total"],
            "completed": counts["answered"],
            "failed": counts["errors"] + counts["expired"] + counts["cancelled"],
        },
        "metadata": job.name,
        **files,
    }


def _write_files(store: BatchStore, job: SimulatedBatch) -> dict[str, str]:
    """Write the output file and the error file, and return their ids. An empty file is not written."""
    good: list[Any] = []
    bad: list[Any] = []
    for number, (each, outcome) in enumerate(job.outcomes()):
        line: dict[str, Any] = {"id": f"batch_req_{job.id}_{number}", "custom_id": each.name, "response": None}
        if outcome != "answered":
            code, message = _UNANSWERED[outcome]
            bad.append({**line, "error": {"code": code, "message": message}})
            continue
        response = {"status_code": each.status, "request_id": f"req_{job.id}_{number}", "body": msgspec.Raw(each.body)}
        (good if each.status < 400 else bad).append({**line, "response": response, "error": None})  # noqa: PLR2004
    files = {}
    for field, lines in (("output_file_id", good), ("error_file_id", bad)):
        if lines:
            files[field] = f"file-{field}-{job.id}"
            store.files[files[field]] = BatchReply.of_lines(lines).data
    return files


def _form(request: Request) -> dict[str, bytes]:
    """Return the fields of a multipart form."""
    content_type = request.headers.get("content-type", "")
    found = re.search(r'multipart/form-data;.*boundary="?([^";]+)"?', content_type)
    if found is None:
        raise _bad_request("A file upload needs the content type multipart/form-data.")
    fields: dict[str, bytes] = {}
    for part in request.body.split(b"--" + found[1].encode())[1:-1]:
        head, _, data = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        name = re.search(rb'[; ]name="([^"]*)"', head)
        if name is not None:
            fields[name[1].decode("utf-8", "replace")] = data.removesuffix(b"\r\n")
    return fields


def _bad_request(message: str, status: int = 400) -> BadRequestError:
    return BadRequestError(message, status_code=status, type="invalid_request_error")


_ROOT = r"(?:/openai)?(?:/v1)?"
OPENAI_BATCH_ROUTES: tuple[tuple[str, str, BatchHandler], ...] = (
    ("POST", rf"{_ROOT}/files", _upload),
    ("GET", rf"{_ROOT}/files/(?P<id>[^/]+)", _show_file),
    ("GET", rf"{_ROOT}/files/(?P<id>[^/]+)/content", _download),
    ("POST", rf"{_ROOT}/batches", _create),
    ("GET", rf"{_ROOT}/batches", _list),
    ("GET", rf"{_ROOT}/batches/(?P<id>[^/]+)", _show),
    ("POST", rf"{_ROOT}/batches/(?P<id>[^/]+)/cancel", _cancel),
)
"""Method, pattern of the path, and handler of each route."""
