"""An agent loop as one running call: the model answers, its calls run, and their results go back to it, until it ends.

Each round is an ordinary call with its own attempts, retries, limits and cache. The tools of a round run after its
answer has ended well: an answer that breaks may start again, and would run them twice.
"""

from __future__ import annotations

import asyncio
import builtins
import contextlib
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from lm_deluge.agents.agent_watch import AgentWatch
from lm_deluge.agents.approval import decide
from lm_deluge.agents.history import CallIds, LoopHistory
from lm_deluge.agents.loop_response import build_response, total_usage
from lm_deluge.agents.options import LoopOptions
from lm_deluge.agents.round_events import RoundEvents
from lm_deluge.agents.round_hooks import RoundHooks
from lm_deluge.agents.tool_tasks import ToolTasks
from lm_deluge.api_requests.timeouts import Deadline, Interruptible
from lm_deluge.dispatch.attempts.attempt import PendingRetry
from lm_deluge.dispatch.attempts.call_stream import StreamCall
from lm_deluge.dispatch.cache.call import CachedCall
from lm_deluge.dispatch.call import CallSpec, Planner
from lm_deluge.dispatch.running_call import RunningCall
from lm_deluge.dispatch.scheduling.runner import Runner
from lm_deluge.errors import DelugeError
from lm_deluge.events import Event, FinishReason, ResponseFinished, ResponseStarted
from lm_deluge.prompt.tool import ProviderTool, Tool
from lm_deluge.response import APIResponse, StreamStats
from lm_deluge.telemetry.observer import ObservedCall
from lm_deluge.tools.runner import ToolRunner

__all__ = ["MAX_ROUNDS_WARNING", "AgentCall", "LoopSetup", "open_agent_call"]

MAX_ROUNDS_WARNING = "max_rounds"
"""In `response.warnings` of a loop that ended because the model wanted more rounds than `max_rounds`."""

# A program that was started gets some seconds to end before it is killed; https://modelcontextprotocol.io (2026-11).
_DISCONNECT_S = 10.0


class LoopSetup(Protocol):
    """What the loops of one call, or of all rows of a batch, have in common."""

    @property
    def options(self) -> LoopOptions:
        """How the tools run."""
        ...

    @property
    def has_servers(self) -> bool:
        """Whether some of the tools are those of servers, to which a loop connects."""
        ...

    def runner(self) -> ToolRunner:
        """Return a runner of the tools, for one loop."""
        ...

    def planner(self, tools: tuple[Tool | ProviderTool, ...], *, is_first: bool) -> Planner:
        """Return the planner of a round.

        Args:
            tools: The tools as they are now: an MCP server can change its own.
            is_first: Whether `tool_choice` applies. If it forces a call in each round, a loop never ends.
        """
        ...


