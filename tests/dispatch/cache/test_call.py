"""The local cache over a real socket: hits, misses, and answers that are not cached."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from lm_deluge import Conversation, LLMClient, Message, SamplingParams, Tool
from lm_deluge import errors as e
from lm_deluge.dispatch.cache.sqlite import SQLiteCache
from lm_deluge.events import Attempt, Event, ReasoningDelta, ResponseFinished, TextDelta, ToolCallFinished
from lm_deluge.simulator import Script, Simulator
from loopback import DONE, HELLO, Loopback, answer, data, finish, text

TOOL = Tool(name="add", description="Adds.", parameters={"type": "object", "properties": {"a": {"type": "integer"}}})
RICH = Script(
    text="The answer: it is ü.", reasoning="Let me see.", tool_calls=[("add", {"a": 2**70, "b": ["ü", None]})]
)


def all_bytes(folder: Path) -> bytes:
    return b"".join(each.read_bytes() for each in folder.iterdir())


class Shelf:
    """A cache in a dictionary that counts its calls."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.asked = 0

    async def get(self, key: str) -> bytes | None:
        self.asked += 1
        return self.values.get(key)

    async def put(self, key: str, value: bytes) -> None:
        self.values[key] = value


async def events_of(client: LLMClient, prompt: Any = "Hello", **options: Any) -> tuple[list[Event], Any]:
    async with client.stream(prompt, **options) as stream:
        return [event async for event in stream.events()], stream.response


async def test_a_hit_is_the_same_stream_without_a_request(tmp_path: Path) -> None:
    async with Simulator(RICH) as sim:
        async with LLMClient("gpt-4o", base_url=sim.base_url, local_cache=tmp_path / "cache") as client:
            live, first = await events_of(client, tools=[TOOL])
            again, second = await events_of(client, tools=[TOOL])
        async with LLMClient("gpt-4o", base_url=sim.base_url, local_cache=str(tmp_path / "cache")) as other:
            replayed, _ = await events_of(other, tools=[TOOL])
        assert len(sim.requests) == 1
        assert sim.stats.connections == 1
    assert live == again == replayed
    assert {ReasoningDelta, TextDelta, ToolCallFinished} <= {type(event) for event in live}
    assert sum(isinstance(event, TextDelta) for event in live) > 1
    assert second.content == first.content
    for name in ("usage", "finish_reason", "raw_finish_reason", "response_id", "model_external", "warnings", "id"):
        assert getattr(second, name) == getattr(first, name), name
    assert (first.local_cache_hit, second.local_cache_hit) == (False, True)
    assert first.cost > 0
    assert second.cost == 0.0
    assert (first.stats.attempts, second.stats.attempts) == (1, 0)
    assert second.stats.output_tokens == first.usage.output_tokens
    assert second.stats.duration >= 0
    assert (second.status_code, second.request_id, second.stats.bytes_received) == (None, None, 0)


async def test_every_way_of_taking_a_stream_hits(capsys: pytest.CaptureFixture[str]) -> None:
    shelf = Shelf()
    async with Simulator("One, two.") as sim, LLMClient("gpt-4o", base_url=sim.base_url, local_cache=shelf) as client:
        awaited = await client.stream("Count.")
        assert (await client.stream("Count.")).local_cache_hit
        assert capsys.readouterr().out == 2 * "One, two."
        assert "".join([token async for token in client.stream("Count.")]) == awaited.completion
        stream = client.stream("Count.")
        assert await stream.next_batch()
        assert await stream.next_batch() == []
        cancelled = await client.stream("Count.").cancel()
        assert (cancelled.completion, cancelled.local_cache_hit) == ("", False)
        async for _ in client.stream("Count."):
            break
        assert len(sim.requests) == 1


def test_blocking_streams_hit_too(tmp_path: Path) -> None:
    with Simulator("One, two.").start_in_thread() as sim:
        client = LLMClient("gpt-4o", base_url=sim.base_url, local_cache=tmp_path / "cache")
        for is_hit in (False, True):
            with client.stream_sync("Count.") as stream:
                assert "".join(stream) == "One, two."
                assert stream.response.local_cache_hit == is_hit
        client.close_sync()
        asyncio.run(events_of(client, "Count."))  # another loop, the same client
        asyncio.run(client.close())
        assert len(sim.requests) == 1


OTHERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "prompt": ({}, {"prompt": "Hello!"}),
    "history": ({}, {"prompt": Conversation.user("a").add(Message.assistant("b")).add(Message.user("Hello"))}),
    "temperature": ({}, {"sampling_params": SamplingParams(temperature=0.5)}),
    "seed": ({"seed": 1}, {}),
    "tools": ({}, {"tools": [TOOL]}),
    "schema": ({}, {"output": {"type": "object"}}),
    "key": ({"api_key": "sk-of-another-tenant"}, {}),
    "header": ({"extra_headers": {"openai-organization": "other"}}, {}),
    "body": ({"extra_body": {"user": "other"}}, {}),
    "model": ({"model": "gpt-4o-mini"}, {}),
    "provider": ({"model": "vllm:gpt-4o"}, {}),
}


