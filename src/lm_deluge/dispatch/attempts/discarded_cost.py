"""What the attempts of a call have cost whose answers nobody keeps: providers bill them all the same."""

from __future__ import annotations

import msgspec

from lm_deluge.dispatch.attempts.attempt import Leg
from lm_deluge.response import APIResponse
from lm_deluge.usage import Usage

__all__ = ["Spending", "spent_by"]


def spent_by(leg: Leg) -> Usage | None:
    """Return what a leg took that failed: as reported, or estimated once it said something; None: nothing is known."""
    attempt = leg.attempt
    return leg.usage() if attempt is not None and (attempt.builder.has_deltas or attempt.builder.usage) else None


class Spending(msgspec.Struct, gc=False):
    """A sum of tokens and money."""

    _usage: Usage | None = None
    _cost: float | None = None

    @property
    def cost(self) -> float:
        """US dollars, as far as there are prices."""
        return self._cost or 0.0

    def add(self, leg: Leg) -> None:
        """Add what a leg has cost that failed."""
        self._add(leg, spent_by(leg))

    def add_left(self, leg: Leg) -> None:
        """Add what a leg has cost that was left although nothing was wrong with it: its input in any case."""
        self._add(leg, leg.usage_when_left())

    def _add(self, leg: Leg, usage: Usage | None) -> None:
        if usage is None:
            return
        self._usage = usage if self._usage is None else self._usage + usage
        cost = leg.plan.cost(usage)
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