class AgentCall:
    """A running agent loop; see `RunningCall` for its methods.

    Args:
        spec: The call.
        find_runner: Returns the runner that decides when each attempt is sent.
        setup: The tools and the options of the loop.

    Attributes:
        error: What the loop ended with, None as long as it did not fail.
        scope: Interrupts the wait of the caller's task when the loop is aborted.
    """

    def __init__(self, spec: CallSpec, find_runner: Callable[[], Runner], setup: LoopSetup) -> None:
        self.error: DelugeError | None = None
        self.scope: Deadline | None = None
        self._spec = msgspec.structs.replace(spec, open_with=None)
        self._hooks = RoundHooks(spec)
        self._find_runner = find_runner
        self._setup = setup
        self._tools = setup.runner()
        self._history = LoopHistory(spec.conversation)
        self._ids = CallIds(spec.conversation.messages)
        # Decisions are about the calls that are open now: ids of later calls can be guessed, where hosts count them.
        self._decisions = setup.options.decisions if self._history.calls else None
        self._is_connected = not setup.has_servers
        self._closing: asyncio.Task[None] | None = None  # of the connections to servers
        self._is_undecided = bool(self._history.calls)  # calls of the prompt, or of the last answer, wait for decisions
        self._round: RunningCall | None = None
        self._cached: CachedCall | None = None  # the same, if it uses the local cache
        self._events: RoundEvents | None = None  # of the present round, or of the last one
        self._tasks: ToolTasks | None = None
        self._has_started = False  # whether an event was delivered
        self._is_last = False  # the finish was delivered: the round is read to its end
        self._finished: ResponseFinished | None = None
        self._is_complete = False  # the loop ended by itself
        self._is_paused = False
        self._is_over = False
        self._is_aborted = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watch: AgentWatch | None = None
        self._started_at = self._ended_at = 0.0

    # Reading

    async def next_batch(self) -> list[Event]:
        """Return the next events, at least one; empty at the end, and after an abort.

        Raises:
            DelugeError: A round failed; `partial` is what the loop has so far, once any event was returned.
        """
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._started_at = self._loop.time()
            self._watch = self._start_watch()
        try:
            while not self._is_over:
                events = await self._advance()
                if events:
                    return self._delivered(events)
        except DelugeError as error:
            if self._is_aborted:
                return []
            await self._fail(error)
            raise
        except BaseException as error:
            if self._is_aborted and isinstance(error, builtins.TimeoutError):
                return []
            self.abort()
            raise
        return []

    def _delivered(self, events: list[Event]) -> list[Event]:
        if not self._has_started:
            self._has_started = True
            if type(events[0]) is not ResponseStarted:  # results of calls that were pending come first
                return [ResponseStarted(), *events]
        return events

    async def _advance(self) -> list[Event]:
        """Take one step: read from the round, or from the tools, or start either of them."""
        if not self._is_connected:
            with Interruptible(self):
                await self._tools.__aenter__()
            self._is_connected = True
        if self._is_undecided:
            return await self._start_tools()
        if self._tasks is not None:
            return await self._read_tools(self._tasks)
        if self._round is None:
            self._round = self._next_round()
        events = await self._round.next_batch()
        if events and self._events is not None:
            return self._with_finish(self._events.translate(events))
        return [] if self._is_over else await self._end_round(self._round)

    def _start_watch(self) -> AgentWatch:
        spec, runner = self._spec, self._find_runner()
        observed = ObservedCall(spec.conversation, lambda: runner.candidates(spec), spec.plan_for)
        return AgentWatch(observed, spec.observers)

    def _next_round(self) -> RunningCall:
        history, number = self._history, len(self._history.rounds) + 1
        self._ids.start_round()
        self._events = RoundEvents(
            number,
            is_start=number == 1 and not self._has_started,
            first_index=0 if self._events is None else self._events.next_index,
            ids=self._ids,
            usage=total_usage(history.rounds),
        )
        spec = self._hooks.spec_of_round(number)
        conversation = history.next_prompt()
        if number > 1 or self._setup.has_servers or conversation != spec.conversation:
            prefer = history.rounds[-1].model_internal if history.rounds else ""
            planner = self._setup.planner(self._tools.definitions, is_first=number == 1)
            spec = msgspec.structs.replace(
                spec, planner=planner, conversation=conversation, prefer=prefer or spec.prefer, plans={}
            )
        if self._watch is not None:
            spec = msgspec.structs.replace(spec, observers=self._watch.rounds)
        if not spec.is_cached:
            return StreamCall(spec, self._find_runner)
        self._cached = CachedCall(spec, self._find_runner, has_judge=spec.is_judged, reads=spec.reads_cache)
        return self._cached

    def _with_finish(self, events: list[Event]) -> list[Event]:
        """Return events of a round, with the finish of the loop if it ends with this round."""
        round_events = self._events
        if round_events is None or round_events.finished is None or self._is_last:
            return events
        finish = round_events.finished
        goes_on = _goes_on(finish.finish_reason, has_calls=round_events.has_calls)
        if goes_on and not self._is_at_limit:
            return events
        self._is_last = True
        warnings = (MAX_ROUNDS_WARNING,) if goes_on else ()
        self._finished = msgspec.structs.replace(finish, warnings=(*finish.warnings, *warnings))
        return [*events, self._finished]

    async def _end_round(self, call: RunningCall) -> list[Event]:
        """Close the call of a round that was read to its end, and decide how the loop goes on."""
        await call.close()
        answer = self._ids.rename(call.response())
        goes_on = answer.error is None and _goes_on(answer.finish_reason, has_calls=bool(answer.tool_calls))
        if goes_on and not self._is_at_limit:
            await self.judge(is_accepted=True)
            self._history.add_answer(answer)
            self._is_undecided = bool(self._history.calls)
        else:
            answer.warnings += (MAX_ROUNDS_WARNING,) if goes_on else ()
            self._history.add_last_answer(answer)
            self._round, self._is_complete = None, True
            self._end()
        self._round = None
        return []

    @property
    def _is_at_limit(self) -> bool:
        return len(self._history.rounds) + 1 >= self._setup.options.max_rounds

    # Tools

    async def _start_tools(self) -> list[Event]:
        decisions, self._decisions = self._decisions, None
        with Interruptible(self):
            decided = await decide(self._history.open_calls, self._setup.options.approve, decisions)
        self._is_undecided = False
        if not self._is_over:
            self._tasks = ToolTasks(self._tools, decided, self._history.add_result, self._watch)
        return []

    async def _read_tools(self, tasks: ToolTasks) -> list[Event]:
        with Interruptible(self):
            events = await tasks.next_events()
        if events:
            return events if self._spec.delivers_events else []
        self._tasks = None
        if not self._history.open_calls:
            return []
        self._is_paused = self._is_complete = True
        self._finished = ResponseFinished("pause")
        self._end()
        return [self._finished]

    # Ending

    def _end(self) -> None:
        if self._is_over:
            return
        self._is_over = True
        if self._loop is not None:
            self._ended_at = self._loop.time()
            if self._setup.has_servers and self._is_connected:
                self._closing = self._loop.create_task(self._disconnect())
        if not self._is_aborted:
            self._report_end()

    def _report_end(self) -> None:
        if self._watch is not None:
            self._watch.ended(self.response, self.error)

    async def _disconnect(self) -> None:
        if self._tasks is not None:
            await self._tasks.settle()
        await self._tools.__aexit__(None, None, None)

    async def _fail(self, error: DelugeError) -> None:
        self.error = error
        self._end()
        if self._has_started or self._history.rounds:
            error.partial = self.response()
        await self._hooks.fail(self.response)

    async def close(self) -> None:
        """End the loop. An answer that was read to its end leaves its connection to the next request."""
        if self._round is not None:
            await self._round.close()
        if not self._is_over:
            self.abort()
        await self.settle()

    async def judge(self, *, is_accepted: bool) -> None:
        """Store the last answer in the local cache if it is accepted; answers that others follow are stored anyway."""
        cached, self._cached = self._cached, None
        if cached is not None and self._spec.is_judged:
            await cached.judge(is_accepted=is_accepted)

    async def settle(self) -> None:
        """Wait, for seconds at most, until tools that an abort cancelled have ended, and servers are disconnected."""
        if self._round is not None:
            await self._round.settle()
        if self._tasks is not None:
            await self._tasks.settle()
        if self._closing is not None:
            await asyncio.wait({self._closing}, timeout=_DISCONNECT_S)

    def abort(self) -> None:
        """End the loop now: the connection is closed, and tools are cancelled; a pending `next_batch` returns []."""
        self._is_aborted = True
        self._end()
        if self._round is not None:
            self._round.abort()
        if self._tasks is not None:
            self._tasks.cancel()
        self._report_end()
        scope, self.scope = self.scope, None
        if scope is not None:
            scope.pass_now()  # interrupts the wait for tools or for `approve`

    def abort_from_anywhere(self) -> None:
        """Abort from a finaliser, which may run in another thread or after the loop was closed."""
        if self._loop is None or (self._is_over and self._round is None and self._tasks is None):
            return
        if self._round is not None:
            self._round.abort_from_anywhere()
        with contextlib.suppress(RuntimeError):  # the event loop is closed
            self._loop.call_soon_threadsafe(self.abort)

    # Results

    @property
    def pending_retry(self) -> PendingRetry | None:
        """The next attempt while a round waits for it; else None."""
        return None if self._round is None else self._round.pending_retry

    def response(self) -> APIResponse:
        """Return the response so far: the answer of the last round, and the conversation."""
        history, call = self._history, self._round
        unfinished = None if call is None else self._ids.rename(call.response())
        rounds = history.rounds if unfinished is None else [*history.rounds, unfinished]
        response = build_response(rounds, model=self._spec.prefer or "", duration=self._duration)
        response.error = self.error or response.error
        response.conversation = history.conversation(unfinished, keeps_open=self._is_paused)
        if self._is_paused or not (self._is_complete or self._is_last or response.error):
            response.finish_reason = "pause" if self._is_paused else None
            response.raw_finish_reason = response.finish_details = None
            response.pending = history.open_calls if self._is_paused else ()
        if self._is_last and self._finished is not None:
            response.warnings = tuple(dict.fromkeys((*response.warnings, *self._finished.warnings)))
        return response

    def stats(self) -> StreamStats:
        """Return the timing of the loop so far."""
        stats = self.response().stats
        return StreamStats() if stats is None else stats

    @property
    def _duration(self) -> float | None:
        if self._loop is None:
            return None
        return (self._ended_at if self._is_over else self._loop.time()) - self._started_at


def _goes_on(reason: FinishReason | None, *, has_calls: bool) -> bool:
    """Whether another round follows an answer: it has calls to run, or the provider interrupted its own work.

    The calls of an answer that was cut off (`length`, `content_filter`) are not run.
    """
    return reason == "pause" or (reason in ("tool_calls", "stop") and has_calls)


def open_agent_call(setup: LoopSetup) -> Callable[[CallSpec, Callable[[], Any]], AgentCall]:
    """Return a function for `CallSpec.open_with`."""
    return lambda spec, find_runner: AgentCall(spec, find_runner, setup)
