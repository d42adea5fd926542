"""`client.answers`: the answers of many prompts as they complete, with a journal if one is named.

With a journal each answer is on the disk before it is yielded. A later run with the same prompts yields the recorded
answers, and sends the rest. A prompt is found in the journal by its id and its text, so a longer list continues the
same batch, and a prompt that changed is asked again.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator, Sized
from contextlib import aclosing, asynccontextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from lm_deluge.api_requests.request import to_tools
from lm_deluge.client.batch.fed_iterator import FedIterator
from lm_deluge.client.batch.journaled import JournaledRows, is_due
from lm_deluge.client.batch.progress_display import Progress, shown
from lm_deluge.client.batch.prompts import Deduplicator, run_one, run_windowed, window_of
from lm_deluge.client.call_options import CallOptions
from lm_deluge.client.dispatcher import CallPlanner, Dispatcher
from lm_deluge.dispatch.batch.duplicates import Duplicates, answer_again
from lm_deluge.dispatch.batch.input import BatchRow
from lm_deluge.dispatch.batch.progress import BatchProgress, ProgressTracker
from lm_deluge.dispatch.call import CallSpec
from lm_deluge.dispatch.hooks import ContainedHook, unexpected_error
from lm_deluge.dispatch.journal.journal import Journal
from lm_deluge.dispatch.journal.records import fingerprint_of
from lm_deluge.errors import ConfigurationError, DelugeError
from lm_deluge.filters.compiled import compile_filters
from lm_deluge.outputs.answer_type import schema_sent
from lm_deluge.prompt.conversation import Conversation, check_prompts, to_conversation
from lm_deluge.response import APIResponse

__all__ = ["AnswerId", "AnswerOptions", "start_answers"]

AnswerId: TypeAlias = Any
"""The id of an answer: the index of its prompt, or the id that the user gave it."""
_Indexed: TypeAlias = tuple[int, APIResponse]

_DIGEST_DIGITS = 16  # of a prompt's hash: 64 bits tell two prompts with the same id apart


class AnswerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of a batch of prompts.

    Attributes:
        call: The options of each call; None: those of the client alone.
        progress: Shows the progress.
        dedupe: Whether equal prompts are sent once.
        journal: The file that records requests and answers; None: no file.
        retry_failed: Whether prompts that failed for good in an earlier run are sent again.
    """

    call: CallOptions | None
    progress: Progress
    dedupe: bool = False
    journal: Path | None = None
    retry_failed: bool = False


def start_answers(
    dispatcher: Dispatcher, prompts: Iterable[Any], ids: Iterable[AnswerId] | None, options: AnswerOptions
) -> FedIterator[tuple[AnswerId, APIResponse]]:
    """Return an iterator over the ids and responses of prompts, in the order in which the calls end.

    Args:
        dispatcher: The dispatcher of the client.
        prompts: The prompts; an iterator is read as its prompts are needed.
        ids: Their ids; None: their indexes.
        options: The options of the batch.

    Raises:
        ConfigurationError: The number of ids is wrong, or two are equal.
        InvalidPromptError: `prompts` is a single prompt.
    """
    names = _Names(check_prompts(prompts), ids)
    planner = dispatcher.planner(options.call)
    total = len(prompts) if isinstance(prompts, Sized) else None
    feed = partial(_feed, dispatcher, planner, names, ProgressTracker(total), options)
    return FedIterator(feed, window_of(dispatcher.options.max_concurrent_requests))


class _Names:
    """The prompts with their ids, which are checked as far as they are known before anything is sent."""

    def __init__(self, prompts: Iterable[Any], ids: Iterable[AnswerId] | None) -> None:
        self._prompts = prompts
        self._ids = list(ids) if isinstance(ids, Sized) else ids
        self._waiting: dict[int, AnswerId] = {}
        if isinstance(self._ids, list):
            self._check_known(self._ids)

    def _check_known(self, ids: list[AnswerId]) -> None:
        if isinstance(self._prompts, Sized) and len(self._prompts) != len(ids):
            raise ConfigurationError(f"there are {len(ids)} ids for {len(self._prompts)} prompts")
        if len({str(each) for each in ids}) < len(ids):
            raise ConfigurationError("two prompts have the same id", hint="Give each prompt its own id.")

    def pairs(self) -> Iterator[tuple[str, Any]]:
        """Yield the id, as text, and each prompt.

        Raises:
            ConfigurationError: There is no id for a prompt, or a second prompt with the same one.
        """
        ids = None if self._ids is None else iter(self._ids)
        seen: set[str] = set()
        for index, prompt in enumerate(self._prompts):
            own = index if ids is None else next(ids, _MISSING)
            if own is _MISSING:
                raise ConfigurationError(f"there are {index} ids, and more prompts")
            if ids is not None and str(own) in seen:
                raise ConfigurationError("two prompts have the same id", hint="Give each prompt its own id.")
            if ids is not None:
                seen.add(str(own))
            self._waiting[index] = own
            yield str(own), prompt

    def pop(self, index: int) -> AnswerId:
        """Return the id of a prompt, once."""
        return self._waiting.pop(index)


