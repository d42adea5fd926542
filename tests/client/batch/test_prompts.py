"""Many calls at once, over real sockets: in order, as completed, as merged streams; none lost, none sent twice."""

from __future__ import annotations

import asyncio
import functools
import time
from collections import Counter, defaultdict
from collections.abc import Iterator

import msgspec
import pytest

from grammar import check_grammar
from lm_deluge import LLMClient
from lm_deluge.api_requests.call_plan import CallPlan
from lm_deluge.client.batch.prompts import run_call
from lm_deluge.client.call_options import CallOptions
from lm_deluge.config import Collect
from lm_deluge.dispatch.scheduling.runner import Runner
from lm_deluge.errors import (
    BadRequestError,
    BudgetError,
    ConfigurationError,
    ConnectError,
    InvalidPromptError,
    PermissionDeniedError,
    RateLimitError,
    StreamConsumedError,
)
from lm_deluge.events import Attempt, Event, TextDelta
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.simulator import Fault, Pace, Script, Simulator


def echo(request) -> Script:
    return Script(text=f"answer to {request.conversation[-1].completion}")


def client_of(sim: Simulator, model: str | list[str] = "gpt-4o", **options) -> LLMClient:
    options = {"progress": None, "max_concurrent_requests": 20, **options}
    client = LLMClient(model, base_url=sim.base_url, api_key="any-text", **options)
    client.dispatcher.make_runner(functools.partial(Runner, chance=lambda: 0.0))  # no waits between attempts
    return client


async def test_answers_come_in_the_order_of_the_prompts() -> None:
    async with Simulator(echo) as sim, client_of(sim) as client:
        responses = await client.process_prompts_async(f"q{number}" for number in range(300))
        assert sim.stats.most_open <= 20
        assert sim.stats.requests == 300
    assert [response.completion for response in responses] == [f"answer to q{number}" for number in range(300)]
    assert [response.id for response in responses] == list(range(300))
    assert {response.error for response in responses} == {None}


async def test_a_bad_row_is_an_answer_with_an_error() -> None:
    def script(request) -> Script:
        if request.conversation[-1].completion == "bad":
            raise BadRequestError("This is not valid.", status_code=400)
        return echo(request)

    async with Simulator(script) as sim, client_of(sim) as client:
        good, refused, empty, last = await client.process_prompts_async(["a", "bad", "", Conversation.user("b")])
        assert sim.stats.requests == 3
    assert (good.completion, last.completion) == ("answer to a", "answer to b")
    assert isinstance(refused.error, BadRequestError)
    assert isinstance(empty.error, InvalidPromptError)


async def test_what_breaks_is_asked_again_until_it_is_whole() -> None:
    faults = [Fault("reset", after=2), "status_500", "clean_truncation", "error_mid"]
    faults = [fault for fault in faults if fault != "error_mid"]
    async with Simulator(echo, faults=[*faults, None]) as sim, client_of(sim) as client:
        responses = await client.process_prompts_async(["one two three four"] * 4)
    assert [response.completion for response in responses] == ["answer to one two three four"] * 4
    assert sum(response.stats.attempts for response in responses) == 4 + len(faults)


async def test_attempts_are_bounded_and_what_came_is_kept() -> None:
    always = Fault("reset", after=2)
    async with Simulator(echo, faults=always) as sim, client_of(sim, max_attempts=3) as client:
        (response,) = await client.process_prompts_async(["one two three four"])
        assert sim.stats.requests == 3
    assert response.is_error
    assert response.error.attempts == 3
    assert "answer to one two three four".startswith(response.completion)
    assert response.completion
    assert len(response.error.__notes__) == 2


