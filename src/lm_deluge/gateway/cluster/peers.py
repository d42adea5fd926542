"""Streams that another process of the gateway holds: where they are, and requests to that process.

The process that runs a resumable stream registers it on the server of the limiter, with an address that only other
gateways use and a secret of its own. A request that reaches another process is passed on after its key was checked
there; the key itself is not passed on.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Mapping

import msgspec
from starlette.requests import Request

from lm_deluge.dispatch.scheduling.shared.connection import Address, ScriptConnection
from lm_deluge.dispatch.scheduling.shared.script import LimiterScript
from lm_deluge.errors import DelugeError, NotFoundError, OverloadedError, TransportError
from lm_deluge.gateway.ledger.ledger import machine_name
from lm_deluge.gateway.origin import is_loopback
from lm_deluge.transport.base import Exchange
from lm_deluge.transport.http import AiohttpTransport
from lm_deluge.wire.http import HttpRequest

__all__ = ["PEER_HEADER", "StreamHolder", "StreamPeers", "passed_headers"]

PEER_HEADER = "x-deluge-peer"
"""Header with the secret of the process that holds a stream."""
_SECRET_BYTES = 16  # 128 random bits, as the ids of streams
_TIMEOUT_S = 1.0  # the client waits for the start of its stream meanwhile; without the server it does not wait longer
_CONNECT_S = 5.0  # to another gateway of the same network
_PASSED = ("last-event-id", "accept")  # headers that decide what is sent
_NOT_PASSED = (
    "connection",
    "transfer-encoding",
    "keep-alive",
    "date",
    "server",
)  # of the connection, not of the response
_DIRECTORY = LimiterScript.of(
    b"if ARGV[1] == '' then return redis.call('GET', KEYS[1]) or '' end "
    b"redis.call('SET', KEYS[1], ARGV[1], 'EX', 86400) return ''"
)
"""Reads or writes an entry. It is kept for a day: answers take hours at most, and an entry has some 200 bytes."""


class StreamHolder(msgspec.Struct, frozen=True):
    """The process that holds a stream.

    Attributes:
        url: Its address for other gateways.
        secret: What a request to it has to know.
        machine: The machine that it runs on.
        owner: Name of the key that started the stream.
    """

    url: str
    secret: str
    machine: str
    owner: str


class StreamPeers:
    """The other processes of the gateway, as far as streams are concerned.

    Args:
        address: The server of the limiter.
        url: The address of this process for other gateways.

    Attributes:
        secret: What requests to this process have to know.
    """

    def __init__(self, address: Address, url: str) -> None:
        self._url = url
        self._address = address
        self._transport = AiohttpTransport()
        self.secret = secrets.token_hex(_SECRET_BYTES)

    async def announce(self, name: str, *, owner: str) -> None:
        """Let others know that this process holds a stream. While the server is away only this process knows it."""
        entry = msgspec.json.encode(StreamHolder(self._url, self.secret, machine_name(), owner))
        with contextlib.suppress(DelugeError):
            await self._run(name, entry)

    async def find(self, name: str) -> StreamHolder | None:
        """Return the process that holds a stream; None if no process does.

        Raises:
            OverloadedError: The server of the limiter cannot be reached.
        """
        try:
            found = await self._run(name, b"")
        except DelugeError as error:
            problem = "streams of other processes of this gateway cannot be found at present"
            raise OverloadedError(problem, status_code=503) from error
        return msgspec.json.decode(found, type=StreamHolder) if found else None

    async def _run(self, name: str, entry: bytes) -> bytes:
        # A connection for each use: these are rare, and may run at the same time.
        connection = ScriptConnection(self._address)
        try:
            return await connection.run((f"deluge:stream:{name}",), (entry, b""), _TIMEOUT_S, script=_DIRECTORY)
        finally:
            await connection.close()

    async def open(self, holder: StreamHolder, request: Request, path: str | None = None) -> Exchange:
        """Pass a request on to the process that holds its stream.

        Args:
            holder: The process.
            request: The request.
            path: The path there; None: that of the request.

        Raises:
            NotFoundError: The process has ended, or cannot be reached from here.
        """
        query = f"?{request.url.query}" if request.url.query else ""
        headers = {name: request.headers[name] for name in _PASSED if name in request.headers}
        return await self.send(holder, f"{path or request.url.path}{query}", method=request.method, headers=headers)

    async def send(
        self, holder: StreamHolder, target: str, *, method: str, headers: Mapping[str, str] | None = None
    ) -> Exchange:
        """Send a request without a body to the process that holds a stream.

        Raises:
            NotFoundError: The process has ended, or cannot be reached from here.
        """
        if holder.machine != machine_name() and is_loopback(holder.url.rpartition(":")[0].removeprefix("http://")):
            raise NotFoundError(
                "this stream is on another machine; set peer_host in [server] there to an address of that machine",
                status_code=404,
            )
        sent = HttpRequest(
            url=f"{holder.url}{target}",
            headers={**(headers or {}), PEER_HEADER: holder.secret},
            body=b"",
            method=method,
        )
        slot = await self._transport.connection_slot()
        try:
            exchange = await self._transport.open(sent, connect_timeout_s=_CONNECT_S, proxy=None)
        except TransportError as error:
            slot.give_back()
            problem = "the process of the gateway that held this stream has ended, or cannot be reached"
            raise NotFoundError(problem, status_code=404) from error
        except BaseException:
            slot.give_back()
            raise
        exchange.keep(slot)
        return exchange

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.close()


def passed_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers of a response that belong to it, not to its connection."""
    return {name: value for name, value in headers.items() if name not in _NOT_PASSED}