_MISSING = object()


async def _feed(
    dispatcher: Dispatcher,
    planner: CallPlanner,
    names: _Names,
    tracker: ProgressTracker,
    options: AnswerOptions,
    put: Callable[[list[tuple[AnswerId, APIResponse]]], Awaitable[None]],
) -> None:
    """Pass on the answers of a batch."""
    runner = dispatcher.runner()

    def snapshot() -> BatchProgress:
        return tracker.progress(time.monotonic(), waiting=runner.waiting, limited_by=runner.limited_by)

    async with shown(options.progress, snapshot):
        answers = (
            _unrecorded(dispatcher, planner, names, tracker, options)
            if options.journal is None
            else _recorded(dispatcher, planner, names, tracker, options, options.journal)
        )
        async with aclosing(answers):
            async for index, response in answers:
                response.id = index
                await put([(names.pop(index), response)])
        tracker.total = tracker.done


async def _unrecorded(
    dispatcher: Dispatcher, planner: CallPlanner, names: _Names, tracker: ProgressTracker, options: AnswerOptions
) -> AsyncGenerator[_Indexed, None]:
    runner = dispatcher.runner()

    def run_alone(_: int, prompt: Any) -> Coroutine[Any, Any, APIResponse]:
        return run_one(lambda: runner, planner.collected, prompt)

    run_any = Deduplicator(run_alone).run if options.dedupe else run_alone

    def run(index: int, named: tuple[str, Any]) -> Coroutine[Any, Any, APIResponse]:
        tracker.start(time.monotonic())
        return run_any(index, named[1])

    window = window_of(dispatcher.options.max_concurrent_requests)
    count = _counting(tracker)
    async with aclosing(run_windowed(run, names.pairs(), window)) as ended:
        async for index, response in ended:
            count(response)
            yield index, response


def _counting(tracker: ProgressTracker) -> ContainedHook:
    return ContainedHook(lambda response: tracker.finish(response, time.monotonic()), None)


# With a journal

_TURNS_TO_LEAVE = 10  # of the event loop, in which the last reference to the iterator of an abandoned run goes away
_open_runs: dict[Path, asyncio.Task[Any]] = {}


async def _recorded(
    dispatcher: Dispatcher,
    planner: CallPlanner,
    names: _Names,
    tracker: ProgressTracker,
    options: AnswerOptions,
    path: Path,
) -> AsyncGenerator[_Indexed, None]:
    await _wait_for_abandoned(path)
    fingerprint = _fingerprint(dispatcher, options.call or CallOptions())
    async with _opened(path, fingerprint) as journal:
        rows = JournaledRows(
            lambda: (dispatcher.runner(), partial(_spec_of, planner)),
            journal,
            most_at_once=dispatcher.options.max_concurrent_requests,
            max_attempts=dispatcher.options.max_attempts + (options.call or CallOptions()).max_output_retries,
            retry_failed=options.retry_failed,
        )
        found = _JournalReader(names, journal, tracker, options)
        due = found.due()
        first = list(_first(due))
        for index, answer in found.ready():
            yield index, planner.restored(answer)
        count = _counting(tracker)
        async with aclosing(rows.answers(chain(first, due))) as answers:
            async for row, response in answers:
                count(response)
                for index, answer in (*found.with_equals(row, response), *found.ready()):
                    yield index, planner.restored(answer)
        for index, answer in found.ready():
            yield index, planner.restored(answer)
        failure = rows.failure or rows.gave_up or found.broken
        if failure is not None:
            raise failure


@asynccontextmanager
async def _opened(path: Path, fingerprint: str) -> AsyncIterator[Journal]:
    """Open a journal, and close it after the block. A cancellation waits until the file is closed."""
    loop = asyncio.get_running_loop()
    opening = loop.create_task(Journal.open(path, fingerprint=fingerprint))
    try:
        journal = await asyncio.shield(opening)
    except asyncio.CancelledError:
        await asyncio.wait({opening})
        if not opening.cancelled() and opening.exception() is None:
            await opening.result().close()
        raise
    try:
        yield journal
    finally:
        closing = loop.create_task(journal.close())
        try:
            await asyncio.shield(closing)
        except asyncio.CancelledError:
            await asyncio.wait({closing})
            raise


