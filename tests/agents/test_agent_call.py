"""The agent loop as one stream: its events, its limits, and what becomes of each call."""

import asyncio
import io
import json
import threading
from typing import Any

import pytest

from agents.loops import (
    ASKS,
    SCRIPTS,
    TOOLS,
    assert_next_turn,
    assert_valid,
    check_loop,
    events_of,
    roles,
    serving,
    weather,
)
from lm_deluge import LLMClient, Tool
from lm_deluge.errors import BudgetError, ConfigurationError, InvalidPromptError, ServerError
from lm_deluge.events import (
    Attempt,
    ProviderPart,
    ResponseFinished,
    ResponseStarted,
    RoundStarted,
    TextDelta,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
    ToolProgress,
    ToolResult,
    UsageReported,
)
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.response import ResponseBuilder
from lm_deluge.simulator import Fault, Script, Simulator
from lm_deluge.usage import Usage


def calling(*names: str, **arguments: Any) -> Script:
    return Script(text="", tool_calls=[(name, arguments) for name in names])


def results_of(events: list[Any]) -> dict[str, ToolResult]:
    return {event.name: event for event in events if isinstance(event, ToolResult)}


# Events


async def test_one_start_and_one_finish_over_all_rounds() -> None:
    async with serving() as (_, client):
        stream = client.stream("Weather in Rome?", tools=TOOLS, run_tools=True)
        events = await events_of(stream)
    kinds = [type(event) for event in events if not isinstance(event, TextDelta | ToolCallDelta)]
    assert kinds == [
        *(ResponseStarted, ToolCallStarted, ToolCallStarted, UsageReported, ToolCallFinished, ToolCallFinished),
        *(ToolResult, ToolResult, RoundStarted, UsageReported, ResponseFinished),
    ]
    found = next(event for event in events if isinstance(event, RoundStarted))
    assert (found.number, found.model) == (2, "gpt-4o")
    assert found.response_id != events[0].response_id


async def test_the_builder_makes_the_last_answer_of_the_events() -> None:
    async with serving() as (_, client):
        stream = client.stream("Weather in Rome?", tools=TOOLS, run_tools=True)
        events = await events_of(stream)
    builder = ResponseBuilder()
    builder.add_all(events)
    built = builder.response()
    assert built.content == stream.response.content
    assert built.usage == stream.response.usage
    assert built.response_id == stream.response.response_id


async def test_tokens_and_echo_are_of_all_rounds() -> None:
    out = io.StringIO()
    async with serving([*SCRIPTS, *SCRIPTS]) as (_, client):
        tokens = [token async for token in client.stream("Weather?", tools=TOOLS, run_tools=True)]
        response = await client.stream("Weather?", tools=TOOLS, run_tools=True, echo=out)
    assert "".join(tokens) == "Let me look.It is 21 degrees."
    assert out.getvalue() == "Let me look.\nIt is 21 degrees."
    assert response.completion == "It is 21 degrees."


async def test_results_are_delivered_as_they_finish_and_sent_in_the_order_of_the_calls() -> None:
    quick_has_ended = asyncio.Event()

    async def slow() -> str:
        await quick_has_ended.wait()
        return "slow"

    async def quick() -> str:
        quick_has_ended.set()
        return "quick"

    async with serving([calling("slow", "quick"), "Done."]) as (sim, client):
        events = await events_of(client.stream("Go.", tools=[slow, quick], run_tools=True))
        sent = [message["content"] for message in sim.requests[1].json["messages"] if message["role"] == "tool"]
    assert [event.result for event in events if isinstance(event, ToolResult)] == ["quick", "slow"]
    assert sent == ["slow", "quick"]


async def test_progress_of_a_tool_is_events() -> None:
    async def count() -> Any:
        yield {"done": 1}
        yield {1, 2}.isdisjoint  # has no form in JSON
        yield "counted"

    async with serving([calling("count"), "Done."]) as (_, client):
        events = await events_of(client.stream("Go.", tools=[count], run_tools=True))
    first, second = [event.progress for event in events if isinstance(event, ToolProgress)]
    assert first == {"done": 1}
    assert second.startswith("<built-in method isdisjoint")
    assert results_of(events)["count"].result == "counted"


