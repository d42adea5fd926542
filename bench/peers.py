"""The peers of the decoding benchmark: each reads the same answer and prints CPU seconds and a hash of the text."""

import asyncio
import hashlib
import sys
import time

ROUNDS = 3  # the best of three counts, as interference only ever adds time


async def read_bare(port: int, per_chunk: str) -> str:
    """aiohttp and msgspec in a minimal loop that reads the text, without fault detection."""
    import aiohttp
    import msgspec

    class Delta(msgspec.Struct):
        content: str | None = None

    class Choice(msgspec.Struct):
        delta: Delta

    class Chunk(msgspec.Struct):
        choices: list[Choice]

    decode = msgspec.json.Decoder(Chunk).decode
    texts = []
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"http://127.0.0.1:{port}/{per_chunk}/", data=b"{}") as response,
    ):
        rest = b""
        while data := await response.content.readany():
            *lines, rest = (rest + data).split(b"\n\n")
            for line in lines:
                if line != b"data: [DONE]":
                    content = decode(line[6:]).choices[0].delta.content
                    if content:
                        texts.append(content)
    return "".join(texts)


async def read_deluge(port: int, per_chunk: str) -> str:
    from lm_deluge import LLMClient

    client = LLMClient("gpt-4o", api_key="none", base_url=f"http://127.0.0.1:{port}/{per_chunk}")
    return (await client.stream("go", echo=None)).completion


async def read_deluge_events(port: int, per_chunk: str) -> str:
    from lm_deluge import LLMClient
    from lm_deluge.events import TextDelta

    client = LLMClient("gpt-4o", api_key="none", base_url=f"http://127.0.0.1:{port}/{per_chunk}")
    async with client.stream("go") as stream:
        return "".join([event.text async for event in stream.events() if type(event) is TextDelta])


async def read_openai(port: int, per_chunk: str) -> str:
    from openai import AsyncOpenAI

    client = AsyncOpenAI(api_key="none", base_url=f"http://127.0.0.1:{port}/{per_chunk}")
    stream = await client.chat.completions.create(
        model="gpt-4o", messages=[{"role": "user", "content": "go"}], stream=True
    )
    return "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])


PEERS = {"bare": read_bare, "deluge": read_deluge, "deluge-events": read_deluge_events, "openai": read_openai}


async def main(peer: str, port: int, per_chunk: str) -> None:
    read = PEERS[peer]
    await read(port, per_chunk)  # warm-up: imports and first connection
    best = None
    for _ in range(1 if peer == "openai" else ROUNDS):
        started = time.process_time()
        text = await read(port, per_chunk)
        seconds = time.process_time() - started
        best = seconds if best is None else min(best, seconds)
    print(best, hashlib.sha256(text.encode()).hexdigest())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