async def test_prompts_that_are_the_same_are_asked_once() -> None:
    def script(request) -> Script:
        if request.conversation[-1].completion == "bad":
            raise BadRequestError("This is not valid.", status_code=400)
        return echo(request)

    prompts = ["a", "b", "a", Conversation.user("a"), "bad", "bad", "", "", Conversation.user("a").user("b")]
    async with Simulator(script) as sim, client_of(sim) as client:
        responses = await client.process_prompts_async(prompts, ask_duplicates_once=True)
        assert sim.stats.requests == 4
        many = await client.process_prompts_async(["same"] * 500, ask_duplicates_once=True)
        assert sim.stats.requests == 5
    assert [response.completion for response in responses[:4]] == [
        *("answer to a", "answer to b", "answer to a", "answer to a")
    ]
    assert [response.usage is None for response in responses[:4]] == [False, False, True, True]
    assert (responses[0].cost > 0, responses[2].cost) == (True, 0.0)
    assert [type(response.error) for response in responses[4:8]] == [
        *(BadRequestError, BadRequestError, InvalidPromptError, InvalidPromptError)
    ]
    assert [response.id for response in responses] == list(range(9))
    assert {response.completion for response in many} == {"answer to same"}
    assert len(many) == 500


async def test_a_limit_of_requests_is_kept_to() -> None:
    async with Simulator(echo) as sim, client_of(sim, max_requests_per_minute=1_200) as client:
        await client.process_prompts_async(["q"] * 40)
        times = [request.at_s for request in sim.requests]
    # 20 per second: on a slow machine, too, no window of a second may have many more.
    assert all(sum(begin <= at < begin + 1 for at in times) <= 24 for begin in times)


async def test_a_prompt_that_fits_no_limit_fails_at_once() -> None:
    async with Simulator(echo) as sim, client_of(sim, max_input_tokens_per_minute=100) as client:
        short, long = await client.process_prompts_async(["hi", "x" * 4_000])
        assert sim.stats.requests == 1
    assert short.completion == "answer to hi"
    assert isinstance(long.error, BudgetError)


async def test_another_model_takes_what_one_cannot() -> None:
    def script(request) -> Script:
        if request.model == "gpt-4o":
            raise PermissionDeniedError("Not with this key.", status_code=403)
        return echo(request)

    async with Simulator(script) as sim, client_of(sim, ["gpt-4o", "gpt-4o-mini"]) as client:
        responses = await client.process_prompts_async(["q"] * 30)
        asked = Counter(request.json["model"] for request in sim.requests)
    assert {response.error for response in responses} == {None}
    assert {response.model_internal for response in responses} == {"gpt-4o-mini"}
    assert asked["gpt-4o-mini"] == 30
    assert asked["gpt-4o"] <= 20  # the calls in flight when the first one was refused


async def test_weights_share_the_calls_out() -> None:
    async with Simulator(echo) as sim, client_of(sim, ["gpt-4o", "gpt-4o-mini"], model_weights=[3, 1]) as client:
        await client.process_prompts_async(["q"] * 80)
        asked = Counter(request.json["model"] for request in sim.requests)
        with pytest.raises(ConfigurationError, match="there are 1 model_weights for 2 models"):
            client_of(sim, ["gpt-4o", "gpt-4o-mini"], model_weights=[1])
    assert asked == {"gpt-4o": 60, "gpt-4o-mini": 20}


async def test_many_streams_are_merged() -> None:
    streams: dict[int, list[Event]] = defaultdict(list)
    async with Simulator(echo, faults=["status_503", None]) as sim, client_of(sim) as client:
        merged = client.stream_many([f"q{number}" for number in range(60)])
        async for index, event in merged:
            streams[index].append(event)
        with pytest.raises(StreamConsumedError):
            aiter(merged)
    assert sorted(streams) == sorted(merged.responses) == list(range(60))
    for index, events in streams.items():
        check_grammar(events)
        text = "".join(event.text for event in events if isinstance(event, TextDelta))
        assert text == f"answer to q{index}" == merged.responses[index].completion
    assert sum(isinstance(event, Attempt) for events in streams.values() for event in events) == 1