async def test_no_tool_runs_before_its_round_has_ended_well() -> None:
    ran = []

    def note() -> str:
        ran.append(1)
        return "noted"

    async with serving(
        [calling("note"), calling("note"), "Done."], faults=["clean_truncation"], on_break="restart"
    ) as (
        sim,
        client,
    ):
        stream = client.stream("Go.", tools=[note], run_tools=True)
        events = [event async for event in stream.events()]
        assert [each.fault for each in sim.requests] == ["clean_truncation", None, None]
    assert any(isinstance(event, Attempt) for event in events)
    assert len(ran) == 1
    assert_valid(stream.response.conversation)


async def test_a_restart_in_round_two_takes_back_that_round_only() -> None:
    script = Script(text="It is 21 degrees in Rome, and it stays so until the evening.")
    async with serving([ASKS, script, script], faults=[None, "clean_truncation"], on_break="restart") as (_, client):
        stream = client.stream("Weather?", tools=TOOLS, run_tools=True)
        async with stream:
            events = [event async for event in stream.events()]
    builder = ResponseBuilder()
    builder.add_all(events)
    assert builder.response().completion == script.text == stream.response.completion
    assert [type(event) for event in events].count(ResponseStarted) == 1
    assert stream.response.usage.input_tokens == sum(each.usage.input_tokens for each in stream.response.rounds)


# Calls that fail


async def test_an_exception_is_a_result_for_the_model_and_an_error_on_the_event() -> None:
    def fails(reason: str) -> str:
        raise ValueError(reason)

    async with serving([calling("fails", reason="no such city"), "Sorry."]) as (sim, client):
        stream = client.stream("Go.", tools=[fails], run_tools=True)
        events = await events_of(stream)
        sent = sim.requests[1].json["messages"][-1]["content"]
    assert "no such city" in sent
    result = results_of(events)["fails"]
    assert (result.result, result.error) == ("ValueError: no such city", "ValueError: no such city")
    assert sent == "Error: ValueError: no such city"
    assert stream.response.completion == "Sorry."
    assert stream.response.error is None


BAD_CALLS = {
    "unknown tool": [("nope", {})],
    "unreadable arguments": [("weather", '{"city": "Ro')],
    "wrong arguments": [("weather", {"town": "Rome"})],
    "no object": [("weather", "[1]")],
}


@pytest.mark.parametrize("name", BAD_CALLS)
async def test_a_call_that_cannot_run_goes_back_as_an_error(name: str) -> None:
    async with serving([Script(text="", tool_calls=BAD_CALLS[name]), "Sorry."]) as (sim, client):
        stream = client.stream("Go.", tools=TOOLS, run_tools=True)
        events = await events_of(stream)
        assert_next_turn(client, stream.response)
        call = sim.requests[1].json["messages"][-2]["tool_calls"][0]["function"]
        json.loads(call["arguments"])  # hosts reject arguments that are no JSON
    (result,) = [event for event in events if isinstance(event, ToolResult)]
    assert result.error
    assert stream.response.completion == "Sorry."


async def test_a_slow_tool_times_out_alone() -> None:
    cancelled = asyncio.Event()

    async def hangs() -> str:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return ""

    calls = Script(text="", tool_calls=[("hangs", {}), ("search", {"query": "rain"})])
    async with serving([calls, "Done."]) as (_, client):
        stream = client.stream("Go.", tools=[hangs, TOOLS[1]], run_tools=True, tool_timeout=0.02)
        events = await events_of(stream)
    assert cancelled.is_set()
    found = results_of(events)
    assert "0.02 s" in found["hangs"].error
    assert (found["search"].error, found["search"].result) == (None, "nothing about rain")
    assert stream.response.completion == "Done."


