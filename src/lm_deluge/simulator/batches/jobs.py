"""The batches of a simulator: their requests, their progress and their results."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import msgspec

from lm_deluge.errors import BadRequestError, NotFoundError
from lm_deluge.simulator.http import Request

__all__ = [
    "BatchHandler",
    "BatchReply",
    "BatchRequest",
    "BatchStore",
    "Batches",
    "Outcome",
    "SimulatedBatch",
    "parsed_object",
]

Outcome: TypeAlias = Literal["answered", "expired", "cancelled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batches:
    """How the batches of a simulator proceed and end, for example `Batches(polls=1, ends="expired")`.

    Attributes:
        seconds: Seconds until a batch ends.
        polls: Number of polls that still report the batch as in progress. A batch ends when both the seconds and the
            polls have passed.
        ends: How a batch ends: `ended`, `expired` (the completion window of a day was too short), or `failed` (the
            provider rejects the whole batch).
        finished: Number of requests that are answered before a batch expires or is cancelled.
        is_shuffled: Whether the results come in another order than the requests.
    """

    seconds: float = 0.0
    polls: int = 0
    ends: Literal["ended", "expired", "failed"] = "ended"
    finished: int = 0
    is_shuffled: bool = False


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """A request of a batch, with status and body of its answer."""

    name: str
    status: int
    body: bytes = field(repr=False)


@dataclass(slots=True)
class SimulatedBatch:
    """A batch and its state.

    Attributes:
        plan: How the batch proceeds and ends.
        created: When the batch was created, in seconds since 1970.
        name: The metadata or display name that the client has set.
        detail: Fields of the batch object that only one API has.
        refusal: Why the provider rejects the whole batch; empty if it accepts the batch.
        polls: Number of polls so far.
    """

    id: str
    api: str
    plan: Batches
    requests: Sequence[BatchRequest]
    created: float
    name: Any = None
    detail: dict[str, Any] = field(default_factory=dict)
    refusal: str = ""
    polls: int = 0
    is_cancelled: bool = False

    @property
    def phase(self) -> Literal["in_progress", "ended", "expired", "failed", "cancelled"]:
        """The state of the batch now."""
        if self.refusal:
            return "failed"
        if self.is_cancelled:
            return "cancelled"
        is_over = self.polls > self.plan.polls and time.time() >= self.created + self.plan.seconds
        return self.plan.ends if is_over else "in_progress"

    def outcomes(self) -> list[tuple[BatchRequest, Outcome]]:
        """Return each request with its outcome, in the order of the results."""
        phase = self.phase
        answered = len(self.requests) if phase == "ended" else self.plan.finished
        unanswered: Outcome = "cancelled" if phase == "cancelled" else "expired"
        outcomes: list[tuple[BatchRequest, Outcome]] = [
            (each, "answered" if number < answered else unanswered) for number, each in enumerate(self.requests)
        ]
        if self.plan.is_shuffled:
            shuffled = random.Random(self.id).sample(outcomes, len(outcomes))  # noqa: S311 - a repeatable order, not a secret
            return shuffled if shuffled != outcomes else outcomes[::-1]
        return outcomes

    def counts(self) -> dict[Outcome | Literal["errors", "total", "processing"], int]:
        """Return the number of requests in each state. An error is an answer with a status of 400 or more."""
        total = len(self.requests)
        phase = self.phase
        if phase in ("in_progress", "failed"):
            return {"total": total, "processing": total, "answered": 0, "errors": 0, "expired": 0, "cancelled": 0}
        outcomes = self.outcomes()
        errors = sum(outcome == "answered" and each.status >= 400 for each, outcome in outcomes)  # noqa: PLR2004
        ends = [outcome for _, outcome in outcomes]
        return {
            "total": total,
            "processing": 0,
            "answered": ends.count("answered") - errors,
            "errors": errors,
            "expired": ends.count("expired"),
            "cancelled": ends.count("cancelled"),
        }


@dataclass(frozen=True, slots=True)
class BatchReply:
    """The answer to a request to a batch API; its status is 200."""

    data: bytes
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, content: Any, *headers: tuple[str, str]) -> BatchReply:
        """Return a reply with a JSON document."""
        return cls(msgspec.json.encode(content), headers=headers)

    @classmethod
    def of_lines(cls, lines: Sequence[Any]) -> BatchReply:
        """Return a reply with JSON Lines."""
        data = b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
        return cls(data, "application/octet-stream")


AnswerRequest: TypeAlias = Callable[[str, bytes, dict[str, Any]], tuple[int, bytes]]
"""Answers a request of a batch: from wire API, body and path parameters to status and body."""


class BatchStore:
    """All batches and files of a simulator.

    Args:
        plan: How batches proceed and end.
        answer: Answers a request of a batch.
    """

    def __init__(self, plan: Batches, answer: AnswerRequest) -> None:
        self.jobs: dict[str, SimulatedBatch] = {}
        self.files: dict[str, bytes] = {}
        self.plan = plan
        self._answer = answer
        self._ids = 0

    def new_id(self, prefix: str) -> str:
        """Return a new id with this prefix."""
        self._ids += 1
        return f"{prefix}sim{self._ids:06}"

    def answer(self, name: str, api: str, body: Any, **path_params: Any) -> BatchRequest:
        """Return a request of a batch together with its answer."""
        return BatchRequest(name, *self._answer(api, msgspec.json.encode(body), {**path_params, "is_streamed": False}))

    def add(self, prefix: str, api: str, requests: Sequence[BatchRequest], **fields: Any) -> SimulatedBatch:
        """Create a batch and return it."""
        job = SimulatedBatch(self.new_id(prefix), api, self.plan, requests, time.time(), **fields)
        self.jobs[job.id] = job
        return job

    def find(self, job_id: str, api: str) -> SimulatedBatch:
        """Return the batch with this id.

        Raises:
            NotFoundError: The API has no batch with this id.
        """
        job = self.jobs.get(job_id)
        if job is None or job.api != api:
            raise NotFoundError(f"No batch found with id '{job_id[:100]}'.", status_code=404, type="not_found_error")
        return job

    def list(self, api: str) -> list[SimulatedBatch]:
        """Return the batches of an API, newest first."""
        return [job for job in reversed(self.jobs.values()) if job.api == api]

    def page(self, api: str, after: str | None, limit: int) -> tuple[Sequence[SimulatedBatch], bool]:
        """Return at most `limit` batches, newest first, and whether there are more.

        The page starts after the batch with the id `after`, or with the newest batch if no batch has this id.
        """
        jobs = self.list(api)
        ids = [job.id for job in jobs]
        rest = jobs[ids.index(after) + 1 :] if after in ids else jobs
        return rest[:limit], len(rest) > limit

    def file(self, file_id: str) -> bytes:
        """Return the content of a file.

        Raises:
            NotFoundError: No file has this id.
        """
        if file_id not in self.files:
            raise NotFoundError(f"No such File object: {file_id[:100]}", status_code=404, type="invalid_request_error")
        return self.files[file_id]


BatchHandler: TypeAlias = Callable[[BatchStore, Request, dict[str, str], str], BatchReply]
"""Answers a request. The arguments are the store, the request, its path parameters and the URL of the simulator."""


def parsed_object(body: bytes) -> dict[str, Any]:
    """Return a body parsed as a JSON object.

    Raises:
        BadRequestError: The body is not a JSON object.
    """
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequestError(
            "The body of the request is not a JSON object.", status_code=400, type="invalid_request_error"
        ) from error
