"""Many loops at once, in each form of a batch: a row is one loop, for the journal, the hooks and the limits."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from agents.loops import assert_valid, check_loop, roles, serving
from lm_deluge.errors import ConfigurationError, DispatchError, ServerError
from lm_deluge.events import Event, ResponseFinished
from lm_deluge.response import APIResponse
from lm_deluge.simulator import Script

CITIES = ["Rome", "Oslo", "Bonn", "Lima", "Baku"]


class Tools:
    def __init__(self) -> None:
        self.ran: Counter[str] = Counter()

    async def weather(self, city: str) -> str:
        """Return the weather in a city."""
        self.ran[city] += 1
        await asyncio.sleep(0)
        return f"21 degrees in {city}"


def script(request: Any) -> Script:
    """Ask for the weather, and answer with the result."""
    results = [part.content for message in request.conversation for part in message.parts if hasattr(part, "content")]
    if results:
        return Script(text=f"It is {results[-1]}.")
    return Script(text="", tool_calls=[("weather", {"city": request.conversation[-1].completion})])


def check(city: str, response: APIResponse) -> None:
    assert response.error is None, response.error
    assert response.completion == f"It is 21 degrees in {city}."
    assert len(response.rounds) == 2
    assert roles(response.conversation) == ["user", "assistant", "tool", "assistant"]
    assert_valid(response.conversation)


async def test_process_prompts_runs_a_loop_for_each() -> None:
    tools = Tools()
    async with serving(script, max_concurrent_requests=2) as (sim, client):
        responses = await client.process_prompts_async(CITIES, tools=[tools.weather], run_tools=True)
        assert len(sim.requests) == 2 * len(CITIES)
        assert sim.stats.most_open <= 2  # requests of all rounds keep to the limits of the client
    for city, response in zip(CITIES, responses, strict=True):
        check(city, response)
    assert tools.ran == Counter(CITIES)


async def test_stream_many_merges_the_loops() -> None:
    tools = Tools()
    async with serving(script) as (_, client):
        merged = client.stream_many(CITIES, tools=[tools.weather], run_tools=True)
        events: dict[int, list[Event]] = {index: [] for index in range(len(CITIES))}
        async for index, event in merged:
            events[index].append(event)
    for index, city in enumerate(CITIES):
        check_loop(events[index])
        check(city, merged.responses[index])


async def test_start_nowait_runs_a_loop() -> None:
    tools = Tools()
    async with serving(script) as (_, client):
        ids = [client.start_nowait(city, tools=[tools.weather], run_tools=True) for city in CITIES]
        for city, response in zip(CITIES, await client.wait_for_all(ids), strict=True):
            check(city, response)


async def test_a_wait_that_is_given_up_does_not_end_the_loop() -> None:
    may_end = asyncio.Event()

    async def weather(city: str) -> str:
        await may_end.wait()
        return f"21 degrees in {city}"

    async with serving(script) as (_, client):
        task_id = client.start_agent_loop_nowait("Rome", tools=[weather])
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.wait_for_agent_loop(task_id), 0.01)
        may_end.set()
        _, response = await client.wait_for_agent_loop(task_id)
    check("Rome", response)


async def test_postprocess_sees_the_whole_loop_once() -> None:
    seen: list[APIResponse] = []

    def postprocess(response: APIResponse) -> APIResponse:
        seen.append(response)
        return response

    tools = Tools()
    async with serving(script, postprocess=postprocess) as (_, client):
        await client.process_prompts_async(CITIES, tools=[tools.weather], run_tools=True)
    assert sorted(response.completion for response in seen) == sorted(f"It is 21 degrees in {city}." for city in CITIES)


async def test_equal_prompts_run_one_loop() -> None:
    tools = Tools()
    async with serving(script) as (_, client):
        responses = await client.process_prompts_async(
            ["Rome", "Rome", "Oslo"], tools=[tools.weather], run_tools=True, ask_duplicates_once=True
        )
    assert tools.ran == {"Rome": 1, "Oslo": 1}
    assert responses[0].completion == responses[1].completion
    assert responses[1].cost == 0


async def test_a_cancelled_batch_cancels_the_tools() -> None:
    started, cancelled = asyncio.Event(), []

    async def weather(city: str) -> str:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.append(city)
        return ""

    async with serving(script) as (_, client):
        batch = asyncio.create_task(client.process_prompts_async(CITIES, tools=[weather], run_tools=True))
        await started.wait()
        batch.cancel()
        await asyncio.wait([batch])
        for _ in range(50):
            await asyncio.sleep(0)
    assert batch.cancelled()
    assert cancelled


# With a journal


async def test_a_journal_has_one_record_for_each_loop(tmp_path: Path) -> None:
    tools, journal = Tools(), tmp_path / "loops.journal"
    options = {"tools": [tools.weather], "run_tools": True, "journal": journal}
    async with serving(script) as (sim, client):
        first = await client.process_prompts_async(CITIES, **options)
        again = await client.process_prompts_async(CITIES, **options)
        assert len(sim.requests) == 2 * len(CITIES)
    assert tools.ran == Counter(CITIES)
    for city, response, recorded in zip(CITIES, first, again, strict=True):
        check(city, recorded)
        assert recorded.conversation == response.conversation
        assert recorded.usage == response.usage
        assert recorded.cost == response.cost
    records = journal.read_text()
    assert records.count('"type":"intent"') == records.count('"type":"done"') == len(CITIES)


async def test_a_loop_that_failed_in_round_two_is_asked_again_as_a_whole(tmp_path: Path) -> None:
    tools, journal = Tools(), tmp_path / "loops.journal"
    options = {"tools": [tools.weather], "run_tools": True, "journal": journal}
    async with serving(script, faults=[None, "status_400"]) as (sim, client):
        (failed,) = await client.process_prompts_async(["Rome"], **options)
        assert failed.error is not None
        assert failed.usage.input_tokens > 0
        (kept,) = await client.process_prompts_async(["Rome"], **options)
        assert type(kept.error) is type(failed.error)
        assert len(sim.requests) == 2
        (response,) = await client.process_prompts_async(["Rome"], retry_failed=True, **options)
        assert len(sim.requests) == 4
    check("Rome", response)
    assert tools.ran == {"Rome": 2}


async def test_retries_in_each_round_are_no_attempts_of_the_row(tmp_path: Path) -> None:
    tools, journal = Tools(), tmp_path / "loops.journal"
    faults = ["status_500", None, "status_500", "status_500", None]
    async with serving(script, faults=faults, max_attempts=3) as (sim, client):
        (response,) = await client.process_prompts_async(
            ["Rome"], tools=[tools.weather], run_tools=True, journal=journal
        )
        assert len(sim.requests) == 5
    check("Rome", response)
    assert response.stats.attempts == 5


async def test_a_loop_that_was_left_is_asked_again_as_a_whole(tmp_path: Path) -> None:
    journal = tmp_path / "loops.journal"
    started = asyncio.Event()

    async def hangs(city: str) -> str:
        started.set()
        await asyncio.Event().wait()
        return city

    hangs.__name__ = "weather"
    tools = Tools()
    async with serving(script) as (sim, client):
        batch = asyncio.create_task(
            client.process_prompts_async(["Rome"], tools=[hangs], run_tools=True, journal=journal)
        )
        await started.wait()
        batch.cancel()
        await asyncio.wait([batch])
        weather = tools.weather.__func__
        weather.__doc__ = None  # the same description as the other tool
        (response,) = await client.process_prompts_async(
            ["Rome"], tools=[tools.weather], run_tools=True, journal=journal
        )
        assert len(sim.requests) == 3
    check("Rome", response)


async def test_a_failing_loop_ends_alone() -> None:
    tools = Tools()
    async with serving(script, faults=[None, *["status_500"] * 3], max_attempts=3, max_concurrent_requests=1) as (
        _,
        client,
    ):
        responses = await client.process_prompts_async(CITIES[:3], tools=[tools.weather], run_tools=True)
    errors = [response.error for response in responses if response.error is not None]
    assert {type(error) for error in errors} <= {ServerError}
    assert len(errors) <= 1
    for response in responses:
        assert_valid(response.conversation)


def test_a_batch_of_the_provider_runs_no_tools(tmp_path: Path) -> None:
    from lm_deluge import LLMClient

    client = LLMClient("gpt-4o", api_key="k")
    with pytest.raises(ConfigurationError, match="run_tools=True"):
        client.provider_batch(["Hi"], journal=tmp_path / "j", tools=[Tools().weather], run_tools=True)  # type: ignore[call-arg]


# The methods of lm-deluge 0.0


async def test_run_agent_loop_returns_conversation_and_response() -> None:
    tools, heard = Tools(), []
    async with serving(script) as (_, client):
        conversation, response = await client.run_agent_loop("Rome", tools=[tools.weather], on_event=heard.append)
        check("Rome", response)
        assert conversation == response.conversation
        check_loop(heard)
        again, response = await client.run_agent_loop(conversation.user("Oslo"), tools=[tools.weather])
    assert len(again) > len(conversation) - 1
    assert response.completion == "It is 21 degrees in Rome."  # the script answers with the last result


async def test_a_listener_that_fails_is_not_called_again_and_an_async_one_is_awaited() -> None:
    tools, heard = Tools(), []

    def fails(event: Event) -> None:
        heard.append(event)
        raise ValueError("no display")

    async def listens(event: Event) -> None:
        await asyncio.sleep(0)
        heard.append(event)

    async with serving(script) as (_, client):
        _, response = await client.run_agent_loop("Rome", tools=[tools.weather], on_event=fails)
        check("Rome", response)
        assert len(heard) == 1
        await client.run_agent_loop("Rome", tools=[tools.weather], on_event=listens)
    assert isinstance(heard[-1], ResponseFinished)


async def test_a_loop_that_fails_raises_nothing() -> None:
    async with serving(script, faults="status_500", max_attempts=1) as (_, client):
        conversation, response = await client.run_agent_loop("Rome", tools=[Tools().weather])
        assert isinstance(response.error, ServerError)
        assert roles(conversation) == ["user"]
        _, response = await client.run_agent_loop(7, tools=[Tools().weather])  # type: ignore[arg-type]
    assert "a prompt is text or a Conversation" in str(response.error)


async def test_process_agent_loops_limits_the_loops() -> None:
    running, most, heard = set(), [], Counter()

    async def weather(city: str) -> str:
        running.add(city)
        most.append(len(running))
        await asyncio.sleep(0.001)
        running.remove(city)
        return f"21 degrees in {city}"

    def listen(index: int, event: Event) -> None:
        heard[index] += isinstance(event, ResponseFinished)

    async with serving(script) as (_, client):
        found = await client.process_agent_loops_async(
            iter(CITIES), tools=[weather], max_concurrent_agents=2, on_event=listen
        )
    for city, (conversation, response) in zip(CITIES, found, strict=True):
        check(city, response)
        assert conversation == response.conversation
    assert max(most) <= 2
    assert heard == dict.fromkeys(range(len(CITIES)), 1)


async def test_the_loops_have_a_display(capsys: pytest.CaptureFixture[str]) -> None:
    async with serving(script, progress="plain") as (_, client):
        await client.process_agent_loops_async(CITIES, tools=[Tools().weather], show_progress=True)
        shown = capsys.readouterr()
        assert "5" in shown.err + shown.out
        await client.process_agent_loops_async(CITIES, tools=[Tools().weather])
        assert capsys.readouterr() == ("", "")


def test_the_sync_forms() -> None:
    from lm_deluge import LLMClient
    from lm_deluge.simulator import Simulator

    with Simulator(script).start_in_thread() as sim:
        client = LLMClient("gpt-4o", base_url=sim.base_url, api_key="k")
        _, response = client.run_agent_loop_sync("Rome", tools=[Tools().weather])
        check("Rome", response)
        for city, (_, response) in zip(
            CITIES, client.process_agent_loops_sync(CITIES, tools=[Tools().weather]), strict=True
        ):
            check(city, response)
        client.close_sync()


@pytest.mark.parametrize("name", ["on_text_delta", "on_message", "on_round_complete"])
def test_a_callback_of_the_old_library_is_named(name: str) -> None:
    from lm_deluge import LLMClient

    client = LLMClient("gpt-4o", api_key="k")
    with pytest.raises(ConfigurationError, match="on_event="):
        client.run_agent_loop_sync("Rome", tools=[Tools().weather], **{name: print})


async def test_execute_tool_calls_runs_the_calls_of_an_answer() -> None:
    from lm_deluge import execute_tool_calls
    from lm_deluge.prompt.parts import ToolCallPart

    def ids(count: int) -> list[int]:
        return list(range(count))

    calls = [
        ToolCallPart("a", "weather", '{"city":"Rome"}', {"city": "Rome"}),
        ToolCallPart("b", "ids", '{"count":2}', {"count": 2}),
        ToolCallPart("c", "nope", "{}", {}),
    ]
    found = await execute_tool_calls(calls, [Tools().weather, ids])
    assert found[:2] == [("a", "21 degrees in Rome"), ("b", [0, 1])]
    assert found[2][0] == "c"
    assert "no tool named 'nope'" in found[2][1]


def test_there_is_no_loop_to_wait_for() -> None:
    from lm_deluge import LLMClient

    client = LLMClient("gpt-4o", api_key="k")
    with pytest.raises((ConfigurationError, DispatchError)):
        asyncio.run(client.wait_for_agent_loop(3))
