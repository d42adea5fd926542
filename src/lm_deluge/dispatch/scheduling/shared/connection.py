"""The connection to the server of a shared limiter: the only file that knows redis-py."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from lm_deluge.dispatch.scheduling.shared.script import LimiterScript, load_script
from lm_deluge.errors import ConfigurationError, ConnectError, DispatchError
from lm_deluge.extras import install_hint

__all__ = ["Address", "ScriptConnection", "parse_address", "with_defaults"]

_CONNECT_S = 5.0  # the same for every connection; the limit of the whole exchange is the caller's
_MOST_STEPS = 5  # the script sent as text, and moves of a key in a cluster: more are a cluster that is being rebuilt
_LONGEST_CODE = 20  # of a reply: https://redis.io/docs/latest/develop/reference/protocol-spec/#simple-errors
_REASONS = {
    "AuthenticationError": "it does not accept the user name and password",
    "BusyLoadingError": "it is loading its data",
    "ClusterCrossSlotError": "the limits of this client are at several nodes of a cluster",
    "ClusterDownError": "its cluster is down",
    "MasterDownError": "it is a replica without its master",
    "NoPermissionError": "this user may not run the script",
    "OutOfMemoryError": "its memory is full",
    "ReadOnlyError": "it is a read-only replica",
    "TimeoutError": "no answer in time",
}
"""Plain words for the exceptions of redis-py, of which old versions lack some."""


class _Node(NamedTuple):
    """A node of a cluster."""

    host: str
    port: int


class Address:
    """Where the server is.

    Attributes:
        url: Its URL without our own options.
        processes: How many processes share the limits, before the server shows it.
        scope: Name of the limits over all models; users with other names have limits of their own. Empty: no name.
        shown: The URL without the user's name and password, for messages.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.fragment or (parts.scheme != "unix" and "@" in f"{parts.path}{parts.query}"):
            # Else a part of the password would be shown as a part of the address.
            raise ConfigurationError(
                "the URL of the limiter has a character in its user name or password that ends them",
                hint="Write / ? # @ and : in them as %2F %3F %23 %40 and %3A.",
            )
        options = dict(parse_qsl(parts.query))
        named = options.pop("processes", "1")
        if not (named.isascii() and named.isdecimal() and int(named) > 0):
            raise ConfigurationError("processes=... in the URL of the limiter is not a number above 0")
        self.processes = int(named)
        self.scope = options.pop("scope", "")
        self.url = urlunsplit(parts._replace(query=urlencode(options)))
        self.shown = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def with_defaults(url: str, **options: str | int) -> str:
    """Return the URL with options of ours, such as `scope` and `processes`, unless it names them already."""
    parts = urlsplit(url)
    given = dict(parse_qsl(parts.query))
    return urlunsplit(parts._replace(query=urlencode({**options, **given})))


def parse_address(url: str) -> Address:
    """Return the address of a server.

    Raises:
        ConfigurationError: It is no URL of a server, or redis-py is not installed.
    """
    address = Address(url)
    _new_connection(address.url)
    return address


def _new_connection(url: str, node: _Node | None = None) -> Any:
    """Return a connection to the server of a URL, or to another node of its cluster, that is not open yet."""
    try:
        from redis.asyncio import ConnectionPool
        from redis.exceptions import RedisError
    except ImportError as error:
        raise ConfigurationError('limiter="redis://..." needs the package redis', hint=install_hint("redis")) from error
    try:
        # RESP2, which all servers know: RESP3 announces itself with one more round trip, and nothing here needs it.
        pool: Any = ConnectionPool.from_url(
            url, protocol=2, socket_timeout=None, socket_connect_timeout=_CONNECT_S, client_name="lm-deluge"
        )
        if node is not None:
            pool.connection_kwargs.update(host=node.host, port=node.port)
        return pool.make_connection()
    except (ValueError, TypeError, RedisError):  # its message may quote the URL
        raise ConfigurationError(
            "the URL of the limiter is invalid", hint='Write "redis://127.0.0.1:6379/0", rediss://... or unix://...'
        ) from None


