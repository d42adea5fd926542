"""Ollama's API for a single prompt, in front of Ollama itself and of other providers."""

import base64
import json
from typing import Any

import ollama
import pytest

from gateway.conftest import TEXT
from gateway.test_client_needs import post
from gateway.test_client_tools import gateway_before
from lm_deluge.simulator import Fault, Script

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::UserWarning")

MODELS = ("gpt-4o", "claude-sonnet-5-5", "gemini-3.8-flash", "llama")
PNG = base64.b64encode(
    bytes.fromhex("89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000049454e44ae426082")
).decode()


@pytest.mark.parametrize("model", MODELS)
async def test_the_official_client(monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    async with gateway_before(Script(text=TEXT, reasoning="Hm."), monkeypatch) as serving:
        client = ollama.AsyncClient(host=serving.url)
        plain = await client.generate(model=model, prompt="Hello", system="Be short.", options={"num_predict": 77})
        assert (plain.response, plain.done, plain.done_reason) == (TEXT, True, "stop")
        assert plain.eval_count
        chunks = [chunk async for chunk in await client.generate(model=model, prompt="Hello", stream=True)]
        assert "".join(chunk.response for chunk in chunks) == TEXT
        assert [chunk.done for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
        assert chunks[-1].prompt_eval_count
        sent = json.dumps(serving.simulator.requests[0].json)
        assert "Be short." in sent
        assert "77" in sent
        await client._client.aclose()
        if model == "llama":
            assert "".join(chunk.thinking or "" for chunk in chunks) == "Hm."


async def test_images_formats_and_options_of_ollama(monkeypatch: pytest.MonkeyPatch) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    body = {"model": "llama", "prompt": "Look", "images": [PNG], "format": schema, "options": {"num_ctx": 9}}
    async with gateway_before(Script(text='{"a":"b"}'), monkeypatch) as serving:
        answer = await post(serving, "/api/generate", {**body, "stream": False, "keep_alive": "5m"})
        assert answer.status_code == 200, answer.text
        assert json.loads(answer.json()["response"]) == {"a": "b"}
        sent = serving.simulator.requests[0].json
        assert sent["messages"] == [{"role": "user", "content": "Look", "images": [PNG]}]
        assert (sent["format"], sent["options"]["num_ctx"]) == (schema, 9)
        elsewhere = await post(serving, "/api/generate", {**body, "model": "gpt-4o"})
        assert elsewhere.status_code == 400
        assert "options" in elsewhere.json()["error"]


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"prompt": 5}, "prompt"),
        ({"prompt": "a", "raw": True}, "raw cannot"),
        ({"prompt": "a", "context": [1, 2]}, "context cannot"),
        ({"prompt": "a", "template": "{{ .Prompt }}"}, "template cannot"),
        ({"prompt": "a", "suffix": "b"}, "suffix cannot"),
    ],
)
async def test_what_cannot_be_served(monkeypatch: pytest.MonkeyPatch, fields: Any, problem: str) -> None:
    async with gateway_before(TEXT, monkeypatch) as serving:
        answer = await post(serving, "/api/generate", {"model": "llama", **fields})
        assert answer.status_code == 400
        assert problem in answer.json()["error"]
        assert serving.simulator.stats.requests == 0


EMPTY = [
    ("/api/generate", {}, {"response": ""}),
    ("/api/generate", {"prompt": "", "stream": True, "system": "Be short."}, {"response": ""}),
    ("/api/chat", {}, {"message": {"role": "assistant", "content": ""}}),
    ("/api/chat", {"messages": [], "stream": True}, {"message": {"role": "assistant", "content": ""}}),
]
KEPT = [(None, "load"), ("5m", "load"), (-1, "load"), ("10s", "load"), (0, "unload"), ("0s", "unload"), (0.0, "unload")]


@pytest.mark.parametrize(("path", "fields", "empty"), EMPTY)
@pytest.mark.parametrize(("kept", "reason"), KEPT)
async def test_a_request_without_a_prompt_loads_the_model(
    monkeypatch: pytest.MonkeyPatch, path: str, fields: Any, empty: Any, kept: Any, reason: str
) -> None:
    """Ollama answers at once: https://github.com/ollama/ollama/blob/main/docs/api.md#load-a-model (2026-11)."""
    async with gateway_before(TEXT, monkeypatch) as serving:
        body = {"model": "gpt-4o", **fields, **({} if kept is None else {"keep_alive": kept})}
        answer = await post(serving, path, body)
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/json"
        found = answer.json()
        assert found.pop("created_at")
        assert found == {"model": "gpt-4o", **empty, "done": True, "done_reason": reason}
        assert serving.simulator.stats.requests == 0
        (call,) = serving.log.calls
        assert (call.status, call.model, call.cost) == (200, "gpt-4o", None)


@pytest.mark.parametrize(("path", "fields", "empty"), EMPTY)
async def test_an_unknown_model_is_not_loaded(
    monkeypatch: pytest.MonkeyPatch, path: str, fields: Any, empty: Any
) -> None:
    async with gateway_before(TEXT, monkeypatch) as serving:
        answer = await post(serving, path, {"model": "no-such-model", **fields})
        assert answer.status_code == 404
        assert "no-such-model" in answer.json()["error"]


async def test_the_official_client_loads_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    async with gateway_before(TEXT, monkeypatch) as serving:
        client = ollama.AsyncClient(host=serving.url)
        found = await client.generate(model="gpt-4o")
        assert (found.response, found.done, found.done_reason) == ("", True, "load")
        assert (await client.chat(model="gpt-4o", messages=[])).done_reason == "load"
        await client._client.aclose()


@pytest.mark.parametrize("model", MODELS)
async def test_a_stream_that_breaks_is_an_error(monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    fault = Fault("clean_truncation") if model != "llama" else Fault("close_truncation")
    async with gateway_before(TEXT, monkeypatch, faults=fault) as serving:
        pieces: list[str] = []

        async def read() -> None:
            async for chunk in await ollama.AsyncClient(host=serving.url).generate(model, "Hello", stream=True):
                pieces.append(chunk.response)
                assert not chunk.done

        with pytest.raises(ollama.ResponseError):
            await read()
        assert TEXT.startswith("".join(pieces))
        assert pieces
