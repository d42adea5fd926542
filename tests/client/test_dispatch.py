"""Single streams and batches share one dispatcher: limits, places, retries, and what broken attempts cost."""

import asyncio
import functools
from typing import Any

import msgspec
import pytest

from lm_deluge import LLMClient
from lm_deluge.client.batch.prompts import run_call
from lm_deluge.client.call_options import CallOptions
from lm_deluge.dispatch.scheduling.runner import Runner
from lm_deluge.errors import (
    AuthenticationError,
    BudgetError,
    ConfigurationError,
    ServerError,
    StreamInterruptedError,
    UnsupportedParameterError,
)
from lm_deluge.events import Attempt, ResponseFinished, ResponseStarted, TextDelta
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.response import ResponseBuilder
from lm_deluge.simulator import Simulator
from lm_deluge.simulator.faults.catalog import Fault
from lm_deluge.usage import Usage
from loopback import DONE, END, FIN, HANG, HEAD, HELLO, NEXT, USAGE, Loopback, answer, chunk, finish, plain, text
from patience import without_waiting

HANGING = [HEAD, chunk(text("a")), HANG]
WORDS = "one two three four five six seven eight"


def client_of(server: Simulator | Loopback, model: Any = "gpt-4o", **options: Any) -> LLMClient:
    url = server.url if isinstance(server, Loopback) else server.base_url
    return LLMClient(model, **{"api_key": "test-key", "base_url": url, "progress": "none", **options})


def places(client: LLMClient) -> int:
    return client.dispatcher.limiter().limiter._concurrency.used


async def test_single_streams_wait_for_their_slot() -> None:
    async with Simulator("Yes.") as sim, client_of(sim, max_requests_per_minute=60) as client:
        waits = without_waiting(client)
        runner = client.dispatcher.runner()
        moments = []
        for _ in range(3):
            await client.stream("Hi", echo=None)
            moments.append(runner.now())
        assert moments[1] - moments[0] > 0.9
        assert moments[2] - moments[1] > 0.9
        assert waits == []


async def test_a_stream_holds_its_place_until_it_is_over() -> None:
    async with (
        Loopback([HEAD, chunk(text("a")), HANG]) as server,
        client_of(server, max_concurrent_requests=1) as client,
    ):
        first = client.stream("Hi", echo=None)
        async with first:
            await first.next_batch()
            assert places(client) == 1
            later = client.stream("Hi", echo=None)
            second = asyncio.create_task(later.next_batch())
            await asyncio.sleep(0.05)
            assert len(server.requests) == 1
        async with asyncio.timeout(5):
            assert await second
        await later.cancel()
        assert len(server.requests) == 2


@pytest.mark.parametrize("way", ["break", "cancel", "exception", "drop"])
async def test_every_way_out_gives_the_place_back(way: str) -> None:
    async with (
        Loopback([HEAD, chunk(text("a")), HANG]) as server,
        client_of(server, max_concurrent_requests=9) as client,
    ):

        async def read() -> None:
            stream = client.stream("Hi", echo=None)
            if way == "drop":
                await anext(aiter(stream))
                return
            async with stream:
                async for _ in stream:
                    assert places(client) == 1
                    if way == "exception":
                        raise KeyError
                    if way == "cancel":
                        task.cancel()
                    else:
                        break

        task = asyncio.create_task(read())
        await asyncio.gather(task, return_exceptions=True)
        for _ in range(3):
            await asyncio.sleep(0)
        client.dispatcher.limiter().__enter__()
        client.dispatcher.limiter().__exit__(None, None, None)
        assert places(client) == 0


async def test_who_is_cancelled_while_he_waits_leaves_his_place_in_the_queue() -> None:
    async with (
        Loopback(HANGING, answer(HELLO)) as server,
        client_of(server, max_concurrent_requests=1) as client,
        client.stream("Hi") as first,
    ):
        await first.next_batch()
        waiting = asyncio.create_task(client.stream("Hi", echo=None)._call.next_batch())
        await asyncio.sleep(0.02)
        assert client.dispatcher.runner().waiting == 1
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert client.dispatcher.runner().waiting == 0
        await first.cancel()
        assert (await client.stream("Hi", echo=None)).completion == "Hello world"


