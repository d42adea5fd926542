"""Several processes that serve at one port: the parent binds it, starts the workers and starts them again.

The workers accept connections from the same socket. The parent has the admin port and answers no prompts.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from typing import Any

from lm_deluge.errors import ConfigurationError, DelugeError, MissingExtraError
from lm_deluge.gateway.cluster.worker import WorkerMessage, WorkerStart, run_worker
from lm_deluge.gateway.configuration.settings import GatewaySettings
from lm_deluge.gateway.key_access import KeyAccess
from lm_deluge.gateway.ledger.ledger import Ledger
from lm_deluge.gateway.metrics import SummedMetrics
from lm_deluge.gateway.routes.admin import admin_app
from lm_deluge.gateway.serve import (
    BACKLOG,
    Listening,
    OnStart,
    bind_admin,
    bind_socket,
    check_address,
    check_tls,
    open_database,
    run_beside,
    serve_app,
    url_of,
)

__all__ = ["check_workers", "serve_with_workers"]

_LOOK_S = 0.1  # between two looks at the workers: there is no event for the end of a process on every system
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0
"""Pauses before a worker is started again: short for one that crashed once, and longer for each further time."""
_STEADY_S = 60.0  # a worker that ran for so long has not failed again
_MOST_FAILURES = 5  # starts of a worker in a row that end before it serves: the reason is not a passing one
_CLOSING_S = 10.0  # beside the time that streams get: connections, the database

logger = logging.getLogger("lm_deluge.gateway")


def check_workers(settings: GatewaySettings) -> None:
    """Check that several workers have what they share.

    Raises:
        ConfigurationError: They have no limiter.
    """
    if settings.workers > 1 and settings.limiter is None:
        raise ConfigurationError(
            f"{settings.workers} workers without a limiter would each use all of the limits of models and keys",
            hint='Set limiter = "redis://127.0.0.1:6379/0" in [server], or the variable DELUGE_LIMITER.',
        )


class _Worker:
    """One place of the team, and the process in it."""

    def __init__(self, start: WorkerStart, sock: socket.socket) -> None:
        self._start = start
        self._sock = sock
        self._pipe: Any = None  # of a class that depends on the system
        self.process: BaseProcess | None = None
        self.message: WorkerMessage | None = None
        self.started_at = 0.0
        self.restart_at = 0.0
        self.pause_s = _FIRST_PAUSE_S
        self.failures = 0

    def start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe(duplex=False)
        self.process = context.Process(target=run_worker, args=(self._start, self._sock, theirs), name="deluge worker")
        self.process.start()
        theirs.close()
        self.message, self.started_at = None, time.monotonic()

    @property
    def is_serving(self) -> bool:
        return self.process is not None and self.message is not None and self.message.error is None

    def read(self) -> None:
        """Take the message of the process, once it serves or has failed."""
        if self._pipe is not None and self.message is None:
            with contextlib.suppress(EOFError, OSError):  # it ended without one
                if self._pipe.poll():
                    self.message = self._pipe.recv()

    def note_end(self) -> int:
        """Note that the process has ended; return its number."""
        assert self.process is not None  # noqa: S101 - the caller saw it
        self.read()
        number = self.process.pid or 0
        now = time.monotonic()
        if now - self.started_at >= _STEADY_S:
            self.pause_s = _FIRST_PAUSE_S
        self.failures = 0 if self.is_serving else self.failures + 1
        self.restart_at = now + self.pause_s
        self.pause_s = min(_LONGEST_PAUSE_S, 2 * self.pause_s)
        self._pipe.close()
        self.process.close()
        self.process = self._pipe = None
        return number

    def send(self, signal_number: int) -> None:
        """Send a signal to the process, if it runs."""
        if self.process is not None and self.process.pid is not None and self.process.is_alive():
            if sys.platform == "win32" or signal_number == signal.SIGTERM:
                self.process.terminate()
            else:
                os.kill(self.process.pid, signal_number)


class _Team:
    """All workers."""

    def __init__(self, workers: list[_Worker], ledger: Ledger, metrics: SummedMetrics | None) -> None:
        self._workers = workers
        self._ledger = ledger
        self._metrics = metrics
        self._signals: list[int] = []

    def note_signal(self, number: int, _frame: Any) -> None:
        """Note a signal; the next look acts on it."""
        self._signals.append(number)

    async def run(self, settings: GatewaySettings, sock: socket.socket, on_start: OnStart | None) -> None:
        """Keep the workers running until a signal, then stop them.

        Raises:
            ConfigurationError: A worker cannot start.
        """
        try:
            for worker in self._workers:
                worker.start()
            while not self._signals:
                await self._look()
                if on_start is not None and all(worker.is_serving for worker in self._workers):
                    first = self._workers[0].message
                    on_start(Listening(url_of(settings, sock), first is not None and first.is_simulated))
                    on_start = None
                await asyncio.sleep(_LOOK_S)
        finally:
            sock.close()  # the workers have closed theirs once they stop, so no connection is accepted any more
            await self._stop(2 * settings.drain_s + _CLOSING_S)

    async def _look(self) -> None:
        for worker in self._workers:
            worker.read()
            if worker.process is None:
                if time.monotonic() >= worker.restart_at:
                    worker.start()
            elif worker.process.exitcode is not None:
                await self._note_end(worker, worker.process.exitcode)

    async def _note_end(self, worker: _Worker, code: int) -> None:
        number = worker.note_end()
        if self._metrics is not None:
            self._metrics.forget_worker(number)
        with contextlib.suppress(DelugeError):  # of the database: the next look of any worker settles them
            await self._ledger.settle_lost()
        failed = worker.message if worker.message is not None and worker.message.error is not None else None
        if failed is not None and worker.failures >= (1 if failed.is_final else _MOST_FAILURES):
            raise ConfigurationError(failed.error or "", hint=failed.hint)
        if worker.failures >= _MOST_FAILURES:
            raise ConfigurationError(f"a worker ended {worker.failures} times before it served, with exit code {code}")
        logger.warning("worker %d ended (exit code %d) and is started again", number, code)

    async def _stop(self, seconds: float) -> None:
        """Let the calls of the workers end; a second signal stops them at once."""
        is_forced = False
        for worker in self._workers:
            worker.send(signal.SIGTERM)
        give_up_at = time.monotonic() + seconds
        while any(worker.process is not None and worker.process.exitcode is None for worker in self._workers):
            if len(self._signals) > 1 and not is_forced:
                is_forced = True
                for worker in self._workers:
                    worker.send(signal.SIGINT)
            if time.monotonic() >= give_up_at:
                for worker in self._workers:
                    if worker.process is not None:
                        worker.process.kill()
            await asyncio.sleep(_LOOK_S)
        with contextlib.suppress(DelugeError):
            await self._ledger.settle_lost()


async def serve_with_workers(
    settings: GatewaySettings,
    *,
    database: str,
    metrics_folder: str,
    master_key: str | None = None,
    is_quiet: bool = False,
    on_start: OnStart | None = None,
) -> None:
    """Run the gateway in several worker processes until a signal stops it.

    Args:
        settings: The settings, with the number of workers.
        database: URL of the database.
        metrics_folder: An empty folder for the metrics of the workers, `PROMETHEUS_MULTIPROC_DIR` of the environment.
        master_key: The key of the administrator; None: there is no admin API, and the admin port has `/metrics` only.
        is_quiet: Whether no calls are logged.
        on_start: Called once all workers serve.

    Raises:
        ConfigurationError: A setting or file cannot be used, the port is taken, or the database cannot be opened.
    """
    check_workers(settings)
    check_tls(settings)
    async with contextlib.AsyncExitStack() as stack:
        ledger = Ledger(await stack.enter_async_context(open_database(database)))
        access = KeyAccess(ledger, master_key=master_key)
        check_address(settings, has_keys=await access.needs_key())
        metrics = _summed(metrics_folder)
        admin = bind_admin(settings.admin_port, must=master_key is not None)
        if admin is not None:
            run_beside(stack, serve_app(admin_app(ledger, access, metrics), stack.enter_context(admin)))
        sock = stack.enter_context(bind_socket(settings.host, settings.port, setting="host and port"))
        sock.listen(BACKLOG)
        start = WorkerStart(settings, database, master_key, is_quiet)
        team = _Team([_Worker(start, sock) for _ in range(settings.workers)], ledger, metrics)
        with _signals_to(team):
            await team.run(settings, sock, on_start)


def _summed(folder: str) -> SummedMetrics | None:
    try:
        return SummedMetrics(folder)
    except MissingExtraError:
        return None


@contextlib.contextmanager
def _signals_to(team: _Team) -> Iterator[None]:
    before = {number: signal.signal(number, team.note_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