async def test_a_stream_that_fails_finishes_with_an_error_and_is_not_tried_again() -> None:
    streams: dict[int, list[Event]] = defaultdict(list)
    async with Simulator(echo, faults=[Fault("reset", after=1), None]) as sim, client_of(sim) as client:
        merged = client.stream_many(["one two three", "", "four"])
        async for index, event in merged:
            streams[index].append(event)
        assert sim.stats.requests == 2
    failed = [index for index, response in merged.responses.items() if response.is_error]
    assert len(failed) == 2
    for index in failed:
        assert streams[index][-1].finish_reason == "error"
        assert streams[index][-1].raw_finish_reason == type(merged.responses[index].error).__name__


async def test_whoever_leaves_early_ends_every_stream() -> None:
    async with Simulator(Script(text="word " * 500)) as sim, client_of(sim) as client:
        before = len(asyncio.all_tasks())
        merged = aiter(client.stream_many(f"q{number}" for number in range(1_000)))
        async for _ in merged:
            break
        await merged.aclose()
        assert sim.stats.requests <= 100
        async with asyncio.timeout(10):
            while len(asyncio.all_tasks()) > before or sim.open_connections:
                await asyncio.sleep(0.01)


async def test_cancelling_a_batch_ends_its_calls() -> None:
    async with Simulator(faults="no_answer") as sim, client_of(sim) as client:
        before = len(asyncio.all_tasks())
        batch = asyncio.ensure_future(client.process_prompts_async(["q"] * 50))
        async with asyncio.timeout(10):
            while sim.open_connections < 20:
                await asyncio.sleep(0.01)
            batch.cancel()
            with pytest.raises(asyncio.CancelledError):
                await batch
            while len(asyncio.all_tasks()) > before + sim.open_connections or sim.open_connections:
                await asyncio.sleep(0.01)
        assert client.dispatcher.runner().waiting == 0


async def test_prompts_are_read_as_they_are_needed() -> None:
    read: list[int] = []

    def prompts() -> Iterator[str]:
        for number in range(10_000):
            read.append(number)
            yield f"q{number}"

    async with Simulator(faults="no_answer") as sim, client_of(sim) as client:
        batch = asyncio.ensure_future(client.process_prompts_async(prompts()))
        async with asyncio.timeout(10):
            while sim.open_connections < 20:
                await asyncio.sleep(0.01)
        batch.cancel()
        await asyncio.gather(batch, return_exceptions=True)
    assert len(read) <= 4 * 20 + 1


async def test_a_source_of_prompts_that_fails_is_not_hidden() -> None:
    def prompts() -> Iterator[str]:
        yield "q"
        raise ZeroDivisionError

    async with Simulator(echo) as sim, client_of(sim) as client:
        with pytest.raises(ZeroDivisionError):
            await client.process_prompts_async(prompts())
        with pytest.raises(ZeroDivisionError):
            async for _ in client.stream_many(prompts()):
                pass


async def test_calls_can_be_started_and_waited_for() -> None:
    async with Simulator(echo) as sim, client_of(sim) as client:
        first, second, third = (client.start_nowait(f"q{number}") for number in range(3))
        response = await client.wait_for(second)
        assert (response.completion, response.id) == ("answer to q1", second)
        found = {task_id: each.completion async for task_id, each in client.as_completed()}
        assert found == {first: "answer to q0", third: "answer to q2"}
        with pytest.raises(ConfigurationError, match=f"there is no call {second} to wait for"):
            await client.wait_for(second)
        client.start_nowait("a")
        client.start_nowait("")
        good, bad = await client.wait_for_all()
    assert good.completion == "answer to a"
    assert isinstance(bad.error, InvalidPromptError)


def test_without_asyncio(capsys: pytest.CaptureFixture[str]) -> None:
    with Simulator(echo).start_in_thread() as sim:
        client = LLMClient("gpt-4o", base_url=sim.base_url, api_key="any-text")
        responses = client.process_prompts_sync(["a", "b"])
        client.close_sync()
    assert [response.completion for response in responses] == ["answer to a", "answer to b"]
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "2/2 (100%)" in shown.err  # lines, since stderr is not a terminal


