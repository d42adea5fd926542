"""The servers that `bench.gateway` compares: each relays Chat Completions to one provider."""

import asyncio
import contextlib
import socket
import sys
from typing import Any

import aiohttp
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route


def starlette(upstream: str) -> Any:
    """A bare relay: no keys, no limits, no decoding, no care for broken streams."""
    sessions: list[aiohttp.ClientSession] = []

    async def relay(request: Request) -> Response:
        if not sessions:
            sessions.append(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
        answer = await sessions[0].post(f"{upstream}/chat/completions", data=await request.body())
        if answer.content_type == "application/json":
            return Response(await answer.read(), media_type="application/json")
        return StreamingResponse(answer.content.iter_any(), media_type="text/event-stream")

    return Starlette(routes=[Route("/v1/chat/completions", relay, methods=["POST"])])


def deluge(upstream: str) -> Any:
    """The gateway, with a decoder beside each stream."""
    from lm_deluge.gateway.app import Gateway
    from lm_deluge.gateway.configuration.settings import GatewaySettings, ServedModel

    options = {"base_url": upstream, "api_key": "sk-bench-key", "progress": "none"}
    return Gateway(GatewaySettings(models=(ServedModel(name="gpt-4o", models=("gpt-4o",), options=options),)))


async def main(name: str, upstream: str) -> None:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # so that asyncio sets TCP_NODELAY
    sock.bind(("127.0.0.1", 0))
    app = {"starlette": starlette, "deluge": deluge}[name](upstream)
    http: Any = "httptools"
    if name == "deluge":
        from lm_deluge.gateway.serve import BoundedProtocol

        http = BoundedProtocol
    config = uvicorn.Config(app, http=http, ws="none", access_log=False, log_level="warning", backlog=2048)
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
