"""The applications that `bench.ui` compares: that of the documentation, with a model or with a constant generator."""

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import uvicorn
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

FRAME = b'data: {"type":"text-delta","id":"1","delta":" word%d"}\n\n'


def constant(upstream: str) -> Any:
    """The application without a model: frames of the same size at the same pace."""
    app = FastAPI()

    async def frames(tokens: int, pause_s: float, first_s: float) -> AsyncIterator[bytes]:
        yield b'data: {"type":"start"}\n\n'
        await asyncio.sleep(first_s)
        for number in range(tokens):
            yield FRAME % number
            await asyncio.sleep(pause_s)
        yield b'data: {"type":"finish"}\n\ndata: [DONE]\n\n'

    @app.post("/chat")
    async def chat(body: dict[str, Any]) -> StreamingResponse:
        tokens, pause_s, first_s = body["messages"][0]["parts"][0]["text"].split()
        return StreamingResponse(frames(int(tokens), float(pause_s), float(first_s)), media_type="text/event-stream")

    return app


def relay(upstream: str) -> Any:
    """The least that an application with a model does: the provider's bytes, unread, with aiohttp."""
    app = FastAPI()
    sessions: list[aiohttp.ClientSession] = []

    @app.post("/chat")
    async def chat(body: dict[str, Any]) -> StreamingResponse:
        if not sessions:
            sessions.append(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
        message = {"role": "user", "content": body["messages"][0]["parts"][0]["text"]}
        asked = {"model": "gpt-4o", "messages": [message], "stream": True}
        answer = await sessions[0].post(f"http://127.0.0.1:{upstream}/v1/chat/completions", json=asked)
        return StreamingResponse(answer.content.iter_any(), media_type="text/event-stream")

    return app


def deluge(upstream: str) -> Any:
    """The application with a model."""
    from lm_deluge import LLMClient
    from lm_deluge.ui import StreamResponse, conversation_from

    app = FastAPI()
    client = LLMClient("gpt-4o", base_url=f"http://127.0.0.1:{upstream}/v1", api_key="sk-bench-key", progress="none")

    @app.post("/chat")
    async def chat(body: dict[str, Any]) -> StreamResponse:
        return StreamResponse(client.stream(conversation_from(body)), request=body)

    return app


async def main(name: str, upstream: str) -> None:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # so that asyncio sets TCP_NODELAY
    sock.bind(("127.0.0.1", 0))
    app = {"constant": constant, "relay": relay, "deluge": deluge}[name](upstream)
    config = uvicorn.Config(app, http="httptools", ws="none", access_log=False, log_level="warning", backlog=2048)
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]
    task = asyncio.create_task(server.serve(sockets=[sock]))
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    print(sock.getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    server.should_exit = True
    await task


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
