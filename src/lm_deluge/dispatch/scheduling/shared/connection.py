"""The connection to the server of a shared limiter: the only file that knows redis-py."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from lm_deluge.dispatch.scheduling.shared.script import LimiterScript, load_script
from lm_deluge.errors import ConfigurationError, ConnectError, DispatchError
from lm_deluge.extras import install_hint

__all__ = ["Address", "ScriptConnection", "parse_address", "scoped_address"]

_CONNECT_S = 5.0  # the same for every connection; the limit of the whole exchange is the caller's


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
        options = dict(parse_qsl(parts.query))
        named = options.pop("processes", "1")
        if not (named.isascii() and named.isdecimal() and int(named) > 0):
            raise ConfigurationError("processes=... in the URL of the limiter is not a number above 0")
        self.processes = int(named)
        self.scope = options.pop("scope", "")
        self.url = urlunsplit(parts._replace(query=urlencode(options)))
        self.shown = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def scoped_address(url: str, scope: str) -> str:
    """Return the URL for users whose limits over all models are theirs alone, unless it names a scope already."""
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query))
    return urlunsplit(parts._replace(query=urlencode({"scope": scope, **options})))


def parse_address(url: str) -> Address:
    """Return the address of a server.

    Raises:
        ConfigurationError: It is no URL of a server, or redis-py is not installed.
    """
    address = Address(url)
    _pool_of(address.url)
    return address


def _pool_of(url: str) -> Any:
    try:
        from redis.asyncio import ConnectionPool
    except ImportError as error:
        raise ConfigurationError('limiter="redis://..." needs the package redis', hint=install_hint("redis")) from error
    try:
        # RESP2, which all servers know: RESP3 announces itself with one more round trip, and nothing here needs it.
        return ConnectionPool.from_url(
            url, protocol=2, socket_timeout=None, socket_connect_timeout=_CONNECT_S, client_name="lm-deluge"
        )
    except (ValueError, TypeError) as error:
        raise ConfigurationError(
            "the URL of the limiter is invalid", hint='Write "redis://127.0.0.1:6379/0", rediss://... or unix://...'
        ) from error


class ScriptConnection:
    """One connection of one event loop, over which the script runs. It is opened on first use.

    Args:
        address: The server.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._connection: Any = None
        self._closer: AsyncGenerator[None, None] | None = None

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
        from redis.exceptions import AuthenticationError, NoScriptError, RedisError, ResponseError

        script = script or load_script()
        try:
            async with asyncio.timeout(timeout_s):
                try:
                    return await self._send("EVALSHA", script.sha1, keys, arguments)
                except NoScriptError:
                    return await self._send("EVAL", script.text, keys, arguments)
        except (AuthenticationError, ResponseError) as error:
            await self.close()
            # The server's text may quote the script or a key, but its first word is a code.
            code = str(error).split(" ", 1)[0][:40]
            raise DispatchError(f"the server of the limiter at {self._address.shown} refuses ({code})") from None
        except (RedisError, OSError) as error:  # a timeout is an OSError
            await self.close()
            raise ConnectError(
                f"the server of the limiter at {self._address.shown} cannot be reached ({type(error).__name__})"
            ) from None
        except BaseException:
            self._abort()  # the reply would be read as that of the next request
            raise

    async def _send(
        self, command: str, script: str | bytes, keys: tuple[str, ...], arguments: tuple[bytes, bytes]
    ) -> bytes:
        connection = self._connection
        if connection is None:
            connection = self._connection = _pool_of(self._address.url).make_connection()
            await connection.connect()
            self._closer = _close_with_loop(connection)
            await anext(self._closer)
        packed = connection.pack_command(command, script, len(keys), *keys, *arguments)
        await connection.send_packed_command(packed, check_health=False)
        reply = await connection.read_response(disable_decoding=True)
        return bytes(reply)

    def _abort(self) -> None:
        connection, self._connection = self._connection, None
        self._closer = None
        if connection is not None:
            _close_now(connection)

    async def close(self) -> None:
        """Close the connection; a later use opens another one."""
        self._abort()


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
