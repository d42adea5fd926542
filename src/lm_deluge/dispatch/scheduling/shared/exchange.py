"""The requests to the server of the limiter, as JSON that the script reads, and what they report. Pure."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import msgspec

from lm_deluge.dispatch.scheduling.costs import Cost
from lm_deluge.dispatch.scheduling.limiter import Observation, Ticket
from lm_deluge.dispatch.scheduling.shared.configuration import Part
from lm_deluge.dispatch.scheduling.shared.learning import RouteLearning
from lm_deluge.dispatch.scheduling.shared.length_exchange import LengthOffer
from lm_deluge.dispatch.scheduling.shared.report import Report
from lm_deluge.dispatch.scheduling.shared.route import HORIZON_S, Reservation, RouteSlots, Slot
from lm_deluge.dispatch.scheduling.shared.server_view import ServerClock
from lm_deluge.usage import Usage

__all__ = ["LimiterExchange", "Reports", "Taken", "Want", "wants_of"]

_DELAYS_KEPT = 200  # as in the local limiter: the jitter is the maximum of so many delays
_LEAST_JITTER_S = 0.003  # timers wake one or two milliseconds late
_SHORT_WINDOWS_S = (10.0, 1.0)  # see rate_limit.py: windows that a host may have without naming them
_encode = msgspec.json.Encoder().encode


class Want(NamedTuple):
    """A request for slots: the first is for a reservation, the others for calls that wait after it."""

    route: RouteSlots
    reservation: Reservation
    most: int
    least: int

    def encoded(self) -> dict[str, Any]:
        """Return it as the script reads it."""
        return {
            "parts": self.route.parts,
            "count": self.most,
            "least": self.least,
            "horizon": HORIZON_S,
            "interactive": int(self.reservation.request.is_interactive),
            "cost": _tokens(self.reservation.cost),
            "rest": _tokens(self.route.usual_cost()),
        }


def wants_of(route: RouteSlots, calls: int) -> Iterator[Want]:
    """Ask for slots for the reservations that wait, and with the last of them for the other calls that wait."""
    asking = [each for each in route.waiting if not each.is_asked]
    spare = max(0, calls - (len(route.waiting) - len(asking)) - len(route.slots))
    for place, reservation in enumerate(asking):
        reservation.is_asked = True
        is_last = place == len(asking) - 1
        count, least = route.lease(max(1, spare - place)) if is_last else (1, 1)
        yield Want(route, reservation, max(1, count), least)


class Taken(NamedTuple):
    """What an exchange reports: corrections, slots given back, and what responses have shown."""

    corrected: list[Any]
    returned: list[Any]
    observed: list[Report]
    encoded: list[Any]


class LimiterExchange:
    """One request to the server.

    Attributes:
        keys: The keys that the script gets.
        wanted: The requests for slots, in the order of the reply's answers.
        reports: The reports in it.
        taught: The (key, model)s for which it asks for lengths of answers.
        sent_at: When it was made, by the own clock.
        joined: Number of groups that the server knows after it.
        is_clock_new: Whether the server is to give up its moments, which are of another clock.
        arguments: The script's arguments.
    """

    def __init__(
        self,
        *,
        keys: tuple[str, ...],
        wanted: list[Want],
        reports: Taken,
        lengths: tuple[list[RouteSlots], list[LengthOffer]],
        sent_at: float,
        joined: int,
    ) -> None:
        self.keys = keys
        self.wanted = wanted
        self.reports = reports
        self.taught, self._lengths = lengths
        self.sent_at = sent_at
        self.joined = joined
        self.is_clock_new = False
        self.arguments: tuple[bytes, bytes] = (b"", b"")

    @property
    def counts(self) -> tuple[int, int, int]:
        """Number of the states, slots and lengths that the reply has to have."""
        return len(self.keys), len(self.wanted), len(self.taught)

    def encode(
        self,
        *,
        process: str,
        expected_at: float,
        age_s: float,
        states: list[dict[str, Any]],
        delays: tuple[int, float],
        away_s: float,
        flags: tuple[bool, bool, bool],
        configuration: list[dict[str, Any]] | None,
    ) -> None:
        """Encode the arguments.

        `away_s`: seconds since the server was lost. `flags`: the process leaves, the server was lost, and its clock is
        another one.
        """
        leaves, is_lost, self.is_clock_new = flags
        request = {
            "id": process,
            "at": expected_at,
            "age": age_s,
            "states": states,
            "delays": delays,
            "away": away_s,
            "leaves": int(leaves),
            "lost": int(is_lost),
            "clock": int(self.is_clock_new),
            "short": _SHORT_WINDOWS_S,
            "wanted": [want.encoded() for want in self.wanted],
            "corrected": self.reports.corrected,
            "returned": self.reports.returned,
            "observed": self.reports.encoded,
            "lengths": self._lengths,
        }
        self.arguments = _encode(request), b"" if configuration is None else _encode(configuration)


class Reports:
    """What the next exchange reports."""

    def __init__(self) -> None:
        self._corrected: list[Any] = []
        self._returned: list[Any] = []
        self._observed: list[Report] = []
        self._delays: deque[float] = deque(maxlen=_DELAYS_KEPT)
        self._longest_s = 0.0
        self._learning: WeakKeyDictionary[RouteSlots, RouteLearning] = WeakKeyDictionary()

    def correct(self, parts: tuple[Part, ...], server_at: float, reserved: Cost, actual: Cost) -> None:
        """Charge an actual cost in place of the reserved one."""
        self._corrected.append((parts, server_at, _tokens(reserved), _tokens(actual)))

    def give_back(self, parts: tuple[Part, ...], slot: Slot) -> None:
        """Give back a slot that no call uses."""
        self._returned.append((parts, slot.server_at, _tokens(slot.cost)))

    def _learning_of(self, route: RouteSlots) -> RouteLearning:
        learning = self._learning.get(route)
        if learning is None:
            learning = self._learning[route] = RouteLearning(route)
        return learning

    def note_start(self, route: RouteSlots, at: float) -> None:
        """Note that a request will leave."""
        self._learning_of(route).note_start(at)

    def note_usage(self, route: RouteSlots, ticket: Ticket, usage: Usage, now: float) -> None:
        """Note what the provider served."""
        self._observed += self._learning_of(route).note_usage(ticket, usage, now)

    def observe(self, observation: Observation, reservation: Reservation | None, route: RouteSlots, now: float) -> bool:
        """Learn from a response; return whether the other processes are to know of it at once."""
        if observation.delay_s is not None:
            admitted_at = observation.sent_at if reservation is None else reservation.admitted_at
            self._note_delay(observation.delay_s + max(0.0, observation.sent_at - admitted_at))
        found, is_urgent = self._learning_of(route).observe(observation, reservation, now)
        replaced = {report.place for report in found if report.is_replaced}
        if replaced:
            self._observed = [report for report in self._observed if report.place not in replaced]
        self._observed += found
        return is_urgent

    def _note_delay(self, delay_s: float) -> None:
        forgotten = self._delays[0] if len(self._delays) == _DELAYS_KEPT else 0.0
        self._delays.append(delay_s)
        self._longest_s = max(self._delays) if forgotten >= self._longest_s else max(self._longest_s, delay_s)

    @property
    def delays(self) -> int:
        """Number of delays of the network that are known."""
        return len(self._delays)

    def longest_delay_s(self, doubt_s: float) -> float:
        """Return the longest delay, `doubt_s` of the clocks' difference included."""
        return max(_LEAST_JITTER_S, self._longest_s + doubt_s)

    def take(self, clock: ServerClock, now: float) -> Taken:
        """Return the reports so far, and start again."""
        for learning in self._learning.values():
            self._observed += learning.take_successes()
        encoded = [report.encoded(clock, now) for report in self._observed]
        taken = Taken(self._corrected, self._returned, self._observed, encoded)
        self._corrected, self._returned, self._observed = [], [], []
        return taken

    def restore(self, taken: Taken) -> None:
        """Report again what an exchange reported that failed; without corrections, which may have been applied."""
        self._observed = [report for report in taken.observed if report.is_kept] + self._observed


def _tokens(cost: Cost) -> tuple[float, int, int]:
    return math.ceil(cost.input_tokens), cost.output_tokens, cost.expected
