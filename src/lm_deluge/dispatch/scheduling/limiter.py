"""The port of the limiter: what is asked of it, what it answers. Plain values, so that it may stand on another machine.

How a runner uses it, for each call:

1. `reserve(request, now)` when the call is next in its queue. All limits are taken at once, or none. The ticket names
   the moment at which the request may leave: sleep until then, then send; nothing is asked twice. None means that every
   place is taken: ask again after the next `settle` or `release`.
2. `observe(...)` as soon as the head of an answer is there (status, rate-limit headers), and for an error in a stream.
3. Exactly one of `settle(ticket, usage, now)` (the answer ended, the provider said what it cost) and
   `release(ticket, now, ...)` (cancelled, failed, or never sent). A second one changes nothing.

`now` and all moments are monotonic seconds of one clock, chance a number from 0 to 1; the limiter reads neither itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

import msgspec

from lm_deluge.errors import ConfigurationError
from lm_deluge.usage import Usage
from lm_deluge.wire.rate_limit_headers import MINUTE_S, Dimension, RateLimit

__all__ = ["Limit", "Limiter", "Observation", "ReservationRequest", "Ticket"]


class Limit(msgspec.Struct, frozen=True):
    """At most `amount` units of `dimension` in any `period_s` seconds.

    `burst_s` is how many seconds' worth may leave at once; left alone, a six-hundredth of a period up to ten minutes
    (longer ones, a day's say, are not spread evenly: half of their amount may leave at once).

    Raises:
        ConfigurationError: A value is not a number above 0.
    """

    dimension: Dimension
    amount: float
    period_s: float = MINUTE_S
    burst_s: float | None = None

    def __post_init__(self) -> None:
        for name in ("amount", "period_s"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise ConfigurationError(f"Limit.{name}={value!r} is not a number above 0")
        if self.burst_s is not None and not 0 <= self.burst_s < math.inf:
            raise ConfigurationError(f"Limit.burst_s={self.burst_s!r} is not a number of 0 or more")


class ReservationRequest(msgspec.Struct, frozen=True):
    """What a request will cost, as far as it is known before it is sent.

    Attributes:
        model: Our name of the model.
        key: Which of several keys of the provider; any name that tells them apart, never the key itself.
        input_tokens: An upper bound; bytes of the prompt / 3.5, say.
        max_output_tokens: The request's own limit. Reserved is what the model usually writes, never more than this;
            all of it at providers that count so.
    """

    model: str
    key: str = ""
    input_tokens: int = 0
    max_output_tokens: int | None = None


class Ticket(msgspec.Struct, frozen=True):
    """Leave to send one request at `at`, not before. Holds a place among the concurrent ones until it is given back."""

    id: int
    model: str
    key: str
    at: float
    input_tokens: int
    output_tokens: int


class Observation(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What an answer tells about limits.

    Attributes:
        ticket: The request's.
        status: HTTP status; for an error inside a stream the one that it stands for.
        sent_at: When the request left, by the clock of `now`.
        rate_limits: From `parse_rate_limits(headers)`.
        retry_after_s: How long the provider wants to be left alone.
        dimension: Which limit was hit, where the error's code says so; None closes all of the (key, model).
        delay_s: A sample of the way there and back: `HttpHead.delay_s`. The longest lately is the jitter to allow for.
        chance: Drawn anew each time.
    """

    ticket: Ticket
    status: int
    sent_at: float
    rate_limits: Mapping[str, RateLimit] = {}
    retry_after_s: float | None = None
    dimension: Dimension | None = None
    delay_s: float | None = None
    chance: float = 0.5


class Limiter(Protocol):
    """Where limits are kept: in this process (`LocalLimiter`), or in a place that several processes share."""

    @property
    def has_room(self) -> bool:
        """False where every place of all models together is taken, so that nothing can be reserved.

        An implementation without this may always say True.
        """
        ...

    def reserve(self, request: ReservationRequest, now: float, *, before: Ticket | None = None) -> Ticket | None:
        """Reserve a slot under all limits at once; None, and nothing is reserved, where every place is taken.

        `before` asks for a slot right now that does not delay that ticket, which waits for its own; None where there is
        no such gap. That is mostly for another model: under limits that both share, a slot in the future leaves what
        comes before it free. An implementation without this may always return None to it.

        Raises:
            BudgetError: The request can never fit. The message has the numbers.
        """
        ...

    def advance(self, ticket: Ticket, now: float) -> Ticket:
        """Return the ticket with an earlier slot, where what was given back since allows one; else as it is.

        An implementation without this may always return the ticket as it is.
        """
        ...

    def check(self, request: ReservationRequest) -> None:
        """Raise the BudgetError that `reserve` would raise; reserve nothing."""
        ...

    def earliest(self, request: ReservationRequest, now: float) -> float:
        """Return when a reservation made now would let the request go; infinite where every place is taken."""
        ...

    def opens_at(self, model: str, key: str, now: float) -> float:
        """Return until when the provider wants this (key, model) left alone; `now` where it does not."""
        ...

    def limited_by(self, now: float) -> str | None:
        """Return what holds calls back at the moment, in words; None where nothing does.

        An implementation without this may always return None.
        """
        ...

    def settle(self, ticket: Ticket, usage: Usage, now: float) -> None:
        """Give the place back and correct the reservation to what the answer cost."""
        ...

    def release(self, ticket: Ticket, now: float, *, was_sent: bool = True, delivered: Usage | None = None) -> None:
        """Give the place back without a bill.

        What was never sent is refunded. What was sent stays charged: its input as reserved, its output as delivered,
        or as reserved where nobody counted.
        """
        ...

    def observe(self, observation: Observation, now: float) -> None:
        """Learn from an answer's status and headers. Before `settle` or `release` of the same ticket."""
        ...
