"""AWS's own SDK works with the simulator as Bedrock."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import closing
from typing import Any

import boto3
import pytest
from anthropic import AnthropicBedrock
from botocore.config import Config
from botocore.exceptions import ClientError, EventStreamError

from lm_deluge.events import Citation
from lm_deluge.simulator import Script, Simulator
from simulator.raw_client import TEXT

ARN = "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-haiku-4-5-20251001-v1:0"
USER = {"role": "user", "content": [{"text": "Hi"}]}
WEATHER = {"toolSpec": {"name": "weather", "inputSchema": {"json": {"type": "object", "properties": {}}}}}


async def ask(sim: Simulator, use: Callable[[Any], Any], **options: Any) -> Any:
    """Call `use` with a boto3 client of the simulator in a thread, and return its result."""

    def call() -> Any:
        with closing(client_of(sim, **options)) as client:
            return use(client)

    return await asyncio.to_thread(call)


def client_of(sim: Simulator, attempts: int = 1) -> Any:
    return boto3.client(
        "bedrock-runtime",
        endpoint_url=sim.url,
        region_name="us-east-1",
        aws_access_key_id="AKIDEXAMPLE",
        aws_secret_access_key="secret",
        config=Config(retries={"total_max_attempts": attempts, "mode": "standard"}),
    )


def stream_of(client: Any, **fields: Any) -> list[dict[str, Any]]:
    request = {"modelId": "some.model-v1:0", "messages": [USER], **fields}
    with closing(client.converse_stream(**request)["stream"]) as stream:
        return list(stream)


async def test_a_converse_stream() -> None:
    async with Simulator(Script(reasoning="Hm, so.", text=TEXT)) as sim:
        events = await ask(sim, lambda client: stream_of(client, modelId=ARN))
        (request,) = sim.requests
    kinds = [next(iter(event)) for event in events]
    assert kinds[0] == "messageStart"
    assert kinds[-2:] == ["messageStop", "metadata"]
    deltas = [event["contentBlockDelta"]["delta"] for event in events if "contentBlockDelta" in event]
    assert "".join(delta.get("text", "") for delta in deltas) == TEXT
    assert "".join(delta.get("reasoningContent", {}).get("text", "") for delta in deltas) == "Hm, so."
    assert events[-2]["messageStop"]["stopReason"] == "end_turn"
    usage = events[-1]["metadata"]["usage"]
    assert usage["totalTokens"] == usage["inputTokens"] + usage["outputTokens"] > 0
    assert "%2Fus.anthropic" in request.path


async def test_streamed_calls() -> None:
    script = Script(tool_calls=[("weather", {"city": "Genève"}), ("weather", {"city": "Roma"})])
    async with Simulator(script) as sim:
        events = await ask(sim, lambda client: stream_of(client, toolConfig={"tools": [WEATHER]}))
    starts = [event["contentBlockStart"] for event in events if "contentBlockStart" in event]
    assert [start["start"]["toolUse"]["name"] for start in starts] == ["weather", "weather"]
    texts = dict.fromkeys([start["contentBlockIndex"] for start in starts], "")
    for event in events:
        if "contentBlockDelta" in event:
            delta = event["contentBlockDelta"]
            texts[delta["contentBlockIndex"]] += delta["delta"]["toolUse"]["input"]
    assert list(texts.values()) == ['{"city":"Genève"}', '{"city":"Roma"}']
    assert events[-2]["messageStop"]["stopReason"] == "tool_use"


async def test_a_plain_converse() -> None:
    source = Citation("https://example.org/1", "Example")
    script = Script(reasoning="Hm.", text=TEXT, tool_calls=[("weather", {"city": "Roma"})], extra=[source])
    async with Simulator(script) as sim:
        answer = await ask(
            sim, lambda client: client.converse(modelId=ARN, messages=[USER], toolConfig={"tools": [WEATHER]})
        )
    reasoning, text, call = answer["output"]["message"]["content"]
    assert reasoning["reasoningContent"]["reasoningText"]["text"] == "Hm."
    assert text["citationsContent"]["content"] == [{"text": TEXT}]
    assert text["citationsContent"]["citations"][0]["location"]["web"]["url"] == "https://example.org/1"
    assert (call["toolUse"]["name"], call["toolUse"]["input"]) == ("weather", {"city": "Roma"})
    assert answer["stopReason"] == "tool_use"
    assert answer["usage"]["outputTokens"] > 0


async def test_media_and_results_travel_as_base64() -> None:
    png = b"\x89PNG\r\n\x1a\n" + b"\0" * 8
    content = [{"text": "See"}, {"image": {"format": "png", "source": {"bytes": png}}}]
    content.append({"document": {"format": "pdf", "name": "report", "source": {"bytes": b"%PDF-1"}}})
    called = {"toolUse": {"toolUseId": "t1", "name": "weather", "input": {}}}
    result = {"toolUseId": "t1", "status": "error", "content": [{"text": "no"}, content[1]]}
    messages = [
        {"role": "user", "content": content},
        {"role": "assistant", "content": [called]},
        {"role": "user", "content": [{"toolResult": result}]},
    ]
    seen = []
    async with Simulator(lambda request: seen.append(request) or "ok") as sim:
        tools = {"tools": [{"toolSpec": {"name": "weather", "inputSchema": {"json": {"type": "object"}}}}]}
        await ask(sim, lambda client: client.converse(modelId=ARN, messages=messages, toolConfig=tools))
    user, _, tool = seen[0].conversation
    assert user.parts[1].media.data == png
    assert (user.parts[2].media.media_type, user.parts[2].media.filename) == ("application/pdf", "report.pdf")
    assert (tool.role, tool.parts[0].is_error, tool.parts[0].content) == ("tool", True, "no")
    assert tool.parts[0].media[0].media.data == png
    assert seen[0].model == ARN


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("status_400", "ValidationException"),
        ("status_401", "UnrecognizedClientException"),
        ("status_403", "AccessDeniedException"),
        ("status_404", "ResourceNotFoundException"),
        ("status_429", "ThrottlingException"),
        ("status_500", "InternalServerException"),
        ("status_503", "ServiceUnavailableException"),
    ],
)
async def test_errors(fault: str, code: str) -> None:
    async with Simulator(faults=fault) as sim:
        with pytest.raises(ClientError) as caught:
            await ask(sim, stream_of)
    assert caught.value.response["Error"]["Code"] == code
    assert caught.value.response["Error"]["Message"]


async def test_an_error_in_the_stream() -> None:
    async with Simulator(TEXT, faults="in_band_error_mid") as sim:
        with pytest.raises(EventStreamError) as caught:
            await ask(sim, stream_of)
    assert caught.value.response["Error"]["Code"] == "internalServerException"


async def test_retries() -> None:
    async with Simulator("Hi", faults=["status_429"]) as sim:
        events = await ask(sim, stream_of, attempts=2)
        assert sim.stats.faults == {"status_429": 1}
    assert any("contentBlockDelta" in event for event in events)


@pytest.mark.parametrize("fault", ["byte_by_byte", "split_utf8"])
async def test_harmless_faults_are_harmless(fault: str) -> None:
    async with Simulator(TEXT, faults=fault) as sim:
        events = await ask(sim, stream_of)
    texts = [event["contentBlockDelta"]["delta"]["text"] for event in events if "contentBlockDelta" in event]
    assert "".join(texts) == TEXT


def invoke(client: Any, model: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = client.invoke_model(modelId=model, body=json.dumps(body))
    found: dict[str, Any] = json.loads(answer["body"].read())
    return found


def invoke_stream(client: Any, model: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    answer = client.invoke_model_with_response_stream(modelId=model, body=json.dumps(body))
    with closing(answer["body"]) as stream:
        return [json.loads(event["chunk"]["bytes"]) for event in stream]


CLAUDE = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 999, "messages": [{"role": "user", "content": "Hi"}]}


async def test_claude_through_the_native_api() -> None:
    tool = {"name": "weather", "input_schema": {"type": "object", "properties": {}}}
    script = Script(text=TEXT, tool_calls=[("weather", {"city": "Genève"})])
    async with Simulator(script) as sim:
        chunks = await ask(sim, lambda client: invoke_stream(client, ARN, {**CLAUDE, "tools": [tool]}))
        whole = await ask(sim, lambda client: invoke(client, ARN, {**CLAUDE, "tools": [tool]}))
    assert chunks[0]["type"] == "message_start"
    assert chunks[0]["message"]["model"] == ARN
    deltas = [chunk["delta"] for chunk in chunks if chunk["type"] == "content_block_delta"]
    assert "".join(delta.get("text", "") for delta in deltas) == TEXT
    assert "".join(delta.get("partial_json", "") for delta in deltas) == '{"city":"Genève"}'
    assert chunks[-2]["delta"]["stop_reason"] == "tool_use"
    assert chunks[-1]["type"] == "message_stop"
    assert chunks[-1]["amazon-bedrock-invocationMetrics"]["outputTokenCount"] > 0
    text, call = whole["content"]
    assert (text["text"], call["input"], whole["stop_reason"]) == (TEXT, {"city": "Genève"}, "tool_use")


async def test_anthropic_s_own_client_of_bedrock() -> None:
    """Anthropic's SDK decodes Amazon's event stream itself, and signs with boto3."""
    script = Script(reasoning="Hm.", text=TEXT)

    def use() -> Any:
        with AnthropicBedrock(
            base_url=sim.url, aws_region="us-east-1", aws_access_key="AKIDEXAMPLE", aws_secret_key="s", max_retries=0
        ) as client:
            request = {
                "model": "anthropic.claude-x",
                "max_tokens": 999,
                "messages": [{"role": "user", "content": "Hi"}],
            }
            with client.messages.stream(**request) as stream:
                return stream.get_final_message(), client.messages.create(**request)

    async with Simulator(script) as sim:
        streamed, plain = await asyncio.to_thread(use)
    for message in (streamed, plain):
        assert [block.type for block in message.content] == ["thinking", "text"]
        assert message.content[1].text == TEXT
        assert message.stop_reason == "end_turn"


@pytest.mark.parametrize(
    ("model", "body", "text_of"),
    [
        (
            "amazon.nova-lite-v1:0",
            {"messages": [USER]},
            lambda chunk: chunk.get("contentBlockDelta", {}).get("delta", {}).get("text"),
        ),
        ("amazon.titan-text-lite-v1", {"inputText": "Hi"}, lambda chunk: chunk["outputText"]),
        ("us.meta.llama3-3-70b-instruct-v1:0", {"prompt": "Hi"}, lambda chunk: chunk["generation"]),
        ("mistral.mistral-7b-instruct-v0:2", {"prompt": "Hi"}, lambda chunk: chunk["outputs"][0]["text"]),
        ("cohere.command-text-v14", {"prompt": "Hi"}, lambda chunk: chunk.get("text")),
        ("cohere.command-r-v1:0", {"message": "Hi"}, lambda chunk: chunk.get("text")),
        (
            "openai.gpt-oss-20b-1:0",
            {"messages": [{"role": "user", "content": "Hi"}]},
            lambda chunk: chunk["choices"][0]["delta"].get("content") if chunk["choices"] else None,
        ),
    ],
)
async def test_the_other_families(model: str, body: dict[str, Any], text_of: Callable[[Any], Any]) -> None:
    async with Simulator(TEXT) as sim:
        chunks = await ask(sim, lambda client: invoke_stream(client, model, body))
        whole = await ask(sim, lambda client: invoke(client, model, body))
    assert "".join(text_of(chunk) or "" for chunk in chunks) == TEXT
    assert chunks[-1]["amazon-bedrock-invocationMetrics"]["outputTokenCount"] > 0
    assert TEXT in json.dumps(whole, ensure_ascii=False)


async def test_errors_of_the_native_api() -> None:
    async with Simulator(faults=["status_429", "in_band_error_mid"]) as sim:
        with pytest.raises(ClientError) as refused:
            await ask(sim, lambda client: invoke_stream(client, ARN, CLAUDE))
        with pytest.raises(EventStreamError) as broken:
            await ask(sim, lambda client: invoke_stream(client, ARN, CLAUDE))
    assert refused.value.response["Error"]["Code"] == "ThrottlingException"
    assert broken.value.response["Error"]["Code"] == "internalServerException"


@pytest.mark.parametrize("body", [{}, {"messages": []}, {"messages": [{"role": "user"}]}])
async def test_requests_that_cannot_be_answered(body: dict[str, Any]) -> None:
    async with Simulator(TEXT) as sim:
        with pytest.raises(ClientError) as caught:
            await ask(sim, lambda client: invoke(client, "amazon.nova-lite-v1:0", body))
    assert caught.value.response["Error"]["Code"] == "ValidationException"


async def test_token_counts() -> None:
    fields = {"messages": [{"role": "user", "content": [{"text": "How many?"}]}]}
    async with Simulator("Hello.") as sim:
        counted = await ask(sim, lambda client: client.count_tokens(modelId="m", input={"converse": fields}))
        answer = await ask(sim, lambda client: client.converse(modelId="m", **fields))
        body = json.dumps({"anthropic_version": "x", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]})
        invoked = await ask(
            sim,
            lambda client: client.count_tokens(
                modelId="anthropic.claude-m", input={"invokeModel": {"body": body.encode()}}
            ),
        )
    assert counted["inputTokens"] == answer["usage"]["inputTokens"] > 1
    assert invoked["inputTokens"] > 0
