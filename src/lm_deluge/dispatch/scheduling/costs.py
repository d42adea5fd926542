"""What a request is expected to cost, by the usage of earlier requests to the same model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import msgspec

from lm_deluge.dispatch.scheduling.limiter import ReservationRequest
from lm_deluge.dispatch.scheduling.output_lengths import Expected, RecentLengths
from lm_deluge.errors import BudgetError
from lm_deluge.models.rows import CountsMaxTokens
from lm_deluge.wire.rate_limit_headers import Dimension

__all__ = ["AmountPerPeriod", "Cost", "CostEstimates", "check_fits", "units_of"]

_EXPECTED_OUTPUT_TOKENS = 1_000  # of a response, before any length is known; only the spacing uses it


def units_of(dimension: Dimension, input_tokens: float, output_tokens: float) -> float:
    """Return the units of a limit that a request with these tokens costs."""
    return {
        "requests": 1,
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "tokens": input_tokens + output_tokens,
    }[dimension]


class AmountPerPeriod(Protocol):
    """A limit: at most `amount` units of `dimension` in any `period_s` seconds."""

    @property
    def dimension(self) -> Dimension:
        """The kind of units."""
        ...

    @property
    def amount(self) -> float:
        """Number of units."""
        ...

    @property
    def period_s(self) -> float:
        """Period in seconds."""
        ...


def check_fits(request: ReservationRequest, limits: Iterable[AmountPerPeriod]) -> None:
    """Raise a BudgetError with the numbers if the input of a request alone exceeds a limit."""
    for limit in limits:
        units = units_of(limit.dimension, request.input_tokens, 0)
        if units > limit.amount:
            raise BudgetError(
                f"the request needs {units:,.0f} {limit.dimension.replace('_', ' ')}, and the limit is "
                f"{limit.amount:,.0f} in {limit.period_s:g} s: it can never be sent",
                model=request.model,
            )


class Cost(msgspec.Struct, frozen=True):
    """The estimated cost of a request: its input, the output to reserve, and the expected output."""

    input_tokens: float
    output_tokens: int
    expected: int

    def units(self, dimension: Dimension, most: float) -> float:
        """Return the units that a limit of `most` units is charged."""
        # Only the input is certain, so an output estimate above the whole limit must not exclude the request.
        return min(units_of(dimension, self.input_tokens, self.output_tokens), most)

    def expected_units(self, dimension: Dimension, most: float) -> float:
        """Return the expected units, by which a limit spaces requests."""
        return min(units_of(dimension, self.input_tokens, self.expected), self.units(dimension, most))


class CostEstimates:
    """The lengths of the recent responses of one (key, model), and the estimates that follow from them.

    Args:
        counts_max_tokens: Whether the provider charges the request's limit of output tokens.
    """

    def __init__(self, counts_max_tokens: CountsMaxTokens = "never") -> None:
        self.counts_max_tokens: CountsMaxTokens = counts_max_tokens
        self.lengths = RecentLengths()

    def estimate_cost(self, request: ReservationRequest) -> Cost:
        """Return the estimated cost of a request."""
        most, lengths = request.max_output_tokens, self.lengths
        usual = lengths.estimate(most)
        expected = usual if lengths.is_known else min(usual, _EXPECTED_OUTPUT_TOKENS)
        if self.counts_max_tokens == "never" or most is None:
            return Cost(request.input_tokens * lengths.input_share, usual, expected)
        return Cost(request.input_tokens, most, most if self.counts_max_tokens == "always" else expected)

    def overrun(self, dimension: Dimension, now: float, since: float) -> Expected:
        """Return by how much the requests in flight that left after `since` will exceed their charges."""
        output, inputs = self.lengths.in_flight(now, since)
        if dimension == "input_tokens" or self.counts_max_tokens != "never":
            output = Expected(0.0, 0.0)
        return output if dimension == "output_tokens" else output.plus(Expected(0.0, inputs))
