"""Tools, breaks and cancels in the official clients, in front of providers of the same and of another API.

Each client runs a whole task: it offers a tool, gets a call, sends the result, and gets the answer.
"""

import asyncio
import contextlib
import gc
import json
import os
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anthropic
import ollama
import openai
import pytest

from gateway.conftest import TEXT, point_providers_at
from gateway.serving import Serving, serve
from lm_deluge.encoders.encoder import ParsedRequest
from lm_deluge.gateway.configuration.settings import GatewaySettings, ServedModel
from lm_deluge.prompt.parts import ToolResultPart
from lm_deluge.simulator import Fault, Pace, Script, Simulator

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # raised by their imports
    from google import genai
    from google.genai import errors as google_errors
    from google.genai import types
    from langchain_anthropic import ChatAnthropic
    from langchain_core.messages import HumanMessage, ToolMessage
    from langchain_openai import ChatOpenAI

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::UserWarning")


@pytest.fixture(autouse=True)
def _forget_clients(request: pytest.FixtureRequest) -> Iterator[None]:
    """Free LangChain's clients, which have no `close`, before their connections are found open in another test."""
    yield
    if "langchain" in request.node.name:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            gc.collect()


MODELS = ("gpt-4o", "claude-sonnet-5-5", "gemini-3.8-flash", "llama")
QUESTION = "What is the weather in Rome?"
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FUNCTION = {"name": "weather", "description": "The weather of a city.", "parameters": SCHEMA}
SUNNY = "21 degrees"


def forecast(request: ParsedRequest) -> Script:
    """Call the tool; with its result, answer with the text of the result."""
    results = [
        part for message in request.conversation.messages for part in message.parts if isinstance(part, ToolResultPart)
    ]
    if results:
        return Script(text=f"It is sunny: {results[-1].content}.")
    assert [tool.name for tool in request.tools] == ["weather"]
    return Script(text="Let me look.", tool_calls=[("weather", {"city": "Rome"})])


ANSWER = f"It is sunny: {SUNNY}."


@contextlib.asynccontextmanager
async def gateway_before(script: Any, monkeypatch: pytest.MonkeyPatch, **options: Any) -> AsyncIterator[Serving]:
    async with Simulator(script, **options) as simulator:
        point_providers_at(simulator, monkeypatch)
        local = {"base_url": simulator.url, "max_attempts": 1, "progress": "none"}
        names = {"llama": ("ollama:llama3.3", local)}
        rest = {"max_attempts": 1, "progress": "none"}
        models = tuple(
            ServedModel(name=name, models=(names.get(name, (name,))[0],), options=names.get(name, ("", rest))[1])
            for name in MODELS
        )
        async with serve(GatewaySettings(models=models), simulator) as serving:
            yield serving


# --- one whole task with a tool ---


async def task_by_chat(url: str, model: str, *, streamed: bool) -> str:
    async with openai.AsyncOpenAI(api_key="any", base_url=f"{url}/v1", max_retries=0) as client:
        messages: list[Any] = [{"role": "user", "content": QUESTION}]
        options: Any = {"model": model, "tools": [{"type": "function", "function": FUNCTION}]}

        async def ask() -> Any:
            if not streamed:
                return (await client.chat.completions.create(messages=messages, **options)).choices[0]
            async with client.chat.completions.stream(messages=messages, **options) as stream:
                return (await stream.get_final_completion()).choices[0]

        choice = await ask()
        (call,) = choice.message.tool_calls
        assert (choice.finish_reason, call.function.name) == ("tool_calls", "weather")
        assert json.loads(call.function.arguments) == {"city": "Rome"}
        messages += [
            choice.message.model_dump(exclude_none=True, exclude={"parsed"}),
            {"role": "tool", "tool_call_id": call.id, "content": SUNNY},
        ]
        choice = await ask()
        assert choice.finish_reason == "stop"
        return choice.message.content


