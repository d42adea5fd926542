"""The function API: one request, text as it comes, then the answer."""

import asyncio
from typing import Any

import pytest

from lm_deluge import APIResponse, Conversation, SamplingParams, Timeouts
from lm_deluge import errors as e
from lm_deluge.api_requests.openai import shared_transport, stream_chat
from loopback import DONE, FIN, HANG, HEAD, HELLO, USAGE, Loopback, Step, answer, chunk, data, finish, plain, text


async def items_of(server: Loopback, **options: Any) -> list[str | APIResponse]:
    call = {"model_name": "gpt-4o", "prompt": "hi", "api_key": "sk-test", "base_url": server.url, **options}
    try:
        return [item async for item in stream_chat(**call)]
    finally:
        await shared_transport().close()


async def test_text_then_one_answer() -> None:
    async with Loopback(answer(HELLO)) as server:
        *tokens, last = await items_of(server)
    assert tokens == ["Hello", " world"]
    assert isinstance(last, APIResponse)
    assert (last.completion, last.finish_reason, last.usage.total_tokens) == ("Hello world", "stop", 5)
    assert (last.model_internal, last.model_external) == ("gpt-4o", "gpt-4o-2024-08-06")
    assert (last.status_code, last.request_id, last.stats.attempts) == (200, "req_7", 1)
    assert last.cost > 0


async def test_an_answer_without_text_is_an_answer() -> None:
    async with Loopback(answer(finish("length"), USAGE)) as server:
        (last,) = await items_of(server)
    assert (last.completion, last.finish_reason) == ("", "length")


async def test_reasoning_is_in_the_answer_and_is_no_token() -> None:
    thought = data({"id": "c", "choices": [{"index": 0, "delta": {"reasoning_content": "hm"}}]})
    async with Loopback(answer(thought, HELLO)) as server:
        *tokens, last = await items_of(server)
    assert tokens == ["Hello", " world"]
    assert last.thinking == "hm"


async def test_its_arguments_reach_the_request() -> None:
    async with Loopback(answer(HELLO)) as server:
        await items_of(
            server,
            prompt=Conversation.system("s").user("u"),
            sampling_params=SamplingParams(temperature=0.5),
            tools=[{"name": "add"}],
            extra_headers={"x-own": "1"},
            extra_body={"own": 1},
        )
        _, headers, body = server.requests[0]
    assert headers["x-own"] == "1"
    for piece in (b'"temperature":0.5', b'"own":1', b'"add"', b'"system"'):
        assert piece in body


@pytest.mark.parametrize(
    ("steps", "kind"),
    [
        (plain("401 X", b'{"error":{"message":"m"}}'), e.AuthenticationError),
        (plain("503 X", b'{"error":{"message":"m"}}'), e.OverloadedError),
        ([FIN], e.StreamInterruptedError),
        ([HEAD, HANG], e.TimeoutError),
        (plain("200 OK", b"<html>", content_type="text/html"), e.ContentTypeError),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
async def test_it_asks_once_and_says_so(steps: list[Step], kind: type[e.DelugeError]) -> None:
    async with Loopback(steps, answer(HELLO)) as server:
        with pytest.raises(kind) as caught:
            await items_of(server, timeouts=Timeouts(first_token=0.3))
        assert len(server.requests) == caught.value.attempts == 1
        assert (caught.value.provider, caught.value.model) == ("openai", "gpt-4o")


async def test_what_came_before_a_fault_is_given_out_and_kept() -> None:
    async with Loopback(answer(text("a"), text("b"))) as server:
        seen = []
        with pytest.raises(e.TruncatedError) as caught:  # noqa: PT012 - the loop is what raises
            async for item in stream_chat("gpt-4o", "hi", api_key="sk-test", base_url=server.url):
                seen.append(item)  # noqa: PERF401
        await shared_transport().close()
    assert seen == ["a", "b"]
    assert caught.value.partial.completion == "ab"
    assert (caught.value.billed, caught.value.attempts) == ("yes", 1)


async def test_the_total_clock_runs() -> None:
    async with Loopback([HEAD, *[chunk(text("a")), 0.05] * 200, HANG]) as server:
        with pytest.raises(e.TimeoutError) as caught:
            await items_of(server, timeouts=Timeouts(total=0.3))
    assert caught.value.phase == "total"


async def test_bad_input_is_refused_on_the_first_step_and_nothing_is_sent() -> None:
    async with Loopback(answer(HELLO)) as server:
        for bad in (
            {"prompt": ""},
            {"model_name": ""},
            {"api_key": "a b"},
            {"tools": 5},
            {"extra_headers": {"a:": "b"}},
        ):
            with pytest.raises(e.ConfigurationError):
                await items_of(server, **bad)
        assert server.connections == 0


async def test_closing_it_closes_the_connection() -> None:
    async with Loopback([HEAD, *[chunk(text("a")), 0.01] * 500, HANG]) as server:
        stream = stream_chat("gpt-4o", "hi", api_key="sk-test", base_url=server.url)
        assert await anext(stream) == "a"
        await stream.aclose()
        await server.settle()
        task = asyncio.create_task(items_of(server))
        while len(server.requests) < 2:
            await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_the_simulator_answers_here_too() -> None:
    items = [item async for item in stream_chat("simulator", "hi", SamplingParams(max_new_tokens=5))]
    await shared_transport().close()
    assert "".join(items[:-1]) == items[-1].completion
    assert items[-1].finish_reason == "length"


async def test_an_error_before_the_first_delta_has_no_partial_answer() -> None:
    async with Loopback(answer()) as server:
        with pytest.raises(e.TruncatedError) as caught:
            async for _ in stream_chat("gpt-4o", "hi", base_url=server.url, api_key="sk-test"):
                pass
        await shared_transport().close()
    assert caught.value.partial is None
    assert caught.value.where == "before_first_event"


@pytest.mark.parametrize(("served", "rate"), [("flex", 0.5), ("default", 1.0), (None, 0.5)])
async def test_it_costs_what_the_tier_costs_that_served_it(served: str | None, rate: float) -> None:
    counts = {"prompt_tokens": 10**6, "completion_tokens": 2}
    usage = data({"id": "c", "choices": [], "service_tier": served, "usage": counts})
    params = SamplingParams(service_tier="flex")
    async with Loopback(answer(text("Hello"), finish(), usage, DONE)) as server:
        *_, last = await items_of(server, model_name="gpt-5", sampling_params=params)
    assert last.cost == pytest.approx((1.25 + 2 * 10e-6) * rate)
