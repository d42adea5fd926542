"""Many calls at once: in order, as they end, or as live streams merged into one.

One task a call, at most so many as may wait for their turn; the runner says when each goes. A call that fails is an
answer with an error on it: one bad row does not lose ten thousand.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator, Sized
from typing import Any

from lm_deluge.client.batch.progress_display import Progress
from lm_deluge.dispatch.batch.duplicates import Duplicates, answer_again
from lm_deluge.dispatch.batch.progress import ProgressTracker
from lm_deluge.dispatch.cache.call import run_call
from lm_deluge.dispatch.call import CallSpec
from lm_deluge.dispatch.scheduling.runner import Runner
from lm_deluge.errors import DelugeError, StreamConsumedError
from lm_deluge.events import Event, ResponseFinished, ResponseStarted
from lm_deluge.prompt.conversation import to_conversation
from lm_deluge.response import APIResponse

__all__ = ["EventMerger", "run_in_order", "run_one", "window_of"]

_WAITING_PER_PLACE = 4
_DEFAULT_WINDOW = 200
_LEAST_AHEAD = 64

MakeCallSpec = Callable[[Any], CallSpec]


async def run_in_order(
    runner: Runner,
    make: MakeCallSpec,
    prompts: Iterable[Any],
    *,
    most_at_once: int | None,
    progress: Progress,
    is_once: bool = False,
) -> list[APIResponse]:
    """Run a call for each prompt, `is_once` for prompts that are the same; return the answers in the prompts' order."""
    total = len(prompts) if isinstance(prompts, Sized) else None
    keeper = ProgressTracker(total)
    found: dict[int, APIResponse] = {}
    shown_at = -float("inf")

    def find_runner() -> Runner:
        return runner

    ask = _Once(find_runner, make).ask if is_once else lambda _, prompt: run_one(find_runner, make, prompt)
    async with contextlib.aclosing(_as_they_end(ask, prompts, keeper, most_at_once)) as ended:
        async for index, response in ended:
            response.id = index
            found[index] = response
            now = time.monotonic()
            if now - shown_at >= progress.every_s:
                shown_at = now
                progress.show(keeper.tally(now, waiting=runner.waiting, limited_by=runner.limited_by))
    keeper.total = len(found)
    progress.close(keeper.tally(time.monotonic()))
    return [found[index] for index in range(len(found))]


def run_one(
    find_runner: Callable[[], Runner],
    make: MakeCallSpec,
    prompt: Any,
    sink: Callable[[list[Event]], Awaitable[None]] | None = None,
) -> Coroutine[Any, Any, APIResponse]:
    """Run one call; what cannot be asked is an answer with the error on it, too."""
    try:
        spec = make(prompt)
    except DelugeError as error:
        return _failed(error)
    return run_call(spec, find_runner, sink)


async def _failed(error: DelugeError) -> APIResponse:
    return APIResponse(error=error)


def window_of(most_at_once: int | None) -> int:
    """Return how many calls of a batch may be under way or wait for their turn."""
    return _DEFAULT_WINDOW if most_at_once is None else most_at_once * _WAITING_PER_PLACE


class _Once:
    """Asks what several prompts ask once."""

    def __init__(self, find_runner: Callable[[], Runner], make: MakeCallSpec) -> None:
        self._find_runner = find_runner
        self._make = make
        self._duplicates = Duplicates[int]()
        self._answers: dict[int, asyncio.Future[APIResponse]] = {}

    async def ask(self, index: int, prompt: Any) -> APIResponse:
        try:
            conversation = to_conversation(prompt)
        except DelugeError as error:
            return APIResponse(error=error)
        first = self._duplicates.first(index, conversation)
        if first != index:
            return answer_again(await self._answers[first])
        answer = self._answers[index] = asyncio.get_running_loop().create_future()
        try:
            response = await run_one(self._find_runner, self._make, conversation)
        except BaseException:
            answer.cancel()
            raise
        answer.set_result(response)
        return response


