"""The slots that one process holds for one (key, model), and the calls that wait for a slot. Pure."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping

import msgspec

from lm_deluge.dispatch.scheduling.costs import Cost, CostEstimates
from lm_deluge.dispatch.scheduling.limiter import ReservationRequest, Ticket
from lm_deluge.dispatch.scheduling.local_limiter import LocalLimiter
from lm_deluge.dispatch.scheduling.output_lengths import AnswerLength
from lm_deluge.dispatch.scheduling.shared.configuration import SharedRoute
from lm_deluge.dispatch.scheduling.shared.reply import GroupReply
from lm_deluge.dispatch.scheduling.shared.server_view import GroupView, LimitView

__all__ = ["HORIZON_S", "Reservation", "RouteSlots", "Slot"]

_LEASE_S = 0.05  # slots of so many seconds per exchange: eight for 10,000 requests a minute, one below 1,200
HORIZON_S = 0.1  # slots that come within this time may be added, as long as no other process is in the way
_MOST_SLOTS = 64  # per exchange, each of which holds up the server for microseconds per slot
_RESOLUTION_S = 1e-4  # of moments that were converted between two clocks, with some room
_COSTS_KEPT = 16  # a slot without a call yet has the highest of so many costs, so that nearly every call fits


class Slot(msgspec.Struct, eq=False):
    """A moment at which one request may leave.

    Attributes:
        at: The moment, by the own clock.
        server_at: The same moment by the server's clock.
        cost: The reserved cost.
        limits: The limits as they were at the reservation.
        tat_after: The theoretical arrival time of each of them after the reservation, by the own clock.
    """

    at: float
    server_at: float
    cost: Cost
    limits: list[LimitView]
    tat_after: list[float]


class Reservation(msgspec.Struct, eq=False):
    """A ticket that is not yet released.

    Attributes:
        request: The request.
        route: The slots of its (key, model).
        cost: Its estimated cost.
        slot: Its slot; None while it waits for one.
        local: The ticket of the process's own limiter, which is used while the server is not reachable.
        share: That limiter; each outage has another one.
        answer: The record of its length; None before the slot is known.
        is_asked: Whether a slot for it has been asked for.
        is_resumed: Whether it was in flight when the process's own limiter took over.
        admitted_at: When its request was admitted by the shared limiter; infinite before.
    """

    request: ReservationRequest
    route: RouteSlots
    cost: Cost
    slot: Slot | None = None
    local: Ticket | None = None
    share: LocalLimiter | None = None
    answer: AnswerLength | None = None
    is_asked: bool = False
    is_resumed: bool = False
    admitted_at: float = math.inf

    def begin(self, at: float) -> None:
        """Count it as in flight from its slot on."""
        route, request = self.route, self.request
        route.in_flight += 1
        route.last_slot_at = max(route.last_slot_at, at)
        self.answer = route.lengths.begin(at, request.input_tokens, self.cost.output_tokens, request.max_output_tokens)

    def begin_again(self, now: float) -> None:
        """Let it wait for another slot: its request has not left."""
        self.route.in_flight -= 1
        if self.answer is not None:
            self.route.lengths.end(self.answer, now, None)
        self.slot = self.local = self.share = self.answer = None
        self.is_asked = False

    def opens_at(self, now: float) -> float:
        """Return when the request may leave; infinite while that is not known."""
        if self.slot is not None:
            return max(now, self.slot.at)
        return math.inf if self.local is None else self.local.at


class RouteSlots(CostEstimates):
    """The slots of one (key, model).

    Attributes:
        views: The groups of limits that apply, as the server had them last; the own group is the last.
        slots: Slots without a call, by time.
        waiting: Reservations without a slot, in order.
        closed_until: End of the pause that a refusal of this process's own demands.
        is_full: Whether the last request for a slot found no more room for requests in flight.
        is_known: Whether the server has shown the limits.
        in_flight: Reservations with a slot, by either limiter.
    """

    def __init__(self, configuration: SharedRoute) -> None:
        super().__init__(configuration.counts_max_tokens)
        self.parts = configuration.parts
        self.views = [GroupView() for _ in self.parts]
        self.slots: deque[Slot] = deque()
        self.waiting: deque[Reservation] = deque()
        self.closed_until = -math.inf
        self.is_full = self.is_known = False
        self.in_flight = 0
        self.last_slot_at = -math.inf
        self._recent: deque[Cost] = deque(maxlen=_COSTS_KEPT)

    def show(self, state: int, groups: Mapping[str, GroupReply], now: float) -> None:
        """Take the limits of a state as a reply has them."""
        for place, part in enumerate(self.parts):
            if part.state == state and part.group in groups:
                self.views[place] = GroupView.read(groups[part.group], now)
                self.is_known = True

    def begin_again(self) -> None:
        """Forget the slots and the reservations."""
        self.slots.clear()
        self.waiting.clear()
        self.in_flight = 0

    @property
    def limits(self) -> Iterator[LimitView]:
        """All limits that apply."""
        return (limit for view in self.views for limit in view.limits)

    @property
    def has_token_limits(self) -> bool:
        """Whether the cost of a request matters."""
        return any(limit.dimension != "requests" for limit in self.limits)

    @property
    def is_limited_at_once(self) -> bool:
        """Whether the number of requests in flight is limited."""
        return any(view.allowed is not None for view in self.views)

    @property
    def busy(self) -> int:
        """Requests in flight, and slots that are held for further ones."""
        return self.in_flight + len(self.slots)

    def opens_at(self) -> float:
        """Return the end of the pause that the provider asked for."""
        return max(self.closed_until, self.views[-1].opens_at)

    def next_at(self) -> float:
        """Return when the next request may leave, as far as the last reply shows it."""
        moment, free_at = self.opens_at(), self.views[-1].free_at
        for limit in self.limits:
            moment = max(moment, min(limit.opens_at, free_at) if limit.dimension == "requests" else limit.opens_at)
        return moment

    def estimate(self, request: ReservationRequest) -> Cost:
        """Return the estimated cost of a request, and remember it for the slots of later ones."""
        cost = self.estimate_cost(request)
        self._recent.append(cost)
        return cost

    def usual_cost(self) -> Cost:
        """Return the cost that is reserved for a call which is not known yet."""
        if not self._recent:
            return Cost(0, 0, 0)
        return Cost(
            max(cost.input_tokens for cost in self._recent),
            max(cost.output_tokens for cost in self._recent),
            max(cost.expected for cost in self._recent),
        )

    def fits(self, slot: Slot, cost: Cost) -> bool:
        """Whether a slot has room for a request of this cost."""
        if not self.has_token_limits:
            return True
        return cost.input_tokens <= slot.cost.input_tokens and cost.output_tokens <= slot.cost.output_tokens

    def find(self, cost: Cost, now: float, late_s: float) -> Slot | None:
        """Return the first slot that a request may use, at most `late_s` after it."""
        opens_at = self.opens_at()
        for slot in self.slots:
            if slot.at >= now - late_s and slot.at >= opens_at - _RESOLUTION_S and self.fits(slot, cost):
                return slot
        return None

    def put(self, slot: Slot) -> None:
        """Keep a slot for a later call."""
        place = len(self.slots)
        while place and self.slots[place - 1].at > slot.at:
            place -= 1
        self.slots.insert(place, slot)

    def expired(self, now: float, late_s: float, *, is_all: bool) -> list[Slot]:
        """Remove and return the slots that no call can use any more, or all of them."""
        opens_at = self.opens_at()
        gone = [slot for slot in self.slots if is_all or slot.at < max(now - late_s, opens_at - _RESOLUTION_S)]
        for slot in gone:
            self.slots.remove(slot)
        return gone

    def seconds_each(self) -> float:
        """Return the time between two requests that the limits demand."""
        cost = self.usual_cost()
        return max(
            (limit.spacing_s * cost.expected_units(limit.dimension, limit.amount) for limit in self.limits), default=0.0
        )

    def lease(self, waiting: int) -> tuple[int, int]:
        """Return how many slots to ask for at most if so many calls wait, and how many whatever their time is."""
        each_s = self.seconds_each()
        if not self.is_known:
            return 1, 1
        if not each_s:
            return min(waiting, _MOST_SLOTS), _MOST_SLOTS
        most = max(1, min(_MOST_SLOTS, int(HORIZON_S / each_s)))
        return min(waiting, most), max(1, min(_MOST_SLOTS, int(_LEASE_S / each_s)))
