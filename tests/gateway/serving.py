"""A gateway on a loopback port, in front of a simulated provider."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import uvicorn

from lm_deluge.gateway.access import AccessControl
from lm_deluge.gateway.access_log import AccessLog, LoggedCall
from lm_deluge.gateway.app import Gateway
from lm_deluge.gateway.configuration.settings import GatewaySettings
from lm_deluge.gateway.metrics import GatewayMetrics
from lm_deluge.gateway.page.page import ChatPage
from lm_deluge.gateway.serve import BoundedProtocol
from lm_deluge.simulator import Simulator


class KeptLog(AccessLog):
    """Keeps the lines."""

    def __init__(self) -> None:
        super().__init__(None)
        self.calls: list[LoggedCall] = []

    def write(self, call: LoggedCall) -> None:
        self.calls.append(call)


@dataclass
class Serving:
    """A running gateway."""

    url: str
    gateway: Gateway
    log: KeptLog
    simulator: Simulator
    tasks: list[Any] = field(default_factory=list)


@contextlib.asynccontextmanager
async def serve(
    settings: GatewaySettings,
    simulator: Simulator,
    *,
    access: AccessControl | None = None,
    protocol: type[BoundedProtocol] = BoundedProtocol,
    metrics: GatewayMetrics | None = None,
    page: ChatPage | None = None,
) -> AsyncIterator[Serving]:
    """Run a gateway until the end of the block."""
    log = KeptLog()
    gateway = Gateway(settings, access=access, log=log, metrics=metrics, page=page)
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # so that asyncio sets TCP_NODELAY
    sock.bind(("127.0.0.1", 0))
    config = uvicorn.Config(gateway, http=protocol, ws="none", access_log=False, log_level="critical", lifespan="on")
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext
    task = asyncio.create_task(server.serve(sockets=[sock]))
    while not server.started:
        await asyncio.sleep(0.005)
    try:
        yield Serving(f"http://127.0.0.1:{sock.getsockname()[1]}", gateway, log, simulator)
    finally:
        server.should_exit = server.force_exit = True
        await task
        sock.close()
