"""Many calls at once: answers in order, or live streams merged into one.

Each call is one task. Their number is limited, and the runner decides when each call is sent. A call that fails is a
response with `error` set, so one bad prompt does not end the batch.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator, Sized
from typing import Any

from lm_deluge.client.batch.progress_display import Progress, shown
from lm_deluge.dispatch.attempts.call_stream import StreamCall
from lm_deluge.dispatch.batch.duplicates import Duplicates, answer_again
from lm_deluge.dispatch.batch.progress import BatchProgress, ProgressTracker
from lm_deluge.dispatch.cache.call import CachedCall
from lm_deluge.dispatch.call import CallSpec
from lm_deluge.dispatch.scheduling.runner import Runner
from lm_deluge.errors import DelugeError, DispatchError, StreamConsumedError
from lm_deluge.events import Event, ResponseFinished, ResponseStarted
from lm_deluge.prompt.conversation import check_prompts, to_conversation
from lm_deluge.response import APIResponse

__all__ = ["EventMerger", "run_call", "run_in_order", "run_one", "window_of"]

_WAITING_PER_SLOT = 4  # tasks per concurrent request: enough waiting tasks that a free slot is used at once
_DEFAULT_WINDOW = 200
"""Tasks if the user sets no limit: many requests at once, but not more than a new account usually may send."""
_MIN_QUEUED_BATCHES = 64  # batches of events that a slow consumer leaves queued, if few streams are open

MakeCallSpec = Callable[[Any], CallSpec]


async def run_in_order(
    runner: Runner,
    make: MakeCallSpec,
    prompts: Iterable[Any],
    *,
    most_at_once: int | None,
    progress: Progress,
    dedupe: bool = False,
) -> list[APIResponse]:
    """Run a call for each prompt and return the responses in the order of the prompts.

    Args:
        runner: Decides when each call is sent.
        make: Builds the call of a prompt.
        prompts: The prompts; an iterator is read as calls end.
        most_at_once: Most concurrent requests; None for no limit.
        progress: Shows the progress.
        dedupe: Whether equal prompts are sent once.

    Raises:
        InvalidPromptError: `prompts` is a single prompt.
    """
    prompts = check_prompts(prompts)
    total = len(prompts) if isinstance(prompts, Sized) else None
    tracker = ProgressTracker(total)
    responses: dict[int, APIResponse] = {}

    def find_runner() -> Runner:
        return runner

    def snapshot() -> BatchProgress:
        return tracker.progress(time.monotonic(), waiting=runner.waiting, limited_by=runner.limited_by)

    run = _Deduplicator(find_runner, make).run if dedupe else lambda _, prompt: run_one(find_runner, make, prompt)
    async with (
        shown(progress, snapshot),
        contextlib.aclosing(_as_completed(run, prompts, tracker, most_at_once)) as ended,
    ):
        async for index, response in ended:
            response.id = index
            responses[index] = response
        tracker.total = len(responses)
    return [responses[index] for index in range(len(responses))]


def run_one(
    find_runner: Callable[[], Runner],
    make: MakeCallSpec,
    prompt: Any,
    on_events: Callable[[list[Event]], Awaitable[None]] | None = None,
) -> Coroutine[Any, Any, APIResponse]:
    """Run one call; a prompt that cannot be sent is a response with `error` set, too.

    Args:
        find_runner: Returns the runner.
        make: Builds the call of the prompt.
        prompt: The prompt.
        on_events: Receives the events as they arrive, if given.
    """
    try:
        spec = make(prompt)
    except DelugeError as error:
        return _failed(error)
    return run_call(spec, find_runner, on_events)


async def run_call(
    spec: CallSpec, find_runner: Callable[[], Runner], on_events: Callable[[list[Event]], Awaitable[None]] | None = None
) -> APIResponse:
    """Run a call to its end. If the call fails, the response has `error` set; nothing is raised.

    Args:
        spec: The call.
        find_runner: Returns the runner that decides when each attempt is sent.
        on_events: Receives the events as they arrive, if given.
    """
    call = (CachedCall if spec.is_cached else StreamCall)(spec, find_runner)
    try:
        while events := await call.next_batch():
            if on_events is not None:
                await on_events(events)
        await call.close()
    except DelugeError as error:
        call.abort()
        response = call.response()
        response.error = error
        return response
    except BaseException:
        call.abort()
        raise
    response = call.response()
    return response if spec.postprocess is None else _postprocessed(response, spec.postprocess)


def _postprocessed(response: APIResponse, postprocess: Callable[[APIResponse], APIResponse]) -> APIResponse:
    try:
        return postprocess(response)
    except Exception as error:  # noqa: BLE001 - an error of the user's function fails one call, not the batch
        response.error = DispatchError(
            f"postprocess raised {type(error).__name__}", hint="The response has the complete answer."
        )
        response.error.__cause__ = error
        return response


async def _failed(error: DelugeError) -> APIResponse:
    return APIResponse(error=error)


def window_of(most_at_once: int | None) -> int:
    """Return how many calls of a batch may be in flight or wait for the limits."""
    return _DEFAULT_WINDOW if most_at_once is None else most_at_once * _WAITING_PER_SLOT


class _Deduplicator:
    """Runs one call for all equal prompts."""

    def __init__(self, find_runner: Callable[[], Runner], make: MakeCallSpec) -> None:
        self._find_runner = find_runner
        self._make = make
        self._duplicates = Duplicates[int]()
        self._answers: dict[int, asyncio.Future[APIResponse]] = {}

    async def run(self, index: int, prompt: Any) -> APIResponse:
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


def _as_completed(
    run_call_of: Callable[[int, Any], Awaitable[APIResponse]],
    prompts: Iterable[Any],
    tracker: ProgressTracker,
    most_at_once: int | None,
) -> AsyncGenerator[tuple[int, APIResponse], None]:
    """Yield the index and response of each call as it ends. Prompts of an iterator are read when they are needed."""
    ended: asyncio.Queue[tuple[int, APIResponse]] = asyncio.Queue()

    async def run(index: int, prompt: Any) -> None:
        tracker.start(time.monotonic())
        response = await run_call_of(index, prompt)
        tracker.finish(response, time.monotonic())
        ended.put_nowait((index, response))

    return _windowed(run, prompts, ended, window_of(most_at_once))


async def _windowed(
    run: Callable[[int, Any], Coroutine[Any, Any, None]],
    prompts: Iterable[Any],
    ended: asyncio.Queue[tuple[int, APIResponse]],
    window: int,
) -> AsyncGenerator[tuple[int, APIResponse], None]:
    """Run a task for each prompt, at most `window` at a time; all are cancelled if the consumer stops early."""
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
    """Many live streams as one: iterate it once for `(index, event)` in the order of arrival.

    A slow consumer slows down reading from the sockets. Each stream has one `ResponseStarted` and one
    `ResponseFinished`. A stream that fails has the finish reason `error`; the error is on `responses[index]`.

    Args:
        start: Returns the runner, and the function that builds the call of a prompt.
        prompts: The prompts.
        most_at_once: Most concurrent requests; None for no limit.

    Attributes:
        responses: The response of each stream that has ended, by index.

    Example:
        >>> streams = client.stream_many(prompts)
        >>> async for index, event in streams:
        ...     print(index, event)
    """

    def __init__(
        self, start: Callable[[], tuple[Runner, MakeCallSpec]], prompts: Iterable[Any], *, most_at_once: int | None
    ) -> None:
        self.responses: dict[int, APIResponse] = {}
        self._start = start
        self._prompts = check_prompts(prompts)
        self._window = window_of(most_at_once)
        # One batch of events per stream: with fewer, a turn of the event loop would serve few of thousands of streams.
        self._max_queued = max(_MIN_QUEUED_BATCHES, self._window // _WAITING_PER_SLOT)
        self._is_taken = False

    def __aiter__(self) -> AsyncIterator[tuple[int, Event]]:
        if self._is_taken:
            raise StreamConsumedError("these streams were already iterated", hint="Call client.stream_many(...) again.")
        self._is_taken = True
        return self._merged()

    async def _merged(self) -> AsyncIterator[tuple[int, Event]]:
        runner, make = self._start()
        ready: asyncio.Queue[tuple[int, list[Event]] | None] = asyncio.Queue(self._max_queued)
        ended: asyncio.Queue[tuple[int, APIResponse]] = asyncio.Queue()
        has_stopped: list[bool] = []  # the consumer

        async def run(index: int, prompt: Any) -> None:
            started: list[bool] = []

            async def on_events(events: list[Event]) -> None:
                started.append(True)
                await ready.put((index, events))

            response = await run_one(lambda: runner, make, prompt, on_events)
            response.id = index
            self.responses[index] = response
            if response.error is not None:
                last = ResponseFinished("error", type(response.error).__name__)
                await ready.put((index, [last] if started else [ResponseStarted(), last]))
            ended.put_nowait((index, response))

        async def feed() -> None:
            try:
                async with contextlib.aclosing(_windowed(run, self._prompts, ended, self._window)) as all_ended:
                    async for _ in all_ended:
                        pass
            finally:
                if not has_stopped:
                    await ready.put(None)

        feeding = asyncio.get_running_loop().create_task(feed())
        try:
            while (batch := await ready.get()) is not None:
                index, events = batch
                for event in events:
                    yield index, event
            await feeding  # raises an error of the iterator of prompts
        finally:
            has_stopped.append(True)
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)
