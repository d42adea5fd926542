"""What is asked of a provider to see what of it works: a few short calls, each a fraction of a cent."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Awaitable, Callable
from typing import Any

from lm_deluge import LLMClient, SamplingParams
from lm_deluge.errors import DelugeError, UnsupportedParameterError
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.tool import Tool
from lm_deluge.response import APIResponse

Check = Callable[[LLMClient], Awaitable[str]]

WEATHER = Tool(
    name="weather",
    description="Tells the weather of a city.",
    parameters={
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
)
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}


def red_square() -> bytes:
    """Return a PNG of 32 by 32 red pixels."""
    rows = b"".join(b"\0" + b"\xff\0\0" * 32 for _ in range(32))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 32, 32, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def check_usage(response: APIResponse) -> None:
    assert response.usage is not None, "no usage"
    assert not response.usage.estimated, "usage is not reported"
    assert response.usage.output_tokens > 0, "no output tokens"


async def text(client: LLMClient) -> str:
    """Text arrives token by token, and is told of in numbers."""
    async with client.stream("Count from 1 to 20, in words.") as stream:
        tokens = [token async for token in stream]
    response = stream.response
    assert "".join(tokens) == response.completion, "tokens are not the answer"
    assert len(tokens) > 1, "the answer came in one piece"
    assert response.finish_reason in ("stop", "length"), response.finish_reason
    check_usage(response)
    cost = "" if response.cost is None else f" ${response.cost:.6f}"
    return f"{len(tokens)} pieces, {response.usage.total_tokens} tokens{cost}"


async def tools(client: LLMClient) -> str:
    """A call, its result, and the answer to it: what the provider needs for the second turn is sent back."""
    conversation = Conversation.user("What is the weather in Rome? Ask the tool.")
    first = await client.stream(conversation, tools=[WEATHER], echo=None)
    assert first.finish_reason == "tool_calls", first.finish_reason
    call = first.tool_calls[0]
    assert isinstance(call.arguments, dict), call.arguments_error
    assert call.arguments.get("city"), "no city"
    conversation.add(first.content)
    for each in first.tool_calls:
        conversation.tool_result(each.id, "Sunny, 21 degrees.")
    second = await client.stream(conversation, tools=[WEATHER], echo=None)
    assert second.completion, "no answer to the result"
    return "two turns"


async def schema(client: LLMClient) -> str:
    """The answer follows a JSON schema."""
    response = await client.stream("Name the capital of France, as JSON: {city}.", output=SCHEMA, echo=None)
    assert json.loads(response.completion)["city"], "no city"
    return "as asked"


async def image(client: LLMClient) -> str:
    """It sees an image."""
    prompt = Conversation([Message.user("Which colour is this? One word.", image=red_square())])
    response = await client.stream(prompt, echo=None)
    assert response.completion, "no answer"
    return f"{response.completion.strip()[:20]!r}"


async def reasoning(client: LLMClient) -> str:
    """It thinks, shows some of it, and takes its own answer back."""
    conversation = Conversation.user("Which is larger, 9.11 or 9.9?")
    params = SamplingParams(reasoning_effort="low")
    first = await client.stream(conversation, sampling_params=params, echo=None)
    conversation.add(first.content).user("Are you sure? One word.")
    second = await client.stream(conversation, sampling_params=params, echo=None)
    assert second.completion, "no second answer"
    return "shown" if first.thinking else "hidden"


async def cancelled(client: LLMClient) -> str:
    """A stream is left after its first token; what is billed is told."""
    stream = client.stream("Write a long poem about rain.")
    async with stream:
        async for _ in stream:
            break
    assert stream.response.usage is not None, "no usage"
    return "left early"


CHECKS: dict[str, Check] = {
    "text": text,
    "tools": tools,
    "schema": schema,
    "image": image,
    "reasoning": reasoning,
    "cancelled": cancelled,
}


async def run_checks(model: str, **options: Any) -> dict[str, tuple[bool | None, str]]:
    """Return, for each check, whether it works (None: the provider's row says that it cannot), and a word on it."""
    found: dict[str, tuple[bool | None, str]] = {}
    async with LLMClient(model, max_new_tokens=2_000, max_attempts=2, **options) as client:
        for name, check in CHECKS.items():
            try:
                found[name] = True, await check(client)
            except UnsupportedParameterError as error:
                found[name] = None, error.parameter
            except DelugeError as error:
                found[name] = False, str(error)[:200]
            except (AssertionError, ValueError, KeyError) as error:
                found[name] = False, (str(error) or type(error).__name__)[:200].partition("\n")[0]
    return found
