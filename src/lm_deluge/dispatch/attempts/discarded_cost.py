"""The cost of attempts whose answers are discarded: providers bill them all the same."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from lm_deluge.dispatch.attempts.attempt import CallAttempt
from lm_deluge.errors import DelugeError
from lm_deluge.response import APIResponse
from lm_deluge.usage import Usage

__all__ = ["DiscardedAttempt", "DiscardedCost", "usage_of_failed"]


def usage_of_failed(attempt: CallAttempt) -> Usage | None:
    """Return the usage of an attempt that failed: reported, or estimated once it had output; None if unknown."""
    stream = attempt.stream
    return attempt.usage() if stream is not None and (stream.builder.has_deltas or stream.builder.usage) else None


class DiscardedAttempt(NamedTuple):
    """An attempt that failed, or that ended because another one had output first."""

    attempt: CallAttempt
    error: DelugeError
    usage: Usage | None

    def response(self) -> APIResponse:
        """Return what is recorded of it: its error, and what it used."""
        cost = None if self.usage is None else self.attempt.plan.cost(self.usage)
        model = self.attempt.start.route.model
        return APIResponse(error=self.error, usage=self.usage, cost=cost, model_internal=model)


class DiscardedCost(msgspec.Struct, gc=False):
    """A sum of tokens and money.

    Attributes:
        usage: The tokens, None if nothing was discarded.
        cost: US dollars, as far as there are prices; None if there are none.
    """

    usage: Usage | None = None
    cost: float | None = None

    def add(self, attempt: CallAttempt, usage: Usage | None) -> None:
        """Add the usage of an attempt."""
        if usage is None:
            return
        self.usage = self.plus(usage)
        cost = attempt.plan.cost(usage)
        if cost is not None:
            self.cost = cost + (self.cost or 0.0)

    def plus(self, usage: Usage) -> Usage:
        """Return the sum and the usage of another attempt."""
        return usage if self.usage is None else self.usage + usage

    @property
    def output_tokens(self) -> int:
        """How many of the tokens were generated."""
        return 0 if self.usage is None else self.usage.output_tokens

    def add_to(self, answer: APIResponse) -> None:
        """Add the sum to the usage and the cost of a response."""
        if self.usage is not None:
            answer.usage = self.usage if answer.usage is None else self.usage + answer.usage
        if self.cost is not None:
            answer.cost = self.cost + (answer.cost or 0.0)
