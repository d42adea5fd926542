"""Anthropic's own SDK works with the simulator."""

from __future__ import annotations

import anthropic
import pytest

from lm_deluge.events import (
    Citation,
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

REQUEST = {"model": "claude-some-day", "max_tokens": 1_000, "messages": [{"role": "user", "content": "Hi"}]}
WEATHER = {"name": "weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}


def client_of(sim: Simulator, **options: object) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(
        base_url=sim.url, api_key="sk-ant-test", max_retries=options.pop("max_retries", 0), **options
    )


async def test_a_plain_answer() -> None:
    async with Simulator(Script(text=TEXT)) as sim, client_of(sim) as client:
        answer = await client.messages.create(**REQUEST)
    assert [(block.type, block.text) for block in answer.content] == [("text", TEXT)]
    assert (answer.type, answer.role, answer.model) == ("message", "assistant", "claude-some-day")
    assert answer.id.startswith("msg_")
    assert answer.stop_reason == "end_turn"
    assert answer.usage.input_tokens > 0
    assert answer.usage.output_tokens > 0


async def test_a_stream_of_raw_events() -> None:
    async with Simulator(Script(text=TEXT)) as sim, client_of(sim) as client:
        events = [event async for event in await client.messages.create(**REQUEST, stream=True)]
    kinds = [event.type for event in events]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert set(kinds[2:-3]) == {"content_block_delta"}
    assert "".join(event.delta.text for event in events if event.type == "content_block_delta") == TEXT


async def test_a_stream_that_the_sdk_puts_together() -> None:
    script = Script(reasoning="Hm.", text=TEXT, tool_calls=[("weather", {"city": "Genève"}), ("weather", {})])
    async with (
        Simulator(script) as sim,
        client_of(sim) as client,
        client.messages.stream(**REQUEST, tools=[WEATHER]) as stream,
    ):
        text = "".join([piece async for piece in stream.text_stream])
        final = await stream.get_final_message()
    assert text == TEXT
    assert [block.type for block in final.content] == ["thinking", "text", "tool_use", "tool_use"]
    assert final.content[0].thinking == "Hm."
    assert [block.input for block in final.content[2:]] == [{"city": "Genève"}, {}]
    assert final.stop_reason == "tool_use"
    assert final.usage.output_tokens > 0


RICH = [
    ResponseStarted("msg_1", "claude"),
    UsageReported(Usage(input_tokens=10, output_tokens=1, cache_read_tokens=4, cache_write_tokens=1)),
    ReasoningDelta("Let me "),
    ReasoningDelta("see."),
    ProviderPart("anthropic", "signature", "c2ln"),
    ProviderPart("anthropic", "block", {"type": "redacted_thinking", "data": "eA=="}),
    ProviderPart(
        "anthropic",
        "block",
        {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}},
    ),
    ProviderPart("anthropic", "block", {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []}),
    TextDelta("As "),
    TextDelta("said"),
    Citation(
        "https://a.test",
        "A",
        0,
        7,
        {
            "type": "web_search_result_location",
            "cited_text": "c",
            "url": "https://a.test",
            "title": "A",
            "encrypted_index": "i",
        },
    ),
    ProviderPart("anthropic", "citations", []),
    TextDelta("."),
    ToolCallStarted(0, "toolu_1", "weather"),
    ToolCallDelta(0, '{"city":'),
    ToolCallDelta(0, '"Roma"}'),
    ToolCallFinished(0, "toolu_1", "weather", '{"city":"Roma"}', {"city": "Roma"}),
    UsageReported(
        Usage(input_tokens=10, output_tokens=20, cache_read_tokens=4, cache_write_tokens=1, reasoning_tokens=7)
    ),
    ResponseFinished("tool_calls", "tool_use"),
]


@pytest.mark.parametrize("is_streamed", [True, False])
async def test_all_kinds_of_blocks(*, is_streamed: bool) -> None:
    async with Simulator(Script(events=RICH)) as sim, client_of(sim) as client:
        if is_streamed:
            async with client.messages.stream(**REQUEST, tools=[WEATHER]) as stream:
                final = await stream.get_final_message()
        else:
            final = await client.messages.create(**REQUEST, tools=[WEATHER])
    thought, hidden, search, found, cited, rest, call = final.content
    assert (thought.type, thought.thinking, thought.signature) == ("thinking", "Let me see.", "c2ln")
    assert (hidden.type, hidden.data) == ("redacted_thinking", "eA==")
    assert (search.type, search.name, search.input) == ("server_tool_use", "web_search", {"query": "x"})
    assert (found.type, found.tool_use_id, found.content) == ("web_search_tool_result", "srvtoolu_1", [])
    assert (cited.text, [source.url for source in cited.citations]) == ("As said", ["https://a.test"])
    assert (rest.text, rest.citations) == (".", None)
    assert (call.type, call.id, call.name, call.input) == ("tool_use", "toolu_1", "weather", {"city": "Roma"})
    usage = final.usage
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.cache_creation_input_tokens) == (5, 4, 1)
    assert usage.output_tokens == 20


