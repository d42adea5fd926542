"""The limiter of several processes, as one of them has it: implements `limiter.Limiter`. Pure.

`reserve` does not wait. Without a slot at hand it returns a ticket for an infinite moment; the next exchange with the
server asks for a slot, and `advance` returns the ticket with its moment after the reply. `link.py` exchanges.

An exchange carries everything since the last one: reservations that wait, slots to give back, corrections of costs,
what responses have shown. One script of the server (`limits.lua`) applies it at once.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable
from typing import Any

import msgspec

from lm_deluge.dispatch.scheduling.costs import Cost, check_fits
from lm_deluge.dispatch.scheduling.limiter import Observation, ReservationRequest, Ticket
from lm_deluge.dispatch.scheduling.local_limiter import LocalLimiter
from lm_deluge.dispatch.scheduling.shared.configuration import SharedConfiguration
from lm_deluge.dispatch.scheduling.shared.exchange import LimiterExchange, Reports, Want, wants_of
from lm_deluge.dispatch.scheduling.shared.fair_share import fair_share
from lm_deluge.dispatch.scheduling.shared.lateness import LEAST_LATENESS_S, Lateness
from lm_deluge.dispatch.scheduling.shared.length_exchange import LengthExchange
from lm_deluge.dispatch.scheduling.shared.own_state import (
    count_busy,
    describe_delays,
    describe_groups,
    measure_overruns,
    shortest_period_s,
)
from lm_deluge.dispatch.scheduling.shared.reply import SlotsReply, StateReply, read_reply
from lm_deluge.dispatch.scheduling.shared.route import Reservation, RouteSlots, Slot
from lm_deluge.dispatch.scheduling.shared.server_view import ServerClock
from lm_deluge.usage import Usage
from lm_deluge.wire.rate_limit_headers import MINUTE_S

__all__ = ["SharedLimiter"]

_USUAL_JITTER_S = 1.0  # for a minute, as the script assumes it until enough processes have measured
_NEAR_S = 1.0  # an interactive call takes no slot of a batch that is further ahead: one of those kept for it is nearer
_CORRECTIONS_WAIT_S = 0.1  # so that most of them travel with a reservation
_HEARTBEAT_S = 5.0  # a third of the lease after which the server takes a process for dead
_FAR_S, _CHECK_S = 1.0, 0.03  # before a slot that was so far ahead, ask whether the provider has refused others since
_FULL_RETRY_S = 0.25  # until a process asks again for a place among the requests in flight, which has no known time
_OVERRUN_KEPT_S = 0.2  # as in the local limiter: it is a sum over all requests in flight


class SharedLimiter:
    """The limits that this process shares with others.

    Args:
        configuration: The limits, and the keys under which the server keeps their state.
        process: A name of this process that no other one has.
        processes: How many processes share the limits, as far as it is known before the server shows it.

    Attributes:
        is_reachable: Whether the last exchange succeeded. Otherwise this process uses its share of the limits.
        waiting: Returns how many calls of this process wait to be admitted.
        on_work: Called when an exchange is due; it may be called again before that.
    """

    def __init__(self, configuration: SharedConfiguration, process: str, *, processes: int = 1) -> None:
        self.configuration = configuration
        self.is_reachable = True
        self.waiting: Callable[[], int] = lambda: 1
        self.on_work: Callable[[], None] = lambda: None
        self.clock = ServerClock()
        self._process = process
        self._routes: dict[tuple[str, str], RouteSlots] = {}
        self._ids = itertools.count(1)
        self._open: dict[int, Reservation] = {}
        self._reports = Reports()
        self._lateness = Lateness()
        self._lengths = LengthExchange()
        self._share: LocalLimiter | None = None
        self._shared_ids: dict[str, str] = {}  # of each state: changes when the server lost it
        self._processes = dict.fromkeys(configuration.keys, processes)
        self._joined = 0  # groups that the server knows
        self._is_lost = self._is_clock_new = False
        self._jitter_s: float | None = None
        self._urgent_since: float | None = None
        self._corrected_since: float | None = None
        self._exchanged_at = self._lost_at = -math.inf
        self._checks: list[float] = []
        self._overruns: tuple[float, list[dict[str, Any]]] = (-math.inf, [])
        for model, key in configuration.routes:
            self._route(model, key)

    def _route(self, model: str, key: str) -> RouteSlots:
        route = self._routes.get((model, key))
        if route is None:
            known = self.configuration.routes.get((model, key)) or self.configuration.add(model, key)
            route = self._routes[model, key] = RouteSlots(known)
        return route

    @property
    def processes(self) -> int:
        """How many processes share the limits, as the server had it last."""
        return max(self._processes.values())

    def begin_in_child(self, process: str) -> None:
        """Start again in the child of a fork, under a name of its own: tickets and slots are the parent's."""
        self._process = process
        self._shared_ids.clear()
        self._joined = 0
        self._open.clear()
        self._checks.clear()
        for route in self._routes.values():
            route.begin_again()

    # Reserving

    @property
    def has_room(self) -> bool:
        """Whether one more request may be in flight: the reservation shows it."""
        return True if self._share is None else self._share.has_room

    def check(self, request: ReservationRequest) -> None:
        """Raise the BudgetError that `reserve` would raise, without reserving anything."""
        route = self._route(request.model, request.key)
        check_fits(request, route.limits)
        if self._joined < len(self.configuration.groups):
            for part in route.parts:
                check_fits(request, self.configuration.groups[part].limits)

    def reserve(self, request: ReservationRequest, now: float, *, before: Ticket | None = None) -> Ticket | None:
        """Reserve a slot under all limits at once; the ticket's moment is infinite while it waits for the server.

        Raises:
            BudgetError: The request can never fit. The message contains the numbers.
        """
        if before is not None:
            return None  # a gap before a slot is another process's slot
        self.check(request)
        route = self._route(request.model, request.key)
        reservation = Reservation(request, route, route.estimate(request))
        number = next(self._ids)
        if self._share is not None and (slot := self._slot_for(reservation, now)) is None:
            if not self._reserve_in_share(reservation, self._share, now):
                return None
        elif (slot := self._slot_for(reservation, now)) is not None:
            self._assign(reservation, slot)
            reservation.admitted_at = max(now, slot.at)
        else:
            route.waiting.append(reservation)
            self._note_work(now)
        self._open[number] = reservation
        tokens = request.input_tokens, reservation.cost.output_tokens
        return Ticket(number, request.model, request.key, reservation.opens_at(now), *tokens)

    def _reserve_in_share(self, reservation: Reservation, share: LocalLimiter, now: float) -> bool:
        """Reserve a slot of this process's share; return whether there was a place for it."""
        reservation.local = share.reserve(reservation.request, now)
        if reservation.local is None:
            return False
        reservation.share = share
        self._begin(reservation, reservation.local.at)
        return True

    def _slot_for(self, reservation: Reservation, now: float) -> Slot | None:
        slot = reservation.route.find(reservation.cost, now, self._lateness_s())
        if slot is not None and reservation.request.is_interactive and slot.at > now + _NEAR_S and self._share is None:
            return None
        return slot

    def _lateness_s(self) -> float:
        """Return how late a slot may be used: the margin of the limits, less what the network may take of it."""
        usual_s = _USUAL_JITTER_S * shortest_period_s(self._routes.values()) / MINUTE_S
        jitter_s = usual_s if self._jitter_s is None else self._jitter_s
        return max(LEAST_LATENESS_S, jitter_s - self._reports.longest_delay_s(self.clock.doubt_s))

    def _assign(self, reservation: Reservation, slot: Slot) -> None:
        route, cost = reservation.route, reservation.cost
        route.slots.remove(slot)
        reservation.slot = slot
        if cost != slot.cost and route.has_token_limits:
            self._reports.correct(route.parts, slot.server_at, slot.cost, cost)
        slot.cost = cost
        if slot.at > self._exchanged_at + _FAR_S:
            heapq.heappush(self._checks, slot.at - _CHECK_S)
            self.on_work()
        self._begin(reservation, slot.at)

    def _begin(self, reservation: Reservation, at: float) -> None:
        reservation.begin(at)
        self._reports.note_start(reservation.route, at)

    def advance(self, ticket: Ticket, now: float) -> Ticket:
        """Return the ticket with the slot that the server has reserved for it; unchanged while there is none.

        A slot that has passed too long ago is given up, and the ticket waits for another one: see `Lateness`.
        """
        reservation = self._open.get(ticket.id)
        if reservation is None:
            return ticket
        if reservation.slot is not None and reservation.slot.at <= now:
            return self._use(ticket, reservation, reservation.slot, now)
        if reservation.slot is None and reservation.local is None and self._share is not None:
            if self._reserve_in_share(reservation, self._share, now):
                reservation.route.waiting.remove(reservation)
        elif reservation.local is not None and reservation.share is not None:
            reservation.local = reservation.share.advance(reservation.local, now)
        at = reservation.opens_at(now)
        return ticket if at == ticket.at or ticket.at <= now else msgspec.structs.replace(ticket, at=at)

    def _use(self, ticket: Ticket, reservation: Reservation, slot: Slot, now: float) -> Ticket:
        """Use a slot that has come, unless this process comes too late for it."""
        late_s = now - slot.at
        self._lateness.note(late_s, now)
        if late_s <= self._lateness_s():
            reservation.admitted_at = now
            return ticket if ticket.at <= now else msgspec.structs.replace(ticket, at=now)
        route = reservation.route
        self._reports.give_back(route.parts, slot)
        reservation.begin_again(now)
        if self._share is None and (other := self._slot_for(reservation, now)) is not None:
            self._assign(reservation, other)
            reservation.admitted_at = max(now, other.at)
        elif self._share is None or not self._reserve_in_share(reservation, self._share, now):
            route.waiting.appendleft(reservation)
            self._note_work(now)
        return msgspec.structs.replace(ticket, at=reservation.opens_at(now))

    def earliest(self, request: ReservationRequest, now: float) -> float:
        """Return the slot that a reservation would get, as far as this process knows; infinite if none is free."""
        if self._share is not None:
            return self._share.earliest(request, now)
        route = self._route(request.model, request.key)
        cost = route.estimate_cost(request)
        slot = route.find(cost, now, self._lateness_s())
        if slot is not None:
            return max(now, slot.at)
        if not all(view.has_room for view in route.views):
            route.is_full = True  # so that an exchange follows soon
            return math.inf
        return max(now, route.next_at())

    def opens_at(self, model: str, key: str, now: float) -> float:
        """Return the end of the pause that the provider asked for at this (key, model); `now` without a pause."""
        route = self._routes.get((model, key))
        until = -math.inf if route is None else route.opens_at()
        return max(now, until if self._share is None else max(until, self._share.opens_at(model, key, now)))

    def limited_by(self, now: float) -> str | None:
        """Return a description of the limits that delay calls at present; None without any."""
        if self._share is not None:
            reason = self._share.limited_by(now)
            return reason and f"{reason} (a share: the server of the limiter is not reachable)"
        return describe_delays(self._routes, self.processes, now)

    # Correcting

    def settle(self, ticket: Ticket, usage: Usage, now: float) -> None:
        """Release the ticket and correct the reservation to the actual usage."""
        reservation = self._close(ticket, now, usage.output_tokens)
        if reservation is None:
            return
        if reservation.local is not None and reservation.share is not None:
            reservation.share.settle(reservation.local, usage, now)
            return
        route = reservation.route
        route.lengths.note_input(ticket.input_tokens, usage.input_tokens)
        self._correct(reservation, usage.input_tokens, usage.output_tokens, now)
        self._reports.note_usage(route, ticket, usage, now)

    def release(self, ticket: Ticket, now: float, *, was_sent: bool = True, delivered: Usage | None = None) -> None:
        """Release the ticket of a request whose usage is not known: see `limiter.Limiter`."""
        reservation = self._close(ticket, now, None)
        if reservation is None:
            return
        if reservation.local is not None and reservation.share is not None:
            reservation.share.release(reservation.local, now, was_sent=was_sent, delivered=delivered)
        elif reservation.slot is None:
            reservation.route.waiting.remove(reservation)
        elif not was_sent:
            reservation.route.put(reservation.slot)
            self._note_work(now)
        else:
            output = ticket.output_tokens if delivered is None else delivered.output_tokens
            self._correct(reservation, ticket.input_tokens, output, now)

    def _close(self, ticket: Ticket, now: float, output_tokens: int | None) -> Reservation | None:
        reservation = self._open.pop(ticket.id, None)
        if reservation is not None and reservation.answer is not None:
            reservation.route.in_flight -= 1
            reservation.route.lengths.end(reservation.answer, now, output_tokens)
            if reservation.is_resumed and self._share is not None and reservation.share is not self._share:
                self._share.resumed_call_ended(ticket.model, ticket.key)
            if reservation.route.is_limited_at_once:
                self._note_work(now)  # another process may wait for the place
        return reservation

    def _correct(self, reservation: Reservation, input_tokens: int, output_tokens: int, now: float) -> None:
        route, slot = reservation.route, reservation.slot
        if slot is None or not route.has_token_limits:
            return
        if route.counts_max_tokens == "always":
            output_tokens = max(output_tokens, slot.cost.output_tokens)
        # Refunding an early, much too high reservation at once would be a burst.
        expected = min(slot.cost.expected, route.estimate_cost(reservation.request).expected)
        reserved = msgspec.structs.replace(slot.cost, expected=expected)
        self._reports.correct(route.parts, slot.server_at, reserved, Cost(input_tokens, output_tokens, output_tokens))
        if self._corrected_since is None:
            self._corrected_since = now
            self.on_work()

    # Learning

    def observe(self, observation: Observation, now: float) -> None:
        """Learn from a response's status and headers, before `settle` or `release` of the same ticket."""
        ticket = observation.ticket
        reservation, route = self._open.get(ticket.id), self._route(ticket.model, ticket.key)
        if reservation is not None and reservation.local is not None and reservation.share is not None:
            reservation.share.observe(msgspec.structs.replace(observation, ticket=reservation.local), now)
        if self._reports.observe(observation, reservation, route, now):
            self._note_work(now)

    # Exchanging

    def _note_work(self, now: float) -> None:
        if self._urgent_since is None:
            self._urgent_since = now
        self.on_work()

    def next_exchange_at(self, now: float) -> float:
        """Return when to exchange next, if nothing happens until then."""
        if self._urgent_since is not None or not self.is_reachable:
            return now
        while self._checks and self._checks[0] <= self._exchanged_at:
            heapq.heappop(self._checks)
        moments = [self._exchanged_at + _HEARTBEAT_S, *self._checks[:1]]
        if self._corrected_since is not None:
            moments.append(self._corrected_since + _CORRECTIONS_WAIT_S)
        if any(route.is_full for route in self._routes.values()):
            moments.append(self._exchanged_at + _FULL_RETRY_S)
        return max(now, min(moments))

    @property
    def has_open_tickets(self) -> bool:
        """Whether calls are under way, or wait."""
        return bool(self._open)

    def begin_exchange(self, now: float, *, age_s: float, leaves: bool = False) -> LimiterExchange:
        """Return the next request to the server. Exactly one of `end_exchange` and `fail_exchange` must follow.

        Args:
            now: The present moment.
            age_s: The server ignores the request if it gets it later than so many seconds from now.
            leaves: The process stops using the limits: it gives all slots back.
        """
        self._urgent_since = self._corrected_since = None
        self._exchanged_at = now
        calls = 0 if leaves else self.waiting()
        for route in self._routes.values():
            # A slot that fits none of the calls that wait may hold the place of one of them.
            is_useless = route.is_limited_at_once if route.waiting else not calls
            for slot in route.expired(now, self._lateness_s(), is_all=is_useless):
                self._reports.give_back(route.parts, slot)
        wanted = [] if leaves else [want for route in self._routes.values() for want in wants_of(route, calls)]
        is_joining = self._joined < len(self.configuration.groups)
        exchange = LimiterExchange(
            keys=tuple(self.configuration.keys),
            wanted=wanted,
            reports=self._reports.take(self.clock, now),
            lengths=self._lengths.offer(self._routes.values()),
            sent_at=now,
            joined=len(self.configuration.groups) if is_joining else self._joined,
        )
        exchange.encode(
            process=self._process,
            expected_at=self.clock.there(now),
            age_s=age_s,
            states=self._states(now),
            delays=self._delays(),
            away_s=0.0 if self._share is None else now - self._lost_at,
            flags=(leaves, self._is_lost, self._is_clock_new),
            configuration=describe_groups(self.configuration, self._routes.values(), now) if is_joining else None,
        )
        return exchange

    def _delays(self) -> tuple[int, float]:
        """Return how many delays are known, and how long after its slot a request may arrive."""
        allowed_s = self._lateness.allowed_s(shortest_period_s(self._routes.values()))
        return self._reports.delays, self._reports.longest_delay_s(self.clock.doubt_s) + allowed_s

    def _states(self, now: float) -> list[dict[str, Any]]:
        if now >= self._overruns[0] + _OVERRUN_KEPT_S:
            reach_s = self._jitter_s or _USUAL_JITTER_S
            self._overruns = now, measure_overruns(self.configuration.keys, self._routes.values(), reach_s, now)
        busy = count_busy(self.configuration.keys, self._routes.values())
        return [
            {"id": self._shared_ids.get(key, ""), "n": self._processes[key], "busy": busy[place], "over": over}
            for place, (key, over) in enumerate(zip(self.configuration.keys, self._overruns[1], strict=True))
        ]

    def end_exchange(self, exchange: LimiterExchange, reply: bytes, now: float) -> None:
        """Take the server's reply: slots for the calls that wait, and the state of the limits.

        Raises:
            DispatchError: The reply is none of the script.
        """
        answer = read_reply(reply, exchange.counts)
        server = answer.server
        if not self.clock.agrees(server, exchange.sent_at, now):
            self.clock.forget()
            self._is_lost = self._is_clock_new = True
            self._joined = 0
        if answer.error is not None:
            self._refused_exchange(exchange, answer.error)
            if answer.error == "late":
                self.clock.note(server, exchange.sent_at, now)
            return
        self.clock.note(server, exchange.sent_at, now)
        if self._is_clock_new and not exchange.is_clock_new:
            self._ask_again(exchange)  # slots by the old clock
            self._note_work(now)
            return
        self._is_lost = self._is_clock_new = False
        self._joined = exchange.joined
        self.is_reachable = True
        if self._share is not None:
            self._leave_share(now)
        self._read_states(answer.states, self.clock.here(server))
        self._lengths.take(exchange.taught, answer.lengths)
        for want, got in zip(exchange.wanted, answer.answers, strict=True):
            self._take(want, got, server)
        if self._urgent_since is None and any(
            not each.is_asked and not route.is_full for route in self._routes.values() for each in route.waiting
        ):
            self._urgent_since = now

    def _leave_share(self, now: float) -> None:
        """Ask the server for the slots that this process has only planned, as all other processes have."""
        self._share = None
        for reservation in self._open.values():
            if reservation.local is not None and reservation.local.at > now and reservation.answer is not None:
                reservation.begin_again(now)
                reservation.route.waiting.append(reservation)

    def _read_states(self, states: list[StateReply], now: float) -> None:
        for place, (key, state) in enumerate(zip(self.configuration.keys, states, strict=True), 1):
            self._shared_ids[key], self._processes[key] = state.id, state.processes
            for route in self._routes.values():
                route.show(place, state.groups, now)
        self._jitter_s = max((state.jitter for state in states if state.jitter is not None), default=None)

    def _take(self, want: Want, got: SlotsReply, server: float) -> None:
        """Distribute the slots of one request for them."""
        route, reservation = want.route, want.reservation
        limits = list(route.limits)
        slots = got.slots if isinstance(got.slots, list) else []
        for place, (delay_s, after) in enumerate(slots):
            server_at = server + delay_s
            cost = route.usual_cost() if place else reservation.cost
            tat_after = [self.clock.here(server + each) for each in after if not isinstance(each, str)]
            route.put(Slot(self.clock.here(server_at), server_at, cost, limits, tat_after))
        route.is_full = got.reason == "full" and not slots
        if not slots:
            reservation.is_asked = False
        self._serve(route)

    def _serve(self, route: RouteSlots) -> None:
        """Give the slots to the reservations that wait, in order."""
        for reservation in list(route.waiting):
            slot = route.find(reservation.cost, -math.inf, 0.0)
            if slot is None:
                return
            route.waiting.remove(reservation)
            self._assign(reservation, slot)

    def _ask_again(self, exchange: LimiterExchange) -> None:
        for want in exchange.wanted:
            want.reservation.is_asked = False

    def _refused_exchange(self, exchange: LimiterExchange, error: str) -> None:
        self._ask_again(exchange)
        self._reports.restore(exchange.reports)
        self._urgent_since = exchange.sent_at
        if error == "unknown":
            self._joined = 0
            self._is_lost = bool(self._shared_ids)

    def fail_exchange(self, exchange: LimiterExchange) -> None:
        """Note that there was no reply: the server may have applied the request, or not."""
        self._ask_again(exchange)
        self._reports.restore(exchange.reports)
        self._is_lost, self._joined = bool(self._shared_ids), 0

    def use_share(self, now: float) -> None:
        """Use this process's share of the limits, because the server cannot be reached."""
        self.is_reachable = False
        if self._share is None:
            self._lost_at = now
            self._share = fair_share(self.configuration, self._routes, self.processes, self._process, now)
            for reservation in self._open.values():
                reservation.is_resumed = reservation.answer is not None
