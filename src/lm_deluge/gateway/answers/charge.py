"""The money of one call: more of it is reserved while the answer grows, and in the end it is settled, once."""

from __future__ import annotations

import contextlib
import time

from lm_deluge.dispatch.budget import Budget
from lm_deluge.dispatch.running_call import RunningCall
from lm_deluge.errors import DelugeError
from lm_deluge.gateway.access import Grant
from lm_deluge.response import APIResponse

__all__ = ["CallCharge"]

_EXTENDED_FROM = 0.5  # share of a reservation that is spent when the next one is asked for: time for the database
_NOTED_EACH_S = 1.0  # how much of an answer the ledger may miss if the process is killed


class CallCharge:
    """What a key pays for one call.

    Args:
        grant: The permission for the call. The ledger has the cost of its prompt.
    """

    def __init__(self, grant: Grant) -> None:
        self._grant = grant
        self._noted_at = time.monotonic()
        self._is_refused = False  # whether the budget of the key has no more for this call
        self._is_settled = False

    async def watch(self, running: RunningCall, budget: Budget | None) -> None:
        """Reserve more if the call has spent half of its budget, and note what it has cost; called after each read."""
        if self._is_settled:
            return
        if budget is not None and budget.spent > budget.max_cost * _EXTENDED_FROM and not self._is_refused:
            self._is_refused = not await self._grant.extend(budget.max_cost)
            if not self._is_refused:
                budget.max_cost *= 2
        now = time.monotonic()
        if now - self._noted_at >= _NOTED_EACH_S:
            self._noted_at = now
            self._grant.note_cost(running.response().cost or 0.0)

    async def settle(self, response: APIResponse | None, *, status: int) -> None:
        """Book what the call cost, once; None: nothing was sent."""
        if self._is_settled:
            return
        self._is_settled = True
        with contextlib.suppress(DelugeError):  # of the database: the reservation stays until the next start
            await self._grant.settle(response, status=status)
