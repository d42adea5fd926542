"""What the attempts of a call have cost whose answers nobody keeps: providers bill them all the same."""

from __future__ import annotations

import msgspec

from lm_deluge.dispatch.attempts.attempt import CallAttempt
from lm_deluge.response import APIResponse
from lm_deluge.usage import Usage

__all__ = ["DiscardedCost", "spent_by"]


def spent_by(attempt: CallAttempt) -> Usage | None:
    """Return what a leg took that failed: as reported, or estimated once it said something; None: nothing is known."""
    stream = attempt.stream
    return attempt.usage() if stream is not None and (stream.builder.has_deltas or stream.builder.usage) else None


class DiscardedCost(msgspec.Struct, gc=False):
    """A sum of tokens and money."""

    _usage: Usage | None = None
    _cost: float | None = None

    @property
    def cost(self) -> float:
        """US dollars, as far as there are prices."""
        return self._cost or 0.0

    def add(self, attempt: CallAttempt) -> None:
        """Add what a leg has cost that failed."""
        self._add(attempt, spent_by(attempt))

    def add_left(self, attempt: CallAttempt) -> None:
        """Add what a leg has cost that was left although nothing was wrong with it: its input in any case."""
        self._add(attempt, attempt.usage_when_left())

    def _add(self, attempt: CallAttempt, usage: Usage | None) -> None:
        if usage is None:
            return
        self._usage = usage if self._usage is None else self._usage + usage
        cost = attempt.plan.cost(usage)
        if cost is not None:
            self._cost = cost + (self._cost or 0.0)

    def plus(self, usage: Usage) -> Usage:
        """Return the sum of it and of what another attempt has cost."""
        return usage if self._usage is None else self._usage + usage

    @property
    def output_tokens(self) -> int:
        """How many of the tokens were generated."""
        return 0 if self._usage is None else self._usage.output_tokens

    def add_to(self, answer: APIResponse) -> None:
        """Add the sum to an answer's own."""
        if self._usage is not None:
            answer.usage = self._usage if answer.usage is None else self._usage + answer.usage
        if self._cost is not None:
            answer.cost = self._cost + (answer.cost or 0.0)
