"""The official clients against the gateway, in front of providers of the same and of another API."""

import warnings
from collections.abc import AsyncIterator

import anthropic
import httpx
import openai
import pytest

from gateway.conftest import TEXT
from gateway.serving import Serving

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # raised by its imports
    from google import genai
    from google.genai import types

MODELS = ("gpt-4o", "claude-sonnet-5-5", "gemini-3.8-flash")
PROMPT = [{"role": "user", "content": "Hello"}]


@pytest.fixture
async def chat(serving: Serving) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(api_key="any", base_url=f"{serving.url}/v1", max_retries=0) as client:
        yield client


@pytest.fixture
async def messages(serving: Serving) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(api_key="any", base_url=serving.url, max_retries=0) as client:
        yield client


@pytest.mark.parametrize("model", MODELS)
async def test_chat_completions(chat: openai.AsyncOpenAI, model: str) -> None:
    plain = await chat.chat.completions.create(model=model, messages=PROMPT)
    assert plain.choices[0].message.content == TEXT
    assert plain.choices[0].finish_reason == "stop"
    assert plain.usage.completion_tokens > 5
    stream = await chat.chat.completions.create(
        model=model, messages=PROMPT, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == TEXT
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == plain.usage.completion_tokens


@pytest.mark.parametrize("model", MODELS)
async def test_a_client_that_asks_for_no_usage_gets_no_chunk_with_it(chat: openai.AsyncOpenAI, model: str) -> None:
    stream = await chat.chat.completions.create(model=model, messages=PROMPT, stream=True)
    assert all([chunk.choices async for chunk in stream])


@pytest.mark.parametrize("model", MODELS)
async def test_responses(chat: openai.AsyncOpenAI, model: str) -> None:
    plain = await chat.responses.create(model=model, input="Hello", store=False)
    assert plain.output_text == TEXT
    assert plain.status == "completed"
    async with chat.responses.stream(model=model, input="Hello") as stream:
        events = [event async for event in stream]
        final = await stream.get_final_response()
    assert events[-1].type == "response.completed"
    assert final.output_text == TEXT
    assert final.usage.output_tokens > 5


@pytest.mark.parametrize("model", MODELS)
async def test_messages(messages: anthropic.AsyncAnthropic, model: str) -> None:
    plain = await messages.messages.create(
        model=model, max_tokens=100, messages=PROMPT, metadata={"user_id": "someone"}
    )
    assert plain.content[0].text == TEXT
    assert plain.stop_reason == "end_turn"
    async with messages.messages.stream(model=model, max_tokens=100, messages=PROMPT) as stream:
        text = "".join([piece async for piece in stream.text_stream])
        final = await stream.get_final_message()
    assert text == TEXT
    assert (final.stop_reason, final.usage.output_tokens) == ("end_turn", plain.usage.output_tokens)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::UserWarning")
@pytest.mark.parametrize("model", MODELS)
async def test_google(serving: Serving, model: str) -> None:
    async with genai.Client(api_key="any", http_options=types.HttpOptions(base_url=serving.url)).aio as client:
        plain = await client.models.generate_content(model=model, contents="Hello")
        assert plain.text == TEXT
        stream = await client.models.generate_content_stream(model=model, contents="Hello")
        assert "".join([chunk.text or "" async for chunk in stream]) == TEXT


@pytest.mark.parametrize("model", MODELS)
async def test_errors_have_the_class_of_the_dialect(
    chat: openai.AsyncOpenAI, messages: anthropic.AsyncAnthropic, model: str
) -> None:
    faulty = f"{model}-that-nobody-serves"
    with pytest.raises(openai.NotFoundError):
        await chat.chat.completions.create(model=faulty, messages=PROMPT)
    with pytest.raises(anthropic.NotFoundError):
        await messages.messages.create(model=faulty, max_tokens=10, messages=PROMPT)


async def test_both_kinds_of_clients_can_list_the_models(
    chat: openai.AsyncOpenAI, messages: anthropic.AsyncAnthropic
) -> None:
    names = {model.id async for model in chat.models.list()}
    assert {"gpt-4o", "claude-sonnet-5-5", "gemini-3.8-flash"} <= names
    assert {model.id async for model in messages.models.list(limit=1000)} == names
    assert (await chat.models.retrieve("gpt-4o")).id == "gpt-4o"
    with pytest.raises(openai.NotFoundError):
        await chat.models.retrieve("no-such-model")


async def test_health_and_unknown_paths(serving: Serving) -> None:
    async with httpx.AsyncClient(base_url=serving.url) as client:
        assert (await client.get("/health/live")).status_code == 200
        assert (await client.get("/health/ready")).status_code == 200
        serving.gateway.state.is_ready = False
        assert (await client.get("/health/ready")).status_code == 503
        missing = await client.get("/v1/nothing")
        assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")


async def test_headers_name_the_model_the_attempts_and_the_cost(serving: Serving) -> None:
    body = {"model": "gpt-4o", "messages": PROMPT}
    async with httpx.AsyncClient(base_url=serving.url) as client:
        plain = await client.post("/v1/chat/completions", json=body)
        stream = await client.post("/v1/chat/completions", json={**body, "stream": True})
    assert plain.headers["x-deluge-model"] == "gpt-4o"
    assert plain.headers["x-deluge-attempts"] == "1"
    assert float(plain.headers["x-deluge-cost"]) > 0
    assert stream.headers["cache-control"] == "no-cache, no-transform"
    assert stream.headers["x-accel-buffering"] == "no"
    assert stream.headers["x-request-id"] != plain.headers["x-request-id"]
    assert [call.status for call in serving.log.calls] == [200, 200]
    assert serving.log.calls[0].cost == pytest.approx(float(plain.headers["x-deluge-cost"]))


async def test_what_another_api_cannot_express_is_refused_by_name(
    chat: openai.AsyncOpenAI, messages: anthropic.AsyncAnthropic
) -> None:
    with pytest.raises(openai.BadRequestError, match="logit_bias"):
        await chat.chat.completions.create(model="claude-sonnet-5-5", messages=PROMPT, logit_bias={"1": 2})
    await chat.chat.completions.create(model="gpt-4o", messages=PROMPT, logit_bias={"1": 2})
    with pytest.raises(anthropic.BadRequestError, match="top_k"):
        await messages.messages.create(model="gpt-4o", max_tokens=10, messages=PROMPT, extra_body={"top_k": 3})


async def test_what_is_left_out_is_named_in_a_header(serving: Serving) -> None:
    body = {
        "model": "claude-sonnet-5-5",
        "input": "Hello",
        "prompt_cache_key": "abc",
        "tools": [
            {"type": "web_search"},
            {"type": "function", "name": "shell", "parameters": {"type": "object", "properties": {}}},
        ],
    }
    async with httpx.AsyncClient(base_url=serving.url) as client:
        answer = await client.post("/v1/responses", json=body)
    assert answer.status_code == 200
    assert answer.headers["x-deluge-warning"] == "not passed on: prompt_cache_key, tool web_search"
    sent = serving.simulator.requests[-1].json
    assert [tool["name"] for tool in sent["tools"]] == ["shell"]
