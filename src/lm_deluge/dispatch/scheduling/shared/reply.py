"""The script's reply, checked completely before anything of it is used. Moments are seconds from the server's `now`."""

from __future__ import annotations

from typing import Any

import msgspec

from lm_deluge.dispatch.scheduling.output_lengths import LengthSample
from lm_deluge.errors import DispatchError
from lm_deluge.wire.rate_limit_headers import Dimension

__all__ = ["GroupReply", "LengthsReply", "ScriptReply", "SlotsReply", "StateReply", "read_reply"]

_Empty = dict[str, Any]  # the encoder of the server writes an empty list as an empty object


class LimitReply(msgspec.Struct, array_like=True, frozen=True):
    """A limit: see `server_view.LimitView`."""

    dimension: Dimension
    period_s: float
    amount: float
    opens_in_s: float
    closed_for_s: float
    spacing_s: float
    moved_s: float
    rate_share: float
    is_cut: int
    is_guess: int
    is_named: int
    is_firm: int


class GroupReply(msgspec.Struct, frozen=True):
    """A group of limits: see `server_view.GroupView`."""

    closed: float
    busy: float
    free: float
    limits: list[LimitReply] | _Empty = []
    allowed: float | None = None
    most: float | None = None
    fixed: tuple[float, float, float, float, float] | None = None


class StateReply(msgspec.Struct, frozen=True):
    """A state: its name, how many processes use it, and how late their requests may arrive."""

    id: str
    processes: int
    groups: dict[str, GroupReply]
    jitter: float | None = None


class SlotsReply(msgspec.Struct, frozen=True):
    """Slots: each with the theoretical arrival times of the limits after it. `reason`: why there are no more."""

    slots: list[tuple[float, list[float] | _Empty]] | _Empty
    reason: str


class LengthsReply(msgspec.Struct, array_like=True, frozen=True):
    """Samples of other processes, and the number of the last one."""

    count: int
    samples: list[LengthSample] | _Empty


class ScriptReply(msgspec.Struct, frozen=True):
    """The reply. With an `error` it has only the server's time."""

    now: str
    error: str | None = None
    states: list[StateReply] = []
    answers: list[SlotsReply] = []
    lengths: list[LengthsReply] = []

    @property
    def server(self) -> float:
        """The server's time."""
        return float(self.now)


_decoder = msgspec.json.Decoder(ScriptReply)


def read_reply(reply: bytes, counts: tuple[int, int, int]) -> ScriptReply:
    """Return the reply to an exchange about so many states, which asks so often for slots and for lengths.

    Raises:
        DispatchError: It is none of the script.
    """
    try:
        found = _decoder.decode(reply)
        is_complete = counts == (len(found.states), len(found.answers), len(found.lengths))
        if found.server > 0 and (found.error is not None or is_complete):
            return found
    except (msgspec.DecodeError, ValueError):
        pass
    raise DispatchError("the server of the limiter sent something else than the script's reply")