async def test_a_second_turn_with_a_result() -> None:
    script = [Script(tool_calls=[("weather", {"city": "Roma"})]), Script(text="Sunny.")]
    async with Simulator(script) as sim, client_of(sim) as client:
        first = await client.messages.create(**REQUEST, tools=[WEATHER])
        result = {
            "type": "tool_result",
            "tool_use_id": first.content[0].id,
            "content": [{"type": "text", "text": "25"}],
        }
        turns = [
            *REQUEST["messages"],
            {"role": "assistant", "content": first.content},
            {"role": "user", "content": [result]},
        ]
        second = await client.messages.create(**{**REQUEST, "messages": turns}, tools=[WEATHER])
    assert second.content[0].text == "Sunny."


async def test_structured_output() -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    async with Simulator() as sim, client_of(sim) as client:
        form = {"format": {"type": "json_schema", "schema": {**schema, "additionalProperties": False}}}
        answer = await client.messages.create(**REQUEST, output_config=form)
    assert answer.content[0].text.startswith('{"city":')


async def test_a_limit_of_tokens() -> None:
    async with Simulator(Script(text=TEXT)) as sim, client_of(sim) as client:
        answer = await client.messages.create(**{**REQUEST, "max_tokens": 1})
    assert answer.stop_reason == "max_tokens"
    assert answer.usage.output_tokens == 1


@pytest.mark.parametrize(
    ("fault", "kind", "word"),
    [
        ("status_400", anthropic.BadRequestError, "invalid_request_error"),
        ("status_401", anthropic.AuthenticationError, "authentication_error"),
        ("status_403", anthropic.PermissionDeniedError, "permission_error"),
        ("status_404", anthropic.NotFoundError, "not_found_error"),
        ("status_429", anthropic.RateLimitError, "rate_limit_error"),
        ("status_500", anthropic.InternalServerError, "api_error"),
        ("status_529", anthropic.InternalServerError, "overloaded_error"),
    ],
)
async def test_errors_by_status(fault: str, kind: type[anthropic.APIStatusError], word: str) -> None:
    async with Simulator(faults=[fault]) as sim, client_of(sim) as client:
        with pytest.raises(kind) as caught:
            await client.messages.create(**REQUEST)
    assert caught.value.body["type"] == "error"
    assert caught.value.body["error"]["type"] == word


async def test_a_request_that_lacks_something() -> None:
    async with Simulator() as sim, client_of(sim) as client:
        with pytest.raises(anthropic.BadRequestError, match="messages: at least one message is required"):
            await client.messages.create(**{**REQUEST, "messages": []})


async def test_an_error_in_the_stream() -> None:
    got: list[str] = []

    async def take_all(stream: anthropic.AsyncMessageStream) -> None:
        async for piece in stream.text_stream:
            got.append(piece)  # noqa: PERF401 - the text before the error must be kept

    async with (
        Simulator(Script(text=TEXT), faults=["in_band_error_mid"]) as sim,
        client_of(sim) as client,
        client.messages.stream(**REQUEST) as stream,
    ):
        with pytest.raises(anthropic.APIStatusError) as caught:
            await take_all(stream)
    assert got
    assert TEXT.startswith("".join(got))
    assert caught.value.body["type"] == "error"


async def test_vertex_asks_by_path() -> None:
    async with Simulator(Script(text=TEXT)) as sim:
        client = anthropic.AsyncAnthropicVertex(
            base_url=f"{sim.url}/v1", region="europe-west1", project_id="p", access_token="t"
        )
        async with client:
            answer = await client.messages.create(**REQUEST)
            async with client.messages.stream(**REQUEST) as stream:
                final = await stream.get_final_message()
    assert answer.content[0].text == final.content[0].text == TEXT
    assert answer.model == "claude-some-day"


async def test_counts_and_models() -> None:
    prompt = {"model": REQUEST["model"], "messages": REQUEST["messages"], "tools": [WEATHER]}
    async with Simulator(Script(text=TEXT)) as sim, client_of(sim) as client:
        counted = await client.messages.count_tokens(**prompt)
        answer = await client.messages.create(**REQUEST, tools=[WEATHER])
        names = [row.id async for row in client.models.list(limit=30)]
        one = await client.models.retrieve("simulator/reset")
        with pytest.raises(anthropic.NotFoundError):
            await client.models.retrieve("claude-9")
    assert counted.input_tokens == answer.usage.input_tokens > 1
    assert names == ["simulator", *(f"simulator/{name}" for name in FAULTS)]
    assert (one.id, one.type) == ("simulator/reset", "model")


async def test_thinking_is_signed() -> None:
    async with (
        Simulator(Script(text=TEXT, reasoning="Hm.")) as sim,
        client_of(sim) as client,
        client.messages.stream(**REQUEST) as stream,
    ):
        final = await stream.get_final_message()
    assert final.content[0].signature
