"""The runner of a member: its calls are admitted by the process that owns the limits."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from lm_deluge.dispatch.budget import Budget
from lm_deluge.dispatch.scheduling.limiter import Observation, Ticket
from lm_deluge.dispatch.scheduling.queue import Job, Route
from lm_deluge.dispatch.scheduling.retry import Switch
from lm_deluge.dispatch.scheduling.runner import LimiterLock, Runner
from lm_deluge.dispatch.scheduling.scheduler import Admission
from lm_deluge.dispatch.sharing.messages import (
    Admit,
    Admitted,
    Blocked,
    CooledDown,
    Forgotten,
    FromMember,
    Observed,
    OthersSpent,
    Refused,
    Released,
    Spent,
    TicketSettled,
    ToMember,
    Unreached,
    Withdrawn,
)
from lm_deluge.errors import ConnectError, DelugeError
from lm_deluge.usage import Usage

__all__ = ["RemoteRunner", "SharedBudget"]


class SharedBudget(Budget):
    """The budget of all members, as one of them knows it: what the others have spent may be some milliseconds old.

    Attributes:
        others: US dollars that the calls of the other members have cost.
    """

    def __init__(self, max_cost: float, owner: str) -> None:
        super().__init__(max_cost, owner)
        self.others = 0.0

    @property
    def total(self) -> float:
        """What all members have spent."""
        return self.spent + self.others


class RemoteRunner(Runner):
    """Lets the owner of the limits admit the calls of this process; decides about retries itself.

    Args:
        limiter: Not used for admission; only for `usable`, which looks for a model for a second attempt.
        routes: The models, as the owner has them.
        post: Sends a message to the owner. It is called in the loop of the runner.
        budget: The budget that is shared with the other members; None without one.
        options: As `Runner` takes them.
    """

    def __init__(
        self,
        limiter: LimiterLock,
        routes: Sequence[Route],
        *,
        post: Callable[[FromMember], None],
        budget: SharedBudget | None = None,
        **options: Any,
    ) -> None:
        super().__init__(limiter, routes, **options)
        self._post = post
        self._budget = budget
        self._spent_reported = 0.0
        self._route_of = {(route.model, route.key): route for route in self.routes}
        self._requested: dict[int, Admit] = {}
        self._failure: DelugeError | None = None

    def receive(self, messages: Iterable[ToMember]) -> None:
        """Act on messages of the owner."""
        for message in messages:
            if isinstance(message, OthersSpent):
                if self._budget is not None:
                    self._budget.others = message.cost
            else:
                self._resolve_remote(message)

    def _resolve_remote(self, message: Admitted | Refused) -> None:
        admitted = self._admitting.get(message.job_id)
        is_waiting = admitted is not None and not admitted.done()
        if isinstance(message, Admitted):
            request = self._requested.get(message.job_id)
            if not is_waiting or admitted is None or request is None:
                self._post(Released(message.ticket, was_sent=False, delivered=None))
                return
            route = self._route_of[message.ticket.model, message.ticket.key]
            admitted.set_result(Admission(request.job, route, message.ticket))
        elif is_waiting and admitted is not None:
            admitted.set_exception(message.error)

    def reconnect(self) -> None:
        """Ask again for all calls that wait: the owner was restarted, and does not know them."""
        self._spent_reported = 0.0
        for request in self._requested.values():
            self._post(request)
        self.report_cost()

    def fail(self, error: DelugeError) -> None:
        """Fail all calls that wait, and those that come: the owner cannot be reached any more."""
        self._failure = error
        for admitted in self._admitting.values():
            if not admitted.done():
                admitted.set_exception(error.again())

    def report_cost(self) -> None:
        """Report what the calls of this process have cost, if that has changed."""
        if self._budget is not None and self._budget.spent != self._spent_reported:
            self._spent_reported = self._budget.spent
            self._post(Spent(self._spent_reported))

    # In place of the local scheduler

    async def admit(self, job: Job, wait_s: float = 0.0) -> Admission:
        """Wait until the owner admits a request, at least `wait_s`.

        Raises:
            DelugeError: The owner refuses the request, or cannot be reached any more.
        """
        if self._failure is not None:
            raise self._failure.again()
        admitted: asyncio.Future[Admission] = self._loop.create_future()
        self._admitting[job.id] = admitted
        self._requested[job.id] = request = Admit(job, wait_s)
        self._post(request)
        try:
            return await admitted
        except asyncio.CancelledError:
            if admitted.done() and not admitted.cancelled() and admitted.exception() is None:
                self.give_back(admitted.result().ticket, was_sent=False)
            raise
        finally:
            del self._admitting[job.id], self._requested[job.id]
            if not admitted.done() or admitted.cancelled():
                self._post(Withdrawn(job.id))

    def forget(self, job: Job) -> None:
        """Forget a call that is over."""
        self._post(Forgotten(job.id))

    def observe(self, observation: Observation) -> None:
        """Report the facts about limits that a response states."""
        self._note_answer(observation.ticket.model)
        self._post(Observed(observation, max(self.now() - observation.sent_at, 0.0)))

    def settle(self, ticket: Ticket, usage: Usage) -> None:
        """Release the ticket of a complete response."""
        self._post(TicketSettled(ticket, usage))
        self._loop.call_soon(self.report_cost)  # the call is charged after the ticket is released

    def release(self, ticket: Ticket, *, was_sent: bool, delivered: Usage | None) -> None:
        """Release the ticket of a request without a complete response."""
        self._post(Released(ticket, was_sent, delivered))
        self._loop.call_soon(self.report_cost)

    def give_back_later(self, ticket: Ticket, delivered: Usage | None) -> None:
        """Release a ticket from a finaliser; callable from any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed, and the owner releases all tickets
            self._loop.call_soon_threadsafe(self._post, Released(ticket, was_sent=True, delivered=delivered))

    def is_outage(self, error: DelugeError, route: Route) -> bool:
        """Note why an attempt failed, here and at the owner; return whether an outage explains it."""
        if isinstance(error, ConnectError):
            self._post(Unreached(route, error))
        return super().is_outage(error, route)

    def block(self, route: Route, error: DelugeError, retry_after_s: float) -> None:
        """Do not use a route for the time that it asks for, here and at all members."""
        super().block(route, error, retry_after_s)
        self._post(Blocked(route, error, retry_after_s))

    def cool_down(self, decision: Switch, route: Route, error: DelugeError) -> None:
        """Do not use the failed part of a route, here and at all members."""
        super().cool_down(decision, route, error)
        self._post(CooledDown(decision, route, error))
