"""The messages between the process that owns the limits and its members, which send the requests.

Plain values that pickle. No moment is in them, as the clocks of two machines differ: only durations in seconds.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from lm_deluge.dispatch.scheduling.limiter import Observation, Ticket
from lm_deluge.dispatch.scheduling.queue import Job, Route
from lm_deluge.dispatch.scheduling.retry import Switch
from lm_deluge.errors import DelugeError
from lm_deluge.usage import Usage

__all__ = [
    "Admit",
    "Admitted",
    "Blocked",
    "CooledDown",
    "Forgotten",
    "FromMember",
    "Observed",
    "OthersSpent",
    "Refused",
    "Released",
    "Spent",
    "TicketSettled",
    "ToMember",
    "Unreached",
    "Withdrawn",
]


class Admit(msgspec.Struct, frozen=True):
    """A call waits to be admitted, `wait_s` seconds at least. The answer is `Admitted` or `Refused`."""

    job: Job
    wait_s: float = 0.0


class Withdrawn(msgspec.Struct, frozen=True):
    """A call waits no longer; a ticket that is on its way to the member is not used."""

    job_id: int


class Forgotten(msgspec.Struct, frozen=True):
    """A call is over: its job has no place in the order of arrival any more."""

    job_id: int


class Observed(msgspec.Struct, frozen=True):
    """A response, or an error, states facts about limits; the request left `sent_ago_s` before the message."""

    observation: Observation
    sent_ago_s: float


class TicketSettled(msgspec.Struct, frozen=True):
    """A response is complete."""

    ticket: Ticket
    usage: Usage


class Released(msgspec.Struct, frozen=True):
    """A request ended without a complete response. The fields are the arguments of `Limiter.release`."""

    ticket: Ticket
    was_sent: bool
    delivered: Usage | None


class Blocked(msgspec.Struct, frozen=True):
    """The provider asked to wait longer than a call may wait. The fields are the arguments of `Runner.block`."""

    route: Route
    error: DelugeError
    retry_after_s: float


class CooledDown(msgspec.Struct, frozen=True):
    """A part of a route failed. The fields are the arguments of `Runner.cool_down`."""

    decision: Switch
    route: Route
    error: DelugeError


class Unreached(msgspec.Struct, frozen=True):
    """A connection to the provider of a route failed."""

    route: Route
    error: DelugeError


class Spent(msgspec.Struct, frozen=True):
    """What the member's calls have cost until now, in US dollars."""

    cost: float


class Admitted(msgspec.Struct, frozen=True):
    """A request may leave now."""

    job_id: int
    ticket: Ticket


class Refused(msgspec.Struct, frozen=True):
    """A call will never be admitted."""

    job_id: int
    error: DelugeError


class OthersSpent(msgspec.Struct, frozen=True):
    """What the calls of all other members have cost until now, in US dollars."""

    cost: float


FromMember: TypeAlias = (
    Admit | Withdrawn | Forgotten | Observed | TicketSettled | Released | Blocked | CooledDown | Unreached | Spent
)
ToMember: TypeAlias = Admitted | Refused | OthersSpent