async def task_by_responses(url: str, model: str, *, streamed: bool) -> str:
    async with openai.AsyncOpenAI(api_key="any", base_url=f"{url}/v1", max_retries=0) as client:
        items: list[Any] = [{"role": "user", "content": QUESTION}]
        options: Any = {"model": model, "tools": [{"type": "function", **FUNCTION, "strict": False}], "store": False}

        async def ask() -> Any:
            if not streamed:
                return await client.responses.create(input=items, **options)
            async with client.responses.stream(input=items, **options) as stream:
                return await stream.get_final_response()

        response = await ask()
        (call,) = [item for item in response.output if item.type == "function_call"]
        assert (call.name, json.loads(call.arguments)) == ("weather", {"city": "Rome"})
        items += [item.model_dump(exclude_none=True, exclude={"parsed_arguments"}) for item in response.output]
        items.append({"type": "function_call_output", "call_id": call.call_id, "output": SUNNY})
        response = await ask()
        assert response.status == "completed"
        return response.output_text


async def task_by_messages(url: str, model: str, *, streamed: bool) -> str:
    async with anthropic.AsyncAnthropic(api_key="any", base_url=url, max_retries=0) as client:
        messages: list[Any] = [{"role": "user", "content": QUESTION}]
        tool = {"name": "weather", "description": FUNCTION["description"], "input_schema": SCHEMA}
        options: Any = {"model": model, "max_tokens": 500, "tools": [tool]}

        async def ask() -> Any:
            if not streamed:
                return await client.messages.create(messages=messages, **options)
            async with client.messages.stream(messages=messages, **options) as stream:
                return await stream.get_final_message()

        message = await ask()
        (call,) = [block for block in message.content if block.type == "tool_use"]
        assert (message.stop_reason, call.name, call.input) == ("tool_use", "weather", {"city": "Rome"})
        result = {"type": "tool_result", "tool_use_id": call.id, "content": SUNNY}
        messages += [{"role": "assistant", "content": message.content}, {"role": "user", "content": [result]}]
        message = await ask()
        assert message.stop_reason == "end_turn"
        return message.content[0].text


async def task_by_google(url: str, model: str, *, streamed: bool) -> str:
    async with genai.Client(api_key="any", http_options=types.HttpOptions(base_url=url)).aio as client:
        return await google_task(client, model, streamed=streamed)


async def google_task(client: Any, model: str, *, streamed: bool) -> str:
    contents: list[Any] = [types.Content(role="user", parts=[types.Part(text=QUESTION)])]
    declared = types.FunctionDeclaration(
        name="weather", description=FUNCTION["description"], parameters_json_schema=SCHEMA
    )
    config = types.GenerateContentConfig(
        tools=[types.Tool(function_declarations=[declared])],
        automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
    )

    async def ask() -> list[Any]:
        asked: Any = {"model": model, "contents": contents, "config": config}
        if not streamed:
            return [await client.models.generate_content(**asked)]
        return [chunk async for chunk in await client.models.generate_content_stream(**asked)]

    parts = [part for chunk in await ask() for part in chunk.candidates[0].content.parts or []]
    (call,) = [part.function_call for part in parts if part.function_call]
    assert (call.name, call.args) == ("weather", {"city": "Rome"})
    result = types.FunctionResponse(id=call.id, name="weather", response={"output": SUNNY})
    contents += [
        types.Content(role="model", parts=parts),
        types.Content(role="user", parts=[types.Part(function_response=result)]),
    ]
    chunks = await ask()
    assert chunks[-1].candidates[0].finish_reason == types.FinishReason.STOP
    return "".join(chunk.text or "" for chunk in chunks)


async def task_by_ollama(url: str, model: str, *, streamed: bool) -> str:
    client = ollama.AsyncClient(host=url)
    messages: list[Any] = [{"role": "user", "content": QUESTION}]

    async def ask() -> list[Any]:
        asked: Any = {"model": model, "messages": messages, "tools": [{"type": "function", "function": FUNCTION}]}
        if not streamed:
            return [await client.chat(**asked, stream=False)]
        return [chunk async for chunk in await client.chat(**asked, stream=True)]

    chunks = await ask()
    (call,) = [call for chunk in chunks for call in chunk.message.tool_calls or []]
    assert (call.function.name, call.function.arguments) == ("weather", {"city": "Rome"})
    assert chunks[-1].done
    text = "".join(chunk.message.content or "" for chunk in chunks)
    messages += [
        {"role": "assistant", "content": text, "tool_calls": [call.model_dump()]},
        {"role": "tool", "content": SUNNY, "tool_name": "weather"},
    ]
    chunks = await ask()
    assert (chunks[-1].done, chunks[-1].done_reason) == (True, "stop")
    return "".join(chunk.message.content or "" for chunk in chunks)


