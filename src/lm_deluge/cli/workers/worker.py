"""A worker process of `deluge batch --workers`: `python -m lm_deluge.cli.workers.worker FD`.

It answers the rows that it is given. Before each request it waits for the admission and for the record in the journal,
both of which the command makes. When the command ends, in whatever way, its end of the socket closes, and the worker
ends at once: the requests in flight stay ambiguous in the journal.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from lm_deluge.cli.workers.channel import WorkerChannel
from lm_deluge.cli.workers.messages import (
    AttemptOutcome,
    Ended,
    GaveUp,
    Intended,
    PauseChanged,
    Recorded,
    RowGiven,
    SetUp,
    StopSending,
)
from lm_deluge.client.batch.journaled import RowCalls
from lm_deluge.client.batch.row_planner import RowPlanner
from lm_deluge.client.call_options import CallOptions
from lm_deluge.dispatch.sharing.messages import Admitted, OthersSpent, Refused
from lm_deluge.dispatch.sharing.remote_runner import RemoteRunner, SharedBudget
from lm_deluge.response import APIResponse

__all__ = ["main"]

_TICK_S = 0.25
"""Between two reports of the cost and of outages: a budget is exceeded by what all workers spend in this time."""


class JournalOfCommand:
    """The journal that the command keeps, as a worker uses it."""

    def __init__(self, channel: WorkerChannel) -> None:
        self._channel = channel
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[APIResponse | None]] = {}
        self._known: dict[str, APIResponse] = {}

    async def before_attempt(self, call: str, attempt: int) -> None:
        """Return when the intent is on the disk."""
        number = next(self._numbers)
        await self._recorded(number, Intended(number, call, attempt))

    async def settle(self, call: str, attempt: int, response: APIResponse, *, is_final: bool = True) -> APIResponse:
        """Return the response that the journal has, when it is on the disk."""
        number = next(self._numbers)
        outcome = AttemptOutcome(number, call, attempt, response.to_dict(), is_final)
        self._known[call] = kept = await self._recorded(number, outcome) or response
        return kept

    def response(self, call: str) -> APIResponse | None:
        """Return the outcome that was recorded last; None if this process recorded none."""
        return self._known.get(call)

    def forget(self, call: str) -> None:
        """Forget a call that is over."""
        self._known.pop(call, None)

    async def _recorded(self, number: int, message: Intended | AttemptOutcome) -> APIResponse | None:
        self._waiting[number] = asyncio.get_running_loop().create_future()
        self._channel.post(message)
        try:
            return await self._waiting[number]
        finally:
            del self._waiting[number]

    def receive(self, message: Recorded) -> None:
        """Take the answer of the command."""
        waiting = self._waiting.get(message.number)
        if waiting is None or waiting.done():
            return
        if message.error is not None:
            waiting.set_exception(message.error)
        else:
            waiting.set_result(None if message.response is None else APIResponse.from_dict(message.response))


class Worker:
    """Answers rows until the command stops it."""

    def __init__(self) -> None:
        self._ready = asyncio.Event()
        self._runner: RemoteRunner
        self._calls: RowCalls
        self._journal: JournalOfCommand
        self.channel: WorkerChannel
        self._has_given_up = self._is_paused = False
        self._actions: dict[type, Callable[[Any], object]] = {
            SetUp: self._set_up,
            RowGiven: lambda message: self._calls.start_row(message.row, message.history),
            StopSending: lambda _: self._calls.stop(),
            **dict.fromkeys((Admitted, Refused, OthersSpent), lambda message: self._runner.receive([message])),
        }

    def receive(self, messages: list[Any]) -> None:
        """Act on messages, in their order."""
        for message in messages:
            self._actions[type(message)](message)

    def _set_up(self, message: SetUp) -> None:
        client, post = message.client.make(), self.channel.post
        dispatcher, options = client.dispatcher, client.options
        budget = None if options.max_cost is None else SharedBudget(options.max_cost, "the client")
        dispatcher.budget = budget
        runner = dispatcher.make_runner(partial(RemoteRunner, post=post, budget=budget))
        assert isinstance(runner, RemoteRunner)  # noqa: S101 - for the type checkers
        self._runner = runner
        self._journal = JournalOfCommand(self.channel)
        self._actions[Recorded] = self._journal.receive
        own = CallOptions(output=message.schema, max_output_retries=message.max_output_retries)
        self._calls = RowCalls(
            lambda: (runner, RowPlanner(dispatcher, own).spec),
            self._journal,
            max_attempts=options.max_attempts + message.max_output_retries,
        )
        self._ready.set()

    async def run(self) -> None:
        """Report the end of each call, until the process ends."""
        await self._ready.wait()
        calls, journal, post = self._calls, self._journal, self.channel.post
        ticking = asyncio.get_running_loop().create_task(self._tick())
        ticking.add_done_callback(lambda _: os._exit(1))  # it ends with an unexpected error only
        while True:
            row, response = await calls.next_end()
            is_recorded = response is not None and response is journal.response(row.call)
            journal.forget(row.call)
            self._report_state()  # before the end of a row that was not sent for this reason
            data = None if response is None or is_recorded else response.to_dict()
            post(Ended(row.call, data, is_recorded))

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            self._report_state()

    def _report_state(self) -> None:
        """Report what has changed since the last report: cost, an outage, an address that nothing answers at."""
        self._runner.report_cost()
        if self._calls.gave_up is not None and not self._has_given_up:
            self._has_given_up = True
            self.channel.post(GaveUp(self._calls.gave_up))
        if self._calls.is_paused != self._is_paused:
            self._is_paused = not self._is_paused
            self.channel.post(PauseChanged(self._is_paused))


async def _work(end: socket.socket) -> None:
    worker = Worker()
    worker.channel = await WorkerChannel.connect(end, worker.receive, lambda: os._exit(0))
    await worker.run()


def main(descriptor: int) -> None:
    """Answer the rows that arrive over a socket, until its other end is closed.

    Args:
        descriptor: The number of the inherited socket.
    """
    from lm_deluge.cli.environment import raise_file_limit

    raise_file_limit()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_work(socket.socket(fileno=descriptor)))


if __name__ == "__main__":
    main(int(sys.argv[1]))
