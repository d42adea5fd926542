"""Loops with a typed answer: the last round has the object, and earlier rounds have none."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from agents.loops import APIS, TOOLS, assert_valid, check_loop, roles, serving
from lm_deluge.errors import OutputError
from lm_deluge.events import ToolResult
from lm_deluge.simulator import Script

ASKS = Script(text='{"city": "half', tool_calls=[("weather", {"city": "Rome"})])
GOOD = '{"city": "Rome", "celsius": 21}'
BAD = '{"city": "Rome", "celsius": "warm"}'


class Report(BaseModel):
    city: str
    celsius: int


@pytest.mark.parametrize("api", APIS)
async def test_the_last_round_yields_the_object(api: str) -> None:
    async with serving([ASKS, GOOD], api=api) as (sim, client):
        stream = client.stream("Weather?", tools=TOOLS, run_tools=True, output=Report)
        async with stream:
            events = [event async for event in stream.events()]
        assert len(sim.requests) == 2
    check_loop(events)
    assert any(isinstance(event, ToolResult) for event in events)
    response = stream.response
    assert response.output == Report(city="Rome", celsius=21)
    assert roles(response.conversation)[-4:] == ["user", "assistant", "tool", "assistant"]
    assert_valid(response.conversation)


async def test_partials_are_of_the_last_round() -> None:
    async with serving([ASKS, GOOD]) as (_, client):
        stream = client.stream("Weather?", tools=TOOLS, run_tools=True, output=Report)
        seen = [partial async for partial in stream.partials()]
    assert seen[-1] == {"city": "Rome", "celsius": 21}


async def test_an_invalid_object_is_asked_for_again_with_the_results() -> None:
    async with serving([ASKS, BAD, GOOD]) as (sim, client):
        stream = client.stream("Weather?", tools=TOOLS, run_tools=True, output=Report, max_output_retries=1)
        response = await stream.read_to_end()
        assert len(sim.requests) == 3
        sent = [message["role"] for message in sim.requests[2].json["messages"]]
    assert sent[-5:] == ["user", "assistant", "tool", "assistant", "user"]
    assert response.output == Report(city="Rome", celsius=21)
    assert response.stats.attempts == 3
    assert_valid(response.conversation)


async def test_an_invalid_object_raises() -> None:
    async with serving([ASKS, BAD]) as (_, client):
        stream = client.stream("Weather?", tools=TOOLS, run_tools=True, output=Report)
        with pytest.raises(OutputError) as caught:
            await stream.read_to_end()
    assert caught.value.path == ("celsius",)
    assert_valid(caught.value.partial.conversation)


async def test_batches_with_journal_and_cache(tmp_path: Path) -> None:
    asked: list[int] = []

    def script(request: Any) -> Any:
        asked.append(len(request.conversation.messages))
        has_result = any(message.role == "tool" for message in request.conversation)
        return ASKS if not has_result else BAD if len(asked) == 2 else GOOD

    options: dict[str, Any] = {"tools": TOOLS, "run_tools": True, "output": Report, "max_output_retries": 1}
    async with serving(script, local_cache=tmp_path / "cache") as (sim, client):
        (first,) = await client.process_prompts_async(["Rome?"], journal=tmp_path / "journal", **options)
        assert first.output == Report(city="Rome", celsius=21)
        assert len(sim.requests) == 3
        (again,) = await client.process_prompts_async(["Rome?"], journal=tmp_path / "journal", **options)
        assert again.output == first.output
        assert len(sim.requests) == 3
        await client.process_prompts_async(["Rome?"], **options)
        assert len(sim.requests) == 4  # the rejected answer was not cached, and the others were