async def test_at_most_so_many_tools_run_at_once() -> None:
    running, most = set(), []

    async def work(number: int) -> int:
        running.add(number)
        most.append(len(running))
        await asyncio.sleep(0.001)
        running.remove(number)
        return number

    calls = Script(text="", tool_calls=[("work", {"number": number}) for number in range(9)])
    async with serving([calls, "Done."]) as (_, client):
        await events_of(client.stream("Go.", tools=[work], run_tools=True, max_concurrent_tools=3))
    assert max(most) == 3
    assert len(most) == 9


async def test_a_long_result_is_cut_off_and_marked() -> None:
    def long() -> str:
        return "x" * 1000

    async with serving([calling("long"), "Done."]) as (sim, client):
        events = await events_of(client.stream("Go.", tools=[long], run_tools=True, max_result_characters=10))
        sent = sim.requests[1].json["messages"][-1]["content"]
    result = results_of(events)["long"]
    assert result.is_truncated
    assert sent == result.result
    assert sent.startswith("x" * 10 + "\n[")


# How a loop ends


async def test_the_limit_of_rounds_ends_the_loop_with_a_warning() -> None:
    ran = []

    def again() -> int:
        ran.append(1)
        return len(ran)

    async with serving(calling("again")) as (sim, client):
        stream = client.stream("Go.", tools=[again], run_tools=True, max_rounds=3)
        events = await events_of(stream)
        response = stream.response
        assert len(sim.requests) == len(response.rounds) == 3
        assert_next_turn(client, response)
    assert len(ran) == 2
    assert events[-1].warnings == ("max_rounds",)
    assert (response.finish_reason, response.warnings) == ("tool_calls", ("max_rounds",))
    assert response.error is None
    assert response.pending == ()
    assert roles(response.conversation) == ["user", *["assistant", "tool"] * 3]


@pytest.mark.parametrize("reason", ["length", "content_filter"])
async def test_calls_of_an_answer_that_was_cut_off_do_not_run(reason: Any) -> None:
    script = Script(text="Well", tool_calls=[("weather", {"city": "Rome"})], finish_reason=reason)
    async with serving(script) as (sim, client):
        stream = client.stream("Go.", tools=TOOLS, run_tools=True)
        events = await events_of(stream)
        assert len(sim.requests) == 1
        assert_next_turn(client, stream.response)
    assert results_of(events) == {}
    assert stream.response.finish_reason == reason
    assert stream.response.warnings == ()


async def test_a_pause_of_the_provider_goes_on() -> None:
    searching = Script(
        events=[
            ResponseStarted("msg_1", "claude-sonnet-4-5"),
            TextDelta("Searching."),
            ProviderPart(
                "anthropic",
                "block",
                {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "rain"}},
            ),
            UsageReported(Usage(input_tokens=3, output_tokens=2)),
            ResponseFinished("pause", "pause_turn"),
        ]
    )
    async with serving([searching, "Dry."], api="anthropic-messages") as (sim, client):
        stream = client.stream("Rain?", tools=TOOLS, run_tools=True)
        events = await events_of(stream)
        assert [message["role"] for message in sim.requests[1].json["messages"]] == ["user", "assistant"]
    assert [event.number for event in events if isinstance(event, RoundStarted)] == [2]
    assert stream.response.completion == "Dry."
    assert stream.response.finish_reason == "stop"


async def test_the_cost_of_all_rounds_counts_for_max_cost() -> None:
    usage = Usage(input_tokens=100_000, output_tokens=10)
    asks = Script(text="", tool_calls=[("weather", {"city": "Rome"})], usage=usage)
    async with serving(asks) as (sim, client):
        one_round = client.models[0].price.input * 0.1
        stream = client.stream("Go.", tools=TOOLS, run_tools=True, max_cost=one_round * 2.5)
        with pytest.raises(BudgetError) as caught:
            await events_of(stream)
        assert len(sim.requests) <= 3
        assert_next_turn(client, caught.value.partial)
    assert caught.value.partial.rounds
    assert stream.response.cost == pytest.approx(sum(each.cost for each in stream.response.rounds))