async def task_by_langchain(model: Any, *, streamed: bool) -> str:
    bound = model.bind_tools([{"title": "weather", **FUNCTION}])
    messages: list[Any] = [HumanMessage(QUESTION)]

    async def ask() -> Any:
        if not streamed:
            return await bound.ainvoke(messages)
        chunks = [chunk async for chunk in bound.astream(messages)]
        whole = chunks[0]
        for chunk in chunks[1:]:
            whole += chunk
        return whole

    answer = await ask()
    (call,) = answer.tool_calls
    assert (call["name"], call["args"]) == ("weather", {"city": "Rome"})
    messages += [answer, ToolMessage(SUNNY, tool_call_id=call["id"])]
    answer = await ask()
    assert answer.usage_metadata["output_tokens"] > 3
    return answer.text


def langchain_chat(url: str, model: str, **options: Any) -> Any:
    return ChatOpenAI(model=model, base_url=f"{url}/v1", api_key="any", max_retries=0, stream_usage=True, **options)


def langchain_responses(url: str, model: str) -> Any:
    return langchain_chat(url, model, use_responses_api=True)


def langchain_anthropic(url: str, model: str) -> Any:
    return ChatAnthropic(model=model, base_url=url, api_key="any", max_retries=0, max_tokens=500)


LANGCHAIN: dict[str, Callable[[str, str], Any]] = {
    "langchain-chat": langchain_chat,
    "langchain-responses": langchain_responses,
    "langchain-anthropic": langchain_anthropic,
}
TASKS: dict[str, Callable[..., Any]] = {
    "chat": task_by_chat,
    "responses": task_by_responses,
    "messages": task_by_messages,
    "google": task_by_google,
    "ollama": task_by_ollama,
    **{
        name: lambda url, model, *, streamed, make=make: task_by_langchain(make(url, model), streamed=streamed)
        for name, make in LANGCHAIN.items()
    },
}


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "plain"])
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("client", TASKS)
async def test_a_task_with_a_tool(monkeypatch: pytest.MonkeyPatch, client: str, model: str, streamed: bool) -> None:
    async with gateway_before(forecast, monkeypatch) as serving:
        assert await TASKS[client](serving.url, model, streamed=streamed) == ANSWER
        assert [call.status for call in serving.log.calls] == [200, 200]


# --- streams that break, and clients that leave ---


async def pieces_by_chat(url: str, model: str) -> AsyncIterator[str]:
    async with openai.AsyncOpenAI(api_key="any", base_url=f"{url}/v1", max_retries=0) as client:
        prompt: Any = [{"role": "user", "content": QUESTION}]
        async with await client.chat.completions.create(model=model, messages=prompt, stream=True) as stream:
            async for chunk in stream:
                yield chunk.choices[0].delta.content or ""


async def pieces_by_responses(url: str, model: str) -> AsyncIterator[str]:
    async with openai.AsyncOpenAI(api_key="any", base_url=f"{url}/v1", max_retries=0) as client:
        async for event in await client.responses.create(model=model, input=QUESTION, stream=True):
            if event.type == "response.failed":  # this client raises nothing for it
                raise openai.APIError(event.response.error.message, request=None, body=None)
            if event.type == "response.output_text.delta":
                yield event.delta


async def pieces_by_messages(url: str, model: str) -> AsyncIterator[str]:
    async with anthropic.AsyncAnthropic(api_key="any", base_url=url, max_retries=0) as client:
        prompt: Any = [{"role": "user", "content": QUESTION}]
        async with client.messages.stream(model=model, max_tokens=500, messages=prompt) as stream:
            async for text in stream.text_stream:
                yield text


async def pieces_by_google(url: str, model: str) -> AsyncIterator[str]:
    # An abandoned stream of this client keeps its connection until the client is closed.
    async with genai.Client(api_key="any", http_options=types.HttpOptions(base_url=url)).aio as client:
        async for chunk in await client.models.generate_content_stream(model=model, contents=QUESTION):
            yield chunk.text or ""


