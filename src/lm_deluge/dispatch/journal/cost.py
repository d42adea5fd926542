"""Requests, tokens and cost of a batch, added up from its journal: answered, failed and ambiguous attempts. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable

import msgspec

from lm_deluge.dispatch.journal.records import JournalState, payload_of
from lm_deluge.usage import Usage

__all__ = ["BatchCost", "Sum", "batch_cost"]


_MOST_TOKENS = 2**53  # the largest integer that every JSON reader keeps exactly, and far above any request


class Sum(msgspec.Struct):
    """Tokens and cost (US dollars) of several requests.

    `cost` is None if no request has a price. `is_estimated` is true if the usage of a request was not reported.
    """

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float | None = None
    is_estimated: bool = False

    def add(self, usage: Usage | None, cost: float | None) -> None:
        """Add one request."""
        self.requests += 1
        # A count that no request can have is as good as none, and would spoil the sum.
        if usage is not None and max(usage.input_tokens, usage.output_tokens) <= _MOST_TOKENS:
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
    """The cost of a batch so far.

    Attributes:
        answers: The requests whose answers the journal has.
        failed_attempts: The requests that failed, whether or not a later attempt at the same call succeeded.
        ambiguous: The requests without a recorded outcome. Each is estimated as the final answer to its call.
        ambiguous_ids: The calls of the ambiguous requests; a call with two such requests is listed twice.
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
    """The fields of a record that the cost needs; the answer's content is not decoded."""

    kind: str
    id: str = ""
    attempt: int = 0
    response: _Response | None = None


_decoder = msgspec.json.Decoder(_Line)


def batch_cost(lines: Iterable[bytes], state: JournalState, counted: Container[str] | None = None) -> BatchCost:
    """Add up the lines of a journal. A line that cannot be read adds nothing.

    Args:
        lines: The lines of the journal, as a file opened in binary mode yields them.
        state: The state that was built from the same lines.
        counted: The calls whose failures are counted by class; None for all. Money is counted for all in any case.
    """
    ids = [call for call, _ in state.ambiguous]
    answers: dict[str, _Response] = {}  # of the calls with an ambiguous attempt
    cost = BatchCost(Sum(), Sum(), Sum(), ids, {})
    failures: Counter[str] = Counter()
    failed: dict[str, dict[int, _Response]] = {}  # by call and attempt
    ambiguous = frozenset(ids)
    offset = 0
    for line in lines:
        start, offset = offset, offset + len(line)
        payload = payload_of(line)
        found = None if payload is None else _parsed(payload)
        if found is None or found.response is None:
            continue
        _drop_covered(failed.get(found.id, {}), found.attempt, found.response, cost.failed_attempts)
        if found.kind == "done":
            found.response.add_to(cost.answers)
            if found.id in ambiguous:
                answers[found.id] = found.response
            continue
        if found.attempt:  # attempt 0: nothing was sent
            failed.setdefault(found.id, {})[found.attempt] = found.response
        if state.failed.get(found.id) == start and (counted is None or found.id in counted):
            failures[_kind_of(found.response)] += 1
    for attempts in failed.values():
        for response in attempts.values():
            response.add_to(cost.failed_attempts)
    for call in ids:
        answers.get(call, _Response()).add_to(cost.ambiguous)
    cost.ambiguous.is_estimated = bool(ids)
    cost.failures = dict(failures)
    return cost


def _parsed(payload: bytes) -> _Line | None:
    try:
        return _decoder.decode(payload)
    except (ValueError, RecursionError):
        return None


def _drop_covered(failed: dict[int, _Response], attempt: int, response: _Response, total: Sum) -> None:
    """Count earlier attempts as requests, but drop their usage: the response includes that of all attempts of its run.

    Args:
        failed: The failed attempts at the call so far, by number; covered attempts are removed.
        attempt: The attempt that ended with the response.
        response: The later response.
        total: Where the dropped attempts are counted.
    """
    covered = 1 if response.stats is None else response.stats.attempts
    for number in [each for each in failed if each > attempt - covered]:
        if number != attempt:
            total.requests += 1
        del failed[number]


def _kind_of(response: _Response) -> str:
    return "DelugeError" if response.error is None else response.error.type
