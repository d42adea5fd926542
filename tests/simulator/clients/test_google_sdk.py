"""Google's own SDK works with the simulator."""

from __future__ import annotations

import base64
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from lm_deluge.events import (
    Citation,
    Event,
    MediaDelta,
    ProviderPart,
    ReasoningDelta,
    ResponseFinished,
    ResponseStarted,
    TextDelta,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
    UsageReported,
)
from lm_deluge.simulator import FAULTS, Script, Simulator
from lm_deluge.usage import Usage
from simulator.raw_client import TEXT

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # raised by its imports
    from google import genai
    from google.genai import errors, types

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::UserWarning")

MODEL = "gemini-3-flash-preview"
SIGNATURE = base64.b64encode(b"a signature").decode()
WEATHER = types.Tool(
    function_declarations=[
        types.FunctionDeclaration(
            name="weather", parameters_json_schema={"type": "object", "properties": {"city": {"type": "string"}}}
        )
    ]
)
ANSWER: list[Event] = [
    ResponseStarted("r1", "gemini-3"),
    ReasoningDelta("Hm."),
    TextDelta("Grüße. "),
    ProviderPart("google", "executable_code", {"executableCode": {"language": "PYTHON", "code": "print(1)"}}),
    ProviderPart("google", "code_execution_result", {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1"}}),
    MediaDelta("image/png", "AAEC"),
    ToolCallStarted(0, "fc1", "weather"),
    ProviderPart("google", "thought_signature", SIGNATURE),
    ToolCallDelta(0, '{"city":"Roma"}'),
    ToolCallFinished(0, "fc1", "weather", '{"city":"Roma"}', {"city": "Roma"}),
    Citation("https://a.test", "A", 0, 5),
    UsageReported(Usage(input_tokens=5, output_tokens=9, reasoning_tokens=2, cache_read_tokens=1)),
    ResponseFinished("tool_calls", "STOP"),
]


@asynccontextmanager
async def google(sim: Simulator) -> AsyncIterator[Any]:
    client = genai.Client(api_key="test-key", http_options=types.HttpOptions(base_url=sim.url))
    async with client.aio as aio:
        yield aio
    client.close()


async def test_a_stream() -> None:
    async with Simulator(TEXT) as sim, google(sim) as client:
        stream = await client.models.generate_content_stream(model=MODEL, contents="Hi")
        chunks = [chunk async for chunk in stream]
    assert "".join(chunk.text or "" for chunk in chunks) == TEXT
    assert chunks[-1].candidates[0].finish_reason is types.FinishReason.STOP
    usage = chunks[-1].usage_metadata
    assert usage.total_token_count == usage.prompt_token_count + usage.candidates_token_count
    assert len({(chunk.response_id, chunk.model_version) for chunk in chunks}) == 1


@pytest.mark.parametrize("is_streamed", [True, False])
async def test_everything_that_an_answer_can_hold(is_streamed: bool) -> None:
    async with Simulator(Script(events=ANSWER)) as sim, google(sim) as client:
        models = client.models
        config = types.GenerateContentConfig(
            tools=[WEATHER], automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True)
        )
        if is_streamed:
            stream = await models.generate_content_stream(model=MODEL, contents="Hi", config=config)
            answers = [chunk async for chunk in stream]
        else:
            answers = [await models.generate_content(model=MODEL, contents="Hi", config=config)]
    parts = [part for answer in answers for part in answer.candidates[0].content.parts or ()]
    assert "".join(part.text or "" for part in parts if part.thought) == "Hm."
    assert "".join(part.text or "" for part in parts if not part.thought) == "Grüße. "
    call = next(part for part in parts if part.function_call)
    assert (call.function_call.name, call.function_call.args, call.function_call.id) == (
        "weather",
        {"city": "Roma"},
        "fc1",
    )
    assert call.thought_signature == b"a signature"
    assert next(part.inline_data.data for part in parts if part.inline_data) == b"\x00\x01\x02"
    assert next(part.executable_code.code for part in parts if part.executable_code) == "print(1)"
    assert next(part.code_execution_result.output for part in parts if part.code_execution_result) == "1"
    grounding = next(a.candidates[0].grounding_metadata for a in answers if a.candidates[0].grounding_metadata)
    assert grounding.grounding_supports[0].segment.end_index == 7  # bytes
    assert answers[-1].usage_metadata.thoughts_token_count == 2
    assert answers[-1].usage_metadata.cached_content_token_count == 1


async def test_a_conversation_with_tools_is_understood() -> None:
    asked = []

    def answer(request):
        asked.append(request)
        return Script(tool_calls=[("weather", {"city": "Roma"})]) if len(asked) == 1 else Script(text="Sunny.")

    def weather(city: str) -> str:
        return f"sun in {city}"

    async with Simulator(answer) as sim, google(sim) as client:
        config = types.GenerateContentConfig(tools=[weather], system_instruction="Be brief.", temperature=0.5, top_k=3)
        response = await client.models.generate_content(model=MODEL, contents="Hi", config=config)
    assert response.text == "Sunny."
    first, second = asked
    assert [message.role for message in second.conversation] == ["system", "user", "assistant", "tool"]
    call, result = second.conversation[2].parts[0], second.conversation[3].parts[0]
    assert result.tool_call_id == call.id
    assert "sun in Roma" in result.content
    assert [tool.name for tool in first.tools] == ["weather"]
    assert first.params.temperature == 0.5
    assert first.extra["generationConfig"]["topK"] == 3


@pytest.mark.parametrize(
    ("fault", "code", "status"),
    [
        ("status_400", 400, "INVALID_ARGUMENT"),
        ("status_401", 401, "UNAUTHENTICATED"),
        ("status_403", 403, "PERMISSION_DENIED"),
        ("status_404", 404, "NOT_FOUND"),
        ("status_429", 429, "RESOURCE_EXHAUSTED"),
        ("quota", 429, "RESOURCE_EXHAUSTED"),
        ("status_500", 500, "INTERNAL"),
        ("status_503", 503, "UNAVAILABLE"),
    ],
)
async def test_errors(fault: str, code: int, status: str) -> None:
    async with Simulator(faults=fault) as sim, google(sim) as client:
        with pytest.raises(errors.APIError) as caught:
            await client.models.generate_content(model=MODEL, contents="Hi")
    assert (caught.value.code, caught.value.status) == (code, status)
    assert isinstance(caught.value, errors.ClientError if code < 500 else errors.ServerError)


async def test_an_interaction() -> None:
    async with Simulator(Script(text=TEXT, reasoning="Hm.")) as sim, google(sim) as client:
        interaction = await client.interactions.create(model=MODEL, input="Hi")
    assert interaction.status == "completed"
    assert [step.type for step in interaction.steps] == ["thought", "model_output"]
    assert interaction.steps[1].content[0].text == TEXT
    assert interaction.usage.total_output_tokens > 0


async def test_a_streamed_interaction_with_a_call() -> None:
    script = Script(text=TEXT, reasoning="Hm.", tool_calls=[("weather", {"city": "Roma"})])
    tools = [{"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {}}}]
    async with Simulator(script) as sim, google(sim) as client:
        stream = await client.interactions.create(model=MODEL, input="Hi", tools=tools, stream=True)
        events = [event async for event in stream]
    deltas = [event.delta for event in events if event.event_type == "step.delta"]
    assert "".join(delta.text for delta in deltas if delta.type == "text") == TEXT
    assert "".join(delta.content.text for delta in deltas if delta.type == "thought_summary") == "Hm."
    assert "".join(delta.arguments for delta in deltas if delta.type == "arguments_delta") == '{"city":"Roma"}'
    steps = [event.step for event in events if event.event_type == "step.start"]
    assert [step.type for step in steps] == ["thought", "model_output", "function_call"]
    assert steps[2].name == "weather"
    last = next(event for event in events if event.event_type == "interaction.completed")
    assert last.interaction.status == "requires_action"
    assert last.interaction.usage.total_tokens > 0


async def test_an_interaction_that_fails() -> None:
    async with Simulator(faults="status_429") as sim, google(sim) as client:
        with pytest.raises(Exception, match=r"429|RESOURCE_EXHAUSTED|[Rr]ate") as caught:
            await client.interactions.create(model=MODEL, input="Hi")
    assert getattr(caught.value, "status_code", getattr(caught.value, "code", None)) == 429


def test_the_blocking_client() -> None:
    with (
        Simulator(TEXT).start_in_thread() as sim,
        genai.Client(api_key="test-key", http_options=types.HttpOptions(base_url=sim.url)) as client,
    ):
        stream = client.models.generate_content_stream(model=MODEL, contents="Hi")
        assert "".join(chunk.text or "" for chunk in stream) == TEXT


async def test_counts_and_models() -> None:
    async with Simulator("Hello.") as sim, google(sim) as client:
        counted = await client.models.count_tokens(model=MODEL, contents="How many?")
        answer = await client.models.generate_content(model=MODEL, contents="How many?")
        names = [row.name async for row in await client.models.list(config={"page_size": 30})]
        one = await client.models.get(model="simulator")
        with pytest.raises(errors.ClientError) as caught:
            await client.models.get(model="gemini-9")
    assert counted.total_tokens == answer.usage_metadata.prompt_token_count > 1
    assert names == ["models/simulator", *(f"models/simulator/{name}" for name in FAULTS)]
    assert one.name == "models/simulator"
    assert (caught.value.code, caught.value.status) == (404, "NOT_FOUND")


async def test_several_candidates() -> None:
    config = types.GenerateContentConfig(candidate_count=2)
    async with Simulator(Script(text=TEXT)) as sim, google(sim) as client:
        answer = await client.models.generate_content(model=MODEL, contents="Hi", config=config)
    assert [candidate.content.parts[0].text for candidate in answer.candidates] == [TEXT, TEXT]
