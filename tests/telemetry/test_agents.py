"""Agent loops and their tools, as observers and OpenTelemetry see them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode

from agents.loops import SCRIPTS, TOOLS, serving
from client.hooks.exceptions import EVERY_EXCEPTION
from lm_deluge.simulator import Script
from lm_deluge.simulator.faults.catalog import Fault
from lm_deluge.telemetry import AgentObserver, CallObserver, ObservedCall, Observer, ToolObserver, outcome_of
from telemetry.recorder import Recorder
from telemetry.test_otel import Exported
from telemetry.test_prometheus import Scraped


@pytest.fixture
def exported() -> Iterator[Exported]:
    found = Exported()
    yield found
    found.tracer_provider.shutdown()
    found.meter_provider.shutdown()


def named(exported: Exported, name: str) -> list[ReadableSpan]:
    return [span for span in exported.spans if span.name == name]


def check_parent(spans: list[ReadableSpan], parent: ReadableSpan) -> None:
    assert parent.context is not None
    assert [span.parent.span_id if span.parent else None for span in spans] == [parent.context.span_id] * len(spans)


async def test_the_spans_of_a_loop(exported: Exported) -> None:
    async with serving(observers=[exported.observer()]) as (_, client):
        response = await client.stream("Weather?", tools=TOOLS, run_tools=True, echo=None)
    (agent,) = named(exported, "invoke_agent")
    assert agent.kind is SpanKind.INTERNAL
    attributes = dict(agent.attributes or {})
    assert attributes["gen_ai.operation.name"] == "invoke_agent"
    assert attributes["gen_ai.response.finish_reasons"] == ("stop",)
    assert attributes["gen_ai.usage.output_tokens"] == response.usage.output_tokens
    check_parent(named(exported, "chat gpt-4o"), agent)
    assert len(named(exported, "chat gpt-4o")) == 2
    tools = [*named(exported, "execute_tool weather"), *named(exported, "execute_tool search")]
    assert len(tools) == 2
    check_parent(tools, agent)
    for span in tools:
        found = dict(span.attributes or {})
        assert found["gen_ai.operation.name"] == "execute_tool"
        assert found["gen_ai.tool.type"] == "function"
        assert found["gen_ai.tool.name"] in ("weather", "search")
        assert found["gen_ai.tool.call.id"]
    ((_, point),) = exported.points("gen_ai.invoke_agent.duration")
    assert point.count == 1
    assert len(exported.points("gen_ai.execute_tool.duration")) == 2


@pytest.mark.parametrize("is_async", [True, False])
async def test_spans_of_a_tool_are_children_of_its_run(exported: Exported, *, is_async: bool) -> None:
    tracer = exported.tracer_provider.get_tracer("program")

    def weather(city: str) -> str:
        """Return the weather."""
        with tracer.start_as_current_span("lookup"):
            return "fine"

    async def search(query: str) -> str:
        """Search."""
        await asyncio.sleep(0)
        return weather(query)

    async with serving(observers=[exported.observer()]) as (_, client):
        await client.stream("Weather?", tools=[weather, search], run_tools=True, echo=None)
    (tool,) = named(exported, "execute_tool search" if is_async else "execute_tool weather")
    assert tool.context is not None
    assert tool.context.span_id in {span.parent.span_id for span in named(exported, "lookup") if span.parent}
    assert not trace.get_current_span().is_recording()


async def test_tools_that_fail(exported: Exported) -> None:
    def weather(city: str) -> str:
        """Return the weather."""
        raise ValueError("the prompt")

    script = [Script(tool_calls=[("weather", {"city": "Rome"}), ("made_up", {})]), "Sorry."]
    async with serving(script, observers=[exported.observer()]) as (_, client):
        await client.stream("Weather?", tools=[weather], run_tools=True, echo=None)
    (failed,) = named(exported, "execute_tool weather")
    assert (failed.attributes or {})["error.type"] == "ValueError"
    assert (failed.status.status_code, failed.status.description) == (StatusCode.ERROR, None)
    (unknown,) = named(exported, "execute_tool unknown")  # its name is text of the model
    assert (unknown.attributes or {})["error.type"] == "ToolError"


async def test_a_loop_that_fails_in_round_two(exported: Exported) -> None:
    faults = [None, Fault("status", status=400)]
    async with serving(observers=[exported.observer()], faults=faults) as (_, client):
        with pytest.raises(Exception, match=r"."):
            await client.stream("Weather?", tools=TOOLS, run_tools=True, echo=None)
    (agent,) = named(exported, "invoke_agent")
    assert (agent.attributes or {})["error.type"] == "BadRequestError"
    assert len(named(exported, "chat gpt-4o")) == 2


async def test_a_loop_that_is_cancelled_while_a_tool_runs(exported: Exported) -> None:
    running = asyncio.Event()

    async def weather(city: str) -> str:
        """Return the weather."""
        running.set()
        await asyncio.sleep(60)
        return "late"

    script = Script(tool_calls=[("weather", {"city": "Rome"})])
    async with serving(script, observers=[exported.observer()]) as (_, client):
        task = asyncio.create_task(client.process_prompts_async(["Hi"], tools=[weather], run_tools=True))
        await running.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while not named(exported, "execute_tool weather"):
            await asyncio.sleep(0.001)
    (agent,) = named(exported, "invoke_agent")
    assert (agent.attributes or {})["gen_ai.response.finish_reasons"] == ("error",)
    (tool,) = named(exported, "execute_tool weather")
    assert (tool.attributes or {})["error.type"] == "CancelledError"


async def test_observers_without_an_interest_in_loops_see_each_round() -> None:
    recorder, scraped = Recorder(), Scraped()
    async with serving(observers=[recorder, scraped.observer]) as (_, client):
        await client.stream("Weather?", tools=TOOLS, run_tools=True, echo=None)
    assert [call.steps[-1] for call in recorder.calls] == ["ok", "ok"]
    assert scraped("requests_total", model="openai:gpt-4o", status="ok") == 2


class Failing(Observer):
    def __init__(self, error: BaseException) -> None:
        self.error = error
        self.raised = 0

    def fail(self, *_: Any) -> Any:
        self.raised += 1
        raise self.error

    def agent_started(self, call: ObservedCall) -> AgentObserver:
        tool = type("FailingTool", (ToolObserver,), {"ended": self.fail})()
        methods = {"call_started": self.fail, "tool_started": lambda *_: tool, "ended": self.fail}
        return type("FailingAgent", (AgentObserver,), methods)()


@pytest.mark.filterwarnings("ignore:the observer Failing")
@pytest.mark.parametrize("error", EVERY_EXCEPTION.values(), ids=EVERY_EXCEPTION)
async def test_whatever_an_observer_raises_the_loop_goes_on(error: BaseException) -> None:
    failing = Failing(error)
    async with serving(SCRIPTS, observers=[failing]) as (_, client):
        response = await client.stream("Weather?", tools=TOOLS, run_tools=True, echo=None)
    assert response.completion == "It is 21 degrees."
    assert failing.raised == 5  # two rounds, two tools, one end


async def test_what_an_agent_observer_is_notified_of() -> None:
    steps: list[Any] = []

    class Tool(ToolObserver):
        def ended(self, error: BaseException | None) -> None:
            steps.append(error)

    class Agent(AgentObserver):
        def call_started(self, call: ObservedCall) -> CallObserver | None:
            steps.append("round")
            return None

        def tool_started(self, name: str, call_id: str) -> ToolObserver:
            steps.append(name)
            return Tool()

        def ended(self, response: Any) -> None:
            steps.append(outcome_of(response))

    class Agents(Observer):
        def agent_started(self, call: ObservedCall) -> AgentObserver:
            steps.append(call.model)
            return Agent()

    async with serving(observers=[Agents()]) as (_, client):
        await client.stream("Weather?", tools=TOOLS, run_tools=True, echo=None)
    assert sorted(map(str, steps[2:6])) == ["None", "None", "search", "weather"]
    assert [*steps[:2], *steps[6:]] == ["openai:gpt-4o", "round", "round", "ok"]
