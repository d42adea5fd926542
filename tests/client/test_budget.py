"""What may be spent, what is too slow, and what becomes of answers."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from lm_deluge import LLMClient, Timeouts
from lm_deluge.errors import BudgetError, ConfigurationError, DispatchError, TimeoutError
from lm_deluge.events import Attempt, Event, ResponseFinished, TextDelta
from lm_deluge.response import APIResponse
from lm_deluge.simulator import Simulator
from loopback import DONE, END, HANG, HEAD, HELLO, NEXT, Loopback, Step, answer, chunk, data, finish, text
from patience import without_waiting

LONG = "word " * 400
PRICE_OUT = 10e-6  # gpt-4o, a token


def client_of(server: Simulator | Loopback, model: Any = "gpt-4o", **options: Any) -> LLMClient:
    url = server.url if isinstance(server, Loopback) else server.base_url
    return LLMClient(model, **{"api_key": "test-key", "base_url": url, "progress": "none", **options})


@contextlib.asynccontextmanager
async def asking(*steps: list[Step], **options: Any) -> AsyncIterator[LLMClient]:
    async with Loopback(*steps) as server, client_of(server, **options) as client:
        yield client


async def test_a_stream_is_stopped_when_its_money_is_spent() -> None:
    async with Simulator(LONG) as sim, client_of(sim) as client:
        whole = await client.stream("Hi", echo=None)
        async with client.stream("Hi", max_cost=whole.cost / 4) as stream:
            events = list[Event]()
            with pytest.raises(BudgetError, match="has spent") as caught:  # noqa: PT012 - what came before counts
                while batch := await stream.next_batch():
                    events += batch
        assert not any(isinstance(event, ResponseFinished) for event in events)
        shown = "".join(event.text for event in events if isinstance(event, TextDelta))
        partial = caught.value.partial
        assert shown == partial.completion
        assert LONG.startswith(shown)
        assert 0 < len(shown) < len(LONG)
        assert partial.usage.estimated
        async with asyncio.timeout(5):
            while sim.open_connections > 1:  # the one that is kept
                await asyncio.sleep(0.01)
        assert (await client.stream("Hi", echo=None, max_cost=whole.cost * 2)).completion == LONG


async def test_an_answer_that_is_whole_when_the_money_is_gone_is_no_error() -> None:
    body = [HEAD, chunk(text("x" * 4_000), finish()), chunk(DONE), END, NEXT]
    async with Loopback(body) as server, client_of(server) as client:
        response = await client.stream("Hi", echo=None, max_cost=100 * PRICE_OUT)
        assert len(response.completion) == 4_000


async def test_all_calls_of_a_client_share_its_money() -> None:
    async with Simulator("word " * 20) as sim, client_of(sim) as asking:
        cost = (await asking.stream("Hi", echo=None)).cost
    async with Simulator("word " * 20) as sim, client_of(sim, max_cost=cost * 5.5, max_concurrent_requests=1) as client:
        responses = await client.process_prompts_async(["Hi"] * 20)
        whole = [response for response in responses if not response.is_error]
        assert 4 <= len(whole) <= 6
        assert all(isinstance(response.error, BudgetError) for response in responses if response.is_error)
        assert sim.stats.requests <= 7
        before = sim.stats.requests
        with pytest.raises(BudgetError, match="the client has spent"):
            await client.stream("Hi", echo=None)
        assert sim.stats.requests == before


async def test_a_prompt_that_costs_too_much_is_not_sent() -> None:
    async with Simulator("Yes.") as sim, client_of(sim) as client:
        with pytest.raises(BudgetError, match="max_cost") as caught:
            await client.stream("word " * 10_000, echo=None, max_cost=0.001)
        assert "Nothing was sent for it" in str(caught.value)
        assert sim.stats.requests == 0


async def test_without_a_price_no_budget_can_be_kept() -> None:
    async with Simulator("Yes.") as sim, client_of(sim, "vllm:some-model") as client:
        with pytest.raises(ConfigurationError, match="has no price"):
            client.stream("Hi", max_cost=1.0)
    with pytest.raises(ConfigurationError, match="max_cost"):
        LLMClient("gpt-4o", max_cost=-1)
    with pytest.raises(ConfigurationError, match="max_cost"):
        LLMClient("gpt-4o").stream("Hi", max_cost="much")


# Speed


def drips(pieces: int, gap_s: float) -> list[Step]:
    steps: list[Step] = [HEAD]
    for _ in range(pieces):
        steps += [chunk(text("drip")), gap_s]
    return [*steps, chunk(finish(), DONE), END, NEXT]


async def test_a_slow_stream_is_given_up_before_anything_of_it_is_shown() -> None:
    """One token every 0.3 s; ten a second are wanted."""
    steps = (drips(100, 0.3), answer(HELLO))
    async with asking(*steps, min_tokens_per_second=10) as client, client.stream("Hi") as stream:
        events = [event async for event in stream.events()]
    assert [note.error for note in events if isinstance(note, Attempt)] == ["TimeoutError"]
    assert stream.response.completion == "Hello world"
    assert "drip" not in "".join(event.text for event in events if isinstance(event, TextDelta))
    assert stream.response.usage.estimated  # the slow one was billed, too


async def test_a_stream_that_stops_after_its_first_words_is_slow_too() -> None:
    steps = ([HEAD, chunk(text("drip")), HANG], answer(HELLO))
    async with asking(*steps, min_tokens_per_second=10) as client:
        assert (await client.stream("Hi", echo=None)).completion == "Hello world"


async def test_a_fast_stream_is_shown_after_sixteen_tokens() -> None:
    body = [HEAD, chunk(text("four" * 16)), HANG]
    async with asking(body, min_tokens_per_second=10) as client, client.stream("Hi") as stream, asyncio.timeout(0.9):
        assert await stream.next_batch()


async def test_the_last_attempt_may_be_as_slow_as_it_is() -> None:
    async with Loopback(drips(6, 0.3)) as server, client_of(server, min_tokens_per_second=10, max_attempts=1) as client:
        assert (await client.stream("Hi", echo=None)).completion == "drip" * 6


async def test_an_answer_of_a_batch_is_watched_to_its_end() -> None:
    """It begins quickly and slows down after a hundred tokens: a stream would have been shown by then."""
    body = [HEAD, chunk(text("four" * 20)), *drips(100, 0.3)[1:]]
    async with Loopback(body, answer(HELLO)) as server, client_of(server, min_tokens_per_second=20) as client:
        without_waiting(client)
        (response,) = await client.process_prompts_async(["Hi"])
        assert response.completion == "Hello world"
        assert response.stats.attempts == 2


async def test_other_clocks_are_not_taken_for_slowness() -> None:
    body = [HEAD, chunk(text("a")), HANG]
    clocks = Timeouts(idle=0.2)
    async with asking(body, min_tokens_per_second=0.1, max_attempts=2, timeouts=clocks) as client:
        without_waiting(client)
        with pytest.raises(TimeoutError) as caught:
            await client.stream("Hi", echo=None)
    assert caught.value.phase == "idle"


# Afterwards


async def test_answers_are_postprocessed() -> None:
    def shout(response: APIResponse) -> APIResponse:
        if response.completion == "b":
            raise KeyError(response.completion)
        response.warnings = (*response.warnings, response.completion.upper())
        return response

    sim = Simulator(lambda request: request.conversation[-1].completion)
    async with sim, client_of(sim, postprocess=shout) as client:
        first, second = await client.process_prompts_async(["a", "b"])
    assert first.warnings[-1] == "A"
    assert isinstance(second.error, DispatchError)
    assert second.completion == "b"
    assert isinstance(second.error.__cause__, KeyError)
    with pytest.raises(ConfigurationError, match="postprocess"):
        LLMClient("gpt-4o", postprocess=3)


@pytest.mark.parametrize("cost", [0, 0.0, 1e-12])
async def test_a_stated_cost_of_nothing_does_not_make_the_budget_void(cost: float) -> None:
    counts = {"prompt_tokens": 1_000, "completion_tokens": 1_000, "cost": cost}
    body = answer(text("x" * 4_000), finish(), data({"id": "c", "choices": [], "usage": counts}), DONE)
    async with (
        Loopback(body) as server,
        client_of(server, max_cost=1_500 * PRICE_OUT, max_concurrent_requests=1) as client,
    ):
        responses = await client.process_prompts_async(["q"] * 20)
    answered = [response for response in responses if response.error is None]
    assert 1 <= len(answered) < 20
    assert {type(response.error) for response in responses if response.error is not None} == {BudgetError}
