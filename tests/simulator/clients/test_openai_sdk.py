"""OpenAI's own SDK works with the simulator."""

from __future__ import annotations

import openai
import pytest

from lm_deluge.simulator import Script, Simulator
from simulator.raw_client import TEXT

MESSAGES = [{"role": "user", "content": "Hi"}]
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}


REQUEST = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}]}


def client_of(sim: Simulator, **options: object) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        base_url=sim.base_url, api_key="sk-test", max_retries=options.pop("max_retries", 0), **options
    )


async def test_a_stream() -> None:
    async with Simulator(Script(text=TEXT)) as sim, client_of(sim) as client:
        stream = await client.chat.completions.create(
            model="gpt-4o", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == TEXT
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage.total_tokens == chunks[-1].usage.prompt_tokens + chunks[-1].usage.completion_tokens
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert len({(chunk.id, chunk.model, chunk.created) for chunk in chunks}) == 1


async def test_streamed_calls_are_put_together_by_the_sdk() -> None:
    script = Script(reasoning="Hm.", tool_calls=[("weather", {"city": "Genève"}), ("weather", {"city": "Roma"})])
    async with (
        Simulator(script) as sim,
        client_of(sim) as client,
        client.chat.completions.stream(model="gpt-4o", messages=MESSAGES, tools=[WEATHER]) as stream,
    ):
        async for _ in stream:
            pass
        final = await stream.get_final_completion()
    choice = final.choices[0]
    assert choice.finish_reason == "tool_calls"
    assert [call.function.arguments for call in choice.message.tool_calls] == ['{"city":"Genève"}', '{"city":"Roma"}']
    assert [call.type for call in choice.message.tool_calls] == ["function", "function"]


async def test_a_plain_answer() -> None:
    script = Script(text=TEXT, tool_calls=[("weather", {"city": "Roma"})])
    async with Simulator(script) as sim, client_of(sim) as client:
        answer = await client.chat.completions.create(model="gpt-4o", messages=MESSAGES, tools=[WEATHER])
    choice = answer.choices[0]
    assert (choice.message.content, choice.finish_reason) == (TEXT, "tool_calls")
    assert choice.message.tool_calls[0].function.name == "weather"
    assert answer.usage.completion_tokens > 0
    assert answer.object == "chat.completion"


async def test_a_refusal() -> None:
    async with Simulator(Script(refusal="I cannot.")) as sim, client_of(sim) as client:
        answer = await client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
    assert (answer.choices[0].message.refusal, answer.choices[0].message.content) == ("I cannot.", None)


async def test_the_list_of_models() -> None:
    async with Simulator() as sim, client_of(sim) as client:
        models = await client.models.list()
        one = await client.models.retrieve("simulator")
    assert models.data[0].id == one.id == "simulator"


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("status_400", openai.BadRequestError),
        ("status_401", openai.AuthenticationError),
        ("status_403", openai.PermissionDeniedError),
        ("status_404", openai.NotFoundError),
        ("status_409", openai.ConflictError),
        ("status_429", openai.RateLimitError),
        ("quota", openai.RateLimitError),
        ("status_500", openai.InternalServerError),
        ("status_529", openai.InternalServerError),
        ("empty_reply", openai.APIConnectionError),
        ("reset_first", openai.APIConnectionError),
    ],
)
async def test_errors(fault: str, kind: type[openai.APIError]) -> None:
    async with Simulator(faults=fault) as sim, client_of(sim) as client:
        with pytest.raises(kind) as caught:
            await client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
    assert type(caught.value) is kind
    if fault == "quota":
        assert caught.value.code == "insufficient_quota"


async def test_an_error_in_the_stream() -> None:
    async with Simulator(TEXT, faults="in_band_error_mid") as sim, client_of(sim) as client:
        stream = await client.chat.completions.create(model="gpt-4o", messages=MESSAGES, stream=True)
        with pytest.raises(openai.APIError, match="The server had an error"):
            async for _ in stream:
                pass


@pytest.mark.parametrize("fault", ["retry_after_ms", "status_503", "keepalive_race"])
async def test_retries(fault: str) -> None:
    async with Simulator("Hi", faults=[fault]) as sim, client_of(sim, max_retries=1) as client:
        for _ in range(2):
            answer = await client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
            assert answer.choices[0].message.content == "Hi"
        assert sim.stats.faults == {fault: 1}


@pytest.mark.parametrize(
    "fault", ["crlf", "comments", "multiline_data", "gzip", "u2028", "split_utf8", "byte_by_byte", "informational"]
)
async def test_harmless_faults_are_harmless(fault: str) -> None:
    async with Simulator(TEXT, faults=fault) as sim, client_of(sim) as client:
        stream = await client.chat.completions.create(model="gpt-4o", messages=MESSAGES, stream=True)
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])
    assert text.replace("a\u2028b\u2029c\x85d\x0be\x0cf", "") == TEXT


def test_the_blocking_client() -> None:
    with Simulator(TEXT).start_in_thread() as sim, openai.OpenAI(base_url=sim.base_url, api_key="sk") as client:
        stream = client.chat.completions.create(model="gpt-4o", messages=MESSAGES, stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == TEXT


@pytest.mark.parametrize("options", [{}, {"azure_deployment": "some-deployment"}])
async def test_azure(options: dict[str, str]) -> None:
    async with Simulator(Script(text=TEXT)) as sim:
        async with openai.AsyncAzureOpenAI(
            azure_endpoint=sim.url, api_key="test-key", api_version="2024-10-21", max_retries=0, **options
        ) as client:
            answer = await client.chat.completions.create(**REQUEST)
        assert sim.requests[0].path.startswith("/openai/deployments/")
    assert answer.choices[0].message.content == TEXT


async def test_several_choices_and_log_probabilities() -> None:
    async with Simulator(Script(text=TEXT)) as sim, client_of(sim) as client:
        answer = await client.chat.completions.create(**REQUEST, n=2, logprobs=True, top_logprobs=2)
        streamed = ["", ""]
        async for chunk in await client.chat.completions.create(**REQUEST, n=2, stream=True):
            for choice in chunk.choices:
                streamed[choice.index] += choice.delta.content or ""
    assert [(choice.index, choice.message.content) for choice in answer.choices] == [(0, TEXT), (1, TEXT)]
    assert "".join(token.token for token in answer.choices[1].logprobs.content) == TEXT
    assert streamed == [TEXT, TEXT]


async def test_input_tokens_of_responses() -> None:
    async with Simulator(Script(text=TEXT)) as sim, client_of(sim) as client:
        counted = await client.responses.input_tokens.count(model="gpt-5", input="How many?")
        answer = await client.responses.create(model="gpt-5", input="How many?")
    assert counted.input_tokens == answer.usage.input_tokens > 1