def _as_they_end(
    ask: Callable[[int, Any], Awaitable[APIResponse]],
    prompts: Iterable[Any],
    keeper: ProgressTracker,
    most_at_once: int | None,
) -> AsyncGenerator[tuple[int, APIResponse], None]:
    """Yield index and answer of each call as it ends. Of prompts that are made as they are read few are held."""
    ended: asyncio.Queue[tuple[int, APIResponse]] = asyncio.Queue()

    async def run(index: int, prompt: Any) -> None:
        keeper.start(time.monotonic())
        response = await ask(index, prompt)
        keeper.finish(response, time.monotonic())
        ended.put_nowait((index, response))

    return _windowed(run, prompts, ended, window_of(most_at_once))


async def _windowed(
    run: Callable[[int, Any], Coroutine[Any, Any, None]],
    prompts: Iterable[Any],
    ended: asyncio.Queue[tuple[int, APIResponse]],
    window: int,
) -> AsyncGenerator[tuple[int, APIResponse], None]:
    """Start a task for each prompt, a window of them at a time; whoever leaves early ends them all."""
    tasks: dict[int, asyncio.Task[None]] = {}
    numbered: Iterator[tuple[int, Any]] = enumerate(prompts)
    loop = asyncio.get_running_loop()
    try:
        while True:
            for index, prompt in itertools.islice(numbered, window - len(tasks)):
                tasks[index] = loop.create_task(run(index, prompt))
            if not tasks:
                return
            index, response = await ended.get()
            await tasks.pop(index)
            yield index, response
    finally:
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)


class EventMerger:
    """Thousands of live streams as one: iterate it for `(index, event)` in the order of arrival, once.

    A slow consumer slows the sockets: nothing is read far ahead. Each stream has one start and one finish; one that
    fails finishes with the reason `error`, and its error is on `responses[index]`, which has every answer that ended.
    """

    def __init__(
        self, start: Callable[[], tuple[Runner, MakeCallSpec]], prompts: Iterable[Any], *, most_at_once: int | None
    ) -> None:
        self.responses: dict[int, APIResponse] = {}
        self._start = start
        self._prompts = prompts
        self._window = window_of(most_at_once)
        # One batch of each stream at a time: with fewer, each turn of the loop would serve a few streams of thousands.
        self._ahead = max(_LEAST_AHEAD, self._window // _WAITING_PER_PLACE)
        self._is_taken = False

    def __aiter__(self) -> AsyncIterator[tuple[int, Event]]:
        if self._is_taken:
            raise StreamConsumedError("these streams were used already", hint="Call client.stream_many(...) again.")
        self._is_taken = True
        return self._merged()

    async def _merged(self) -> AsyncIterator[tuple[int, Event]]:
        runner, make = self._start()
        ready: asyncio.Queue[tuple[int, list[Event]] | None] = asyncio.Queue(self._ahead)
        ended: asyncio.Queue[tuple[int, APIResponse]] = asyncio.Queue()
        has_left: list[bool] = []  # the consumer

        async def run(index: int, prompt: Any) -> None:
            begun: list[bool] = []

            async def sink(events: list[Event]) -> None:
                begun.append(True)
                await ready.put((index, events))

            response = await run_one(lambda: runner, make, prompt, sink)
            response.id = index
            self.responses[index] = response
            if response.error is not None:
                last = ResponseFinished("error", type(response.error).__name__)
                await ready.put((index, [last] if begun else [ResponseStarted(), last]))
            ended.put_nowait((index, response))

        async def feed() -> None:
            try:
                async with contextlib.aclosing(_windowed(run, self._prompts, ended, self._window)) as all_ended:
                    async for _ in all_ended:
                        pass
            finally:
                if not has_left:
                    await ready.put(None)

        feeding = asyncio.get_running_loop().create_task(feed())
        try:
            while (batch := await ready.get()) is not None:
                index, events = batch
                for event in events:
                    yield index, event
            await feeding  # raises what the source of the prompts raised
        finally:
            has_left.append(True)
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)
