"""What single clients need beyond the calls of a model: tools in namespaces, counts, lists, odd bodies, probes."""

from typing import Any

import anthropic
import httpx
import ollama
import openai
import pytest

from gateway.conftest import TEXT
from gateway.serving import Serving, serve
from gateway.test_client_tools import gateway_before, genai, types
from lm_deluge.errors import AuthenticationError, PermissionDeniedError
from lm_deluge.gateway.access import OpenAccess
from lm_deluge.gateway.configuration.settings import GatewaySettings
from lm_deluge.simulator import Script, Simulator

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::UserWarning")

MODELS = ("gpt-4o", "claude-sonnet-5-5", "gemini-3.8-flash")
OTHERS = MODELS[1:]
PROMPT = [{"role": "user", "content": "Hello"}]
OBJECT = {"type": "object", "properties": {"target": {"type": "string"}}}
CLOSE = {"type": "function", "name": "close_agent", "description": "Close it.", "strict": False, "parameters": OBJECT}
AGENTS = {"type": "namespace", "name": "multi_agent_v1", "description": "Agents.", "tools": [CLOSE]}
FLAT = "multi_agent_v1__close_agent"

# As Codex 0.171 sends it, shortened.
CODEX: dict[str, Any] = {
    "input": [
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "You are an agent."}]},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Close it."}]},
    ],
    "tools": [
        {**CLOSE, "name": "exec_command"},
        AGENTS,
        {"type": "web_search", "external_web_access": True},
    ],
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "reasoning": {"summary": "auto"},
    "store": False,
    "include": ["reasoning.encrypted_content"],
    "prompt_cache_key": "01a22c68",
    "client_metadata": {"turn": "1"},
}


async def post(serving: Serving, path: str, body: Any, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(base_url=serving.url) as client:
        return await client.post(
            path, json=body, headers={name.replace("_", "-"): text for name, text in headers.items()}
        )


def sent_tools(serving: Serving) -> list[str]:
    body = serving.simulator.requests[-1].json
    declared = [each for tool in body["tools"] for each in tool.get("functionDeclarations", [tool])]
    return [tool.get("function", tool)["name"] for tool in declared]


# --- Codex ---


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "plain"])
@pytest.mark.parametrize("model", OTHERS)
async def test_tools_in_a_namespace_are_functions_elsewhere(
    monkeypatch: pytest.MonkeyPatch, model: str, streamed: bool
) -> None:
    script = [Script(tool_calls=[(FLAT, {"target": "a"})]), TEXT]
    async with gateway_before(script, monkeypatch) as serving:
        async with openai.AsyncOpenAI(api_key="any", base_url=f"{serving.url}/v1", max_retries=0) as client:
            asked: Any = {"model": model, **CODEX, "extra_body": {"client_metadata": CODEX["client_metadata"]}}
            del asked["client_metadata"]
            if streamed:
                stream = await client.responses.create(**asked, stream=True)
                events = [event async for event in stream]
                done = [event.item for event in events if event.type == "response.output_item.done"]
                response = events[-1].response
                assert done == response.output
            else:
                response = await client.responses.create(**asked)
            call, *signatures = response.output  # Gemini signs its calls
            assert [item.type for item in signatures] == ["reasoning"] * model.startswith("gemini")
            assert (call.name, call.namespace, call.arguments) == ("close_agent", "multi_agent_v1", '{"target":"a"}')
            assert sent_tools(serving) == ["exec_command", FLAT]
            # Codex sends the call back with its namespace.
            result = {"type": "function_call_output", "call_id": call.call_id, "output": "closed"}
            asked["input"] = [*CODEX["input"], call.model_dump(exclude_none=True), result]
            assert (await client.responses.create(**asked)).output_text == TEXT
        sent = str(serving.simulator.requests[-1].json)
        assert sent.count(f"'{FLAT}'") >= 2
        assert "'name': 'close_agent'" not in sent


