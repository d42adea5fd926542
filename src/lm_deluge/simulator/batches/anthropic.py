"""Anthropic's Message Batches, as the server implements them: https://platform.claude.com/docs/en/api/messages/batches."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import msgspec

from lm_deluge.errors import BadRequestError
from lm_deluge.simulator.batches.jobs import (
    BatchHandler,
    BatchReply,
    BatchRequest,
    BatchStore,
    Outcome,
    SimulatedBatch,
    parsed_object,
)
from lm_deluge.simulator.http import Request

__all__ = ["ANTHROPIC_BATCH_ROUTES"]

_API = "anthropic"
_ENCODER = "anthropic-messages"
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_MOST_REQUESTS = 100_000  # the documented limit of the API
_EXPIRY_S = 86_400  # the API expires a batch after 24 hours
_FAILURE = {"type": "error", "error": {"type": "api_error", "message": "Internal server error"}}


def _create(store: BatchStore, request: Request, path_params: dict[str, str], url: str) -> BatchReply:
    requests = parsed_object(request.body).get("requests")
    if not isinstance(requests, list) or not 0 < len(requests) <= _MOST_REQUESTS:
        raise _bad_request(f"requests: 1 to {_MOST_REQUESTS} requests are required")
    seen: set[str] = set()
    for number, each in enumerate(requests):
        name = each.get("custom_id") if isinstance(each, dict) else None
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise _bad_request(f"requests.{number}.custom_id: String should match pattern '^[a-zA-Z0-9_-]{{1,64}}$'")
        if name in seen:
            raise _bad_request(f"requests.{number}.custom_id: An earlier request has the same custom_id")
        if not isinstance(each.get("params"), dict) or each["params"].get("stream"):
            raise _bad_request(f"requests.{number}.params: The parameters of a message without `stream` are required")
        seen.add(name)
    job = store.add("msgbatch_", _API, [store.answer(each["custom_id"], _ENCODER, each["params"]) for each in requests])
    return BatchReply.of(_batch_object(job, url))


def _show(store: BatchStore, request: Request, path_params: dict[str, str], url: str) -> BatchReply:
    job = store.find(path_params["id"], _API)
    job.polls += 1
    return BatchReply.of(_batch_object(job, url))


def _list(store: BatchStore, request: Request, path_params: dict[str, str], url: str) -> BatchReply:
    jobs, has_more = store.page(_API, request.query.get("after_id"), request.query_number("limit", 20))
    shown = [_batch_object(job, url) for job in jobs]
    ends = {"first_id": shown[0]["id"] if shown else None, "last_id": shown[-1]["id"] if shown else None}
    return BatchReply.of({"data": shown, "has_more": has_more, **ends})


def _cancel(store: BatchStore, request: Request, path_params: dict[str, str], url: str) -> BatchReply:
    job = store.find(path_params["id"], _API)
    if job.phase != "in_progress":
        raise _bad_request(f"Batch {job.id} cannot be canceled because it has already ended.")
    shown = _batch_object(job, url)
    job.is_cancelled = True
    return BatchReply.of({**shown, "processing_status": "canceling", "cancel_initiated_at": _time(job.created)})


def _results(store: BatchStore, request: Request, path_params: dict[str, str], url: str) -> BatchReply:
    job = store.find(path_params["id"], _API)
    if job.phase == "in_progress":
        raise _bad_request(f"Batch {job.id} has no results: it has not ended.")
    return BatchReply.of_lines(
        [{"custom_id": each.name, "result": _result(job, each, outcome)} for each, outcome in job.outcomes()]
    )


def _result(job: SimulatedBatch, each: BatchRequest, outcome: Outcome) -> dict[str, Any]:
    if job.phase == "failed" or (outcome == "expired" and job.plan.ends == "failed"):
        return {"type": "errored", "error": _FAILURE}
    if outcome != "answered":
        return {"type": "canceled" if outcome == "cancelled" else "expired"}
    if each.status >= 400:  # noqa: PLR2004
        return {"type": "errored", "error": msgspec.Raw(each.body)}
    return {"type": "succeeded", "message": msgspec.Raw(each.body)}


def _batch_object(job: SimulatedBatch, url: str) -> dict[str, Any]:
    is_over = job.phase != "in_progress"
    counts = job.counts()
    return {
        "id": job.id,
        "type": "message_batch",
        "processing_status": "ended" if is_over else "in_progress",
        "request_counts": {
            "processing": counts["processing"],
            "succeeded": counts["answered"],
            "errored": counts["errors"],
            "canceled": counts["cancelled"],
            "expired": counts["expired"],
        },
        "ended_at": _time(job.created) if is_over else None,
        "created_at": _time(job.created),
        "expires_at": _time(job.created + _EXPIRY_S),
        "archived_at": None,
        "cancel_initiated_at": None,
        "results_url": f"{url}/v1/messages/batches/{job.id}/results" if is_over else None,
    }


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def _bad_request(message: str) -> BadRequestError:
    return BadRequestError(message, status_code=400, type="invalid_request_error")


_ROOT = "(?:/v1)?/messages/batches"
ANTHROPIC_BATCH_ROUTES: tuple[tuple[str, str, BatchHandler], ...] = (
    ("POST", _ROOT, _create),
    ("GET", _ROOT, _list),
    ("GET", rf"{_ROOT}/(?P<id>[^/]+)", _show),
    ("GET", rf"{_ROOT}/(?P<id>[^/]+)/results", _results),
    ("POST", rf"{_ROOT}/(?P<id>[^/]+)/cancel", _cancel),
)
"""Method, pattern of the path, and handler of each route."""
