"""One worker process, as the command sees it: its rows, its requests in flight, and the end of its process."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

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
)
from lm_deluge.client.batch.journaled import RowHistory
from lm_deluge.dispatch.batch.input import BatchRow
from lm_deluge.dispatch.journal.journal import Journal
from lm_deluge.dispatch.sharing.admissions import Admissions
from lm_deluge.dispatch.sharing.messages import ToMember
from lm_deluge.errors import DelugeError, JournalError
from lm_deluge.response import APIResponse

__all__ = ["WorkerOwner", "WorkerProcess"]

_END_S = 5.0  # a worker ends within milliseconds after its socket is closed; one that was stopped (SIGSTOP) does not


class WorkerOwner(Protocol):
    """What owns workers: it gives them rows, and learns how they end."""

    @property
    def set_up(self) -> SetUp:
        """The first message to each worker."""
        ...

    @property
    def journal(self) -> Journal:
        """The journal of the batch."""
        ...

    def note_end(self, row: BatchRow, response: APIResponse | None) -> None:
        """Note that a row is over."""
        ...

    def note_death(self, status: int, rows: list[BatchRow], in_flight: list[str]) -> None:
        """Note that a worker died."""
        ...

    def give_up(self, error: DelugeError) -> None:
        """Stop because the provider was never reached."""
        ...

    def fail(self, error: JournalError) -> None:
        """Stop after an error of the journal."""
        ...


class WorkerProcess:
    """A worker process. Create it with `start`.

    Attributes:
        rows: The rows that it has, by the names of their calls.
        in_flight: Its requests in flight: call and number of the attempt.
        is_paused: Whether it waits because no connection to the provider succeeds.
        is_over: Whether its end is closed: it gets no rows.
        is_gone: Whether it died, and its rows are in other hands.
    """

    def __init__(self, owner: WorkerOwner, admissions: Admissions) -> None:
        self.rows: dict[str, BatchRow] = {}
        self.in_flight: set[tuple[str, int]] = set()
        self.is_paused = self.is_over = self.is_gone = False
        self.channel: WorkerChannel
        self._owner = owner
        self._outcomes: dict[str, APIResponse] = {}  # for good, of rows whose end the worker has not reported yet
        self._member = admissions.join(self._post)
        self._process: asyncio.subprocess.Process
        self._tasks: set[asyncio.Task[None]] = set()
        self._burial: asyncio.Task[None] | None = None
        self._actions: dict[type, Callable[[Any], None]] = {
            Intended: lambda message: self._run(self._intend(message)),
            AttemptOutcome: lambda message: self._run(self._settle(message)),
            Ended: self._end_row,
            GaveUp: lambda message: owner.give_up(message.error),
            PauseChanged: self._pause,
        }

    @classmethod
    async def start(cls, owner: WorkerOwner, admissions: Admissions) -> WorkerProcess:
        """Start a process.

        Raises:
            OSError: The system has no room for another process.
        """
        worker = cls(owner, admissions)
        own, others = socket.socketpair()
        with others:
            worker.channel = await WorkerChannel.connect(own, worker._receive, worker._closed)
            try:
                # A session of its own: Ctrl-C in the terminal reaches the command alone, which stops its workers.
                worker._process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-P", "-m", "lm_deluge.cli.workers.worker", str(others.fileno())),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.DEVNULL,
                    pass_fds=(others.fileno(),),
                    start_new_session=True,
                )
            except BaseException:
                worker.is_over = True
                worker.channel.close()
                raise
        worker.channel.post(owner.set_up)
        return worker

    def give(self, row: BatchRow, history: RowHistory) -> None:
        """Give a row to the worker."""
        self.rows[row.call] = row
        self.channel.post(RowGiven(row, history))

    def end(self) -> None:
        """End the process at once. Its requests in flight stay ambiguous in the journal."""
        self.is_over = True
        self.rows.clear()
        self.channel.close()

    async def wait(self) -> None:
        """Return when the process has ended, and what it sent is in the journal."""
        try:
            async with asyncio.timeout(_END_S):
                await self._process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _post(self, message: ToMember) -> None:
        self.channel.post(message)

    def _receive(self, messages: list[Any]) -> None:
        for message in messages:
            action = self._actions.get(type(message))
            if action is not None:
                action(message)
            else:
                self._member.receive([message])

    def _run(self, recording: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(recording)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _intend(self, message: Intended) -> None:
        request = (message.call, message.attempt)
        self.in_flight.add(request)
        try:
            await self._owner.journal.before_attempt(*request)
        except JournalError as error:
            self.in_flight.discard(request)
            self._owner.fail(error)
            self.channel.post(Recorded(message.number, error))
        else:
            self.channel.post(Recorded(message.number))

    async def _settle(self, message: AttemptOutcome) -> None:
        sent = APIResponse.from_dict(message.response)
        try:
            kept = await self._owner.journal.settle(message.call, message.attempt, sent, is_final=message.is_final)
        except JournalError as error:
            self._owner.fail(error)
            self.channel.post(Recorded(message.number, error))
            return
        self.in_flight.discard((message.call, message.attempt))
        if message.is_final:
            self._outcomes[message.call] = kept
        self.channel.post(Recorded(message.number, response=None if kept is sent else kept.to_dict()))

    def _end_row(self, message: Ended) -> None:
        row = self.rows.pop(message.call, None)
        if row is None:  # the batch was aborted in the meantime
            return
        recorded = self._outcomes.pop(message.call, None)
        # Of a hedged request one attempt may have no outcome: it is ambiguous, and not in flight any more.
        self.in_flight = {each for each in self.in_flight if each[0] != message.call}
        response = recorded if message.is_recorded else None
        if message.response is not None:
            response = APIResponse.from_dict(message.response)
        self._owner.note_end(row, response)

    def _pause(self, message: PauseChanged) -> None:
        self.is_paused = message.is_paused

    def _closed(self) -> None:
        was_ended, self.is_over = self.is_over, True
        self._member.leave()
        if not was_ended:
            self._burial = asyncio.get_running_loop().create_task(self._bury())

    async def _bury(self) -> None:
        """After the death of the process: pass on the outcomes that it still sent, and report the rows without one."""
        await self.wait()
        for call in [call for call in self.rows if call in self._outcomes]:
            self._owner.note_end(self.rows.pop(call), self._outcomes.pop(call))
        rows, self.rows = list(self.rows.values()), {}
        in_flight, self.in_flight = [call for call, _ in self.in_flight], set()
        self.is_gone = True
        self._owner.note_death(self._process.returncode or 0, rows, in_flight)
