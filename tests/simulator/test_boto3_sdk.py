"""AWS's own client takes the simulator for Bedrock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, EventStreamError

from lm_deluge.events import Citation
from lm_deluge.simulator import Script, Simulator
from simulator.raw_client import TEXT

ARN = "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-haiku-4-5-20251001-v1:0"
USER = {"role": "user", "content": [{"text": "Hi"}]}
WEATHER = {"toolSpec": {"name": "weather", "inputSchema": {"json": {"type": "object", "properties": {}}}}}


async def ask(sim: Simulator, use: Callable[[Any], Any], **options: Any) -> Any:
    """Return what `use` makes of a client of the simulator, in a thread."""
    return await asyncio.to_thread(lambda: use(client_of(sim, **options)))


def client_of(sim: Simulator, attempts: int = 1) -> Any:
    return boto3.client(
        "bedrock-runtime",
        endpoint_url=sim.url,
        region_name="us-east-1",
        aws_access_key_id="AKIDEXAMPLE",
        aws_secret_access_key="secret",
        config=Config(retries={"total_max_attempts": attempts, "mode": "standard"}),
    )


def stream_of(client: Any, **asked: Any) -> list[dict[str, Any]]:
    asked = {"modelId": "some.model-v1:0", "messages": [USER], **asked}
    return list(client.converse_stream(**asked)["stream"])


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
    reasoning, said, call = answer["output"]["message"]["content"]
    assert reasoning["reasoningContent"]["reasoningText"]["text"] == "Hm."
    assert said["citationsContent"]["content"] == [{"text": TEXT}]
    assert said["citationsContent"]["citations"][0]["location"]["web"]["url"] == "https://example.org/1"
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
        await ask(sim, lambda client: client.converse(modelId=ARN, messages=messages))
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