async def test_one_refusal_under_many_calls_closes_the_gate_once() -> None:
    refused: list[float] = []

    def script(request) -> Script:
        if not refused:
            refused.append(time.monotonic())
            raise RateLimitError("slow down", status_code=429, retry_after_s=0.3)
        return echo(request)

    async with Simulator(script) as sim, client_of(sim, max_concurrent_requests=5) as client:
        responses = await client.process_prompts_async(["q"] * 40)
        later = [request.at_s for request in sim.requests[5:]]
        first = sim.requests[0].at_s
    assert {response.error for response in responses} == {None}
    assert later[0] - first >= 0.3
    assert sim.stats.requests == 41


async def test_a_display_that_fails_does_not_end_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = []

    def fail(*_args: object) -> None:
        shown.append(1)
        raise ZeroDivisionError

    monkeypatch.setattr("lm_deluge.client.batch.progress_display._None.show", fail)
    monkeypatch.setattr("lm_deluge.client.batch.progress_display._None.close", fail)
    async with Simulator(echo) as sim, client_of(sim) as client:
        responses = await client.process_prompts_async(["q"] * 50)
    assert [response.completion for response in responses] == ["answer to q"] * 50
    assert shown


async def test_what_is_no_error_of_ours_is_an_error_of_its_call() -> None:
    async with Simulator(echo) as sim, client_of(sim) as client:
        spec = client.dispatcher.planner(CallOptions()).collected("q")

        class Failing:
            def plan(self, model: str, conversation: Conversation, collect: Collect = "stream") -> CallPlan:
                raise ZeroDivisionError

        failing = msgspec.structs.replace(spec, planner=Failing(), plans={})
        response = await run_call(failing, client.dispatcher.runner)
        assert str(response.error) == (
            "an unexpected ZeroDivisionError ended the call (may be billed). It is the __cause__ of this error."
        )
        assert isinstance(response.error.__cause__, ZeroDivisionError)
        assert (await client.process_prompts_async(["q"]))[0].completion == "answer to q"


@pytest.mark.parametrize("models", ["gpt-4o", ["gpt-4o", "gpt-4o-mini"]], ids=["one model", "two models"])
async def test_nobody_waits_in_silence_for_what_the_first_call_was_told(models: str | list[str]) -> None:
    """A provider asks for a wait of a day: the calls queued after this one must not wait as long."""
    options = {"max_concurrent_requests": 1}
    async with Simulator(echo, faults="retry_after_day") as sim, client_of(sim, models, **options) as client:
        responses = await client.process_prompts_async(["q"] * 5)
        with pytest.raises(RateLimitError, match="more than max_retry_after_s=120 allows"):
            await client.stream("q", echo=None)
        assert sim.stats.requests == len(client.models)
    assert [type(response.error) for response in responses] == [RateLimitError] * 5
    assert {response.error.retry_after_s for response in responses} == {86_400}


async def test_a_provider_that_goes_away_and_comes_back_costs_no_answer() -> None:
    """An outage longer than all attempts together: without a pause, refused connections would end the calls."""
    async with Simulator(echo, pace=Pace(first_token_s=0.02)) as sim:
        client = client_of(sim, max_concurrent_requests=5, max_attempts=2)
        port, batch = sim.port, asyncio.create_task(client.process_prompts_async([f"q{each}" for each in range(60)]))
        while sim.stats.completed < 10:
            await asyncio.sleep(0.001)
    await asyncio.sleep(0.2)
    assert not batch.done()
    async with Simulator(echo, port=port) as sim, asyncio.timeout(30):
        responses = await batch
        await client.close()
    assert {response.error for response in responses} == {None}
    assert [response.completion for response in responses] == [f"answer to q{each}" for each in range(60)]


async def test_a_provider_that_stays_away_is_not_waited_for_without_end() -> None:
    async with Simulator(echo) as sim:
        client = client_of(sim, max_attempts=2, max_retry_after_s=0.2)
        await client.process_prompts_async(["q"])
    async with asyncio.timeout(30):
        responses = await client.process_prompts_async(["q"] * 3)
        await client.close()
    assert [type(response.error) for response in responses] == [ConnectError] * 3
