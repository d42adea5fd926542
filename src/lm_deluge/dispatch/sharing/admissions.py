"""The owner of the limits: admits the calls of all members with one runner, as if they were calls of one process.

So the limits hold exactly over all members, and a limit or a pause that one member learns of applies to all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from lm_deluge.dispatch.budget import Budget
from lm_deluge.dispatch.scheduling.limiter import Ticket
from lm_deluge.dispatch.scheduling.queue import Job
from lm_deluge.dispatch.scheduling.runner import Runner
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
from lm_deluge.errors import DelugeError

__all__ = ["Admissions", "Member"]

Reply = Callable[[ToMember], None]


class Admissions:
    """Admits the calls of members.

    Args:
        runner: The runner with the limits; it admits in the event loop that uses this object.
        budget: The budget of all members together; None without one.
    """

    def __init__(self, runner: Runner, budget: Budget | None = None) -> None:
        self.runner = runner
        self._budget = budget
        self._members: set[Member] = set()
        self._last_job = 0

    def join(self, reply: Reply, spent: float = 0.0) -> Member:
        """Add a member.

        Args:
            reply: Sends a message to it.
            spent: US dollars that it spent before it left, if it comes back.
        """
        member = Member(self, reply)
        member.spent = spent
        self._members.add(member)
        if self._budget is not None and self._budget.spent > spent:
            reply(OthersSpent(self._budget.spent - spent))
        return member

    # For the members

    def next_job_id(self) -> int:
        """Return an id that no other job of any member has."""
        self._last_job += 1
        return self._last_job

    def add_cost(self, member: Member, more: float) -> None:
        """Add what a member has spent, and inform the others. What a member that left had spent stays in the sum."""
        if self._budget is None:
            return
        self._budget.spent += more
        for other in self._members:
            if other is not member:
                other.reply(OthersSpent(self._budget.spent - other.spent))

    def remove(self, member: Member) -> None:
        """Forget a member that left."""
        self._members.discard(member)


class Member:
    """One member, as the owner of the limits sees it.

    Attributes:
        reply: Sends a message to it.
        spent: US dollars that its calls have cost.
        tickets: Its requests in flight, by the id of the ticket.
    """

    def __init__(self, admissions: Admissions, reply: Reply) -> None:
        self.reply = reply
        self.spent = 0.0
        self.tickets: dict[int, Ticket] = {}
        self._admissions = admissions
        self._runner = admissions.runner
        self._jobs: dict[int, Job] = {}  # by the member's own id
        self._waiting: dict[int, asyncio.Task[None]] = {}

    def receive(self, messages: Iterable[FromMember]) -> None:
        """Act on messages, in their order."""
        for message in messages:
            _ACTIONS[type(message)](self, message)

    def suspend(self) -> None:
        """Admit no call that waits; the member asks again for those that still do. Its requests in flight go on."""
        for waiting in self._waiting.values():
            waiting.cancel()
        self._waiting.clear()

    def leave(self) -> None:
        """Release everything that a member holds which has ended. Its requests in flight count as sent."""
        self._admissions.remove(self)
        self.suspend()
        while self.tickets:
            _, ticket = self.tickets.popitem()
            self._runner.give_back(ticket, was_sent=True)
        for job in self._jobs.values():
            self._runner.forget(job)
        self._jobs.clear()

    def _admit(self, message: Admit) -> None:
        own = message.job.id
        job = self._jobs.get(own)
        job_id = self._admissions.next_job_id() if job is None else job.id
        self._jobs[own] = job = msgspec.structs.replace(message.job, id=job_id)
        self._waiting[own] = asyncio.get_running_loop().create_task(self._wait(own, job, message.wait_s))

    async def _wait(self, own: int, job: Job, wait_s: float) -> None:
        try:
            ticket = (await self._runner.admit(job, wait_s)).ticket
        except DelugeError as error:
            self.reply(Refused(own, error))
        else:
            self.tickets[ticket.id] = ticket
            self.reply(Admitted(own, ticket))
        finally:
            if self._waiting.get(own) is asyncio.current_task():
                del self._waiting[own]

    def _withdraw(self, message: Withdrawn) -> None:
        waiting = self._waiting.pop(message.job_id, None)
        if waiting is not None:
            waiting.cancel()

    def _forget(self, message: Forgotten) -> None:
        job = self._jobs.pop(message.job_id, None)
        if job is not None:
            self._runner.forget(job)

    def _take(self, ticket: Ticket) -> bool:
        """Remove a ticket; return False if it is not one of the member's: it is of an owner that was restarted."""
        if self.tickets.get(ticket.id) != ticket:
            return False
        del self.tickets[ticket.id]
        return True

    def _observe(self, message: Observed) -> None:
        if message.observation.ticket.id in self.tickets:
            sent_at = self._runner.now() - message.sent_ago_s
            self._runner.observe(msgspec.structs.replace(message.observation, sent_at=sent_at))

    def _settle(self, message: TicketSettled) -> None:
        if self._take(message.ticket):
            self._runner.settle(message.ticket, message.usage)

    def _release(self, message: Released) -> None:
        if self._take(message.ticket):
            self._runner.release(message.ticket, was_sent=message.was_sent, delivered=message.delivered)

    def _block(self, message: Blocked) -> None:
        self._runner.block(message.route, message.error, message.retry_after_s)

    def _cool_down(self, message: CooledDown) -> None:
        self._runner.cool_down(message.decision, message.route, message.error)

    def _unreached(self, message: Unreached) -> None:
        self._runner.is_outage(message.error, message.route)

    def _spend(self, message: Spent) -> None:
        more, self.spent = message.cost - self.spent, message.cost
        self._admissions.add_cost(self, more)


_ACTIONS: dict[type, Callable[[Member, Any], None]] = {
    Admit: Member._admit,  # noqa: SLF001 - the table of the class above
    Withdrawn: Member._withdraw,  # noqa: SLF001
    Forgotten: Member._forget,  # noqa: SLF001
    Observed: Member._observe,  # noqa: SLF001
    TicketSettled: Member._settle,  # noqa: SLF001
    Released: Member._release,  # noqa: SLF001
    Blocked: Member._block,  # noqa: SLF001
    CooledDown: Member._cool_down,  # noqa: SLF001
    Unreached: Member._unreached,  # noqa: SLF001
    Spent: Member._spend,  # noqa: SLF001
}