@pytest.mark.parametrize("model", OTHERS)
async def test_hints_that_another_api_lacks_are_named(serving: Serving, model: str) -> None:
    answer = await post(serving, "/v1/responses", {"model": model, **CODEX, "text": {"verbosity": "low"}})
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-deluge-warning"] == (
        "not passed on: reasoning.summary, store, prompt_cache_key, client_metadata, verbosity, tool web_search"
    )


async def test_the_same_api_gets_namespaces_unchanged(serving: Serving) -> None:
    answer = await post(serving, "/v1/responses", {"model": "gpt-4o", **CODEX})
    assert answer.status_code == 200, answer.text
    assert serving.simulator.requests[-1].json == {"model": "gpt-4o", **CODEX}
    assert "x-deluge-warning" not in answer.headers


async def test_names_that_are_long_or_taken_stay_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    long = "n" * 60
    tools = [
        {**CLOSE, "name": FLAT},
        AGENTS,
        {**AGENTS, "name": long, "tools": [{**CLOSE, "name": "do_one"}, {**CLOSE, "name": "do_two"}]},
    ]
    async with gateway_before(TEXT, monkeypatch) as serving:
        answer = await post(serving, "/v1/responses", {"model": OTHERS[0], **CODEX, "tools": tools})
        assert answer.status_code == 200, answer.text
        names = sent_tools(serving)
    assert len(set(names)) == 4
    assert max(map(len, names)) <= 64
    assert names[0] == FLAT


async def test_usage_has_all_the_details_that_codex_requires(serving: Serving) -> None:
    for model in MODELS:
        answer = await post(serving, "/v1/responses", {"model": model, "input": "Hello"})
        usage = answer.json()["usage"]
        assert usage["input_tokens_details"]["cached_tokens"] == 0, model
        assert usage["output_tokens_details"]["reasoning_tokens"] == 0, model


