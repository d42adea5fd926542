"""A worker process of the gateway."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from lm_deluge.errors import ConfigurationError, DelugeError
from lm_deluge.gateway.access_log import AccessLog, show_warnings
from lm_deluge.gateway.configuration.settings import GatewaySettings
from lm_deluge.gateway.metrics import GatewayMetrics
from lm_deluge.gateway.serve import metrics_of, open_gateway, run_server

__all__ = ["WorkerMessage", "WorkerStart", "run_worker"]

_LOOK_S = 1.0  # between two looks whether the parent still runs; also of the number of running requests in `/metrics`


class WorkerStart(NamedTuple):
    """What a worker gets from its parent."""

    settings: GatewaySettings
    database: str
    master_key: str | None
    is_quiet: bool


class WorkerMessage(NamedTuple):
    """What the parent gets from a worker, once.

    Attributes:
        is_simulated: Whether the simulator answers.
        error: Why it cannot serve; None: it serves.
        hint: What to do about it.
        is_final: Whether another start would fail as well.
    """

    is_simulated: bool = False
    error: str | None = None
    hint: str | None = None
    is_final: bool = False


def run_worker(start: WorkerStart, sock: socket.socket, pipe: Any) -> None:
    """Serve at a socket until the parent sends a signal, or has ended."""
    if sys.platform != "win32":
        os.setpgid(0, 0)  # Ctrl-C goes to the parent alone, which stops the workers in order
    show_warnings()
    try:
        asyncio.run(_run(start, sock, pipe))
    except DelugeError as error:
        with contextlib.suppress(OSError):  # it serves already, or the parent has ended
            is_final = isinstance(error, ConfigurationError)
            pipe.send(WorkerMessage(error=error.message, hint=error.hint, is_final=is_final))
        sys.exit(1)


async def _run(start: WorkerStart, sock: socket.socket, pipe: Any) -> None:
    settings, metrics = start.settings, metrics_of(start.settings)
    opened = open_gateway(
        settings,
        database=start.database,
        master_key=start.master_key,
        log=AccessLog(None if start.is_quiet else sys.stderr),
        metrics=metrics,
    )

    async def watch(stop: Callable[[], None]) -> None:
        pipe.send(WorkerMessage(is_simulated=gateway.is_simulated))
        await _stop_after_parent(stop, metrics)

    async with opened as (gateway, _, _):
        await run_server(gateway, sock, watch=watch)


async def _stop_after_parent(stop: Callable[[], None], metrics: GatewayMetrics | None) -> None:
    parent = multiprocessing.parent_process()
    while parent is None or parent.is_alive():
        if metrics is not None:
            metrics.sample_running()
        await asyncio.sleep(_LOOK_S)
    stop()
