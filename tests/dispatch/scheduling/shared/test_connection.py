"""Connections to real servers: TLS, logins, clusters, and servers that refuse. None of them loses a call."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import redis

from dispatch.scheduling.shared.redis_server import RedisServer, free_port, need_redis
from dispatch.scheduling.shared.test_link import Process, messages
from lm_deluge.client.client import LLMClient
from lm_deluge.config import ClientOptions
from lm_deluge.dispatch.scheduling.shared import link as link_module
from lm_deluge.dispatch.scheduling.shared.connection import Address, ScriptConnection, parse_address, with_defaults
from lm_deluge.dispatch.scheduling.shared.script import LimiterScript
from lm_deluge.errors import ConfigurationError, ConnectError, DelugeError, DispatchError

TLS = Path(__file__).parents[3] / "transport" / "tls"
CERTIFICATE = str(TLS / "certificate.pem")
PASSWORD = "p/a?s#s@w:ord %"
GET = LimiterScript.of(b"return redis.call('GET', KEYS[1]) or 'nothing'")
SET = LimiterScript.of(b"redis.call('SET', KEYS[1], ARGV[1]) return 'set'")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "_RETRY_S", 0.02)
    monkeypatch.setattr(link_module, "_FIRST_TIMEOUT_S", 1.0)


@contextmanager
def started(*options: str) -> Iterator[RedisServer]:
    need_redis()
    server = RedisServer(*options)
    try:
        yield server
    finally:
        server.close()


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with started() as found:
        yield found


@pytest.fixture(scope="module")
def secure() -> Iterator[RedisServer]:
    port = free_port()
    files = ["--tls-cert-file", CERTIFICATE, "--tls-key-file", str(TLS / "key.pem"), "--tls-ca-cert-file", CERTIFICATE]
    with started("--tls-port", str(port), *files, "--tls-auth-clients", "no") as found:
        found.url = f"rediss://127.0.0.1:{port}/0"
        yield found


async def run_calls(url: str) -> Process:
    """Make calls; all of them are admitted, whatever the server does."""
    process = Process(url)
    await process.calls(3)
    await process.link.close()
    return process


async def test_tls(secure: RedisServer) -> None:
    process = await run_calls(f"{secure.url}?ssl_ca_certs={quote(CERTIFICATE)}")
    assert process.limiter.is_reachable


async def test_tls_with_a_certificate_that_is_not_trusted(
    secure: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    process = await run_calls(secure.url)
    assert not process.limiter.is_reachable
    (logged,) = messages(caplog)
    assert "TLS fails (self" in logged


async def test_tls_where_the_server_has_none(server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    process = await run_calls(server.url.replace("redis://", "rediss://"))
    assert not process.limiter.is_reachable
    assert "cannot be reached" in messages(caplog)[0]


async def test_no_tls_where_the_server_wants_it(secure: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    process = await run_calls(secure.url.replace("rediss://", "redis://"))
    assert not process.limiter.is_reachable
    assert len(messages(caplog)) == 1


@pytest.mark.parametrize(
    "query", ["?ssl_ca_certs=/no/such/file", "?ssl_ciphers=none", f"?ssl_ca_certs={quote(str(TLS / 'key.pem'))}"]
)
async def test_tls_settings_that_cannot_be_used(
    secure: RedisServer, query: str, caplog: pytest.LogCaptureFixture
) -> None:
    process = await run_calls(secure.url + query)
    assert not process.limiter.is_reachable
    assert "cannot be reached" in messages(caplog)[0]


def users_of(server: RedisServer) -> None:
    with redis.Redis(port=server.port) as client:
        client.acl_setuser(
            "deluge",
            enabled=True,
            passwords=[f"+{PASSWORD}"],
            keys=["{deluge:*"],
            commands=["-@all", "+evalsha", "+eval", "+time", "+get", "+set", "+select", "+client"],
        )
        client.acl_setuser("reader", enabled=True, passwords=["+r"], keys=["*"], commands=["-@all", "+get", "+select"])


async def test_the_user_of_the_documentation(server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    users_of(server)
    caplog.set_level(logging.DEBUG)
    url = server.url.replace("redis://", f"redis://deluge:{quote(PASSWORD, safe='')}@")
    process = await run_calls(url)
    assert process.limiter.is_reachable
    assert not any("p/a" in text or quote(PASSWORD, safe="") in text for text in messages(caplog))


@pytest.mark.parametrize(
    ("login", "reason"),
    [
        ("deluge:wrong-secret@", "does not accept the user name and password"),
        ("stranger:wrong-secret@", "does not accept the user name and password"),
        ("reader:r@", "this user may not run the script"),
    ],
)
async def test_a_login_that_does_not_do(
    server: RedisServer, login: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    users_of(server)
    caplog.set_level(logging.DEBUG)
    process = await run_calls(server.url.replace("redis://", f"redis://{login}"))
    await asyncio.sleep(0.1)  # further attempts
    assert not process.limiter.is_reachable
    (logged,) = messages(caplog)
    assert reason in logged
    assert not any(word in logged for word in ("wrong-secret", "stranger", "reader"))


def make_replica(server: RedisServer) -> None:
    with redis.Redis(port=server.port) as client:
        client.replicaof("127.0.0.1", 1)


def fill_memory(server: RedisServer) -> None:
    with redis.Redis(port=server.port) as client:
        client.config_set("maxmemory", "1")


@pytest.mark.parametrize(
    ("break_it", "reason"),
    [(make_replica, ("it is a read-only replica",)), (fill_memory, ("its memory is full", "refuses: ERR"))],
)
async def test_a_server_that_takes_no_changes(
    break_it: Callable[[RedisServer], None], reason: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    with started() as server:
        process = Process(server.url)
        await process.calls(3)
        break_it(server)
        await process.calls(5)
        await asyncio.sleep(0.1)
        await process.calls(5)
        assert not process.limiter.is_reachable
        (logged,) = messages(caplog)
        assert any(text in logged for text in reason)
        with redis.Redis(port=server.port) as client:
            client.replicaof("NO", "ONE")
            client.config_set("maxmemory", "0")
        await wait_until(lambda: process.limiter.is_reachable)
        await process.link.close()


async def wait_until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.01)


class Replies:
    """A server that answers each script with the same line, and all else with OK."""

    def __init__(self, reply: bytes) -> None:
        self.reply = reply

    async def __aenter__(self) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/0"

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readline():
                words = []
                for _ in range(int(head[1:])):
                    size = int((await reader.readline())[1:])
                    words.append((await reader.readexactly(size + 2))[:-2])
                writer.write(self.reply if words[0].startswith(b"EVAL") else b"+OK\r\n")
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (b"-LOADING Redis is loading the dataset in memory\r\n", "cannot be reached: it is loading its data"),
        (b"-READONLY You can't write against a read only replica.\r\n", "refuses: it is a read-only replica"),
        (b"-OOM command not allowed when used memory > 'maxmemory'.\r\n", "refuses: its memory is full"),
        (b"-NOSCRIPT No matching script. Please use EVAL.\r\n", "do not agree"),
        (b"-CLUSTERDOWN Hash slot not served\r\n", "refuses: its cluster is down"),
        (b"-CROSSSLOT Keys in request don't hash to the same slot\r\n", "at several nodes of a cluster"),
        (b"-MASTERDOWN Link with MASTER is down\r\n", "refuses: it is a replica without its master"),
        (b"-TRYAGAIN Multiple keys request during rehashing of slot\r\n", "refuses: TRYAGAIN"),
        (b"-ASK 3999 127.0.0.1:1\r\n", "refuses: ASK"),
        (b"-MOVED 3999 127.0.0.1:1\r\n", "cannot be reached: ConnectionError"),
        (b"-BUSY Redis is busy running a script.\r\n", "refuses: BUSY"),
        (b"-NOAUTH Authentication required.\r\n", "does not accept the user name and password"),
        (b"-ERR secret text of a script\r\n", "refuses: ERR;"),
        (b"-secret text\r\n", "refuses: ResponseError"),
        (b"$2\r\n{}\r\n", "something else than the script's reply"),
        (b"+OK\r\n", "something else than the script's reply"),
        (b":1\r\n", "something else than the script's reply"),
        (b"*1\r\n:1\r\n", "something else than the script's reply"),
        (b"$-1\r\n", "something else than the script's reply"),
        (b'$32\r\n{"now":"1.0","states":"nonsense"}\r\n', "something else than the script's reply"),
        (b'$23\r\n{"now":"1","states":[]}\r\n', "something else than the script's reply"),
        (b"?!\r\n", "cannot be reached: InvalidResponse"),
    ],
)
async def test_replies_that_are_none(reply: bytes, reason: str, caplog: pytest.LogCaptureFixture) -> None:
    async with Replies(reply) as url:
        process = await run_calls(url)
        await process.calls(3)
        assert not process.limiter.is_reachable
        (logged,) = messages(caplog)
        assert reason in logged
        assert "secret" not in logged
        await process.link.close()


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[RedisServer, RedisServer]]:
    """Two nodes, each of which has half of the slots."""
    with ExitStack() as stack:
        nodes = [stack.enter_context(started("--cluster-enabled", "yes")) for _ in range(2)]
        clients = [redis.Redis(port=node.port) for node in nodes]
        for client, slots in zip(clients, ((0, 8191), (8192, 16383)), strict=True):
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", *slots)
        clients[0].execute_command("CLUSTER", "MEET", "127.0.0.1", nodes[1].port)
        give_up_at = time.monotonic() + 30
        while any(b"cluster_state:ok" not in client.execute_command("CLUSTER", "INFO") for client in clients):
            assert time.monotonic() < give_up_at, "the nodes do not meet"
            time.sleep(0.05)
        for client in clients:
            client.close()
        yield nodes[0], nodes[1]


async def test_a_cluster(cluster: tuple[RedisServer, RedisServer], caplog: pytest.LogCaptureFixture) -> None:
    for node in cluster:  # one of them does not have the key
        process = await run_calls(node.url)
        assert process.limiter.is_reachable
    assert not messages(caplog)


async def test_keys_at_several_nodes_have_a_connection_each(cluster: tuple[RedisServer, RedisServer]) -> None:
    connection = ScriptConnection(parse_address(cluster[0].url))
    keys = [f"key {number}" for number in range(8)]
    for key in keys * 2:
        assert await connection.run((key,), (key.encode(), b""), 5.0, script=SET) == b"set"
    for key in keys:
        assert await connection.run((key,), (b"", b""), 5.0, script=GET) == key.encode()
    for node in cluster:
        with redis.Redis(port=node.port) as client:
            clients: Any = client.client_list()
            assert len([each for each in clients if each["name"] == "lm-deluge"]) == 1
    await connection.close()


async def test_errors_are_ours(server: RedisServer) -> None:
    broken = LimiterScript.of(b"return redis.call('INCR', 'text', 'secret')")
    connection = ScriptConnection(Address(server.url))
    with pytest.raises(DispatchError, match="refuses: ERR") as raised:
        await connection.run(("key",), (b"", b""), 5.0, script=broken)
    assert raised.value.__cause__ is None
    server.pause()
    try:
        with pytest.raises(ConnectError, match="no answer in time"):
            await connection.run(("key",), (b"", b""), 0.05, script=GET)
    finally:
        server.resume()
    assert await connection.run(("key",), (b"", b""), 5.0, script=GET) == b"nothing"
    await connection.close()


@pytest.mark.parametrize(
    "url",
    [
        "redis://:pa/ss@127.0.0.1:6379/0",
        "redis://:12/ss@127.0.0.1:6379/0",
        "redis://:pa?ss@127.0.0.1:6379/0",
        "redis://:pa#ss@127.0.0.1:6379/0",
        "redis://:ss@127.0.0.1:port/0",
        "redis://:ss@127.0.0.1:6379/0?no_such_option=1",
        "rediss://:ss@127.0.0.1:6379/0?ssl_cert_reqs=perhaps",
    ],
)
def test_a_url_that_cannot_be_used_is_not_quoted(url: str) -> None:
    with pytest.raises(ConfigurationError, match="the URL of the limiter") as raised:
        parse_address(url)
    chain: BaseException | None = raised.value
    while chain is not None:
        assert "ss@" not in str(chain)
        assert "pa" not in str(chain).replace("part", "").replace("password", "")
        chain = chain.__cause__
    assert raised.value.hint


def test_defaults_of_the_gateway_do_not_replace_what_is_named() -> None:
    assert with_defaults("redis://h/0?processes=8", processes=2, scope="a b") == "redis://h/0?processes=8&scope=a+b"
    address = Address("redis://u:p@h/0?scope=a+b&processes=8&db=3")
    assert (address.scope, address.processes, address.shown, address.url) == (
        "a b",
        8,
        "redis://h/0",
        "redis://u:p@h/0?db=3",
    )


async def test_a_client_shows_no_password(caplog: pytest.LogCaptureFixture) -> None:
    url = "redis://user:hidden-secret@127.0.0.1:1/0"
    assert "hidden-secret" not in repr(ClientOptions(limiter=url))
    async with LLMClient("simulator", limiter=url, progress="none") as client:
        assert "hidden-secret" not in repr(client.options)
        response = await client.stream("Hello", echo=None, max_new_tokens=4)
    assert response.completion
    assert not any("hidden-secret" in text for text in messages(caplog))
    assert isinstance(ConnectError("x"), DelugeError)