async def test_a_call_that_can_never_fit_is_told_at_once() -> None:
    async with Simulator("Yes.") as sim, client_of(sim, max_input_tokens_per_minute=10) as client:
        with pytest.raises(BudgetError, match="can never be sent"):
            await client.stream("word " * 100, echo=None)
        assert sim.stats.requests == 0


async def test_a_stream_of_several_models_goes_to_another_one() -> None:
    """A fault that is not the request's sends the call on; the event names the model that is asked then."""
    refusing = plain("500 X", b"{}")
    async with Loopback(refusing, answer(HELLO)) as server, client_of(server, ["gpt-4o", "gpt-4o-mini"]) as client:
        async with client.stream("Hi") as stream:
            events = [event async for event in stream.events()]
        notes = [event for event in events if isinstance(event, Attempt)]
        assert [(note.number, note.error, note.model) for note in notes] == [(2, "ServerError", "gpt-4o-mini")]
        assert stream.response.model_internal == "gpt-4o-mini"
        assert [b'"gpt-4o"' in server.requests[0][2], b'"gpt-4o-mini"' in server.requests[1][2]] == [True, True]


async def test_the_fallback_is_asked_only_where_no_other_can_answer() -> None:
    refusing = plain("403 X", b'{"error": {"message": "m"}}')
    steps = (answer(HELLO), refusing, answer(HELLO))
    async with Loopback(*steps) as server, client_of(server, fallback="gpt-4o-mini") as client:
        asked = [(await client.stream("Hi", echo=None)).model_internal for _ in range(3)]
        assert asked == ["gpt-4o", "gpt-4o-mini", "gpt-4o-mini"]
        responses = await client.process_prompts_async(["Hi"] * 3)
        assert {response.model_internal for response in responses} == {"gpt-4o-mini"}


async def test_what_the_last_model_said_ends_the_call() -> None:
    refusing = plain("401 X", b'{"error": {"message": "m"}}')
    async with Loopback(refusing) as server, client_of(server) as client:
        with pytest.raises(AuthenticationError):
            await client.stream("Hi", echo=None)
        with pytest.raises(AuthenticationError):
            await client.stream("Hi", echo=None)


async def test_a_model_that_cannot_take_the_call_is_passed_over() -> None:
    """The other model has no schemas: the call comes back to the one that failed rather than ending there."""
    steps = (plain("500 X", b"{}"), plain("500 X", b"{}"), answer(HELLO))
    models = ["gpt-4o", "anthropic:claude-3-haiku-20240307"]
    keys = dict.fromkeys(("openai", "anthropic"), "test-key")
    async with (
        Loopback(*steps) as server,
        client_of(server, models, seed=1, base_url=dict.fromkeys(keys, server.url), api_key=keys) as client,
    ):
        client.dispatcher.make_runner(functools.partial(Runner, chance=lambda: 0.0))
        assert (await client.stream("Hi", echo=None, prefer_model="gpt-4o")).model_internal == "gpt-4o"
        assert len(server.requests) == 3
        with pytest.raises(UnsupportedParameterError):
            client.stream("Hi", prefer_model=client.models[1].id)


async def test_the_preferred_model_answers() -> None:
    async with Loopback(answer(HELLO)) as server, client_of(server, ["gpt-4o", "gpt-4o-mini"]) as client:
        asked = [await client.stream("Hi", echo=None, prefer_model="gpt-4o-mini") for _ in range(3)]
        asked += await client.process_prompts_async(["Hi"] * 3, prefer_model="gpt-4o-mini")
        assert {response.model_internal for response in asked} == {"gpt-4o-mini"}
        with pytest.raises(ConfigurationError, match="none of the client's models"):
            client.stream("Hi", prefer_model="gpt-5")


async def test_streams_are_shared_out_by_weight() -> None:
    models = ["gpt-4o", "gpt-4o-mini"]
    async with Loopback(answer(HELLO)) as server, client_of(server, models, model_weights=[3, 1]) as client:
        asked = [(await client.stream("Hi", echo=None)).model_internal for _ in range(8)]
    assert (asked.count("gpt-4o"), asked.count("gpt-4o-mini")) == (6, 2)


