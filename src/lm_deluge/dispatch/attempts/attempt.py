"""One attempt of a call under its ticket, which is given back exactly once, however the attempt ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from lm_deluge.api_requests.answer import build_answer, build_usage
from lm_deluge.api_requests.call_plan import CallPlan
from lm_deluge.api_requests.response_stream import ResponseStream, open_response_stream
from lm_deluge.dispatch.attempts.throughput import ThroughputMonitor
from lm_deluge.dispatch.scheduling.runner import Runner
from lm_deluge.dispatch.scheduling.scheduler import Admission
from lm_deluge.errors import ConnectError, DelugeError
from lm_deluge.events import Event
from lm_deluge.response import APIResponse, StreamStats
from lm_deluge.usage import Usage

__all__ = ["CallAttempt"]


class CallAttempt:
    """An attempt at a call. `open`, `next_batch` until it returns nothing, `close`; or `abort`, or `fail`.

    Attributes:
        plan: What is sent.
        start: Where, and the ticket.
        number: Which attempt of the call it is, from 1.
        last_number: The same; of an answer that was taken up again, which attempt that was.
        attempt: The answer that is coming, None until its head is there.
    """

    def __init__(self, runner: Runner, start: Admission, plan: CallPlan, number: int) -> None:
        self.plan = plan
        self.start = start
        self.number = self.last_number = number
        self.stream: ResponseStream | None = None
        self._runner = runner
        self._sent_at: float | None = None
        self._watch: ThroughputMonitor | None = None
        self._is_given_back = False

    async def open(self, deadline: float | None, least_speed: float | None = None) -> ResponseStream:
        """Send the request; return once status and headers arrived. Raises as `open_response_stream`.

        Args:
            deadline: When the call must be over, in the loop's time.
            least_speed: Tokens per second below which it fails; None: none.
        """
        sent_at = self._sent_at = self._runner.now()
        attempt = self.stream = await open_response_stream(
            self.plan, deadline=deadline, timeout_monitor=self._runner.timeout_monitor
        )
        self._runner.head_came(self.start.ticket, attempt.head, sent_at)
        if least_speed is not None:
            self._watch = ThroughputMonitor(attempt, least_speed)
        return attempt

    def next_batch(self, *, to_end: bool = False) -> Awaitable[list[Event]]:
        """Return the next events; empty at the end."""
        assert self.stream is not None  # noqa: S101 - it is open
        return self.stream.next_batch(to_end=to_end) if self._watch is None else self._watch.next_batch()

    @property
    def is_speaking(self) -> bool:
        """Whether it has something to show: fast enough, where that is asked of it."""
        attempt = self.stream
        if attempt is None or not attempt.builder.has_deltas:
            return False
        return self._watch is None or self._watch.is_fast_enough

    def first_token_s(self) -> float:
        """Return how long its first token took, or for how long none has come; 0 where nothing was sent."""
        if self._sent_at is None:
            return 0.0
        came_at = None if self.stream is None else self.stream.timing.first_token_at
        ago_s = 0.0 if came_at is None else asyncio.get_running_loop().time() - came_at
        return self._runner.now() - self._sent_at - ago_s

    def trust(self) -> None:
        """Do not watch its speed any more: it is handed out."""
        self._watch = None

    def usage(self) -> Usage | None:
        """Return what it has cost so far, None where nothing was answered."""
        return None if self.stream is None else build_usage(self.stream)

    def usage_when_left(self) -> Usage | None:
        """Return the same for one that nobody listens to any more: at least its input, if it was sent."""
        return self.usage() or (None if self._sent_at is None else self.plan.least_usage())

    def cost(self) -> float | None:
        """Return the same in US dollars; None where nothing was answered, or the model has no price."""
        usage = self.usage()
        return None if usage is None else self.plan.cost(usage)

    def answer(self, stats: StreamStats) -> APIResponse:
        """Return what it has answered so far."""
        if self.stream is None:
            return APIResponse(model_internal=self.plan.call.model.id, stats=stats)
        return build_answer(self.stream, self.plan.call, stats)

    async def close(self) -> None:
        """End it: an answer that was read to its end leaves its connection to the next one, and is settled."""
        if self.stream is None:
            self.abort()
            return
        await self.stream.close()
        usage = self.usage() if self.stream.builder.finished is not None else None
        if usage is None or self._is_given_back:
            self.abort()
            return
        self._is_given_back = True
        self._runner.settle(self.start.ticket, usage)

    def abort(self) -> None:
        """End it now."""
        if self.stream is not None:
            self.stream.abort()
        self._give_back(None)

    @property
    def is_over(self) -> bool:
        """Whether its ticket was given back."""
        return self._is_given_back

    def give_back_later(self) -> None:
        """Give the ticket of a leg back whose loop is closed, from a finaliser."""
        if not self._is_given_back:
            self._is_given_back = True
            self._runner.give_back_later(self.start.ticket, self.usage())

    def fail(self, error: DelugeError) -> None:
        """End it with an error."""
        if self.stream is not None:
            self.stream.abort()
        if self._sent_at is not None and not self._is_given_back:
            self._runner.failed(self.start.ticket, error, self._sent_at)
        self._give_back(error)

    def _give_back(self, error: DelugeError | None) -> None:
        if self._is_given_back:
            return
        self._is_given_back = True
        was_sent = self._sent_at is not None and not isinstance(error, ConnectError)
        self._runner.give_back(self.start.ticket, was_sent=was_sent, delivered=self.usage(), error=error)