async def test_an_error_in_round_two_has_the_conversation_so_far() -> None:
    async with serving(faults=[None, *["status_500"] * 5], max_attempts=2) as (_, client):
        stream = client.stream("Go.", tools=TOOLS, run_tools=True)
        with pytest.raises(ServerError) as caught:
            await events_of(stream)
        partial = caught.value.partial
        assert_next_turn(client, partial)
    assert partial.error is caught.value
    assert roles(partial.conversation) == ["user", "assistant", "tool"]
    assert partial.completion == "Let me look."
    assert stream.response.conversation == partial.conversation


async def test_the_response_so_far_is_a_valid_conversation_at_each_event() -> None:
    async with serving() as (_, client):
        async with client.stream("Go.", tools=TOOLS, run_tools=True) as stream:
            async for _ in stream.events():
                assert_next_turn(client, stream.response)
                assert stream.stats.attempts >= 1
        assert stream.response.finish_reason == "stop"


# Rounds


async def test_the_same_model_answers_all_rounds() -> None:
    async with serving([*SCRIPTS] * 4, model=["gpt-4o", "gpt-4.1"]) as (sim, client):
        for _ in range(4):
            await events_of(client.stream("Go.", tools=TOOLS, run_tools=True))
    models = [each.json["model"] for each in sim.requests]
    assert models[::2] == models[1::2]
    assert set(models) == {"gpt-4o", "gpt-4.1"}


async def test_another_model_goes_on_where_the_first_one_fails() -> None:
    options = {"model": "gpt-4o", "fallback": "gpt-4.1", "max_attempts": 4}
    async with serving(faults=[None, "status_404"], **options) as (sim, client):
        stream = client.stream("Go.", tools=TOOLS, run_tools=True)
        await events_of(stream)
    assert [each.json["model"] for each in sim.requests] == ["gpt-4o", "gpt-4o", "gpt-4.1"]
    assert stream.response.model_internal == "gpt-4.1"


async def test_a_round_that_breaks_is_continued() -> None:
    text = "It is 21 degrees in Rome, and it stays so until the evening, when it gets a little cooler."

    def script(request: Any) -> Any:
        *_, last = request.conversation
        if last.role == "assistant":  # the start of the answer, which the model continues
            return text[len(last.completion) :]
        return Script(text=text) if last.role == "tool" else ASKS

    options = {"api": "anthropic-messages", "model": "anthropic:claude-haiku-4-5", "on_break": "continue"}
    async with serving(script, faults=[None, "clean_truncation"], **options) as (sim, client):
        stream = client.stream("Go.", tools=TOOLS, run_tools=True)
        events = await events_of(stream)
        assert len(sim.requests) == 3
    assert [event.goes_on for event in events if isinstance(event, Attempt)] == [True]
    assert stream.response.completion == text
    assert_valid(stream.response.conversation)


async def test_a_silent_round_gets_a_second_attempt_beside_it() -> None:
    slow = Fault("slow_first_token", seconds=20)
    async with serving(faults=[None, slow], hedge_after=0.02) as (sim, client):
        stream = client.stream("Go.", tools=TOOLS, run_tools=True)
        await events_of(stream)
        assert len(sim.requests) == 3
    assert stream.response.completion == "It is 21 degrees."


@pytest.mark.parametrize("choice", ["required", "weather"])
async def test_a_forced_call_is_forced_once(choice: str) -> None:
    async with serving() as (sim, client):
        await events_of(client.stream("Go.", tools=TOOLS, run_tools=True, tool_choice=choice))
    assert "tool_choice" in sim.requests[0].json
    assert sim.requests[1].json.get("tool_choice", "auto") == "auto"