# A stream that dies after its first token


async def test_a_restarted_stream_is_one_stream() -> None:
    faults = [Fault("reset", after=3), Fault("cut_chunk", after=5)]
    async with Simulator(WORDS, faults=faults) as sim, client_of(sim, on_break="restart") as client:
        client.dispatcher.make_runner(functools.partial(Runner, chance=lambda: 0.0))
        async with client.stream("Hi") as stream:
            events = [event async for event in stream.events()]
    response = stream.response
    assert [type(event) for event in events].count(ResponseStarted) == 1
    assert [type(event) for event in events].count(ResponseFinished) == 1
    notes = [event for event in events if isinstance(event, Attempt)]
    assert [(note.number, note.goes_on) for note in notes] == [(2, False), (3, False)]
    builder = ResponseBuilder()
    builder.add_all(events)
    assert builder.response().completion == response.completion == WORDS
    shown = "".join(event.text for event in events if isinstance(event, TextDelta))
    assert shown.endswith(WORDS)
    assert len(shown) > len(WORDS)
    assert response.stats.attempts == 3


async def test_all_attempts_are_paid_for() -> None:
    """The provider billed what it generated; an estimate says so."""
    async with Simulator(WORDS) as sim, client_of(sim) as client:
        whole = await client.stream("Hi", echo=None)
    faults = [Fault("reset", after=3)]
    async with Simulator(WORDS, faults=faults) as sim, client_of(sim) as client:
        client.dispatcher.make_runner(functools.partial(Runner, chance=lambda: 0.0))
        (response,) = await client.process_prompts_async(["Hi"])
    assert response.completion == WORDS
    assert whole.usage.estimated is False
    assert response.usage.estimated is True
    assert response.usage.input_tokens > whole.usage.input_tokens
    assert response.usage.output_tokens > whole.usage.output_tokens
    assert response.cost > whole.cost


async def test_what_was_refused_costs_nothing() -> None:
    async with Simulator(WORDS, faults=[Fault("status", status=500)]) as sim, client_of(sim) as client:
        client.dispatcher.make_runner(functools.partial(Runner, chance=lambda: 0.0))
        (response,) = await client.process_prompts_async(["Hi"])
        assert response.stats.attempts == 2
        assert response.usage.estimated is False


async def test_a_restart_that_fails_leaves_what_was_shown() -> None:
    steps = ([HEAD, chunk(text("shown")), FIN], plain("500 X", b"{}"))
    async with Loopback(*steps) as server, client_of(server, on_break="restart", max_attempts=3) as client:
        client.dispatcher.make_runner(functools.partial(Runner, chance=lambda: 0.0))
        with pytest.raises(ServerError) as caught:
            await client.stream("Hi", echo=None)
    assert caught.value.partial.completion == "shown"
    assert caught.value.attempts == 3


async def test_without_on_break_a_break_is_raised() -> None:
    async with Loopback([HEAD, chunk(text("shown")), FIN], answer(HELLO)) as server, client_of(server) as client:
        with pytest.raises(StreamInterruptedError) as caught:
            await client.stream("Hi", echo=None)
        assert caught.value.partial.completion == "shown"
        assert len(server.requests) == 1


async def test_hooks_hear_of_every_attempt() -> None:
    told: list[tuple[Any, ...]] = []

    async def before_attempt(number: int) -> None:
        told.append(("before_attempt", number))

    async def failed(number: int, response: Any, is_final: bool) -> None:
        told.append(("failed", number, type(response.error).__name__, response.completion, is_final))

    steps = (plain("500 X", b"{}"), [HEAD, chunk(text("part")), FIN], plain("400 X", b"{}"))
    async with Loopback(*steps) as server, client_of(server) as client:
        client.dispatcher.make_runner(functools.partial(Runner, chance=lambda: 0.0))
        spec = client.dispatcher.planner(CallOptions()).collected(Conversation.user("Hi"))
        spec = msgspec.structs.replace(spec, before_attempt=before_attempt, on_attempt_failed=failed)
        response = await run_call(spec, client.dispatcher.runner)
    assert response.is_error
    assert response.completion == "part"
    assert told == [
        ("before_attempt", 1),
        ("failed", 1, "ServerError", "", False),
        ("before_attempt", 2),
        ("failed", 2, "StreamInterruptedError", "", False),
        ("before_attempt", 3),
        ("failed", 3, "BadRequestError", "part", True),
    ]


