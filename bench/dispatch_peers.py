"""The peers of `bench.dispatch`: each requests the same short stream many times and prints CPU and wall seconds.

The old version of lm-deluge runs this file in a separate environment, so the imports at the top are standard library.
"""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

CONCURRENCY = 100  # requests in flight, the same for every peer
CLOSE: list[Callable[[], Awaitable[None]]] = []
PROMPT = "Write two dozen words about the weather in spring."

Run = Callable[[int], Awaitable[list[str]]]
"""Sends a number of requests and returns the texts of their answers."""


async def bare(port: str) -> Run:
    """aiohttp, a semaphore, and a minimal loop that reads text and usage; no fault detection, limits or retries."""
    import aiohttp
    import msgspec

    class Delta(msgspec.Struct):
        content: str | None = None

    class Choice(msgspec.Struct):
        delta: Delta
        finish_reason: str | None = None

    class Usage(msgspec.Struct):
        prompt_tokens: int
        completion_tokens: int

    class Chunk(msgspec.Struct):
        choices: list[Choice]
        usage: Usage | None = None

    decode = msgspec.json.Decoder(Chunk).decode
    encode = msgspec.json.encode
    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
    CLOSE.append(session.close)
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    slots = asyncio.Semaphore(CONCURRENCY)

    async def ask(prompt: str) -> str:
        messages = [{"role": "user", "content": prompt}]
        body = encode(
            {"model": "gpt-4o-mini", "messages": messages, "stream": True, "stream_options": {"include_usage": True}}
        )
        headers = {"authorization": "Bearer none", "content-type": "application/json"}
        texts, usage, rest = [], None, b""
        async with slots, session.post(url, data=body, headers=headers) as response:
            while data := await response.content.readany():
                *events, rest = (rest + data).split(b"\n\n")
                for event in events:
                    if event != b"data: [DONE]":
                        chunk = decode(event[6:])
                        usage = chunk.usage or usage
                        texts += [choice.delta.content for choice in chunk.choices if choice.delta.content]
        assert usage is not None
        return "".join(texts)

    async def run(count: int) -> list[str]:
        return await asyncio.gather(*(ask(PROMPT) for _ in range(count)))

    return run


async def bare_plain(port: str) -> Run:
    """aiohttp, a semaphore, and msgspec for a plain answer with its usage; no fault detection, limits or retries."""
    import aiohttp
    import msgspec

    class Message(msgspec.Struct):
        content: str

    class Choice(msgspec.Struct):
        message: Message
        finish_reason: str

    class Usage(msgspec.Struct):
        prompt_tokens: int
        completion_tokens: int

    class Answer(msgspec.Struct):
        choices: list[Choice]
        usage: Usage

    decode = msgspec.json.Decoder(Answer).decode
    encode = msgspec.json.encode
    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
    CLOSE.append(session.close)
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    slots = asyncio.Semaphore(CONCURRENCY)

    async def ask(prompt: str) -> str:
        body = encode({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": prompt}]})
        headers = {"authorization": "Bearer none", "content-type": "application/json"}
        async with slots, session.post(url, data=body, headers=headers) as response:
            return decode(await response.read()).choices[0].message.content

    async def run(count: int) -> list[str]:
        return await asyncio.gather(*(ask(PROMPT) for _ in range(count)))

    return run


async def deluge(port: str, **options: Any) -> Run:
    from lm_deluge import LLMClient

    client = LLMClient(
        "gpt-4o-mini",
        api_key="none",
        base_url=f"http://127.0.0.1:{port}/v1",
        max_concurrent_requests=CONCURRENCY,
        **options,
    )
    CLOSE.append(client.close)

    async def run(count: int) -> list[str]:
        found = await client.process_prompts_async([PROMPT] * count, progress="none")
        assert all(each.usage is not None and each.error is None for each in found)
        return [each.completion for each in found]

    return run


async def deluge_plain(port: str) -> Run:
    return await deluge(port, collect="plain")


def old_client_model(port: str) -> str:
    import os

    os.environ["OPENAI_API_KEY"] = "none"
    from lm_deluge.models import register_model  # exists in 0.0.168 only

    base = f"http://127.0.0.1:{port}/v1"
    register_model(id="bench", name="gpt-4o-mini", api_base=base, api_key_env_var="OPENAI_API_KEY", api_spec="openai")
    return "bench"


async def old_streams(port: str) -> Run:
    """Streams of lm-deluge 0.0.168, a hundred at a time, without limits, retries or usage; each opens a connection."""
    from types import SimpleNamespace

    from lm_deluge import Conversation
    from lm_deluge.api_requests import openai
    from lm_deluge.api_requests.openai import stream_chat

    class Context(SimpleNamespace):  # attributes that its request builder reads, but its stream does not set
        def validate_request_config(self) -> None: ...
        def __getattr__(self, name: str) -> None: ...

    openai.SimpleNamespace = Context
    model = old_client_model(port)
    slots = asyncio.Semaphore(CONCURRENCY)

    async def ask(prompt: str) -> str:
        async with slots:
            async for item in stream_chat(model, Conversation().user(prompt)):
                if not isinstance(item, str):
                    return item.completion  # reading further would fail on the end mark of the old version
        raise AssertionError("the stream has ended without an answer")

    async def run(count: int) -> list[str]:
        return await asyncio.gather(*(ask(PROMPT) for _ in range(count)))

    return run


async def old_batch(port: str) -> Run:
    """Batch of lm-deluge 0.0.168, which requests plain answers: one JSON document each instead of 27 events."""
    from lm_deluge import LLMClient

    client = LLMClient(
        old_client_model(port),
        max_requests_per_minute=10**9,
        max_tokens_per_minute=10**12,
        max_concurrent_requests=CONCURRENCY,
        progress="manual",
    )

    async def run(count: int) -> list[str]:
        found = await client.process_prompts_async([PROMPT] * count, show_progress=False)
        return [each.completion for each in found]

    return run


PEERS = {
    "bare": bare,
    "bare-plain": bare_plain,
    "deluge": deluge,
    "deluge-plain": deluge_plain,
    "old-streams": old_streams,
    "old-batch": old_batch,
}


async def main(peer: str, port: str, count: int) -> None:
    run = await PEERS[peer](port)
    await run(min(count, 300))  # warm-up: imports, connections
    cpu, wall = time.process_time(), time.perf_counter()
    texts = await run(count)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    assert len(texts) == count
    assert len(set(texts)) == 1
    for close in CLOSE:
        await close()
    print("\n", cpu, wall, len(texts[0]), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
