"""The server: it accepts connections, reads requests and plays the planned answers."""

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
from lm_deluge.simulator.connection import ClientDisconnectedError, Connection, WatchedReader
from lm_deluge.simulator.faults.catalog import Fault, FaultSource
from lm_deluge.simulator.http import HttpError, Limits, Request, read_request
from lm_deluge.simulator.pace import Pace
from lm_deluge.simulator.router import Router
from lm_deluge.simulator.script import ScriptSource
from lm_deluge.simulator.thread import ServerThread

__all__ = ["RecordedRequest", "Simulator", "SimulatorStats", "SimulatorThread"]

_HOST = "127.0.0.1"
_SECRET_HEADERS = ("authorization", "api-key", "x-api-key", "x-goog-api-key", "cookie")
_MOST_RECORDED = 10_000  # enough to inspect a long test run; the memory of a server without end stays bounded


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """A request that the simulator received.

    Attributes:
        headers: Header values by name in lower case; of credentials only the last four characters are kept.
        json: The parsed body, or None if the body is not JSON.
        connection: Number of the connection, counted from 1.
        at_s: Seconds from the start of the simulator to the request.
        fault: Name of the fault in the answer, or None.
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
    """Counters since the start of the simulator.

    Attributes:
        connections: Connections that clients have opened.
        most_open: The largest number of connections open at the same time.
        requests: Requests that were parsed without an error.
        completed: Answers that were sent as planned, including answers with a fault.
        aborted: Answers whose client disconnected before the end.
        faults: Number of answers with each fault, by its name.
    """

    connections: int = 0
    most_open: int = 0
    requests: int = 0
    completed: int = 0
    aborted: int = 0
    faults: Counter[str] = field(default_factory=Counter)


class Simulator:
    """A server on 127.0.0.1 that speaks the wire APIs. It reads no environment variables and reaches no network.

    As an async context manager the server runs for the length of the block; the end of the block ends every stream.
    `start_in_thread` is for code without an event loop.

        async with Simulator("Hello.", faults=["status_429"]) as simulator:
            client = LLMClient("gpt-5.4", base_url=simulator.base_url)

    Args:
        script: The answers: a text, a `Script`, a list of both (used in turn, the last item repeats), a function of
            the parsed request, or a mapping from model names. The default is an answer generated from the request.
            If a function raises an `APIError`, the error is the answer. A request whose answer is replaced by a
            fault does not take an item from the list.
        pace: How fast the tokens of a stream are sent; by default as fast as possible.
        faults: One fault for every request, or a list with one item per request. A request may choose its own fault:
            with the header `x-simulator-fault`, the model `simulator/FAULT` or the query parameter `fault`.
        port: The port to listen on; 0 takes any free port.
        seed: Seed of the jitter: with the same seed, the same requests in the same order have the same pauses.
        limits: Size and time limits of a request.
        batches: How batches proceed and end; by default a batch has ended at the first poll.
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
        self._requested_port = port
        self._seed = seed
        self._limits = limits or Limits()
        self._requests: list[RecordedRequest] = []
        self._connections: set[Connection] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._server: asyncio.Server | None = None
        self._started_at = 0.0

    @property
    def port(self) -> int:
        """The port that the simulator listens on.

        Raises:
            RuntimeError: The simulator is not running.
        """
        if self._server is None or not self._server.sockets:
            raise RuntimeError("the simulator is not running: use it in an `async with` block, or start_in_thread()")
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def base_url(self) -> str:
        """The base URL for clients of OpenAI-compatible APIs, with the path `/v1`."""
        return f"{self.url}/v1"

    @property
    def url(self) -> str:
        """The base URL for clients of the other APIs: the root of the server, without a path."""
        return f"http://{_HOST}:{self.port}"

    @property
    def requests(self) -> list[RecordedRequest]:
        """The last 10,000 requests, in the order of their arrival."""
        return list(self._requests)

    @property
    def open_connections(self) -> int:
        """The number of connections that are open now."""
        return len(self._connections)

    def start_in_thread(self) -> SimulatorThread:
        """Start the simulator in a thread with its own event loop: `with Simulator().start_in_thread() as sim`.

        Raises:
            OSError: The simulator cannot listen on its port.
        """
        return SimulatorThread(self)

    async def serve_forever(self) -> None:
        """Serve until the task is cancelled; start the simulator first if it is not running."""
        if self._server is None:
            async with self:
                await asyncio.Event().wait()
        await asyncio.Event().wait()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._protocol, _HOST, self._requested_port, backlog=4096)
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
            connection.abort()  # wakes the task of the connection, which may be in a pause or in a read
        await asyncio.gather(*tasks, return_exceptions=True)
        for connection in connections:
            # `abort` only schedules the closing of the socket, for the next iteration of the event loop.
            with contextlib.suppress(OSError):
                await connection.writer.wait_closed()
        await server.wait_closed()

    def _protocol(self) -> asyncio.StreamReaderProtocol:
        reader = WatchedReader(limit=self._limits.header_bytes)
        return asyncio.StreamReaderProtocol(reader, self._accept)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a running coroutine has a task
        assert isinstance(reader, WatchedReader)  # noqa: S101 - `_protocol` creates the reader
        if self._server is None:  # the connection was made while the server was closing
            writer.transport.abort()
            return
        self._tasks.add(task)
        self.stats.connections += 1
        connection = Connection(self.stats.connections, reader, writer)
        self._connections.add(connection)
        self.stats.most_open = max(self.stats.most_open, self.open_connections)
        try:
            while await self._exchange(connection):
                pass
            await connection.close()
        except (ClientDisconnectedError, OSError):
            pass  # `_exchange` has counted the answer as aborted
        except asyncio.CancelledError:
            # The event loop is shutting down. asyncio 3.11 reports a cancelled connection task as an unhandled error.
            pass
        finally:
            connection.abort()
            self._connections.discard(connection)
            self._tasks.discard(task)

    async def _exchange(self, connection: Connection) -> bool:
        """Answer one request; return whether the connection stays open for another request."""
        port = self.port
        try:
            request = await read_request(connection.reader, connection.writer, self._limits)
        except HttpError as error:
            return await connection.play(self._router.plan_http_error(error, port=port), iter(()))
        if request is None or connection.closes_on_next_request:
            return False
        number = self.stats.requests + 1
        plan, fault = self._router.plan(request, number=number, port=port)
        self._record(request, connection, fault)
        rng = random.Random(f"{self._seed}:{number}")  # noqa: S311 - repeatable pauses, not secrets
        is_complete = False
        try:
            is_reusable = await connection.play(plan, self._pace.pauses(rng))
            is_complete = True
        finally:
            self.stats.completed += is_complete
            self.stats.aborted += not is_complete
        return is_reusable and request.keeps_alive

    def _record(self, request: Request, connection: Connection, fault: Fault | None) -> None:
        self.stats.requests += 1
        if fault is not None:
            self.stats.faults[fault.name] += 1
        recorded = RecordedRequest(
            method=request.method,
            path=request.path,
            headers={name: _masked(name, value) for name, value in request.headers.items()},
            json=_json_or_none(request.body),
            connection=connection.number,
            at_s=asyncio.get_running_loop().time() - self._started_at,
            fault=None if fault is None else fault.name,
        )
        self._requests.append(recorded)
        del self._requests[:-_MOST_RECORDED]


class SimulatorThread(ServerThread[Simulator]):
    """A simulator that runs in a thread, from construction until `stop` or the end of the `with` block.

    Raises:
        OSError: The simulator cannot listen on its port.
    """

    @property
    def simulator(self) -> Simulator:
        """The simulator that runs in the thread."""
        return self._server


def _masked(name: str, value: str) -> str:
    if name not in _SECRET_HEADERS:
        return value
    scheme, space, _ = value.rpartition(" ")
    return f"{scheme}{space}...{value[-4:]}"


def _json_or_none(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
