"""Many calls at once, as they end, or as live streams merged into one.

Each call is one task. Their number is limited, and the runner decides when each call is sent. Whatever a task raises is
a response with `error` set, so one bad prompt, or one failing hook, does not end the batch.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable, Iterator
from contextlib import aclosing
from typing import Any, TypeAlias

import msgspec

from lm_deluge.client.batch.fed_iterator import AsyncOnly, FedIterator
from lm_deluge.dispatch.attempts.call_stream import StreamCall
from lm_deluge.dispatch.batch.duplicates import Duplicates, answer_again
from lm_deluge.dispatch.cache.call import CachedCall
from lm_deluge.dispatch.call import CallSpec
from lm_deluge.dispatch.hooks import failed_response, is_interruption, postprocess_response, unexpected_error
from lm_deluge.dispatch.running_call import JudgedCall, RunningCall
from lm_deluge.dispatch.scheduling.runner import Runner
from lm_deluge.errors import DispatchError, StreamConsumedError
from lm_deluge.events import Event, ResponseFinished, ResponseStarted
from lm_deluge.prompt.conversation import check_prompts, to_conversation
from lm_deluge.response import APIResponse

__all__ = ["Deduplicator", "EventMerger", "run_call", "run_one", "run_windowed", "window_of"]

_WAITING_PER_SLOT = 4  # tasks per concurrent request: enough waiting tasks that a free slot is used at once
_DEFAULT_WINDOW = 200
"""Tasks if the user sets no limit: many requests at once, but not more than a new account usually may send."""
_MIN_QUEUED_BATCHES = 64  # batches of events that a slow consumer leaves queued, if few streams are open

MakeCallSpec = Callable[[Any], CallSpec]


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
    except Exception as error:  # noqa: BLE001 - a prompt may be any object of the user
        return _failed(unexpected_error(error))
    return run_call(spec, find_runner, on_events)


def run_call(
    spec: CallSpec, find_runner: Callable[[], Runner], on_events: Callable[[list[Event]], Awaitable[None]] | None = None
) -> Coroutine[Any, Any, APIResponse]:
    """Run a call to its end. If anything fails, the response has `error` set; only an interruption is raised.

    Args:
        spec: The call.
        find_runner: Returns the runner that decides when each attempt is sent.
        on_events: Receives the events as they arrive, if given.
    """
    if spec.open_with is not None:
        return _run_opened(msgspec.structs.replace(spec, is_judged=True), find_runner, on_events)
    if spec.is_cached:
        return _run_cached(spec, find_runner, on_events)
    return _run_call(StreamCall(spec, find_runner), spec, on_events)


async def _run_cached(
    spec: CallSpec, find_runner: Callable[[], Runner], on_events: Callable[[list[Event]], Awaitable[None]] | None
) -> APIResponse:
    """Run a call whose answer may be in the local cache; what `postprocess` rejects is not cached."""
    call = CachedCall(spec, find_runner, has_judge=True)
    response = await _run_call(call, spec, on_events)
    if call.is_hit and response.error is not None and on_events is None:
        # `postprocess` rejects an answer that it accepted before, or that a stream stored: it would reject it forever.
        call = CachedCall(spec, find_runner, has_judge=True, reads=False)
        response = await _run_call(call, spec, on_events)
    await call.judge(is_accepted=response.error is None)
    return response


async def _run_opened(
    spec: CallSpec, find_runner: Callable[[], Runner], on_events: Callable[[list[Event]], Awaitable[None]] | None
) -> APIResponse:
    """Run a call that `open_with` makes; as `_run_cached` if it has a local cache."""
    assert spec.open_with is not None  # noqa: S101 - as `run_call` has it
    call: RunningCall = spec.open_with(spec, find_runner)
    response = await _run_call(call, spec, on_events)
    if response.local_cache_hit and response.error is not None and on_events is None:  # as in `_run_cached`
        call = spec.open_with(msgspec.structs.replace(spec, reads_cache=False), find_runner)
        response = await _run_call(call, spec, on_events)
    if spec.is_cached and isinstance(call, JudgedCall):
        await call.judge(is_accepted=response.error is None)
    return response


async def _run_call(
    call: RunningCall, spec: CallSpec, on_events: Callable[[list[Event]], Awaitable[None]] | None
) -> APIResponse:
    """Run one call to its end."""
    try:
        while events := await call.next_batch():
            if on_events is not None:
                await on_events(events)
        await call.close()
        response = call.response()
        return response if spec.postprocess is None else await postprocess_response(response, spec.postprocess)
    except BaseException as error:
        with contextlib.suppress(Exception):
            call.abort()
        if is_interruption(error):
            raise
        return failed_response(call.response, error)


async def _failed(error: Exception) -> APIResponse:
    return APIResponse(error=unexpected_error(error))


def window_of(most_at_once: int | None) -> int:
    """Return how many calls of a batch may be in flight or wait for the limits."""
    return _DEFAULT_WINDOW if most_at_once is None else most_at_once * _WAITING_PER_SLOT


class Deduplicator:
    """Runs one call for all equal prompts.

    Args:
        run: Runs the call of a prompt.
    """

    def __init__(self, run: Callable[[int, Any], Coroutine[Any, Any, APIResponse]]) -> None:
        self._run = run
        self._duplicates = Duplicates[int]()
        self._answers: dict[int, asyncio.Future[APIResponse | None]] = {}

    async def run(self, index: int, prompt: Any) -> APIResponse:
        """Run the call, or wait for the answer of an equal prompt. A wait that is given up ends alone."""
        try:
            conversation = to_conversation(prompt)
        except Exception as error:  # noqa: BLE001 - as in `run_one`
            return APIResponse(error=unexpected_error(error))
        first = self._duplicates.first(index, conversation)
        if first != index:
            answer = self._answers[first]
            await asyncio.wait({answer})
            response = answer.result()
            return await self._run(index, conversation) if response is None else answer_again(response)
        answer = self._answers[index] = asyncio.get_running_loop().create_future()
        try:
            response = await self._run(index, conversation)
        except BaseException:
            answer.set_result(None)  # the others ask for themselves
            raise
        answer.set_result(response)
        return response


async def run_windowed(
    run: Callable[[int, Any], Coroutine[Any, Any, APIResponse]], prompts: Iterable[Any], window: int
) -> AsyncGenerator[tuple[int, APIResponse], None]:
    """Yield the index and response of each call as it ends.

    Prompts of an iterator are read when they are needed. If it raises, the calls in flight still end before its error
    is raised. If the consumer stops early, all calls are cancelled.

    Args:
        run: Runs the call of a prompt. What it raises is the error of the response.
        prompts: The prompts.
        window: Most calls at a time.
    """
    tasks: dict[int, asyncio.Task[APIResponse]] = {}
    ended: deque[int] = deque()
    has_ended = asyncio.Event()
    source: Iterator[tuple[int, Any]] | None = enumerate(prompts)
    loop = asyncio.get_running_loop()
    broken: Exception | None = None
    try:
        while True:
            while source is not None and len(tasks) < window:
                try:
                    item = next(source, None)
                except Exception as error:  # noqa: BLE001 - raised after the calls in flight have ended
                    broken, item = error, None
                if item is None:
                    source = None
                    break
                index, prompt = item
                task = tasks[index] = loop.create_task(run(index, prompt))
                task.add_done_callback(functools.partial(_note_end, ended, has_ended, index))
            if not tasks:
                break
            if not ended:
                has_ended.clear()
                await has_ended.wait()
            index = ended.popleft()
            yield index, _response_of(tasks.pop(index))
        if broken is not None:
            raise broken
    finally:
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)


def _note_end(ended: deque[int], has_ended: asyncio.Event, index: int, _: asyncio.Task[APIResponse]) -> None:
    ended.append(index)
    has_ended.set()


def _response_of(task: asyncio.Task[APIResponse]) -> APIResponse:
    """Return the response of a task that has ended, however it ended."""
    if task.cancelled():
        return APIResponse(error=DispatchError("the task of the call was cancelled", billed="maybe"))
    error = task.exception()
    if isinstance(error, KeyboardInterrupt | SystemExit):
        raise error
    return task.result() if error is None else APIResponse(error=unexpected_error(error))


Start: TypeAlias = Callable[[], tuple[Runner, MakeCallSpec]]
IndexedEvent: TypeAlias = tuple[int, Event]


class EventMerger(AsyncOnly):
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

    def __init__(self, start: Start, prompts: Iterable[Any], *, most_at_once: int | None) -> None:
        self.responses: dict[int, APIResponse] = {}
        self._start = start
        self._prompts = check_prompts(prompts)
        self._window = window_of(most_at_once)
        # One batch of events per stream: with fewer, a turn of the event loop would serve few of thousands of streams.
        self._max_queued = max(_MIN_QUEUED_BATCHES, self._window // _WAITING_PER_SLOT)
        self._is_taken = False

    def __aiter__(self) -> FedIterator[IndexedEvent]:
        if self._is_taken:
            raise StreamConsumedError("these streams were already iterated", hint="Call client.stream_many(...) again.")
        self._is_taken = True
        feed = functools.partial(_merge, self._start, self._prompts, self._window, self.responses)
        return FedIterator(feed, self._max_queued)


async def _merge(
    start: Start,
    prompts: Iterable[Any],
    window: int,
    responses: dict[int, APIResponse],
    put: Callable[[list[IndexedEvent]], Awaitable[None]],
) -> None:
    """Pass on the events of all streams, and note their responses."""
    runner, make = start()
    started: set[int] = set()
    finished: set[int] = set()

    async def run(index: int, prompt: Any) -> APIResponse:
        async def on_events(events: list[Event]) -> None:
            started.add(index)
            if type(events[-1]) is ResponseFinished:
                finished.add(index)
            await put([(index, event) for event in events])

        return await run_one(lambda: runner, make, prompt, on_events)

    async with aclosing(run_windowed(run, prompts, window)) as ended:
        async for index, response in ended:
            response.id = index
            responses[index] = response
            if response.error is not None and index not in finished:  # `postprocess` may fail after the last event
                last = ResponseFinished("error", type(response.error).__name__)
                ending: list[Event] = [last] if index in started else [ResponseStarted(), last]
                await put([(index, event) for event in ending])
            started.discard(index)
            finished.discard(index)
