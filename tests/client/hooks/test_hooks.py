"""Whatever a hook or a worker raises: that row has an error, every other answer arrives, and the batch ends."""

from __future__ import annotations

import asyncio
import gc
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from client.hooks.exceptions import EVERY_EXCEPTION, FailingDisplay, OddError
from lm_deluge import APIResponse, LLMClient
from lm_deluge.api_requests.response_stream import ResponseStream
from lm_deluge.client.batch.row_planner import answer_rows
from lm_deluge.client.dispatcher import CallPlanner
from lm_deluge.client.stream import Stream
from lm_deluge.dispatch.batch.input import BatchRow
from lm_deluge.dispatch.journal.journal import Journal
from lm_deluge.errors import DelugeError, DispatchError
from lm_deluge.events import ResponseFinished
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.simulator import Script, Simulator

PROMPTS = ["one", *EVERY_EXCEPTION, "two"]  # a prompt with the name of an exception causes it


def echo(request: Any) -> Script:
    return Script(text=f"answer to {request.conversation[-1].completion}")


@asynccontextmanager
async def client_of(**options: Any) -> AsyncIterator[LLMClient]:
    """A client of a simulator; no task, connection or slot is left at its end."""
    options = {"api_key": "k", "progress": None, **options}
    async with (
        Simulator(echo) as sim,
        asyncio.timeout(20),
        LLMClient("gpt-4o", base_url=sim.base_url, **options) as client,
    ):
        yield client
        assert client.dispatcher.runner().waiting == 0
        await asyncio.sleep(0)
        assert [task for task in asyncio.all_tasks() if "lm_deluge/client" in str(task.get_coro())] == []


async def in_order(client: LLMClient, tmp_path: Path) -> list[APIResponse]:
    return await client.process_prompts_async(PROMPTS)


async def with_journal(client: LLMClient, tmp_path: Path) -> list[APIResponse]:
    return await client.process_prompts_async(PROMPTS, journal=tmp_path / "journal")


async def without_duplicates(client: LLMClient, tmp_path: Path) -> list[APIResponse]:
    responses = await client.process_prompts_async([*PROMPTS, *PROMPTS], ask_duplicates_once=True)
    assert [type(each.error) for each in responses[: len(PROMPTS)]] == [
        type(each.error) for each in responses[len(PROMPTS) :]
    ]
    return responses[: len(PROMPTS)]


async def merged(client: LLMClient, tmp_path: Path) -> list[APIResponse]:
    streams = client.stream_many(PROMPTS)
    finishes = [index async for index, event in streams if isinstance(event, ResponseFinished)]
    assert sorted(finishes) == list(range(len(PROMPTS)))
    return [streams.responses[index] for index in range(len(PROMPTS))]


async def started(client: LLMClient, tmp_path: Path) -> list[APIResponse]:
    ids = [client.start_nowait(prompt) for prompt in PROMPTS]
    found = {task_id: response async for task_id, response in client.as_completed(ids)}
    return [found[task_id] for task_id in ids]


async def waited_for(client: LLMClient, tmp_path: Path) -> list[APIResponse]:
    return await client.wait_for_all([client.start_nowait(prompt) for prompt in PROMPTS])


async def batch_file(client: LLMClient, tmp_path: Path) -> list[APIResponse]:
    rows = [
        BatchRow(id=prompt, number=number, conversation=Conversation.user(prompt))
        for number, prompt in enumerate(PROMPTS, start=1)
    ]
    async with await Journal.open(tmp_path / "rows", fingerprint="x") as journal:
        answers = answer_rows(client.dispatcher, journal).answers(rows)
        found = {row.id: response async for row, response in answers}
        assert journal.state.ambiguous == ()
    return [found[prompt] for prompt in PROMPTS]


WAYS: dict[str, Callable[[LLMClient, Path], Any]] = {
    each.__name__: each
    for each in (in_order, with_journal, without_duplicates, merged, started, waited_for, batch_file)
}
every_way = pytest.mark.parametrize("way", WAYS)
every_exception = pytest.mark.parametrize("name", EVERY_EXCEPTION)


def check(responses: list[APIResponse], errors: dict[str, BaseException]) -> None:
    """Check that the rows named by exceptions, and only those, have errors of ours that the exceptions caused."""
    assert len(responses) == len(PROMPTS)
    for prompt, response in zip(PROMPTS, responses, strict=True):
        if prompt in errors:
            assert isinstance(response.error, DispatchError)
            assert response.error.__cause__ is errors[prompt]
            assert type(errors[prompt]).__name__ in str(response.error)
        else:
            assert response.error is None
            assert response.completion == f"answer to {prompt}"


