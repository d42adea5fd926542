"""Each API has its routes, also the ones beside the model calls, and answers errors in its own format."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec
import pytest

from lm_deluge import LLMClient
from lm_deluge.adapters.catalog import find_adapter
from lm_deluge.encoders.catalog import find_encoder, list_encoders
from lm_deluge.errors import BadRequestError
from lm_deluge.models.registry import list_providers
from lm_deluge.models.rows import ProviderRow
from lm_deluge.simulator import FAULTS, Script, Simulator
from lm_deluge.simulator.endpoints.table import find_route
from lm_deluge.simulator.http import Request
from samples.api_calls import call_of
from simulator.raw_client import exchange, http

ROWS = list_providers()
MODELS = ["simulator", *(f"simulator/{name}" for name in FAULTS)]
ANTHROPIC = {"anthropic_version": "2023-06-01"}
GOOGLE = {"x_goog_api_key": "any-text"}
MESSAGES = [{"role": "user", "content": "How many tokens are these?"}]
CONTENTS = [{"role": "user", "parts": [{"text": "How many tokens are these?"}]}]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}


async def send(sim: Simulator, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    reply = await exchange(sim, http(data, method=method, path=path, connection="close", **headers))
    assert reply.is_whole
    return reply.status, json.loads(reply.body)


@pytest.mark.parametrize("is_streamed", [True, False])
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_the_paths_of_each_host_have_a_route(row: ProviderRow, is_streamed: bool) -> None:
    origin = "http://127.0.0.1:1/mistral" if row.adapter == "mistral-chat" else "http://127.0.0.1:1"
    path = urlsplit(row.base_url).path
    for name in row.places:
        path = path.replace(f"{{{name}}}", "some-value")
    call = msgspec.structs.replace(
        call_of(row.adapter, MESSAGES_OF_OURS), provider=row, base_url=origin + path, is_streamed=is_streamed
    )
    parts = urlsplit(find_adapter(row.adapter).build_request(call).url)
    match = find_route(Request("POST", parts.path, dict(parse_qsl(parts.query)), {}))
    assert match.route is not None, parts.path
    assert match.encoder.name == row.adapter


MESSAGES_OF_OURS = (
    find_encoder("openai-chat").parse_request(json.dumps({"model": "m", "messages": MESSAGES}).encode()).conversation
)


def test_a_doubled_version_has_no_route() -> None:
    assert find_route(Request("POST", "/v1/v1/chat/completions", {}, {})).route is None


@pytest.mark.parametrize(
    ("name", "below"), [("azure-deployment", ""), ("azure", "/openai/v1"), ("groq", "/openai/v1"), ("writer", "")]
)
async def test_hosts_with_paths_of_their_own_answer(name: str, below: str) -> None:
    async with Simulator("Hello.") as sim:
        client = LLMClient(f"{name}:some-model", base_url=sim.url + below, api_key="test-key")
        response = await client.stream("Hi", echo=None)
        await client.close()
    assert response.completion == "Hello."
    assert response.model_external == "some-model"


# Method, path, headers and the API whose format the errors have.
PATHS = [
    ("/v1/embeddings", {}, "openai-chat"),
    ("/openai/v1/nothing", {}, "openai-chat"),
    ("/openai/deployments/m/nothing", {}, "openai-chat"),
    ("/api/v1/nothing", {}, "openai-chat"),
    ("/v1beta/openai/nothing", {}, "openai-chat"),
    ("/v1/responses/a/b/c", {}, "openai-responses"),
    ("/v1/messages/nothing", {}, "anthropic-messages"),
    ("/v1/complete", {}, "anthropic-messages"),
    ("/v1/nothing", ANTHROPIC, "anthropic-messages"),
    ("/v1/projects/p/locations/l/publishers/anthropic/models/m:nothing", {}, "anthropic-messages"),
    ("/v1beta/nothing", {}, "gemini-generate"),
    ("/v1alpha/models/m:nothing", {}, "gemini-generate"),
    ("/v1/models/m:embedContent", {}, "gemini-generate"),
    ("/v1/models/m:embedContent", GOOGLE, "gemini-generate"),
    ("/v1/nothing", GOOGLE, "gemini-generate"),
    ("/v1/nothing?key=any-text", {}, "gemini-generate"),
    ("/v1beta1/projects/p/locations/l/publishers/google/models/m:nothing", {}, "gemini-generate"),
    ("/v1beta/interactions/a/b", {}, "gemini-interactions"),
    ("/model/m/nothing", {}, "bedrock-converse"),
    ("/mistral/v1/nothing", {}, "mistral-chat"),
    ("/mistral", {}, "mistral-chat"),
    ("/v2/nothing", {}, "cohere-v2"),
    ("/api/nothing", {}, "ollama-chat"),
]


@pytest.mark.parametrize(("path", "headers", "api"), PATHS)
async def test_an_unknown_path_is_answered_in_the_format_of_its_api(path: str, headers: dict, api: str) -> None:
    async with Simulator() as sim:
        status, body = await send(sim, "POST", path, {}, **headers)
    error = find_adapter(api).classify_error(status, {}, json.dumps(body).encode())
    assert (status, body.keys()) == (404, error_of(api, 404).keys())
    assert f"Invalid URL (POST {path.partition('?')[0]})" in error.message


def error_of(api: str, status: int) -> Any:
    return json.loads(find_encoder(api).encode_error(BadRequestError("No.", status_code=status)))


CALLS = {
    "openai-chat": "/v1/chat/completions",
    "openai-responses": "/v1/responses",
    "anthropic-messages": "/v1/messages",
    "gemini-generate": "/v1beta/models/m:streamGenerateContent",
    "gemini-interactions": "/v1beta/interactions",
    "bedrock-converse": "/model/m/converse",
    "bedrock-invoke": "/model/m/invoke",
    "mistral-chat": "/mistral/v1/chat/completions",
    "cohere-v2": "/v2/chat",
    "ollama-chat": "/api/chat",
}
# Other paths of the same APIs, which take a body too.
MORE_CALLS = [
    *CALLS.items(),
    ("anthropic-messages", "/v1/messages/count_tokens"),
    ("anthropic-messages", "/v1/messages/batches"),
    ("gemini-generate", "/v1beta/models/m:countTokens"),
    ("gemini-generate", "/v1beta/models/m:batchGenerateContent"),
    ("bedrock-converse", "/model/m/count-tokens"),
    ("openai-responses", "/v1/responses/input_tokens"),
    ("ollama-chat", "/api/generate"),
    ("ollama-chat", "/api/show"),
]


def test_every_api_is_in_these_tests() -> None:
    assert set(CALLS) == {encoder.name for encoder in list_encoders()}


@pytest.mark.parametrize(("api", "path"), MORE_CALLS)
async def test_a_wrong_method_is_answered_in_the_format_of_the_api(api: str, path: str) -> None:
    async with Simulator() as sim:
        reply = await exchange(sim, http(method="PUT", path=path, connection="close"))
    assert reply.status == 405
    assert "POST" in reply.header("allow").split(", ")
    assert json.loads(reply.body).keys() == error_of(api, 405).keys()


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff", b'"text"', b"9" * 5_000, b"[" * 5_000, b"{}"])
@pytest.mark.parametrize(("api", "path"), MORE_CALLS)
async def test_a_malformed_body_is_answered_in_the_format_of_the_api(api: str, path: str, body: bytes) -> None:
    async with Simulator() as sim:
        status, found = await send(sim, "POST", path, body)
    assert status == 400
    assert found.keys() == error_of(api, 400).keys()


@pytest.mark.parametrize(("api", "path"), CALLS.items())
async def test_a_body_that_is_too_large_is_answered_in_the_format_of_the_api(api: str, path: str) -> None:
    head = f"POST {path} HTTP/1.1\r\ncontent-length: {'9' * 5_000}\r\n\r\n"
    async with Simulator() as sim:
        reply = await exchange(sim, head.encode())
    assert reply.status == 413
    assert json.loads(reply.body).keys() == error_of(api, 413).keys()


def test_the_error_formats_can_be_distinguished() -> None:
    names = ("openai-chat", "anthropic-messages", "mistral-chat", "cohere-v2", "bedrock-converse")
    assert len({tuple(error_of(api, 404)) for api in names}) == len(names)


async def test_models_in_the_format_of_openai() -> None:
    async with Simulator() as sim:
        for root in ("/v1", "", "/openai/v1", "/api/v1"):
            status, found = await send(sim, "GET", f"{root}/models")
            assert (status, [row["id"] for row in found["data"]]) == (200, MODELS)
            assert await send(sim, "GET", f"{root}/models/simulator/reset") == (
                200,
                found["data"][MODELS.index("simulator/reset")],
            )


async def test_models_in_the_format_of_anthropic() -> None:
    async with Simulator() as sim:
        names: list[str] = []
        more = {"has_more": True, "last_id": ""}
        while more["has_more"]:
            _, more = await send(sim, "GET", f"/v1/models?limit=50&after_id={more['last_id']}", **ANTHROPIC)
            names += [row["id"] for row in more["data"]]
            assert (more["first_id"], more["last_id"]) == (more["data"][0]["id"], more["data"][-1]["id"])
        status, one = await send(sim, "GET", "/v1/models/simulator", **ANTHROPIC)
        lost, error = await send(sim, "GET", "/v1/models/claude-9", **ANTHROPIC)
    assert names == MODELS
    assert (status, one["type"], one["id"], one["display_name"]) == (200, "model", "simulator", "simulator")
    assert (lost, error["type"], error["error"]["type"]) == (404, "error", "not_found_error")


@pytest.mark.parametrize(("root", "headers"), [("/v1beta", {}), ("/v1alpha", {}), ("/v1", GOOGLE)])
async def test_models_in_the_format_of_gemini(root: str, headers: dict) -> None:
    async with Simulator() as sim:
        names: list[str] = []
        token: str | None = "0"
        while token is not None:
            _, page = await send(sim, "GET", f"{root}/models?pageSize=40&pageToken={token}", **headers)
            names += [row["name"] for row in page["models"]]
            token = page.get("nextPageToken")
        status, one = await send(sim, "GET", f"{root}/models/simulator", **headers)
        lost, error = await send(sim, "GET", f"{root}/models/gemini-9", **headers)
    assert names == [f"models/{name}" for name in MODELS]
    assert (status, one["name"]) == (200, "models/simulator")
    assert {"generateContent", "countTokens"} <= set(one["supportedGenerationMethods"])
    assert (lost, error["error"]["status"]) == (404, "NOT_FOUND")


async def test_models_in_the_format_of_mistral() -> None:
    async with Simulator() as sim:
        status, found = await send(sim, "GET", "/mistral/v1/models")
        assert (status, [row["id"] for row in found["data"]]) == (200, MODELS)
        assert found["data"][0]["capabilities"]["completion_chat"] is True
        assert await send(sim, "GET", "/mistral/v1/models/simulator") == (200, found["data"][0])
        lost, error = await send(sim, "GET", "/mistral/v1/models/mistral-9")
    assert (lost, error["object"]) == (404, "error")


async def test_models_in_the_format_of_ollama() -> None:
    async with Simulator() as sim:
        status, found = await send(sim, "GET", "/api/tags")
        assert (status, [row["model"] for row in found["models"]]) == (200, MODELS)
        for body in ({"model": "simulator"}, {"name": "simulator"}, {"model": "simulator:latest"}):
            status, shown = await send(sim, "POST", "/api/show", body)
            assert (status, shown["details"]) == (200, found["models"][0]["details"])
            assert "completion" in shown["capabilities"]
        assert await send(sim, "POST", "/api/show", {"model": "x"}) == (404, {"error": "model 'x' not found"})
        status, version = await send(sim, "GET", "/api/version")
    assert (status, version.keys()) == (200, {"version"})


TOOL = {"name": "f", "description": "Weather of a city", "input_schema": SCHEMA}
OF_CLAUDE = {"model": "m", "messages": MESSAGES, "tools": [TOOL]}
OF_GEMINI = {
    "contents": CONTENTS,
    "tools": [
        {"functionDeclarations": [{"name": "f", "description": "Weather of a city", "parametersJsonSchema": SCHEMA}]}
    ],
}
OF_CONVERSE = {"messages": [{"role": "user", "content": [{"text": "How many tokens are these?"}]}]}
VERTEX = "/v1/projects/p/locations/l/publishers"
# Path and body of a count, the field with the number, path and body of the call, and the field with its usage.
COUNTS = {
    "anthropic": (
        "/v1/messages/count_tokens",
        OF_CLAUDE,
        "input_tokens",
        "/v1/messages",
        {**OF_CLAUDE, "max_tokens": 9},
        "usage.input_tokens",
    ),
    "vertex-anthropic": (
        f"{VERTEX}/anthropic/models/count-tokens:rawPredict",
        OF_CLAUDE,
        "input_tokens",
        f"{VERTEX}/anthropic/models/m:rawPredict",
        {**OF_CLAUDE, "max_tokens": 9},
        "usage.input_tokens",
    ),
    "gemini": (
        "/v1beta/models/m:countTokens",
        OF_GEMINI,
        "totalTokens",
        "/v1beta/models/m:generateContent",
        OF_GEMINI,
        "usageMetadata.promptTokenCount",
    ),
    "gemini-request": (
        "/v1beta/models/m:countTokens",
        {"generateContentRequest": {"model": "models/m", **OF_GEMINI}},
        "totalTokens",
        "/v1beta/models/m:generateContent",
        OF_GEMINI,
        "usageMetadata.promptTokenCount",
    ),
    "vertex": (
        f"{VERTEX}/google/models/m:countTokens",
        OF_GEMINI,
        "totalTokens",
        f"{VERTEX}/google/models/m:generateContent",
        OF_GEMINI,
        "usageMetadata.promptTokenCount",
    ),
    "responses": (
        "/v1/responses/input_tokens",
        {"model": "m", "input": "How many?"},
        "input_tokens",
        "/v1/responses",
        {"model": "m", "input": "How many?"},
        "usage.input_tokens",
    ),
    "converse": (
        "/model/m/count-tokens",
        {"input": {"converse": OF_CONVERSE}},
        "inputTokens",
        "/model/m/converse",
        OF_CONVERSE,
        "usage.inputTokens",
    ),
    "invoke": (
        "/model/anthropic.claude-m/count-tokens",
        {
            "input": {
                "invokeModel": {"body": base64.b64encode(json.dumps({**OF_CLAUDE, "max_tokens": 9}).encode()).decode()}
            }
        },
        "inputTokens",
        "/model/anthropic.claude-m/invoke",
        {**OF_CLAUDE, "max_tokens": 9},
        "usage.input_tokens",
    ),
}


@pytest.mark.parametrize("case", COUNTS.values(), ids=COUNTS)
async def test_counted_tokens_are_the_usage_of_the_same_call(case: tuple) -> None:
    count_path, count_body, field, call_path, call_body, usage_field = case
    async with Simulator(Script(text="Many.")) as sim:
        status, counted = await send(sim, "POST", count_path, count_body)
        _, called = await send(sim, "POST", call_path, call_body)
    for name in usage_field.split("."):
        called = called[name]
    assert (status, counted[field]) == (200, called)
    assert called > 1


async def test_a_tool_and_a_longer_prompt_count_more() -> None:
    async with Simulator() as sim:
        counts = [
            (await send(sim, "POST", "/v1/messages/count_tokens", body))[1]["input_tokens"]
            for body in ({"model": "m", "messages": MESSAGES}, OF_CLAUDE, {**OF_CLAUDE, "system": "Count. " * 100})
        ]
    assert counts[0] < counts[1] < counts[2]


async def test_a_count_takes_the_fault_of_its_request_only() -> None:
    body = {"model": "m", "messages": MESSAGES}
    async with Simulator(faults=["status_503"]) as sim:
        healthy, _ = await send(sim, "POST", "/v1/messages/count_tokens", body)
        refused, error = await send(sim, "POST", "/v1/messages/count_tokens", body, x_simulator_fault="status_429")
    assert (healthy, refused, error["error"]["type"]) == (200, 429, "rate_limit_error")


@pytest.mark.parametrize("is_streamed", [True, False])
async def test_ollamas_generate(is_streamed: bool) -> None:
    asked = []

    def answer(request: Any) -> Script:
        asked.append(request.conversation.messages)
        return Script(text="Bonjour, 世界!", reasoning="Hm.")

    body = {"model": "m", "prompt": "Hi", "system": "Be brief.", "stream": is_streamed, "options": {"num_predict": 40}}
    async with Simulator(answer) as sim:
        reply = await exchange(sim, http(json.dumps(body).encode(), path="/api/generate", connection="close"))
    lines = [json.loads(line) for line in reply.body.splitlines()]
    assert [message.role for message in asked[0]] == ["system", "user"]
    assert "".join(line["response"] for line in lines) == "Bonjour, 世界!"
    assert "".join(line.get("thinking", "") for line in lines) == "Hm."
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
    assert (len(lines) > 1) is is_streamed
    assert not any("message" in line for line in lines)
    assert (lines[-1]["done_reason"], lines[-1]["context"]) == ("stop", [])
    assert lines[-1]["eval_count"] > 0