async def pieces_by_ollama(url: str, model: str) -> AsyncIterator[str]:
    stream = await ollama.AsyncClient(host=url).chat(
        model=model, messages=[{"role": "user", "content": QUESTION}], stream=True
    )
    async with contextlib.aclosing(stream):
        async for chunk in stream:
            yield chunk.message.content or ""


async def pieces_by_langchain(model: Any) -> AsyncIterator[str]:
    stream = model.astream(QUESTION)
    async with contextlib.aclosing(stream):
        async for chunk in stream:
            yield chunk.text


async def gather(pieces: AsyncIterator[str], found: list[str]) -> None:
    """Append the pieces to `found` as they arrive: those before an error stay."""
    async for piece in pieces:
        found.append(piece)  # noqa: PERF401


PIECES: dict[str, Callable[[str, str], AsyncIterator[str]]] = {
    "chat": pieces_by_chat,
    "responses": pieces_by_responses,
    "messages": pieces_by_messages,
    "google": pieces_by_google,
    "ollama": pieces_by_ollama,
    **{name: lambda url, model, make=make: pieces_by_langchain(make(url, model)) for name, make in LANGCHAIN.items()},
}
ERRORS: dict[str, type[Exception]] = {
    "messages": anthropic.APIError,
    "langchain-anthropic": anthropic.APIError,
    "google": google_errors.APIError,
    "ollama": ollama.ResponseError,
}
BROKEN = {**ERRORS, "langchain-responses": ValueError}  # it raises the error of `response.failed` in one


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("client", PIECES)
async def test_a_broken_stream_is_an_error_of_the_client(
    monkeypatch: pytest.MonkeyPatch, client: str, model: str
) -> None:
    fault = Fault("clean_truncation") if model != "llama" else Fault("close_truncation")
    async with gateway_before(TEXT, monkeypatch, faults=fault) as serving:
        pieces: list[str] = []
        with pytest.raises(BROKEN.get(client, openai.APIError)):
            await gather(PIECES[client](serving.url, model), pieces)
        text = "".join(pieces)
        assert text
        assert TEXT.startswith(text)
        assert serving.log.calls[0].status == 502


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("client", PIECES)
async def test_the_provider_is_cancelled_when_a_client_leaves(
    monkeypatch: pytest.MonkeyPatch, client: str, model: str
) -> None:
    """Google bills all of the answer, so that it is read to its end; the others are cancelled long before theirs."""
    is_billed_whole = model.startswith("gemini")
    pace = Pace(tokens_per_second=400 if is_billed_whole else 5)
    async with gateway_before(TEXT * 10, monkeypatch, pace=pace) as serving:
        pieces = PIECES[client](serving.url, model)
        async for piece in pieces:
            if piece:
                break
        await pieces.aclose()
        stats = serving.simulator.stats
        async with asyncio.timeout(5):
            while not (serving.log.calls and stats.aborted + stats.completed):
                await asyncio.sleep(0.005)
        (call,) = serving.log.calls
        assert (call.status, stats.aborted, stats.completed) == (499, not is_billed_whole, is_billed_whole)


REFUSALS = (("status_401", 401), ("status_429", 429), ("status_500", 500))
# Each client at each model: every refusal in `make soak`, else one, which changes from pair to pair.
REFUSED = [
    (client, model, *refusal)
    for at, client in enumerate(PIECES)
    for other, model in enumerate(MODELS)
    for number, refusal in enumerate(REFUSALS)
    if os.environ.get("DELUGE_SOAK") or (at + other) % len(REFUSALS) == number
]


@pytest.mark.parametrize(("client", "model", "fault", "status"), REFUSED)
async def test_errors_before_the_answer(
    monkeypatch: pytest.MonkeyPatch, client: str, model: str, fault: str, status: int
) -> None:
    async with gateway_before(TEXT, monkeypatch, faults=fault) as serving:
        with pytest.raises(ERRORS.get(client, openai.APIStatusError)) as caught:
            await gather(PIECES[client](serving.url, model), [])
        found = caught.value
        assert getattr(found, "status_code", None) == status or getattr(found, "code", None) == status