@every_way
async def test_a_postprocess_that_raises(way: str, tmp_path: Path) -> None:
    def reject(response: APIResponse) -> APIResponse:
        error = EVERY_EXCEPTION.get(response.completion.rpartition(" ")[2])
        if error is not None:
            raise error
        return response

    async with client_of(postprocess=reject, max_concurrent_requests=1) as client:
        responses = await WAYS[way](client, tmp_path)
    check(responses, EVERY_EXCEPTION)
    assert [each.completion for each in responses] == [f"answer to {each}" for each in PROMPTS]  # paid, and kept
    assert None not in [each.usage for each in responses]


RESULTS: dict[str, Any] = {"None": None, "text": "answer", "list": [1], "class": APIResponse}


@every_way
async def test_a_postprocess_that_returns_no_response(way: str, tmp_path: Path) -> None:
    async def later() -> str:
        await asyncio.sleep(0)
        return "later"

    names = dict(zip(EVERY_EXCEPTION, [*RESULTS, "coroutine"], strict=False))

    def change(response: APIResponse) -> Any:
        name = names.get(response.completion.rpartition(" ")[2])
        if name is None:
            return response
        return later() if name == "coroutine" else RESULTS[name]

    async with client_of(postprocess=change) as client:
        responses = await WAYS[way](client, tmp_path)
    for prompt, response in zip(PROMPTS, responses, strict=True):
        if prompt in names:
            assert "not an APIResponse. It must return the response" in str(response.error)
        assert (prompt in names) == response.is_error
        assert response.completion == f"answer to {prompt}"
    gc.collect()  # a coroutine that was not awaited would warn


async def test_a_postprocess_may_be_asynchronous(tmp_path: Path) -> None:
    async def change(response: APIResponse) -> APIResponse:
        await asyncio.sleep(0)
        return msgspec.structs.replace(response, model_internal="changed")

    async with client_of(postprocess=change) as client:
        for way in WAYS.values():
            assert {response.model_internal for response in await way(client, tmp_path)} == {"changed"}


