"""`ChatStreams`: answers go on without their page, are resumed and stopped by their owner, and billed once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from lm_deluge import LLMClient
from lm_deluge.events import ResponseFinished, ResponseStarted, TextDelta
from lm_deluge.response import APIResponse
from lm_deluge.simulator import Pace, Simulator
from lm_deluge.ui import ChatStreams, stream_log
from ui.judges import VercelJudge, decoded
from ui.test_stream_response import Page

TEXT = "one two three four " * 20


@contextlib.asynccontextmanager
async def slow_client(tokens_per_second: float = 5) -> AsyncIterator[tuple[LLMClient, Simulator]]:
    async with (
        Simulator(TEXT, pace=Pace(tokens_per_second=tokens_per_second)) as simulator,
        LLMClient("gpt-5.4", base_url=simulator.url, api_key="k") as client,
    ):
        yield client, simulator


async def test_a_page_comes_back_to_its_answer() -> None:
    ended: list[APIResponse] = []
    async with slow_client(2_000) as (client, simulator):
        streams = ChatStreams()
        first = streams.respond("c", "ada", client.stream("Hi"), on_end=ended.append)
        left = await Page(leaves_at=b"one").open(first)  # type: ignore[arg-type]
        assert not left.is_whole
        again, other = Page(), Page()
        await asyncio.gather(*(page.open(streams.resume("c", "ada")) for page in (again, other)))  # type: ignore[arg-type]
        assert again.body == other.body
        assert again.body.startswith(left.body[:20])
        assert VercelJudge().read(again.body).parts[1]["text"] == TEXT
        assert simulator.stats.requests == len(ended) == 1
        assert ended[0].finish_reason == "stop"
        idle = await Page().open(streams.resume("c", "ada"))  # type: ignore[arg-type]
        assert (idle.status, idle.body) == (204, b"")


async def test_only_the_owner_finds_an_answer() -> None:
    async with slow_client() as (client, simulator):
        streams = ChatStreams()
        streams.respond("c", "ada", client.stream("Hi"))
        assert (await Page().open(streams.resume("c", "eve"))).status == 204  # type: ignore[arg-type]
        assert (await Page().open(streams.resume("other", "ada"))).status == 204  # type: ignore[arg-type]
        assert await streams.stop("c", "eve") is None
        while not simulator.stats.requests:
            await asyncio.sleep(0.005)
        assert simulator.open_connections == 1
        assert await streams.stop("c", "ada") is not None


async def test_stopping_ends_the_call_and_all_pages() -> None:
    ended: list[APIResponse] = []
    async with slow_client() as (client, simulator):
        streams = ChatStreams()
        page = Page()
        reading = asyncio.create_task(page.open(streams.respond("c", "ada", client.stream("Hi"), on_end=ended.append)))  # type: ignore[arg-type]
        while b"one" not in page.body:
            await asyncio.sleep(0.005)
        receipt = await streams.stop("c", "ada")
        await reading
        assert VercelJudge().read(page.body).end == "abort"
        assert receipt is not None
        assert receipt["text"] == VercelJudge().read(page.body).parts[1]["text"]
        assert receipt["usage"]["estimated"]
        assert receipt["cost"] > 0
        while not ended:
            await asyncio.sleep(0.005)
        assert len(ended) == 1
        while simulator.open_connections:
            await asyncio.sleep(0.005)
        assert await streams.stop("c", "ada") is None


async def test_the_next_request_of_a_chat_stops_its_running_answer() -> None:
    ended: list[APIResponse] = []
    async with slow_client() as (client, simulator):
        streams = ChatStreams()
        first = streams.respond("c", "ada", client.stream("Hi"), on_end=ended.append)
        page = Page()
        reading = asyncio.create_task(page.open(first))  # type: ignore[arg-type]
        while b"one" not in page.body:
            await asyncio.sleep(0.005)
        streams.respond("c", "ada", client.stream("Again"), message_id="m2")
        await reading
        assert VercelJudge().read(page.body).end == "abort"
        resumed = await Page(leaves_at=b"start").open(streams.resume("c", "ada"))  # type: ignore[arg-type]
        assert b'"m2"' in resumed.body
        await streams.close()
        assert len(ended) == 1
        while simulator.open_connections:
            await asyncio.sleep(0.005)


async def test_the_end_of_the_application_lets_answers_finish_or_cancels_them() -> None:
    ended: list[APIResponse] = []
    async with slow_client(2_000) as (client, _):
        streams = ChatStreams()
        streams.respond("c", "ada", client.stream("Hi"), on_end=ended.append)
        await streams.close(drain_s=10)
        assert ended[0].completion == TEXT
    async with slow_client() as (client, simulator):
        streams = ChatStreams()
        streams.respond("c", "ada", client.stream("Hi"), on_end=ended.append)
        await streams.close()
        assert ended[1].finish_reason is None
        assert simulator.open_connections == 0


async def test_an_answer_that_is_too_large_for_the_memory_ends_with_an_error(monkeypatch: Any) -> None:
    monkeypatch.setattr(stream_log, "_MOST_BYTES", 1_000)

    async def endless() -> AsyncIterator[Any]:
        yield ResponseStarted()
        while True:
            yield TextDelta("x" * 100)

    ended: list[APIResponse] = []
    page = await Page().open(ChatStreams().respond("c", "ada", endless(), on_end=ended.append))  # type: ignore[arg-type]
    assert VercelJudge().read(page.body).end == "error"
    assert len(page.body) < 10_000
    assert "larger than a stream that can be resumed" in str(ended[0].error)


async def test_a_heartbeat_while_a_resumed_answer_is_silent() -> None:
    go_on = asyncio.Event()

    async def silent() -> AsyncIterator[Any]:
        yield ResponseStarted()
        await go_on.wait()
        yield ResponseFinished("stop")

    page = Page()
    streams = ChatStreams(heartbeat_s=0.02)
    reading = asyncio.create_task(page.open(streams.respond("c", "ada", silent())))  # type: ignore[arg-type]
    while page.writes.count(b": keep-alive\n\n") < 2:
        await page.changed.wait()
        page.changed.clear()
    go_on.set()
    await reading
    assert decoded(page.body.replace(b": keep-alive\n\n", b""))[-1] == "[DONE]"
