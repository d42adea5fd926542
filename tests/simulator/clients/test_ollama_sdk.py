"""Ollama's own SDK works with the simulator."""

from __future__ import annotations

from typing import Any

import ollama
import pytest

from lm_deluge.events import ReasoningDelta, ResponseFinished, TextDelta
from lm_deluge.simulator import FAULTS, Script, Simulator
from simulator.raw_client import TEXT

REQUEST: dict[str, Any] = {"model": "qwen3", "messages": [{"role": "user", "content": "Hi"}]}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}


def client_of(sim: Simulator) -> ollama.AsyncClient:
    return ollama.AsyncClient(host=sim.url)


async def test_a_stream() -> None:
    async with Simulator(Script(text=TEXT, reasoning="Hm.")) as sim, client_of(sim) as client:
        stream = await client.chat(**REQUEST, stream=True, think="high")
        lines = [line async for line in stream]
    assert "".join(line.message.content or "" for line in lines) == TEXT
    assert "".join(line.message.thinking or "" for line in lines) == "Hm."
    assert [line.done for line in lines] == [False] * (len(lines) - 1) + [True]
    assert (lines[-1].done_reason, lines[-1].model) == ("stop", "qwen3")
    assert lines[-1].eval_count > 0
    assert lines[-1].created_at.endswith("Z")


async def test_streamed_calls() -> None:
    script = Script(tool_calls=[("weather", {"city": "Genève"}), ("weather", {"city": "Roma"})])
    async with Simulator(script) as sim, client_of(sim) as client:
        stream = await client.chat(**REQUEST, stream=True, tools=[WEATHER])
        calls = [call.function async for line in stream for call in line.message.tool_calls or ()]
    assert [(call.name, call.arguments["city"]) for call in calls] == [("weather", "Genève"), ("weather", "Roma")]


async def test_a_plain_answer() -> None:
    script = Script(text=TEXT, reasoning="Hm.", tool_calls=[("weather", {"city": "Roma"})])
    async with Simulator(script) as sim, client_of(sim) as client:
        answer = await client.chat(**REQUEST, tools=[WEATHER], options={"seed": 1})
    assert (answer.message.content, answer.message.thinking, answer.done) == (TEXT, "Hm.", True)
    assert answer.message.tool_calls[0].function.arguments == {"city": "Roma"}
    assert answer.prompt_eval_count > 0


@pytest.mark.parametrize("fault", ["status_400", "status_404", "status_503"])
async def test_errors(fault: str) -> None:
    async with Simulator(faults=fault) as sim, client_of(sim) as client:
        with pytest.raises(ollama.ResponseError) as caught:
            await client.chat(**REQUEST)
    assert caught.value.status_code == int(fault[-3:])
    assert not caught.value.error.startswith("{")


async def test_an_error_in_the_stream() -> None:
    async with Simulator(TEXT, faults="in_band_error_mid") as sim, client_of(sim) as client:
        stream = await client.chat(**REQUEST, stream=True)
        with pytest.raises(ollama.ResponseError, match="had an error"):
            async for _ in stream:
                pass


async def test_a_stream_that_was_cut_has_no_last_line() -> None:
    async with Simulator(Script(events=[ReasoningDelta("Hm."), TextDelta("Fo")])) as sim, client_of(sim) as client:
        stream = await client.chat(**REQUEST, stream=True)
        assert not any([line.done async for line in stream])
    whole = Script(events=[TextDelta("Four"), ResponseFinished("length")])
    async with Simulator(whole) as sim, client_of(sim) as client:
        stream = await client.chat(**REQUEST, stream=True)
        assert [line.done_reason async for line in stream][-1] == "length"


def test_the_blocking_client() -> None:
    with Simulator(TEXT).start_in_thread() as sim, ollama.Client(host=sim.url) as client:
        stream = client.chat(**REQUEST, stream=True)
        assert "".join(line.message.content or "" for line in stream) == TEXT


async def test_models() -> None:
    async with Simulator() as sim, client_of(sim) as client:
        listed = await client.list()
        shown = await client.show("simulator")
        loaded = await client.ps()
        with pytest.raises(ollama.ResponseError) as caught:
            await client.show("llama9")
    assert [row.model for row in listed.models] == ["simulator", *(f"simulator/{name}" for name in FAULTS)]
    assert shown.details == listed.models[0].details
    assert "tools" in shown.capabilities
    assert loaded.models[0].model == "simulator"
    assert (caught.value.status_code, caught.value.error) == (404, "model 'llama9' not found")


async def test_generate() -> None:
    async with Simulator(Script(text=TEXT)) as sim, client_of(sim) as client:
        plain = await client.generate(model="qwen3", prompt="Hi", system="Be short.")
        lines = [line async for line in await client.generate(model="qwen3", prompt="Hi", stream=True)]
    assert (plain.response, plain.done, plain.done_reason) == (TEXT, True, "stop")
    assert "".join(line.response for line in lines) == TEXT
    assert [line.done for line in lines] == [False] * (len(lines) - 1) + [True]