async def test_ids_that_repeat_get_numbers() -> None:
    """Hosts without ids of their own count the calls of each answer."""
    asks = Script(
        events=[
            ResponseStarted("r", "gpt-4o"),
            *(ToolCallStarted(index, "call_0", "weather") for index in range(2)),
            *(ToolCallDelta(index, f'{{"city":"{city}"}}') for index, city in enumerate(("Rome", "Oslo"))),
            *(
                ToolCallFinished(index, "call_0", "weather", f'{{"city":"{city}"}}', {"city": city})
                for index, city in enumerate(("Rome", "Oslo"))
            ),
            ResponseFinished("tool_calls"),
        ]
    )
    history = Conversation.user("Hi").add(Conversation.user("x").messages[0])
    async with serving([asks, asks, "Done."], api="ollama-chat") as (_, client):
        stream = client.stream(history, tools=TOOLS, run_tools=True)
        events = await events_of(stream)
        assert_next_turn(client, stream.response)
    ids = [event.id for event in events if isinstance(event, ToolCallStarted)]
    assert len(set(ids)) == 4
    assert {event.call_id for event in events if isinstance(event, ToolResult)} == set(ids)
    assert [json.loads(event.result)["city"] for event in events if isinstance(event, ToolResult)].count("Oslo") == 2


async def test_a_loop_without_calls_is_an_ordinary_answer() -> None:
    async with serving("Hello.") as (_, client):
        stream = client.stream("Hi", tools=TOOLS, run_tools=True)
        events = await events_of(stream)
        plain = await client.stream("Hi", echo=None)
    assert not any(isinstance(event, RoundStarted) for event in events)
    assert stream.response.completion == plain.completion
    assert plain.conversation is None
    assert roles(stream.response.conversation) == ["user", "assistant"]


async def test_a_cached_round_costs_nothing(tmp_path: Any) -> None:
    async with serving([*SCRIPTS, "never asked"], local_cache=tmp_path / "cache") as (sim, client):
        first = client.stream("Go.", tools=[weather, TOOLS[1]], run_tools=True)
        await events_of(first)
        again = client.stream("Go.", tools=[weather, TOOLS[1]], run_tools=True)
        events = await events_of(again)
        assert len(sim.requests) == 2
    assert len(results_of(events)) == 2
    assert again.response.completion == first.response.completion
    assert again.response.local_cache_hit
    assert again.response.cost == 0


def test_sync_code_has_the_same_loop() -> None:
    main = threading.get_ident()

    def where() -> bool:
        return threading.get_ident() == main

    with Simulator([calling("where"), "Done."]).start_in_thread() as sim:
        client = LLMClient("gpt-4o", base_url=sim.base_url, api_key="k")
        with client.stream_sync("Go.", tools=[where], run_tools=True) as stream:
            events = list(stream.events())
        client.close_sync()
    check_loop(events)
    assert results_of(events)["where"].result == "false"
    assert stream.response.completion == "Done."


# Bad options, before anything is sent


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tools": None}, "run_tools=True needs tools"),
        ({"tools": []}, "run_tools=True needs tools"),
        ({"tools": [Tool(name="f")]}, "has no function to run"),
        ({"tools": [weather, weather]}, "two tools are named 'weather'"),
        ({"max_rounds": 0}, "max_rounds=0"),
        ({"max_rounds": 1.5}, "max_rounds is a whole number"),
        ({"max_concurrent_tools": True}, "max_concurrent_tools is a whole number"),
        ({"tool_timeout": -1}, "tool_timeout=-1"),
        ({"approve": True}, "approve is a function"),
        ({"decisions": ["a"]}, "decisions is a mapping"),
        ({"decisions": {"a": "yes"}}, "neither True nor False"),
        ({"run_tools": 1}, "run_tools is True or False"),
        ({"run_tools": False, "max_rounds": 3}, "max_rounds has no effect without run_tools=True"),
        ({"max_round": 3}, "Did you mean max_rounds"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    client = LLMClient("gpt-4o", api_key="k")
    with pytest.raises((ConfigurationError, InvalidPromptError), match=message):
        client.stream("Go.", **{"tools": TOOLS, "run_tools": True, **options})
