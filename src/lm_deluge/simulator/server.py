"""The server: connections in, planned answers out."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import msgspec

from lm_deluge.simulator.batches.jobs import Batches
from lm_deluge.simulator.connection import ClientLeftError, Connection, WatchedReader
from lm_deluge.simulator.faults.catalog import Fault, FaultSource
from lm_deluge.simulator.http import HttpError, Limits, Request, read_request
from lm_deluge.simulator.pace import Pace
from lm_deluge.simulator.router import Router
from lm_deluge.simulator.script import ScriptSource
from lm_deluge.simulator.thread import SimulatorThread

__all__ = ["RecordedRequest", "Simulator", "SimulatorStats"]

_HOST = "127.0.0.1"
_SECRET_HEADERS = ("authorization", "api-key", "x-api-key", "x-goog-api-key", "cookie")
_MOST_RECORDED = 10_000


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """A request that the simulator received.

    Attributes:
        headers: Names in lower case; of credentials only the last four characters are kept.
        json: The parsed body, None where it is no JSON.
        connection: Number of the connection, from 1.
        at_s: Seconds since the simulator was started.
        fault: Name of the fault that it met, or None.
    """

    method: str
    path: str
    headers: dict[str, str]
    json: Any
    connection: int
    at_s: float
    fault: str | None = None


@dataclass(slots=True)
class SimulatorStats:
    """Counts since the start.

    Attributes:
        connections: Connections that were opened.
        most_open: How many were open at the same time, at most.
        requests: Requests that could be read.
        completed: Answers that were sent as planned, faults included.
        aborted: Answers that the client did not wait for.
        faults: How often each fault was played.
    """

    connections: int = 0
    most_open: int = 0
    requests: int = 0
    completed: int = 0
    aborted: int = 0
    faults: Counter[str] = field(default_factory=Counter)


class Simulator:
    """A server on 127.0.0.1 that speaks the wire APIs. It reads no environment and reaches no network.

    Args:
        script: What it answers: a text, a `Script`, several in turn (the last one is repeated), a function of the
            parsed request, or a mapping from names of models. By default a short tour of the library. An `APIError`
            that a function raises is the answer. A request whose answer a fault replaces uses up no script.
        pace: How fast; by default as fast as possible.
        faults: One fault for every request, or a list that is used up one by one. A request may choose its own: with
            the header `x-simulator-fault`, the model `simulator/FAULT` or the query `fault`.
        port: 0 for any that is free.
        seed: Of the jitter: the same requests in the same order then have the same pauses.
        limits: What a request may be.
        batches: What becomes of batches; by default they are over at the first poll.

    As an async context manager it runs in the block, and its end ends every stream. `start_in_thread` is for code
    without a loop of its own.
    """

    def __init__(
        self,
        script: ScriptSource | None = None,
        *,
        pace: Pace | None = None,
        faults: FaultSource = None,
        port: int = 0,
        seed: int = 0,
        limits: Limits | None = None,
        batches: Batches | None = None,
    ) -> None:
        self.stats = SimulatorStats()
        self._router = Router(script, faults, batches)
        self._pace = pace or Pace()
        self._asked_port = port
        self._seed = seed
        self._limits = limits or Limits()
        self._requests: list[RecordedRequest] = []
        self._connections: set[Connection] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._server: asyncio.Server | None = None
        self._started_at = 0.0

    @property
    def port(self) -> int:
        """The port that it listens on.

        Raises:
            RuntimeError: It does not run.
        """
        if self._server is None or not self._server.sockets:
            raise RuntimeError("the simulator does not run: use it in an `async with` block, or start_in_thread()")
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def base_url(self) -> str:
        """What clients take as the base URL of an OpenAI-compatible host."""
        return f"{self.url}/v1"

    @property
    def url(self) -> str:
        """What clients of the other APIs take as the base URL: the root of the server."""
        return f"http://{_HOST}:{self.port}"

    @property
    def requests(self) -> list[RecordedRequest]:
        """The requests so far, in order; of more than 10,000 the last ones."""
        return list(self._requests)

    @property
    def open_connections(self) -> int:
        """How many clients are connected now."""
        return len(self._connections)

    def start_in_thread(self) -> SimulatorThread:
        """Start it on a loop of its own: `with Simulator().start_in_thread() as sim`."""
        return SimulatorThread(self)

    async def serve_forever(self) -> None:
        """Serve until cancelled; starts it where it does not run yet."""
        if self._server is None:
            async with self:
                await asyncio.Event().wait()
        await asyncio.Event().wait()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._protocol, _HOST, self._asked_port, backlog=4096)
        self._started_at = loop.time()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        connections, tasks = list(self._connections), list(self._tasks)
        for connection in connections:
            connection.abort()  # wakes its task, whatever it waits for
        await asyncio.gather(*tasks, return_exceptions=True)
        for connection in connections:
            # A transport closes its socket one turn of the loop after it was told to.
            with contextlib.suppress(OSError):
                await connection.writer.wait_closed()
        await server.wait_closed()

    def _protocol(self) -> asyncio.StreamReaderProtocol:
        reader = WatchedReader(limit=self._limits.header_bytes)
        return asyncio.StreamReaderProtocol(reader, self._accept)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine runs in one
        assert isinstance(reader, WatchedReader)  # noqa: S101 - made by _protocol
        self._tasks.add(task)
        self.stats.connections += 1
        connection = Connection(self.stats.connections, reader, writer)
        self._connections.add(connection)
        self.stats.most_open = max(self.stats.most_open, self.open_connections)
        try:
            while await self._exchange(connection):
                pass
            await connection.close()
        except (ClientLeftError, OSError):
            pass  # counted where it happened
        except asyncio.CancelledError:
            # The loop itself ends. asyncio 3.11 would report the cancellation of a connection's task as a failure.
            pass
        finally:
            connection.abort()
            self._connections.discard(connection)
            self._tasks.discard(task)

    async def _exchange(self, connection: Connection) -> bool:
        """Answer one request; return whether another one may follow on the connection."""
        port = self.port
        try:
            request = await read_request(connection.reader, connection.writer, self._limits)
        except HttpError as error:
            return await connection.play(self._router.plan_refusal(error, port=port), iter(()))
        if request is None or connection.is_doomed:
            return False
        number = self.stats.requests + 1
        plan, fault = self._router.plan(request, number=number, port=port)
        self._record(request, connection, fault)
        rng = random.Random(f"{self._seed}:{number}")  # noqa: S311 - to be repeatable, not secret
        is_through = False
        try:
            can_go_on = await connection.play(plan, self._pace.pauses(rng))
            is_through = True
        finally:
            self.stats.completed += is_through
            self.stats.aborted += not is_through
        return can_go_on and request.keeps_alive

    def _record(self, request: Request, connection: Connection, fault: Fault | None) -> None:
        self.stats.requests += 1
        if fault is not None:
            self.stats.faults[fault.name] += 1
        recorded = RecordedRequest(
            method=request.method,
            path=request.path,
            headers={name: _masked(name, value) for name, value in request.headers.items()},
            json=_maybe_json(request.body),
            connection=connection.number,
            at_s=asyncio.get_running_loop().time() - self._started_at,
            fault=None if fault is None else fault.name,
        )
        self._requests.append(recorded)
        del self._requests[:-_MOST_RECORDED]


def _masked(name: str, value: str) -> str:
    if name not in _SECRET_HEADERS:
        return value
    scheme, blank, _ = value.rpartition(" ")
    return f"{scheme}{blank}...{value[-4:]}"


def _maybe_json(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