async def test_a_conversation_is_not_compacted(serving: Serving) -> None:
    answer = await post(serving, "/v1/responses/compact", {"model": "gpt-4o", "input": "Hello"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_supported")


# --- Claude Code ---

CLAUDE: dict[str, Any] = {
    "max_tokens": 20_000,
    "messages": PROMPT,
    "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
    "metadata": {"user_id": "someone"},
    "context_management": {"edits": [{"type": "clear_thinking_20251015"}]},
    "tools": [{"name": "look", "input_schema": OBJECT, "input_examples": [{"target": "x"}]}],
}


async def test_anthropic_itself_gets_headers_and_body_unchanged(serving: Serving) -> None:
    body = {"model": "claude-sonnet-5-5", **CLAUDE, "field_of_tomorrow": {"a": [1]}}
    betas = "context-management-2025-06-27,field-of-tomorrow"
    answer = await post(serving, "/v1/messages?beta=true", body, anthropic_beta=betas, anthropic_version="2023-06-01")
    assert answer.status_code == 200, answer.text
    sent = serving.simulator.requests[-1]
    assert sent.json == body
    assert (sent.headers["anthropic-beta"], sent.headers["anthropic-version"]) == (betas, "2023-06-01")


@pytest.mark.parametrize(
    ("fields", "effort"),
    [
        ({"thinking": {"type": "adaptive"}}, None),
        ({"thinking": {"type": "enabled", "budget_tokens": 9_000}}, "medium"),
        ({"output_config": {"effort": "high"}}, "high"),
        ({"thinking": {"type": "disabled"}, "output_config": {"effort": "high"}}, "none"),
    ],
)
async def test_what_claude_code_asks_for_reaches_other_models(
    serving: Serving, fields: dict[str, Any], effort: str | None
) -> None:
    answer = await post(serving, "/v1/messages?beta=true", {"model": "gpt-5.4", **CLAUDE, **fields, "tools": []})
    assert answer.status_code == 200, answer.text
    assert serving.simulator.requests[-1].json.get("reasoning_effort") == effort
    warning = answer.headers["x-deluge-warning"]
    assert "context_management" in warning
    assert ("thinking" in warning) == (effort is None)


async def test_an_effort_is_left_out_for_a_model_without_one(serving: Serving) -> None:
    fields = {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}, "tools": []}
    answer = await post(serving, "/v1/messages", {"model": "gpt-4o", **CLAUDE, **fields})
    assert answer.status_code == 200, answer.text
    assert "reasoning_effort" not in serving.simulator.requests[-1].json
    assert "output_config.effort" in answer.headers["x-deluge-warning"]


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/chat/completions"])
async def test_instructions_between_messages_are_the_users_for_gemini(serving: Serving, path: str) -> None:
    messages = [*PROMPT, {"role": "system", "content": "A reminder."}, {"role": "user", "content": "Go on."}]
    answer = await post(serving, path, {"model": OTHERS[1], "max_tokens": 500, "messages": messages})
    assert answer.status_code == 200, answer.text
    contents = serving.simulator.requests[-1].json["contents"]
    texts = [part["text"] for content in contents for part in content["parts"]]
    assert texts == ["Hello", "A reminder.", "Go on."]
    assert {content["role"] for content in contents} == {"user"}


@pytest.mark.parametrize("model", ["gpt-4o", "gemini-3.8-flash"])
async def test_fields_of_tools_that_another_api_lacks_are_named(serving: Serving, model: str) -> None:
    answer = await post(serving, "/v1/messages", {"model": model, **CLAUDE})
    assert answer.status_code == 200, answer.text
    assert "tools.input_examples" in answer.headers["x-deluge-warning"]
    assert "'look'" in str(serving.simulator.requests[-1].json["tools"])


async def test_errors_of_the_same_api_are_passed_on_verbatim(monkeypatch: pytest.MonkeyPatch) -> None:
    async with gateway_before(TEXT, monkeypatch, faults="status_400") as serving:
        for path, model in (("/v1/messages", "claude-sonnet-5-5"), ("/v1/chat/completions", "gpt-4o")):
            got = await post(serving, path, {"model": model, "max_tokens": 10, "messages": PROMPT})
            async with httpx.AsyncClient(base_url=serving.simulator.url) as direct:
                original = await direct.post(path, json={"model": model, "max_tokens": 10, "messages": PROMPT})
            assert (got.status_code, got.json()) == (original.status_code, original.json())


async def test_probes_and_lists(serving: Serving) -> None:
    async with httpx.AsyncClient(base_url=serving.url) as client:
        assert (await client.head("/")).status_code == 200
        listed = (await client.get("/v1/models", params={"limit": 1000})).json()
        assert {"id", "display_name", "type", "object"} <= listed["data"][0].keys()
        wrong = await client.get("/v1/messages")
        assert (wrong.status_code, wrong.json()["type"]) == (404, "error")
        wrong = await client.post("/api/tags")
        assert (wrong.status_code, list(wrong.json())) == (405, ["error"])


# --- counts ---


@pytest.mark.parametrize("model", MODELS)
async def test_tokens_are_counted_in_three_forms(serving: Serving, model: str) -> None:
    long = [{"role": "user", "content": "Hello " * 100}]
    tool = {"name": "look", "input_schema": OBJECT}
    async with anthropic.AsyncAnthropic(api_key="any", base_url=serving.url, max_retries=0) as client:
        short_count = (await client.messages.count_tokens(model=model, messages=PROMPT)).input_tokens
        with_tool = await client.messages.count_tokens(model=model, messages=PROMPT, tools=[tool])
        assert (await client.messages.count_tokens(model=model, messages=long)).input_tokens > short_count + 50
        assert with_tool.input_tokens > short_count
    async with openai.AsyncOpenAI(api_key="any", base_url=f"{serving.url}/v1", max_retries=0) as client:
        counted = await client.responses.input_tokens.count(model=model, input="Hello " * 100)
        assert counted.input_tokens > 50
    async with genai.Client(api_key="any", http_options=types.HttpOptions(base_url=serving.url)).aio as google:
        assert (await google.models.count_tokens(model=model, contents="Hello " * 100)).total_tokens > 50
    assert serving.log.calls == []  # counting is free
    answer = await post(serving, "/v1/messages/count_tokens", {"model": model, "messages": PROMPT})
    assert "x-deluge-estimated" not in answer.headers


async def test_an_estimated_count_is_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    async with gateway_before(TEXT, monkeypatch) as serving:  # Ollama has no endpoint that counts
        answer = await post(serving, "/v1/messages/count_tokens", {"model": "llama", "messages": PROMPT})
    assert answer.headers["x-deluge-estimated"] == "1"
    assert answer.json()["input_tokens"] > 0


class OneModel(OpenAccess):
    """Knows one key, which may use one model."""

    async def check(self, token: str | None, model: str | None = None) -> str:
        if token != "known":
            raise AuthenticationError("this key is not known", status_code=401)
        if model not in (None, "gpt-4o"):
            raise PermissionDeniedError("not this model", status_code=403)
        return "one"


async def test_counts_and_lists_need_a_key_that_may_use_the_model(simulator: Simulator) -> None:
    body = {"model": "claude-sonnet-5-5", "messages": PROMPT}
    async with serve(GatewaySettings(), simulator, access=OneModel()) as serving:
        path = "/v1/messages/count_tokens"
        assert (await post(serving, path, body)).status_code == 401
        assert (await post(serving, path, body, x_api_key="known")).status_code == 403
        assert (await post(serving, path, {**body, "model": "gpt-4o"}, x_api_key="known")).status_code == 200
        assert (await post(serving, path, {"model": "gpt-4o"}, x_api_key="known")).status_code == 400
        async with httpx.AsyncClient(base_url=serving.url) as client:
            for listing in ("/api/tags", "/v1beta/models", "/api/ps"):
                assert (await client.get(listing)).status_code == 401
    assert all("count" not in request.path for request in simulator.requests)


# --- Ollama, Google, Cursor ---


async def test_ollama_lists_and_shows_models(serving: Serving) -> None:
    client = ollama.AsyncClient(host=serving.url)
    assert {"gpt-4o", "claude-sonnet-5-5"} <= {model.model for model in (await client.list()).models}
    shown = await client.show("claude-sonnet-5-5:latest")
    assert {"completion", "tools", "vision"} <= set(shown.capabilities)
    assert shown.modelinfo["anthropic.context_length"] > 100_000
    assert (await client.ps()).models == []
    with pytest.raises(ollama.ResponseError, match="not found"):
        await client.show("no-such-model")
    async with httpx.AsyncClient(base_url=serving.url) as plain:
        assert (await plain.get("/api/version")).json()["version"].startswith("0.")


async def test_google_lists_models(serving: Serving) -> None:
    async with genai.Client(api_key="any", http_options=types.HttpOptions(base_url=serving.url)).aio as client:
        assert "models/gpt-4o" in {model.name async for model in await client.models.list()}
        assert (await client.models.get(model="claude-sonnet-5-5")).input_token_limit > 100_000
        with pytest.raises(genai.errors.ClientError):
            await client.models.get(model="no-such-model")


@pytest.mark.parametrize("model", MODELS)
async def test_cursor_sends_responses_and_gets_chunks(monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    tools = [{**CLOSE, "name": "look"}]
    body = {"model": model, "input": [{"role": "user", "content": "Hello"}], "tools": tools, "store": False}
    script = Script(text=TEXT, tool_calls=[("look", {"target": "x"})])
    async with gateway_before(script, monkeypatch) as serving:
        async with openai.AsyncOpenAI(api_key="any", base_url=f"{serving.url}/v1", max_retries=0) as client:
            stream = await client.post(
                "/chat/completions",
                cast_to=object,
                body={**body, "stream": True},
                stream=True,
                stream_cls=openai.AsyncStream[openai.types.chat.ChatCompletionChunk],
            )
            chunks = [chunk async for chunk in stream]
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == TEXT
        (finish,) = [
            chunk.choices[0].finish_reason for chunk in chunks if chunk.choices and chunk.choices[0].finish_reason
        ]
        assert finish == "tool_calls"
        plain = await post(serving, "/v1/chat/completions", body)
        assert plain.json()["choices"][0]["message"]["content"] == TEXT
        assert (await post(serving, "/v1/chat/completions", {"model": model})).status_code == 400
