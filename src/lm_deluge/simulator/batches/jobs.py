"""Batches that the simulator took: their requests, how far they are, and what they end with."""

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
    "BatchJob",
    "BatchReply",
    "BatchRequest",
    "BatchStore",
    "Batches",
    "Outcome",
    "parsed_object",
]

Outcome: TypeAlias = Literal["answered", "expired", "cancelled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batches:
    """What becomes of batches.

    Attributes:
        seconds: Until a batch is over.
        polls: How many polls it takes besides: so many say that it is under way.
        ends: `ended`, `expired` (a day was not enough), or `failed` (the provider refuses all of it).
        finished: How many requests are answered before a batch expires or is cancelled; none by default.
        is_shuffled: The results come in another order than the requests did.
    """

    seconds: float = 0.0
    polls: int = 0
    ends: Literal["ended", "expired", "failed"] = "ended"
    finished: int = 0
    is_shuffled: bool = False


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """One request of a batch, and what it is answered with."""

    name: str
    status: int
    body: bytes = field(repr=False)


@dataclass(slots=True)
class BatchJob:
    """A batch.

    Attributes:
        name: The client's own: of the metadata, or what is displayed.
        detail: What the API tells of it beside its state.
        refusal: Why all of it is refused, empty where it is not.
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
        """How far it is."""
        if self.refusal:
            return "failed"
        if self.is_cancelled:
            return "cancelled"
        is_over = self.polls > self.plan.polls and time.time() >= self.created + self.plan.seconds
        return self.plan.ends if is_over else "in_progress"

    def outcomes(self) -> list[tuple[BatchRequest, Outcome]]:
        """Return its requests and what became of each, in the order of the results."""
        phase = self.phase
        whole = len(self.requests) if phase == "ended" else self.plan.finished
        left: Outcome = "cancelled" if phase == "cancelled" else "expired"
        found: list[tuple[BatchRequest, Outcome]] = [
            (each, "answered" if number < whole else left) for number, each in enumerate(self.requests)
        ]
        if self.plan.is_shuffled:
            shuffled = random.Random(self.id).sample(found, len(found))  # noqa: S311 - to be repeatable, not secret
            return shuffled if shuffled != found else found[::-1]
        return found

    def counts(self) -> dict[Outcome | Literal["errors", "total", "under_way"], int]:
        """Return how many requests are over, and how."""
        total = len(self.requests)
        phase = self.phase
        if phase in ("in_progress", "failed"):
            return {"total": total, "under_way": total, "answered": 0, "errors": 0, "expired": 0, "cancelled": 0}
        outcomes = self.outcomes()
        errors = sum(outcome == "answered" and each.status >= 400 for each, outcome in outcomes)  # noqa: PLR2004
        ends = [outcome for _, outcome in outcomes]
        return {
            "total": total,
            "under_way": 0,
            "answered": ends.count("answered") - errors,
            "errors": errors,
            "expired": ends.count("expired"),
            "cancelled": ends.count("cancelled"),
        }


@dataclass(frozen=True, slots=True)
class BatchReply:
    """What a request is answered with."""

    data: bytes
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, content: Any, *headers: tuple[str, str]) -> BatchReply:
        """Return a document."""
        return cls(msgspec.json.encode(content), headers=headers)

    @classmethod
    def of_lines(cls, lines: Sequence[Any]) -> BatchReply:
        """Return lines of JSON."""
        data = b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
        return cls(data, "application/octet-stream")


AnswerRequest: TypeAlias = Callable[[str, bytes, dict[str, Any]], tuple[int, bytes]]


class BatchStore:
    """All batches and files of a simulator.

    Args:
        plan: What becomes of batches.
        answer: Answers a request, given its wire API, its body and what its path says, with a status and a body.
    """

    def __init__(self, plan: Batches, answer: AnswerRequest) -> None:
        self.jobs: dict[str, BatchJob] = {}
        self.files: dict[str, bytes] = {}
        self.plan = plan
        self._answer = answer
        self._last = 0

    def new_id(self, prefix: str) -> str:
        """Return an id that nothing has."""
        self._last += 1
        return f"{prefix}sim{self._last:06}"

    def answer(self, name: str, api: str, body: Any, **asked: Any) -> BatchRequest:
        """Return a request with its answer, which a script gives."""
        return BatchRequest(name, *self._answer(api, msgspec.json.encode(body), {**asked, "is_streamed": False}))

    def add(self, prefix: str, api: str, requests: Sequence[BatchRequest], **fields: Any) -> BatchJob:
        """Take a batch."""
        job = BatchJob(self.new_id(prefix), api, self.plan, requests, time.time(), **fields)
        self.jobs[job.id] = job
        return job

    def find(self, job_id: str, api: str) -> BatchJob:
        """Return a batch.

        Raises:
            NotFoundError: There is none.
        """
        job = self.jobs.get(job_id)
        if job is None or job.api != api:
            raise NotFoundError(f"No batch found with id '{job_id[:100]}'.", status_code=404, type="not_found_error")
        return job

    def list(self, api: str) -> list[BatchJob]:
        """Return the batches of an API, newest first."""
        return [job for job in reversed(self.jobs.values()) if job.api == api]

    def page(self, api: str, after: str | None, limit: int) -> tuple[Sequence[BatchJob], bool]:
        """Return so many of them behind one, from the first where there is no such one; and whether there are more."""
        jobs = self.list(api)
        ids = [job.id for job in jobs]
        rest = jobs[ids.index(after) + 1 :] if after in ids else jobs
        return rest[:limit], len(rest) > limit

    def file(self, file_id: str) -> bytes:
        """Return what a file holds.

        Raises:
            NotFoundError: There is none.
        """
        if file_id not in self.files:
            raise NotFoundError(f"No such File object: {file_id[:100]}", status_code=404, type="invalid_request_error")
        return self.files[file_id]


BatchHandler: TypeAlias = Callable[[BatchStore, Request, dict[str, str], str], BatchReply]
"""Answers a request: the store, the request, what its path says, and the URL of the simulator."""


def parsed_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object that a request holds.

    Raises:
        BadRequestError: It holds none.
    """
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequestError(
            "The body of the request is no JSON object.", status_code=400, type="invalid_request_error"
        ) from error
