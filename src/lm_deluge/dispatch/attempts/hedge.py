"""Hedging: a second attempt beside one without output; the first to have output is kept, the other one is closed.

The first attempt is read in the task that waits for the call, as without hedging; the second one has a task of its own,
from the moment at which it is due. It queues for admission like any other request, and leaves the queue if the first
attempt has output, or fails, in the meantime. Once it was sent, a failure of one attempt does not end the call as long
as the other one runs.
"""

from __future__ import annotations

import asyncio
import builtins
import contextlib
from collections.abc import Awaitable, Callable

import msgspec

from lm_deluge.dispatch.attempts.attempt import AdmittedCall, CallAttempt
from lm_deluge.dispatch.call import CallSpec
from lm_deluge.dispatch.scheduling.scheduler import Admission
from lm_deluge.errors import ConfigurationError, DelugeError, DispatchError
from lm_deluge.events import Attempt as AttemptEvent
from lm_deluge.events import Event

__all__ = ["Hedge"]


class Hedge:
    """One race. `run` it once, from the task that waits for the call; `stop` it from anywhere.

    Args:
        spec: The call.
        first: An attempt that was admitted and is not yet open.
        begin: Makes an attempt of an admission; the number is the least cost of the first attempt, in US dollars.
        read: Opens an attempt and reads until it has output.
        lose: Called with an attempt that ended while the other one goes on, and its error; None: the other one had
            output first.

    Attributes:
        kept: The attempt that had output first; after an error the attempt that failed last.
        second: The attempt beside the first one, as long as it runs.
        notes: `Attempt` events about it.
    """

    def __init__(
        self,
        spec: CallSpec,
        first: CallAttempt,
        *,
        begin: Callable[[AdmittedCall, Admission, float], Awaitable[CallAttempt]],
        read: Callable[[CallAttempt], Awaitable[list[Event]]],
        lose: Callable[[CallAttempt, DelugeError | None], None],
    ) -> None:
        self.kept = first
        self.second: CallAttempt | None = None
        self.notes: list[Event] = []
        self._runner = first.call.runner
        self._spec = spec
        self._first = first
        self._begin = begin
        self._read = read
        self._lose = lose
        self._timer: asyncio.Handle | None = None
        self._task: asyncio.Task[None] | None = None
        self._outcome: list[Event] | Exception | None = None
        self._scope: asyncio.Timeout | None = None  # interrupts the read of the first attempt

    async def run(self, patience_s: float | None) -> list[Event]:
        """Return the first events of the attempt that is kept.

        Args:
            patience_s: Seconds without output before a second attempt starts; None: no second attempt.

        Raises:
            DelugeError: Both attempts failed; this is the error of the last one.
        """
        if patience_s is None:
            return await self._read(self._first)
        self._timer = self._runner.later(patience_s, lambda: self._start(patience_s))
        try:
            return await self._first_to_speak()
        finally:
            self.stop()

    def stop(self) -> None:
        """Admission no second attempt any more; the caller ends the attempts."""
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    # The first attempt

    async def _first_to_speak(self) -> list[Event]:
        failure: DelugeError | None = None
        scope = asyncio.timeout(None)
        try:
            async with scope:
                self._scope = scope
                buffered = await self._read(self._first)
        except DelugeError as error:
            failure = error
        except builtins.TimeoutError:
            if not scope.expired():
                raise
        else:
            await self._drop_second()
            return buffered
        finally:
            self._scope = None
        second = self.second
        if second is None:
            await self._drop_second()
        else:
            self.kept = second
            self._lose(self._first, failure)
            await self._end_of_task()
        if isinstance(self._outcome, list):
            return self._outcome
        raise self._outcome or failure or asyncio.CancelledError  # without an outcome and a failure, `stop` was called

    async def _drop_second(self) -> None:
        """End the second attempt, or the wait for its admission, and its task in any case."""
        self.stop()
        second, self.second = self.second, None
        if second is not None:
            self._lose(second, None)
        await self._end_of_task()
        if isinstance(self._outcome, Exception):
            raise self._outcome

    async def _end_of_task(self) -> None:
        if self._task is not None:
            await asyncio.wait([self._task])  # awaiting the task itself would pass a cancellation on to it

    # The second attempt

    def _start(self, patience_s: float) -> None:
        attempt = self._first.stream
        if attempt is None or not attempt.builder.has_deltas:  # otherwise it has output, if slowly
            self._task = asyncio.get_running_loop().create_task(self._run_second(patience_s))

    async def _run_second(self, patience_s: float) -> None:
        """Set `_outcome` to its events or the error that ends the race; not if it failed and the first goes on."""
        try:
            self._outcome = await self._second(patience_s)
        except DelugeError as error:
            if self.second is None:
                return  # nothing was sent
            if self.kept is self.second:
                self._outcome = error
                return
            lost, self.second = self.second, None
            self._lose(lost, error)
            return
        except Exception as error:  # noqa: BLE001 - raised in the task that waits for the call
            self._outcome = error
        if self._scope is not None:
            self._scope.reschedule(asyncio.get_running_loop().time())

    async def _second(self, patience_s: float) -> list[Event]:
        attempt = self.second = await self._begin_second(await self._admit())
        what = f"no output within {patience_s:.4g} s"
        self.notes.append(AttemptEvent(attempt.number, "Hedge", what, 0.0, attempt.start.route.model))
        return await self._read(attempt)

    async def _begin_second(self, start: Admission) -> CallAttempt:
        call = self._first.call
        if call.is_last:  # the first attempt was resumed in the meantime
            self._runner.give_back(start.ticket, was_sent=False)
            raise DispatchError("there were as many attempts as max_attempts allows")
        return await self._begin(call, start, self._first.plan.least_cost())

    async def _admit(self) -> Admission:
        """Wait for admission at another model, and if no other can take the call, at the same one."""
        present = self._first.start.route.model
        others = frozenset(
            model for model in self._runner.usable(self._spec) if model != present and self._can_take(model)
        )
        job = self._runner.job_of(self._spec)
        try:
            if others:
                with contextlib.suppress(DelugeError):
                    return await self._runner.admit(msgspec.structs.replace(job, models=others))
            return await self._runner.admit(msgspec.structs.replace(job, models=frozenset({present})))
        finally:
            self._runner.forget(job)

    def _can_take(self, model: str) -> bool:
        try:
            self._spec.plan_for(model)
        except ConfigurationError:
            return False
        return True