@pytest.mark.parametrize("name", OTHERS)
async def test_what_differs_in_anything_is_a_miss(name: str) -> None:
    options, call = OTHERS[name]
    shelf = Shelf()
    async with Simulator("{}") as sim:  # which fits the schema, too
        own = {"model": "gpt-4o", "base_url": sim.base_url, "api_key": "sk-test", "local_cache": shelf}
        for changes, arguments in (({}, {}), (options, call), ({}, {}), (options, call)):
            async with LLMClient(**{**own, **changes}) as client:
                await client.stream(**{"prompt": "Hello", "echo": None, **arguments})
        assert len(sim.requests) == 2
    assert len(shelf.values) == 2


async def test_another_address_is_a_miss() -> None:
    shelf = Shelf()
    for _ in range(2):
        async with Simulator("Hi.") as sim, LLMClient("gpt-4o", base_url=sim.base_url, local_cache=shelf) as client:
            await client.stream("Hello", echo=None)
            assert len(sim.requests) == 1


FAULTS = ["status_400", "in_band_error_first", "in_band_error_mid", "clean_truncation;after=2", "reset;after=2"]


@pytest.mark.parametrize("fault", FAULTS)
async def test_what_failed_is_not_kept(fault: str) -> None:
    shelf = Shelf()
    async with (
        Simulator("One, two, three, four.", faults=[fault]) as sim,
        LLMClient("gpt-4o", base_url=sim.base_url, local_cache=shelf, max_attempts=1) as client,
    ):
        with pytest.raises(e.DelugeError):
            await client.stream("Count.", echo=None)
        assert shelf.values == {}
        assert (await client.stream("Count.", echo=None)).completion == "One, two, three, four."
        assert len(shelf.values) == 1


async def test_attempts_that_failed_are_not_replayed() -> None:
    shelf = Shelf()
    async with (
        Simulator("Hi.", faults=["retry_after_ms", None]) as sim,
        LLMClient("gpt-4o", base_url=sim.base_url, local_cache=shelf) as client,
    ):
        live, _ = await events_of(client)
        again, response = await events_of(client)
    assert [type(event) for event in live].count(Attempt) == 1
    assert again == [event for event in live if not isinstance(event, Attempt)]
    assert response.stats.attempts == 0


async def test_a_stream_that_was_left_is_not_kept() -> None:
    shelf = Shelf()
    async with (
        Simulator("One, two, three, four.") as sim,
        LLMClient("gpt-4o", base_url=sim.base_url, local_cache=shelf) as client,
    ):
        async for _ in client.stream("Count."):
            break
        stream = client.stream("Count.")
        await stream.next_batch()
        await stream.cancel()
        async with client.stream("Count.") as stream:
            await stream.next_batch()
        assert shelf.values == {}
        async with client.stream("Count.") as stream:
            async for event in stream.events():
                if isinstance(event, ResponseFinished):
                    break  # after the last event; the end of the loop is not reached
        assert len(shelf.values) == 1


UNKEPT: dict[str, Sequence[bytes]] = {
    "filtered": (text("a"), finish("content_filter"), DONE),
    "no finish reason": (text("a"), data({"choices": [], "usage": {"prompt_tokens": 1}}), DONE),
    "unknown finish reason": (text("a"), finish("tired"), DONE),
    "nonsense after the end": (text("a"), finish(), b"data: oops\n\n"),
    "ended for a failure": (text("a"), finish("function_call_filter: MALFORMED_FUNCTION_CALL"), DONE),
}


@pytest.mark.parametrize("name", UNKEPT)
async def test_what_is_no_clear_success_is_not_kept(name: str) -> None:
    shelf = Shelf()
    async with (
        Loopback(answer(*UNKEPT[name])) as server,
        LLMClient("gpt-4o", base_url=server.url, local_cache=shelf) as client,
    ):
        assert (await client.stream("Hello", echo=None)).completion == "a"
    assert shelf.asked == 1
    assert shelf.values == {}


@pytest.mark.parametrize("ending", [DONE, b""])
async def test_usage_that_was_estimated_stays_so(ending: bytes) -> None:
    shelf = Shelf()
    async with Loopback(answer(text("Hello"), finish() + ending)) as server:
        async with LLMClient("gpt-5", base_url=server.url, local_cache=shelf) as client:
            first = await client.stream("Hello", echo=None)
            second = await client.stream("Hello", echo=None)
        assert len(server.requests) == 1
    assert second.usage == first.usage
    assert second.usage.estimated
    assert second.warnings == first.warnings
    assert "other_model" in second.warnings
    assert ("no_done" in second.warnings) == (ending == b"")