@every_way
async def test_a_worker_that_raises(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure in the middle of a call, where the library expects none."""
    # A coroutine turns the first two into a RuntimeError, and the other two interrupt the program or the coroutine.
    others = ("StopIteration", "StopAsyncIteration", "SystemExit", "GeneratorExit")
    errors = {name: error for name, error in EVERY_EXCEPTION.items() if name not in others}
    plan = CallPlanner.plan

    def fail(self: CallPlanner, model: str, conversation: Conversation, *more: Any) -> Any:
        if conversation[-1].completion in errors:
            raise errors[conversation[-1].completion]
        return plan(self, model, conversation, *more)

    monkeypatch.setattr(CallPlanner, "plan", fail)
    async with client_of(max_concurrent_requests=1) as client:
        check(await WAYS[way](client, tmp_path), errors)


class FailingCache:
    """A local cache that raises another exception each time: when it is read, or when it is written."""

    def __init__(self, failing: str) -> None:
        self.failing = failing
        others = ("StopIteration", "GeneratorExit")  # which a coroutine cannot raise
        self.errors = itertools.cycle(error for name, error in EVERY_EXCEPTION.items() if name not in others)

    async def get(self, key: str) -> bytes | None:
        await asyncio.sleep(0)
        if self.failing == "get":
            raise next(self.errors)
        return None

    async def put(self, key: str, value: bytes) -> None:
        await asyncio.sleep(0)
        if self.failing == "put":
            raise next(self.errors)


@every_way
@pytest.mark.parametrize("where", ["get", "put"])
@pytest.mark.filterwarnings("ignore:the local cache cannot be")
async def test_a_cache_that_raises(where: str, way: str, tmp_path: Path) -> None:
    async with client_of(local_cache=FailingCache(where)) as client:
        check(await WAYS[way](client, tmp_path), {})
        assert (await client.stream("one", echo=None)).completion == "answer to one"


@pytest.mark.parametrize("where", ["get", "put"])
async def test_a_cache_that_raises_where_warnings_are_errors(where: str, tmp_path: Path) -> None:
    async with client_of(local_cache=FailingCache(where)) as client:
        check(await in_order(client, tmp_path), {})


@every_exception
async def test_a_display_that_raises(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    display = FailingDisplay(EVERY_EXCEPTION[name])
    monkeypatch.setattr("lm_deluge.client.batch_methods.make_progress", lambda _kind: display)
    async with client_of() as client:
        found = {index: each.completion async for index, each in client.answers(["one", "two"])}
    assert found == {0: "answer to one", 1: "answer to two"}
    assert display.calls >= 1


@pytest.mark.parametrize("way", ["in_order", "with_journal", "without_duplicates"])
async def test_a_display_that_raises_ends_no_batch(way: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    display = FailingDisplay(OddError())
    monkeypatch.setattr("lm_deluge.client.batch_methods.make_progress", lambda _kind: display)
    async with client_of() as client:
        check(await WAYS[way](client, tmp_path), {})
    assert display.calls >= 1


class OddPrompt:
    """Raises wherever it is looked at."""

    def __getattr__(self, name: str) -> Any:
        raise MemoryError

    def __iter__(self) -> Iterator[Any]:
        raise MemoryError


async def test_a_prompt_that_raises(tmp_path: Path) -> None:
    async with client_of() as client:
        for options in ({}, {"journal": tmp_path / "j"}, {"ask_duplicates_once": True}):
            one, bad, two = await client.process_prompts_async(["one", OddPrompt(), "two"], **options)
            assert (one.completion, two.completion) == ("answer to one", "answer to two")
            assert isinstance(bad.error, DelugeError)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_interruption_is_raised_by_a_blocking_batch_and_leaves_the_loop_usable(kind: type[BaseException]) -> None:
    """Also in the thread that runs the calls, where it would end the loop that later calls need."""

    def prompts() -> Iterator[str]:
        yield "one"
        raise kind

    with Simulator(echo).start_in_thread() as sim:
        client = LLMClient("gpt-4o", base_url=sim.base_url, api_key="k", progress=None)
        with pytest.raises(kind):
            client.process_prompts_sync(prompts())
        assert [each.completion for each in client.process_prompts_sync(["one"])] == ["answer to one"]
        client.close_sync()


async def test_whoever_gives_up_a_wait_ends_the_wait_alone() -> None:
    gate = asyncio.Event()

    async def hold(response: APIResponse) -> APIResponse:
        await gate.wait()
        return response

    async with client_of(postprocess=hold) as client:
        answers = client.answers(PROMPTS)
        streams = aiter(client.stream_many(PROMPTS, temperature=0.5))
        for waiting in (answers, streams):
            while True:
                try:
                    await asyncio.wait_for(anext(waiting), 0.5)
                except TimeoutError:
                    break
        gate.set()
        found = {index: each.completion async for index, each in answers}
        assert found == {index: f"answer to {each}" for index, each in enumerate(PROMPTS)}
        assert [each async for each in streams] == []
        with pytest.raises(StopAsyncIteration):
            await anext(streams)


async def test_a_duplicate_that_is_cancelled_cancels_no_other_one() -> None:
    """Other code may cancel any task: the batch ends, and each row has an answer or an error."""
    gate = asyncio.Event()

    async def hold(response: APIResponse) -> APIResponse:
        await gate.wait()
        return response

    async with client_of(postprocess=hold) as client:
        before = asyncio.all_tasks()
        batch = asyncio.create_task(client.process_prompts_async(["one"] * 3, ask_duplicates_once=True))
        rows: list[asyncio.Task[Any]] = []
        while len(rows) < 3:
            await asyncio.sleep(0)
            rows = [each for each in asyncio.all_tasks() - before if ".run" in str(each.get_coro())]
        rows.sort(key=lambda task: int(task.get_name().rpartition("-")[2]))
        rows[1].cancel()
        await asyncio.sleep(0)
        gate.set()
        first, second, third = await batch
    assert (first.completion, third.completion) == ("answer to one", "answer to one")
    assert isinstance(second.error, DispatchError)
    assert "cancelled" in str(second.error)


@pytest.mark.parametrize("name", [name for name, error in EVERY_EXCEPTION.items() if isinstance(error, Exception)])
async def test_a_single_stream_raises_only_errors_of_ours(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the part of the answer that arrived, in each form of a stream."""
    next_batch = ResponseStream.next_batch

    async def fail(self: ResponseStream, *, to_end: bool = False) -> Any:
        if self.builder.has_deltas:
            raise EVERY_EXCEPTION[name]
        return await next_batch(self, to_end=to_end)

    async def awaited(stream: Stream) -> None:
        await stream

    async def iterated(stream: Stream) -> None:
        async for _ in stream:
            pass

    async def read(stream: Stream) -> None:
        while await stream.next_batch():
            pass

    async def to_end(stream: Stream) -> None:
        await stream.read_to_end()

    async with client_of() as client:
        monkeypatch.setattr(ResponseStream, "next_batch", fail)
        for use in (awaited, iterated, read, to_end):
            with pytest.raises(DelugeError) as caught:
                await use(client.stream("one", echo=None))
            assert caught.value.partial.completion
            assert "answer to one".startswith(caught.value.partial.completion)
            assert caught.value.__cause__ is not None
            assert "an unexpected" in str(caught.value)
