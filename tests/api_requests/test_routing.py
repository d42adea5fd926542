"""Which API of OpenAI serves a call: Chat Completions, or the Responses API for what only that one accepts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from grammar import check_grammar
from lm_deluge import Conversation, LLMClient
from lm_deluge.api_requests.openai import stream_chat
from lm_deluge.client.call_options import CallOptions
from lm_deluge.config import SamplingParams
from lm_deluge.errors import BadRequestError, UnsupportedParameterError
from lm_deluge.events import ProviderPart, ToolCallFinished
from lm_deluge.models import registry
from lm_deluge.models.rows import Capabilities, ModelRow, ProviderRow
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import ProviderDataPart, ReasoningPart, TextPart, ToolCallPart
from lm_deluge.prompt.tool import ProviderTool, Tool
from lm_deluge.simulator import Script, Simulator
from loopback import Loopback, plain

CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
TOOLS = [Tool(name="weather", parameters={"type": "object", "properties": {"city": {"type": "string"}}})]
SCRIPT = Script(reasoning="Let me see.", text="I look.", tool_calls=[("weather", {"city": "Roma"})])
THOUGHT = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "opaque"}
NONE: dict[str, Any] = {}


def client_of(model: str, url: str, **options: Any) -> LLMClient:
    return LLMClient(model, base_url=url, api_key="test-key", max_attempts=1, **options)


def plan_of(model: str, conversation: Conversation | None = None, **fields: Any) -> Any:
    options = {name: fields.pop(name) for name in ("background", "extra_body", "base_url") if name in fields}
    client = LLMClient(model, api_key="test-key", **options)
    planner = client.dispatcher.planner(CallOptions.from_keywords(fields))
    return planner.plan(client.models[0].id, conversation or Conversation.user("Hi"))


def body_of(plan: Any) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(plan.request.body)
    return body


@pytest.mark.parametrize(
    ("model", "call", "path"),
    [
        # Everything that Chat Completions serves stays there.
        ("gpt-4o", {"tools": TOOLS, "stop": "x", "seed": 1}, CHAT),
        ("gpt-5", {"tools": TOOLS, "reasoning_effort": "high"}, CHAT),
        ("gpt-6-sol", NONE, CHAT),
        ("gpt-6-sol", {"reasoning_effort": "high"}, CHAT),
        ("gpt-6-sol", {"tools": TOOLS, "reasoning_effort": "none", "temperature": 0.2}, CHAT),
        ("gpt-6-sol", {"tools": TOOLS, "extra_body": {"reasoning_effort": "none"}}, CHAT),
        ("gpt-5.4", {"tools": TOOLS}, CHAT),  # it reasons only on request
        ("gpt-6-sol", {"tools": []}, CHAT),
        # What it rejects goes to the Responses API: tools while the model reasons, also by default.
        ("gpt-6-sol", {"tools": TOOLS}, RESPONSES),
        ("gpt-6-sol", {"tools": TOOLS, "reasoning_effort": "low"}, RESPONSES),
        ("gpt-6-sol", {"reasoning_effort": "max"}, RESPONSES),
        ("gpt-5.4", {"tools": TOOLS, "reasoning_effort": "low"}, RESPONSES),
        ("gpt-5.4-mini", {"tools": TOOLS, "reasoning_effort": "xhigh"}, RESPONSES),
        ("gpt-5.5", {"tools": TOOLS}, RESPONSES),
        ("gpt-6.2-astra", {"tools": TOOLS}, RESPONSES),
        ("gpt-6.1-sol", {"tools": TOOLS, "tool_choice": "none"}, RESPONSES),
        ("gpt-6.2-sol-2026-11-17", {"tools": TOOLS}, RESPONSES),
        ("openai:gpt-6-sol", {"tools": TOOLS}, RESPONSES),
        ("openai/gpt-6-sol", {"tools": TOOLS}, RESPONSES),
        # Models without Chat Completions, hosted tools and background mode.
        ("openai:gpt-5-pro", NONE, RESPONSES),
        ("gpt-5.3-codex", NONE, RESPONSES),
        ("gpt-4o", {"tools": [ProviderTool({"type": "web_search"})]}, RESPONSES),
        ("gpt-6-sol", {"background": True}, RESPONSES),
        # A prefix forces one.
        ("openai-chat:gpt-6-sol", NONE, CHAT),
        ("openai-chat:gpt-6-sol", {"tools": TOOLS, "reasoning_effort": "none"}, CHAT),
        ("openai-responses:gpt-6-sol", NONE, RESPONSES),
        ("openai-responses:gpt-4o", NONE, RESPONSES),
        # A gateway converts the calls itself; other hosts name their models freely.
        ("openrouter:openai/gpt-6-sol", {"tools": TOOLS}, "/api/v1/chat/completions"),
        ("openai-compatible:gpt-6-sol", {"tools": TOOLS, "base_url": "http://127.0.0.1:9/v1"}, CHAT),
        ("my-model", {"tools": TOOLS, "base_url": "http://127.0.0.1:9/v1"}, CHAT),
        ("gpt-6-sol", {"tools": TOOLS, "base_url": "http://127.0.0.1:9/v1"}, RESPONSES),
    ],
)
def test_the_api_follows_from_the_model_and_the_call(model: str, call: dict[str, Any], path: str) -> None:
    plan = plan_of(model, **call)
    assert plan.request.url.partition("://")[2].partition("/")[2] == path.removeprefix("/")
    assert ("input" in body_of(plan)) == path.endswith("responses")
    assert plan.call.model.id == registry.find_served_model(model, call.get("base_url")).id


def test_azure_is_routed_below_its_own_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_OPENAI_RESOURCE", "acme")
    url = "https://acme.openai.azure.com/openai/v1"
    assert plan_of("azure:gpt-6-sol").request.url == f"{url}/chat/completions"
    routed = plan_of("azure:gpt-6-sol", tools=TOOLS)
    assert routed.request.url == f"{url}/responses"
    assert plan_of("azure-responses:gpt-6-sol", tools=TOOLS).request.url == routed.request.url
    with pytest.raises(UnsupportedParameterError, match=r"through Chat Completions.*: azure-responses:gpt-6-sol\."):
        plan_of("azure-deployment:gpt-6-sol", tools=TOOLS)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ({"tools": TOOLS}, "does not take tools while the model reasons through Chat Completions"),
        ({"reasoning_effort": "max"}, "does not take reasoning_effort='max' through Chat Completions"),
    ],
)
def test_a_forced_api_refuses_what_it_lacks_and_names_the_other(call: dict[str, Any], words: str) -> None:
    with pytest.raises(UnsupportedParameterError) as caught:
        plan_of("openai-chat:gpt-6-sol", **call)
    assert words in str(caught.value)
    assert "openai-responses:gpt-6-sol" in str(caught.value)


@pytest.mark.parametrize(
    ("model", "call", "parameter", "words"),
    [
        ("gpt-6-sol", {"tools": TOOLS, "seed": 3}, "seed", "tools while the model reasons needs"),
        ("gpt-6-sol", {"reasoning_effort": "max", "seed": 3}, "seed", "reasoning_effort='max' needs"),
        ("gpt-5.4", {"background": True, "seed": 3}, "seed", "background mode needs"),
        ("gpt-5.4", {"background": True, "presence_penalty": 0.5}, "presence_penalty", "background mode needs"),
        ("gpt-5.4", {"background": True, "extra_body": {"n": 2}}, "n in extra_body", "background mode needs"),
        (
            "gpt-5.4",
            {"background": True, "extra_body": {"stream_options": {}}},
            "stream_options in extra_body",
            "background",
        ),
        ("gpt-6-sol", {"tools": TOOLS, "extra_body": {"logit_bias": {}}}, "logit_bias in extra_body", "tools while"),
        ("gpt-4o", {"tools": [ProviderTool({"type": "web_search"})], "stop": "x"}, "stop", "'web_search' needs"),
    ],
)
def test_a_call_that_needs_both_apis_is_refused_by_name(
    model: str, call: dict[str, Any], parameter: str, words: str
) -> None:
    with pytest.raises(UnsupportedParameterError) as caught:
        plan_of(model, **call)
    assert caught.value.parameter == parameter
    assert parameter in str(caught.value)
    assert words in str(caught.value)


def test_a_name_of_a_message_is_refused_where_the_call_needs_the_responses_api() -> None:
    named = Conversation([Message("user", (TextPart("Hi"),), name="ann")])
    assert body_of(plan_of("gpt-6-sol", named))["messages"][0]["name"] == "ann"
    with pytest.raises(UnsupportedParameterError, match="name of a message"):
        plan_of("gpt-6-sol", named, tools=TOOLS)


def test_the_request_is_that_of_the_forced_api() -> None:
    call: dict[str, Any] = {"tools": TOOLS, "reasoning_effort": "low", "max_new_tokens": 99, "verbosity": "low"}
    assert body_of(plan_of("gpt-6-sol", **call)) == body_of(plan_of("openai-responses:gpt-6-sol", **call))


def test_a_custom_tool_is_sent_in_the_form_of_its_api() -> None:
    grammar = {"type": "grammar", "grammar": {"syntax": "lark", "definition": "start: WORD"}}
    tool = ProviderTool({"type": "custom", "custom": {"name": "sql", "description": "Run it.", "format": grammar}})
    flat = {"type": "grammar", "syntax": "lark", "definition": "start: WORD"}
    assert body_of(plan_of("gpt-4o", tools=[tool]))["tools"] == [tool.data]
    assert body_of(plan_of("gpt-6-sol", tools=[tool]))["tools"] == [
        {"type": "custom", "name": "sql", "description": "Run it.", "format": flat}
    ]


def test_the_rest_of_an_answer_is_requested_through_the_same_api() -> None:
    client = LLMClient("gpt-6-sol", api_key="test-key")
    planner = client.dispatcher.planner(CallOptions(tools=TOOLS))
    prompt = Conversation.user("Hi")
    paths = [planner.plan("gpt-6-sol", prompt).request.url, planner.plan_rest("gpt-6-sol", prompt, 5).request.url]
    assert paths == ["https://api.openai.com/v1/responses"] * 2


@pytest.fixture
def _own_host() -> Iterator[None]:
    needs = Capabilities(reasoning=True, needs_responses=("tools_while_reasoning",), default_effort="high")
    registry.register_provider(
        ProviderRow(
            id="own",
            otel_name="own",
            adapter="openai-chat",
            base_url="http://own.test/v9",
            headers={"x-team": "a"},
            auth="none",
            has_responses=True,
        )
    )
    registry.register_model(ModelRow(id="own-model", name="m", provider="own", capabilities=needs))
    yield
    registry._registry.cache_clear()


@pytest.mark.usefixtures("_own_host")
def test_a_host_of_the_user_is_routed_if_its_row_has_the_responses_api() -> None:
    routed = plan_of("own-model", tools=TOOLS)
    assert (routed.request.url, routed.request.headers["x-team"]) == ("http://own.test/v9/responses", "a")
    assert plan_of("own-model").request.url == "http://own.test/v9/chat/completions"


# --- over a socket: each way to take an answer ---


def check(response: Any, model: str) -> None:
    assert response.model_internal == model
    assert response.completion == "I look."
    assert [(call.name, call.arguments) for call in response.tool_calls] == [("weather", {"city": "Roma"})]
    assert (response.finish_reason, response.warnings, response.error) == ("tool_calls", (), None)
    assert response.cost is not None
    assert not response.usage.estimated


@pytest.mark.parametrize("model", ["gpt-6-sol", "openai:gpt-6-sol", "openai:gpt-6.2-sol-2026-11-17"])
async def test_all_ways_to_take_an_answer_are_routed(model: str) -> None:
    async with Simulator(SCRIPT) as sim, client_of(model, sim.base_url) as client:
        stream = client.stream("Weather?", tools=TOOLS, echo=None)
        events = [event async for event in stream.events()]
        check_grammar(events)
        assert sum(isinstance(event, ToolCallFinished) for event in events) == 1
        answers = [stream.response, await client.stream("Weather?", tools=TOOLS, echo=None)]
        answers += await client.process_prompts_async(["Weather?", "And now?"], tools=TOOLS)
        async for _ in (streams := client.stream_many(["Weather?"], tools=TOOLS)):
            pass
        answers += streams.responses.values()
        assert answers[0].thinking == "Let me see."
        for each in answers:
            check(each, model)
        assert {request.path for request in sim.requests} == {RESPONSES}
        assert {request.json["model"] for request in sim.requests} == {model.removeprefix("openai:")}


def test_sync_calls_are_routed() -> None:
    with Simulator(SCRIPT).start_in_thread() as sim:
        client = client_of("gpt-6-sol", sim.base_url)
        with client.stream_sync("Weather?", tools=TOOLS) as stream:
            text = "".join(stream)
        assert text == "I look."
        check(stream.response, "gpt-6-sol")
        check(client.process_prompts_sync(["Weather?"], tools=TOOLS)[0], "gpt-6-sol")
        assert {request.path for request in sim.requests} == {RESPONSES}


async def test_the_function_api_is_routed() -> None:
    async with Simulator(SCRIPT) as sim:
        options: dict[str, Any] = {"base_url": sim.base_url, "api_key": "test-key"}
        effort = SamplingParams(reasoning_effort="max")
        for params, tools in ((None, TOOLS), (effort, None), (None, None)):
            *tokens, response = [each async for each in stream_chat("gpt-6-sol", "Hi", params, tools=tools, **options)]
            assert "".join(tokens) == "I look."
            assert response.model_internal == "gpt-6-sol"
        assert [request.path for request in sim.requests] == [RESPONSES, RESPONSES, CHAT]


async def test_an_error_names_the_provider_that_the_user_wrote() -> None:
    body = json.dumps({"error": {"message": "no", "type": "invalid_request_error"}}).encode()
    async with Loopback(plain("400 Bad Request", body)) as server, client_of("gpt-6-sol", server.url) as client:
        with pytest.raises(BadRequestError) as caught:
            await client.stream("Hi", tools=TOOLS, echo=None)
        assert (caught.value.provider, caught.value.model) == ("openai", "gpt-6-sol")
        assert server.requests[0][0].split()[1] == RESPONSES


async def test_both_apis_share_the_key_and_url_of_the_provider() -> None:
    async with Simulator("Hello.") as sim:
        options: dict[str, Any] = {"api_key": {"openai": "sk-shared"}, "base_url": {"openai": sim.base_url}}
        async with LLMClient(["gpt-6-sol", "gpt-4o"], **options) as client:
            await client.stream("Hi", tools=TOOLS, prefer_model="gpt-6-sol", echo=None)
            await client.stream("Hi", tools=TOOLS, prefer_model="gpt-4o", echo=None)
        assert [request.path for request in sim.requests] == [RESPONSES, CHAT]
        assert len({request.headers["authorization"] for request in sim.requests}) == 1


async def test_a_background_answer_is_requested_through_the_responses_api() -> None:
    async with Simulator("Hello.") as sim, client_of("gpt-6-sol", sim.base_url, background=True) as client:
        assert (await client.stream("Hi", echo=None)).completion == "Hello."
        assert [(request.path, request.json["background"]) for request in sim.requests] == [(RESPONSES, True)]


async def test_tokens_are_counted_alike_for_both_apis() -> None:
    counts = []
    for model in ("gpt-6-sol", "openai-chat:gpt-6-sol", "openai-responses:gpt-6-sol"):
        async with Simulator("Hello.") as sim, client_of(model, sim.base_url) as client:
            counts.append(await client.count_tokens("Hi"))
            if model == "gpt-6-sol":
                counts.append(await client.count_tokens("Hi", tools=TOOLS))
            assert {request.path for request in sim.requests} == {f"{RESPONSES}/input_tokens"}
    assert counts[0] == counts[2] == counts[3] < counts[1]
    assert not any(each.estimated for each in counts)


async def test_the_local_cache_keeps_the_answers_of_both_apis_apart(tmp_path: Path) -> None:
    async with Simulator([Script(text="one"), Script(text="two")]) as sim:
        async with client_of("gpt-6-sol", sim.base_url, local_cache=tmp_path / "cache.db") as client:
            calls: list[dict[str, Any]] = [{"reasoning_effort": "high"}, {"reasoning_effort": "max"}]
            answers = [await client.stream("Hi", echo=None, **call) for call in calls * 2]
        assert [answer.completion for answer in answers] == ["one", "two"] * 2
        assert [answer.local_cache_hit for answer in answers] == [False, False, True, True]
        assert [request.path for request in sim.requests] == [CHAT, RESPONSES]


async def test_a_provider_batch_goes_to_the_endpoint_of_each_call(tmp_path: Path) -> None:
    async with Simulator(Script(text="Fine.")) as sim, client_of("gpt-6-sol", sim.base_url) as client:
        journal = tmp_path / "journal"
        answers = dict([each async for each in client.provider_batch(["a", "b"], journal=journal, tools=TOOLS)])
        assert [answers[number].completion for number in (0, 1)] == ["Fine."] * 2
        assert {answer.model_internal for answer in answers.values()} == {"gpt-6-sol"}
        created = [request.json for request in sim.requests if request.path == "/v1/batches" and request.json]
        assert [each["endpoint"] for each in created] == [RESPONSES]


async def test_a_batch_of_calls_to_both_apis_is_split_by_endpoint(tmp_path: Path) -> None:
    """One batch has one endpoint; a prompt with items of the Responses API is sent to that one."""
    thought = ProviderDataPart("openai", "reasoning", THOUGHT)
    turn = Conversation([Message.user("Hi"), Message("assistant", (ReasoningPart("hm"), thought, TextPart("Hello.")))])
    async with Simulator(Script(text="Fine.")) as sim, client_of("gpt-6-sol", sim.base_url) as client:
        prompts = ["a", turn.user("And?"), "b"]
        answers = dict([each async for each in client.provider_batch(prompts, journal=tmp_path / "journal")])
        assert [answers[number].completion for number in range(3)] == ["Fine."] * 3
        created = [request.json for request in sim.requests if request.path == "/v1/batches" and request.json]
        assert {each["endpoint"] for each in created} == {CHAT, RESPONSES}


# --- conversations that use both ---


async def test_a_conversation_goes_through_both_apis() -> None:
    thinking = Script(
        text="I look.",
        tool_calls=[("weather", {"city": "Roma"})],
        extra=[ProviderPart("openai", "reasoning", THOUGHT)],
    )
    scripts = [Script(text="Hello."), thinking, Script(text="22 degrees."), Script(text="Bye.")]
    async with Simulator(scripts) as sim, client_of("gpt-6-sol", sim.base_url) as client:
        conversation = Conversation.user("Hi")
        conversation.add((await client.stream(conversation, echo=None)).content).user("Weather?")
        asked = await client.stream(conversation, tools=TOOLS, echo=None)
        conversation.add(asked.content).tool_result(asked.tool_calls[0].id, "22")
        told = await client.stream(conversation, tools=TOOLS, echo=None)
        conversation.add(told.content).user("Thanks")
        last = await client.stream(conversation, echo=None)
        assert [answer.warnings for answer in (asked, told, last)] == [()] * 3
        # Chat Completions cannot take the encrypted reasoning back, so the conversation stays with the other API.
        assert [request.path for request in sim.requests] == [CHAT, RESPONSES, RESPONSES, RESPONSES]
        kinds = [item.get("type", item.get("role")) for item in sim.requests[-1].json["input"]]
        assert kinds == [
            *("user", "assistant", "user", "assistant", "function_call", "reasoning", "function_call_output"),
            *("assistant", "user"),
        ]


@pytest.mark.parametrize(("model", "path"), [("gpt-6-sol", RESPONSES), ("gpt-4o", CHAT), ("gpt-5", CHAT)])
def test_a_model_that_never_needs_the_responses_api_gets_no_items_of_it(model: str, path: str) -> None:
    answer = Message("assistant", (ProviderDataPart("openai", "reasoning", THOUGHT), TextPart("Hello.")))
    plan = plan_of(model, Conversation([Message.user("Hi"), answer]).user("And?"))
    assert plan.request.url.endswith(path)
    assert plan.call.warnings == (() if path == RESPONSES else ("provider_data_not_sent",))


def test_a_conversation_that_only_chat_completions_can_continue_is_valid_there() -> None:
    thought = ProviderDataPart("openai", "reasoning", THOUGHT)
    parts = (ReasoningPart("hm"), thought, TextPart("I look."), ToolCallPart("call_1", "weather", '{"city": "Roma"}'))
    conversation = Conversation([Message.user("Weather?"), Message("assistant", parts)])
    conversation.tool_result("call_1", "22").user("Thanks")
    plan = plan_of("gpt-6-sol", conversation, seed=7)
    assert [message["role"] for message in body_of(plan)["messages"]] == ["user", "assistant", "tool", "user"]
    assert body_of(plan)["messages"][1]["tool_calls"][0]["id"] == "call_1"
    assert plan.call.warnings == ("reasoning_not_sent", "provider_data_not_sent")


@pytest.mark.parametrize("first", [NONE, {"reasoning_effort": "none"}])
async def test_tool_calls_of_chat_completions_are_continued_by_the_responses_api(first: dict[str, Any]) -> None:
    async with Simulator([SCRIPT, Script(text="22 degrees.")]) as sim, client_of("gpt-5.4", sim.base_url) as client:
        conversation = Conversation.user("Weather?")
        asked = await client.stream(conversation, tools=TOOLS, echo=None, **first)
        conversation.add(asked.content).tool_result(asked.tool_calls[0].id, "22")
        told = await client.stream(conversation, tools=TOOLS, reasoning_effort="high", echo=None)
        assert told.completion == "22 degrees."
        assert [request.path for request in sim.requests] == [CHAT, RESPONSES]
        output = sim.requests[1].json["input"][-1]
        assert (output["type"], output["call_id"]) == ("function_call_output", asked.tool_calls[0].id)