def test_usages_of_legs_add_up() -> None:
    first = Usage(input_tokens=3, output_tokens=2, estimated=True)
    assert first + Usage(input_tokens=3, output_tokens=5) == Usage(input_tokens=6, output_tokens=7, estimated=True)


async def test_a_limit_is_shared_by_loops_in_several_threads() -> None:
    """A blocking call runs in a loop of its own, under the same limits."""
    async with Loopback(HANGING, answer(HELLO)) as server:
        client = client_of(server, max_concurrent_requests=1)
        async with client.stream("Hi") as held:
            await held.next_batch()
            assert places(client) == 1
            blocking = asyncio.get_running_loop().run_in_executor(None, lambda: client.process_prompts_sync(["Hi"]))
            await asyncio.sleep(0.1)
            assert len(server.requests) == 1
        (response,) = await asyncio.wait_for(blocking, 10)
        assert response.completion == "Hello world"
        client.close_sync()
        await client.close()


WRONG_KEY = plain("401 X", b'{"error": {"message": "wrong key"}}')


@pytest.mark.parametrize("is_batch", [False, True])
async def test_a_wrong_key_is_tried_once_and_not_once_per_model(is_batch: bool) -> None:
    async with Loopback(WRONG_KEY) as server, client_of(server, ["gpt-4o", "gpt-4o-mini", "gpt-4.1"]) as client:
        if is_batch:
            (response,) = await client.process_prompts_async(["Hi"])
            error = response.error
        else:
            with pytest.raises(AuthenticationError) as caught:
                await client.stream("Hi", echo=None)
            error = caught.value
        assert (type(error), error.attempts, len(server.requests)) == (AuthenticationError, 1, 1)


async def test_after_a_wrong_key_the_models_of_another_provider_take_the_call() -> None:
    steps = (WRONG_KEY, answer(HELLO))
    models = ["gpt-4o", "gpt-4o-mini", "openrouter:meta/llama-4"]
    keys = {"openai": "wrong-key", "openrouter": "right-key"}
    async with (
        Loopback(*steps) as server,
        client_of(server, models, base_url=dict.fromkeys(keys, server.url), api_key=keys) as client,
    ):
        response = await client.stream("Hi", echo=None, prefer_model="gpt-4o")
        assert response.model_internal == "openrouter:meta/llama-4"
        sent = [headers["authorization"] for _, headers, _ in server.requests]
        assert sent == ["bearer wrong-key", "bearer right-key"]


async def test_a_key_that_may_not_use_one_model_is_used_for_another() -> None:
    refusing = plain("403 X", b'{"error": {"message": "not this model"}}')
    async with Loopback(refusing, answer(HELLO)) as server, client_of(server, ["gpt-4o", "gpt-4o-mini"]) as client:
        assert (await client.stream("Hi", echo=None, prefer_model="gpt-4o")).model_internal == "gpt-4o-mini"


@pytest.mark.parametrize("name", ["limit-tokens", "limit-requests", "limit-input-tokens"])
async def test_one_limit_that_contradicts_what_was_served_does_not_hold_the_client(name: str) -> None:
    body = b"".join([text("Hello"), text(" world"), finish(), USAGE, DONE])
    odd = HEAD.replace(b"x-request-id", f"x-ratelimit-{name}: 1\r\nx-request-id".encode())
    steps = [answer(HELLO), answer(HELLO), answer(HELLO), [odd, chunk(body), END, NEXT], answer(HELLO)]
    async with Loopback(*steps) as server, client_of(server) as client:
        without_waiting(client)
        runner = client.dispatcher.runner()
        begun = runner.now()
        for _ in range(8):
            await client.stream("Hi, how are you today?", echo=None)
        assert runner.now() - begun < 30, "not one call a minute"