@pytest.mark.parametrize("value", [b"", b"{", b"null", b'{"version":2,"events":[]}', b'{"version":1,"events":[]}'])
async def test_a_value_that_cannot_be_read_is_a_miss(value: bytes) -> None:
    shelf = Shelf()
    async with Loopback(answer(HELLO)) as server, LLMClient("gpt-4o", base_url=server.url, local_cache=shelf) as client:
        first = await client.stream("Hello", echo=None)
        shelf.values = dict.fromkeys(shelf.values, value)
        second = await client.stream("Hello", echo=None)
        third = await client.stream("Hello", echo=None)
        assert len(server.requests) == 2
    assert (second.local_cache_hit, third.local_cache_hit) == (False, True)
    assert first.content == third.content


class Broken:
    """A cache whose server is down or does not answer."""

    def __init__(self, *, hangs: bool = False) -> None:
        self.hangs = hangs

    async def get(self, key: str) -> bytes | None:
        if self.hangs:
            await asyncio.Event().wait()
        raise ConnectionError("redis://:password@host")

    async def put(self, key: str, value: bytes) -> None:
        await self.get(key)


async def test_a_cache_that_fails_is_a_warning_without_its_words() -> None:
    async with (
        Loopback(answer(HELLO)) as server,
        LLMClient("gpt-4o", base_url=server.url, local_cache=Broken()) as client,
    ):
        with pytest.warns(RuntimeWarning) as caught:
            response = await client.stream("Hello", echo=None)
    assert response.completion == "Hello world"
    assert [str(each.message) for each in caught] == [
        "the local cache cannot be read: ConnectionError",
        "the local cache cannot be written: ConnectionError",
    ]


async def test_a_cache_that_hangs_can_be_left() -> None:
    async with Loopback(answer(HELLO)) as server:
        async with LLMClient("gpt-4o", base_url=server.url, local_cache=Broken(hangs=True)) as client:
            stream = client.stream("Hello")
            waiting = asyncio.create_task(stream.next_batch())
            await asyncio.sleep(0)
            await stream.cancel()
            assert await waiting == []
            task = asyncio.create_task(client.stream("Hello").next_batch())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert server.requests == []


async def test_no_key_and_no_prompt_is_in_the_cache(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    async with Loopback(answer(HELLO)) as server:
        own = {"api_key": "canary-of-the-key", "extra_headers": {"x": "canary-of-a-header"}}
        async with LLMClient("gpt-4o", base_url=server.url, local_cache=path, **own) as client:
            await client.stream("canary of the prompt", echo=None)
            kept = all_bytes(tmp_path)
            assert "canary" not in repr(client.options) + repr(client)
    assert b"Hello" in kept
    assert b"canary" not in kept


class Sync:
    def get(self, key: str) -> None:
        pass

    def put(self, key: str, value: bytes) -> None:
        pass


BAD = [5, "", b"path", object(), {"get": 1}, Sync()]


@pytest.mark.parametrize("cache", BAD, ids=lambda each: type(each).__name__)
def test_what_is_no_cache_is_refused(cache: Any) -> None:
    with pytest.raises(e.ConfigurationError, match="neither True, nor a path, nor an object with the async methods"):
        LLMClient("gpt-4o", local_cache=cache)


async def test_true_is_a_file_in_the_user_s_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    async with Loopback(answer(HELLO)) as server:
        async with LLMClient("gpt-4o", base_url=server.url, local_cache=True) as client:
            await client.stream("Hello", echo=None)
        assert b"Hello" in all_bytes(tmp_path / "lm-deluge")
        for off in (None, False):
            async with LLMClient("gpt-4o", base_url=server.url, local_cache=off) as client:
                assert not (await client.stream("Hello", echo=None)).local_cache_hit


async def test_a_cache_of_one_s_own_stays_open(tmp_path: Path) -> None:
    cache = SQLiteCache(tmp_path / "cache")
    async with Loopback(answer(HELLO)) as server:
        for is_hit in (False, True):
            async with LLMClient("gpt-4o", base_url=server.url, local_cache=cache) as client:
                assert (await client.stream("Hello", echo=None)).local_cache_hit == is_hit
        assert cache._database._connection is not None
    await cache.close()


async def test_a_hit_travels_as_data() -> None:
    shelf = Shelf()
    async with Loopback(answer(HELLO)) as server, LLMClient("gpt-4o", base_url=server.url, local_cache=shelf) as client:
        await client.stream("Hello", echo=None)
        hit = await client.stream("Hello", echo=None)
    assert type(hit).from_dict(json.loads(json.dumps(hit.to_dict()))) == hit
    value = json.loads(next(iter(shelf.values.values())))
    assert sorted(value) == ["events", "usage", "version", "warnings"]
