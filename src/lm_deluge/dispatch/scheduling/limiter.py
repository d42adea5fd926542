"""The protocol of limiters. All arguments are plain values, so a limiter may run in another process.

A runner calls, for each request:

1. `reserve(request, now)` when the call is next in its queue. All limits are reserved at once, or none. The ticket
   contains the moment at which the request may leave: sleep until then and send, without another question. An infinite
   moment is not known yet: the limiter wakes the runner when `advance` will return it. None means that no more requests
   may be in flight: ask again after the next `settle` or `release`.
2. `observe(...)` as soon as the head of the response arrived (status, rate-limit headers), and for an error event in a
   stream.
3. Exactly one of `settle(ticket, usage, now)` (the response is complete, and its usage known) and
   `release(ticket, now, ...)` (cancelled, failed, or never sent). A second call changes nothing.

`now` and all moments are monotonic seconds of one clock, `chance` is a random number from 0 to 1. The limiter itself
reads no clock and draws no numbers.
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

    `burst_s` is the number of seconds whose amount may leave at once. Default: 1/600 of the period for requests, 1/120
    for tokens, which a sliding window limits in addition. The amount of a period longer than ten minutes, of a day for
    example, is not spread evenly: half of it may leave at once.

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
    """The cost of a request as far as it is known before sending.

    Attributes:
        model: The model's id in the registry.
        key: A name for one of several keys of the provider, never the key itself.
        input_tokens: An upper bound, for example the prompt's characters / 3.5.
        max_output_tokens: The limit that the request contains. The usual output of the model is reserved, at most this
            limit; with providers that charge the limit itself, all of it.
        is_interactive: A user waits for it, so it goes before the requests of other processes' batches.
    """

    model: str
    key: str = ""
    input_tokens: int = 0
    max_output_tokens: int | None = None
    is_interactive: bool = False


class Ticket(msgspec.Struct, frozen=True):
    """Permission to send one request at the moment `at` or later. It counts as a request in flight until released."""

    id: int
    model: str
    key: str
    at: float
    input_tokens: int
    output_tokens: int


class Observation(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """The facts about limits in the head of a response, or in an error.

    Attributes:
        ticket: The ticket of the request.
        status: HTTP status; for an error event in a stream the equivalent status.
        sent_at: When the request left, by the clock of `now`.
        rate_limits: Result of `parse_rate_limits(headers)`.
        retry_after_s: Seconds for which the provider asks not to send.
        dimension: The limit that was exceeded, if the error names it; None pauses all limits of the (key, model).
        delay_s: A sample of the network's round-trip time: `HttpHead.delay_s`. The longest recent one is the jitter to
            allow for.
        chance: Random number from 0 to 1, a new one for each observation.
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
    """Enforces limits: within this process (`LocalLimiter`), or shared by several processes."""

    @property
    def has_room(self) -> bool:
        """False if no further request of any model may be in flight, so that `reserve` would return None.

        An implementation may always return True.
        """
        ...

    def reserve(self, request: ReservationRequest, now: float, *, before: Ticket | None = None) -> Ticket | None:
        """Reserve a slot under all limits at once.

        Args:
            request: The cost to reserve.
            now: The present moment.
            before: Backfill: reserve a slot for now that does not delay this ticket, which waits for its own slot. Used
                mostly for another model: under a shared limit, a slot in the future leaves the time before it unused.

        Returns:
            The ticket; None, with nothing reserved, if no more requests may be in flight or no gap before `before` is
            large enough. An implementation may always return None if `before` is given.

        Raises:
            BudgetError: The request can never fit. The message contains the numbers.
        """
        ...

    def advance(self, ticket: Ticket, now: float) -> Ticket:
        """Return the ticket with an earlier slot if corrections since its reservation allow one; else unchanged.

        A slot that has come is used with this call. If it has passed too long ago to be used, the ticket has a later
        one. An implementation may always return the ticket unchanged.
        """
        ...

    def check(self, request: ReservationRequest) -> None:
        """Raise the BudgetError that `reserve` would raise, without reserving anything."""
        ...

    def earliest(self, request: ReservationRequest, now: float) -> float:
        """Return the slot that a reservation made now would get; infinite if no more requests may be in flight."""
        ...

    def opens_at(self, model: str, key: str, now: float) -> float:
        """Return the end of the pause that the provider asked for at this (key, model); `now` without a pause."""
        ...

    def limited_by(self, now: float) -> str | None:
        """Return a description of the limits that delay calls at present; None without any.

        An implementation may always return None.
        """
        ...

    def settle(self, ticket: Ticket, usage: Usage, now: float) -> None:
        """Release the ticket and correct the reservation to the actual usage."""
        ...

    def release(self, ticket: Ticket, now: float, *, was_sent: bool = True, delivered: Usage | None = None) -> None:
        """Release the ticket of a request whose usage is not known.

        A request that was never sent is refunded. Of a request that was sent, the input stays charged as reserved, and
        the output as delivered; if `delivered` is None, as reserved.
        """
        ...

    def observe(self, observation: Observation, now: float) -> None:
        """Learn from a response's status and headers, before `settle` or `release` of the same ticket."""
        ...