class ScriptConnection:
    """The connections of one event loop, over which scripts run: one, or one to each node of a cluster that is needed.

    They are opened on first use.

    Args:
        address: The server.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._connections: dict[_Node | None, Any] = {}
        self._closers: list[AsyncGenerator[None, None]] = []
        self._nodes: dict[str, _Node] = {}  # of a cluster, by the keys that they have

    async def run(
        self,
        keys: tuple[str, ...],
        arguments: tuple[bytes, bytes],
        timeout_s: float,
        *,
        script: LimiterScript | None = None,
    ) -> bytes:
        """Run a script, by default that of the limiter, and return its reply.

        Raises:
            ConnectError: The server cannot be reached, or does not answer in time.
            DispatchError: The server refuses: a wrong password, a database that is read-only.
        """
        from redis.exceptions import AuthenticationError, RedisError, ResponseError

        try:
            async with asyncio.timeout(timeout_s):
                return await self._run(script or load_script(), keys, arguments)
        except (AuthenticationError, ResponseError) as error:
            await self.close()
            raise DispatchError(
                f"the server of the limiter at {self._address.shown} refuses: {_reason(error)}"
            ) from None
        except (RedisError, OSError) as error:  # a timeout is an OSError
            await self.close()
            problem = f"the server of the limiter at {self._address.shown} cannot be reached: {_reason(error)}"
            raise ConnectError(problem) from None
        except BaseException:
            await self.close()  # the reply would be read as that of the next request
            raise

    async def _run(self, script: LimiterScript, keys: tuple[str, ...], arguments: tuple[bytes, bytes]) -> bytes:
        from redis.exceptions import MovedError, NoScriptError

        command: str = "EVALSHA"
        text: str | bytes = script.sha1
        for _ in range(_MOST_STEPS):
            try:
                return await self._send(command, text, keys, arguments)
            except NoScriptError:
                command, text = "EVAL", script.text
            except MovedError as moved:
                self._nodes[keys[0]] = _Node(moved.host, moved.port)
        raise DispatchError(f"the nodes of the cluster at {self._address.shown} do not agree where a key is")

    async def _send(
        self, command: str, script: str | bytes, keys: tuple[str, ...], arguments: tuple[bytes, bytes]
    ) -> bytes:
        node = self._nodes.get(keys[0])
        connection = self._connections.get(node)
        if connection is None:
            connection = self._connections[node] = _new_connection(self._address.url, node)
            await connection.connect()
            closer = _close_with_loop(connection)
            self._closers.append(closer)
            await anext(closer)
        packed = connection.pack_command(command, script, len(keys), *keys, *arguments)
        await connection.send_packed_command(packed, check_health=False)
        reply = await connection.read_response(disable_decoding=True)
        return reply if isinstance(reply, bytes) else b""

    async def close(self) -> None:
        """Close the connections at once; a later use opens others."""
        connections = list(self._connections.values())
        self._connections.clear()
        self._closers.clear()
        self._nodes.clear()
        for connection in connections:
            _close_now(connection)


def _reason(error: BaseException) -> str:
    """Return why the server does not serve. Its text may quote the script or a key; a code at its start does not."""
    cause: BaseException | None = error
    while cause is not None:
        if type(cause).__module__ == "ssl":
            problem = getattr(cause, "verify_message", "") or getattr(cause, "reason", "") or type(cause).__name__
            return f"TLS fails ({problem.rstrip('.')})"
        cause = cause.__cause__ or cause.__context__
    name = type(error).__name__
    code = getattr(error, "status_code", None) or str(error).split(" ", 1)[0]
    return _REASONS.get(name) or (code if code.isupper() and len(code) <= _LONGEST_CODE else name)


async def _close_with_loop(connection: Any) -> AsyncGenerator[None, None]:
    """Close the connection when the event loop shuts its asynchronous generators down, before it closes itself."""
    try:
        yield
    finally:
        _close_now(connection)


def _close_now(connection: Any) -> None:
    writer, connection._writer, connection._reader = connection._writer, None, None  # noqa: SLF001 - no other way without a wait
    if writer is not None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            writer.transport.abort()
