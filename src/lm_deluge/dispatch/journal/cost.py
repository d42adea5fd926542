"""What a batch took, added up from its journal: answers, failed attempts, requests that nobody knows of. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec

from lm_deluge.dispatch.journal.records import JournalState, payload_of
from lm_deluge.usage import Usage

__all__ = ["BatchCost", "Sum", "bill_of"]


class Sum(msgspec.Struct):
    """Several requests. `cost` is None where none of them has a price; `is_estimated`: some were counted here."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float | None = None
    is_estimated: bool = False

    def add(self, usage: Usage | None, cost: float | None) -> None:
        """Add a request."""
        self.requests += 1
        if usage is not None:
            self.input_tokens += usage.input_tokens
            self.output_tokens += usage.output_tokens
            self.is_estimated = self.is_estimated or usage.estimated
        if cost is not None:
            self.cost = (self.cost or 0.0) + cost

    def __add__(self, other: Sum) -> Sum:
        costs = [each.cost for each in (self, other) if each.cost is not None]
        return Sum(
            self.requests + other.requests,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            sum(costs) if costs else None,
            self.is_estimated or other.is_estimated,
        )


class BatchCost(msgspec.Struct):
    """A batch so far.

    Attributes:
        answers: The requests whose answers are kept.
        failed_attempts: Those that ended otherwise, whether or not another one was answered later.
        ambiguous: Those whose end nobody saw: what they took if they were answered like the call was in the end.
        ambiguous_ids: Their calls; a call that this happened to twice stands there twice.
        failures: How many calls failed for good, by class of error.
    """

    answers: Sum
    failed_attempts: Sum
    ambiguous: Sum
    ambiguous_ids: list[str]
    failures: dict[str, int]


class _Error(msgspec.Struct):
    type: str = "DelugeError"


class _Stats(msgspec.Struct):
    attempts: int = 1


class _Response(msgspec.Struct):
    stats: _Stats | None = None
    usage: Usage | None = None
    cost: float | None = None
    error: _Error | None = None
    local_cache_hit: bool = False

    def add_to(self, total: Sum) -> None:
        total.add(None if self.local_cache_hit else self.usage, self.cost)


class _Line(msgspec.Struct, rename={"kind": "type"}):
    """As much of a record as counts here: answers are not looked into."""

    kind: str
    id: str = ""
    attempt: int = 0
    response: _Response | None = None


_decoder = msgspec.json.Decoder(_Line)


def bill_of(lines: Iterable[bytes], state: JournalState) -> BatchCost:
    """Add up the lines of a journal.

    Args:
        lines: As a file opened for bytes yields them.
        state: What they say, from the same file.
    """
    ids = [call for call, _ in state.ambiguous]
    wanted: dict[str, _Response] = {}
    bill = BatchCost(Sum(), Sum(), Sum(), ids, {})
    failures: Counter[str] = Counter()
    failed: dict[str, dict[int, _Response]] = {}  # by call and attempt
    ambiguous = frozenset(ids)
    offset = 0
    for line in lines:
        start, offset = offset, offset + len(line)
        payload = payload_of(line)
        found = None if payload is None else _decoder.decode(payload)
        if found is None or found.response is None:
            continue
        _take_back(failed.get(found.id, {}), found.attempt, found.response, bill.failed_attempts)
        if found.kind == "done":
            found.response.add_to(bill.answers)
            if found.id in ambiguous:
                wanted[found.id] = found.response
            continue
        if found.attempt:  # else nothing was sent
            failed.setdefault(found.id, {})[found.attempt] = found.response
        if state.failed.get(found.id) == start:
            failures[_kind_of(found.response)] += 1
    for attempts in failed.values():
        for response in attempts.values():
            response.add_to(bill.failed_attempts)
    for call in ids:
        wanted.get(call, _Response()).add_to(bill.ambiguous)
    bill.ambiguous.is_estimated = bool(ids)
    bill.failures = dict(failures)
    return bill


def _take_back(failed: dict[int, _Response], attempt: int, response: _Response, total: Sum) -> None:
    """Count attempts without what they took that a later word has in its sum: that of a call has all of its own run."""
    covered = 1 if response.stats is None else response.stats.attempts
    for number in [each for each in failed if each > attempt - covered]:
        if number != attempt:
            total.requests += 1
        del failed[number]


def _kind_of(response: _Response) -> str:
    return "DelugeError" if response.error is None else response.error.type