async def _wait_for_abandoned(path: Path) -> None:
    """Wait until a run that was left has closed its journal; note the running task as the one that uses it."""
    other, own = _open_runs.get(path), asyncio.current_task()
    if other is not None and other.get_loop() is asyncio.get_running_loop():
        for _ in range(_TURNS_TO_LEAVE):
            if not other.cancelling():
                await asyncio.sleep(0)
        if other.cancelling():
            await asyncio.wait({other})
    if own is not None:
        _open_runs[path] = own
        own.add_done_callback(lambda task: _open_runs.pop(path) if _open_runs.get(path) is task else None)


def _fingerprint(dispatcher: Dispatcher, call: CallOptions) -> str:
    """Return the fingerprint of what shapes all answers of a batch. Keys, addresses and limits may change between runs.

    Raises:
        ConfigurationError: An option does not fit into JSON.
    """
    options = dispatcher.options
    shaping: dict[str, Any] = {
        "models": [model.id for model in dispatcher.models],
        "sampling": msgspec.to_builtins(options.sampling_params),
        "own_sampling": [msgspec.to_builtins(call.sampling_params), dict(call.sampling)],
        "tools": msgspec.to_builtins(to_tools(call.tools)),
        "output": schema_sent(call.output),
        "extra_body": [options.extra_body, call.extra_body],
    }
    filters = compile_filters(call.filters)
    if filters is not None:  # so that the fingerprints of older journals stay valid
        shaping["filters"] = filters.digest
    if call.loop.run_tools:
        shaping["max_rounds"] = call.loop.max_rounds
    try:
        return fingerprint_of(shaping, ())
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ConfigurationError("an option of the batch does not fit into JSON") from error


def _spec_of(planner: CallPlanner, row: BatchRow) -> CallSpec:
    if row.error is not None:
        raise row.error
    return planner.collected(row.conversation or [])


def _first(rows: Iterator[BatchRow]) -> Iterator[BatchRow]:
    first = next(rows, None)
    return iter(()) if first is None else iter((first,))


class _JournalReader:
    """Finds out which prompts are due, and which answers the journal has already.

    Attributes:
        broken: What the iterator of the prompts raised, or None.
    """

    def __init__(self, names: _Names, journal: Journal, tracker: ProgressTracker, options: AnswerOptions) -> None:
        self._names = names
        self._journal = journal
        self._tracker = tracker
        self._options = options
        self._ready: deque[tuple[int, str, bool]] = deque()  # index, name, and whether an equal prompt was asked
        self._duplicates = Duplicates[str]()
        self._equals: dict[str, list[int]] = {}  # indexes of prompts that wait for the answer to an equal one
        self.broken: Exception | None = None

    def due(self) -> Iterator[BatchRow]:
        """Yield the rows of the prompts that are to be sent. What their iterator raises is `broken`, and ends them."""
        try:
            yield from self._due()
        except Exception as error:  # noqa: BLE001 - raised after the calls in flight have ended
            self.broken = error

    def _due(self) -> Iterator[BatchRow]:
        for index, (own, prompt) in enumerate(self._names.pairs()):
            row = _row_of(index, own, prompt)
            first = row.id
            if self._options.dedupe and row.conversation is not None:
                first = self._duplicates.first(row.id, row.conversation)
            if first in self._equals and first != row.id:
                self._equals[first].append(index)
            elif first != row.id or not is_due(self._journal, row.id, retry_failed=self._options.retry_failed):
                self._ready.append((index, first, first != row.id))
            else:
                self._equals[row.id] = []
                self._tracker.start(time.monotonic())
                yield row

    def ready(self) -> Iterator[_Indexed]:
        """Yield the answers that the journal has, each once."""
        while self._ready:
            index, name, is_equal = self._ready.popleft()
            response = self._journal.response(name) or APIResponse()
            yield index, answer_again(response) if is_equal else response

    def with_equals(self, row: BatchRow, response: APIResponse) -> Iterator[_Indexed]:
        """Yield an answer, and its copies for the equal prompts that wait for it."""
        yield row.number - 1, response
        for index in self._equals.pop(row.id, ()):
            yield index, answer_again(response)


def _row_of(index: int, own: str, prompt: Any) -> BatchRow:
    """Return a prompt as a row whose id names the prompt's own id and text."""
    try:
        conversation = to_conversation(prompt)
    except Exception as error:  # noqa: BLE001 - a prompt may be any object of the user
        return BatchRow(id=own, number=index + 1, error=_error_of(error))
    return BatchRow(id=f"{own}:{_digest_of(conversation)}", number=index + 1, conversation=conversation)


def _error_of(error: Exception) -> DelugeError:
    return unexpected_error(error)


def _digest_of(conversation: Conversation) -> str:
    try:
        data = msgspec.msgpack.encode(conversation.messages)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return ""  # the call is refused when it is planned
    return hashlib.sha256(data).hexdigest()[:_DIGEST_DIGITS]
