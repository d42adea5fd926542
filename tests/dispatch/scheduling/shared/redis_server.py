"""A Redis server on a loopback port, started by the tests, and a limiter that asks it at once."""

from __future__ import annotations

import atexit
import functools
import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import redis

from installed import need
from lm_deluge.dispatch.scheduling.limiter import Limit, Observation, ReservationRequest, Ticket
from lm_deluge.dispatch.scheduling.shared.configuration import GroupLimits, SharedConfiguration, state_key
from lm_deluge.dispatch.scheduling.shared.limiter import SharedLimiter
from lm_deluge.dispatch.scheduling.shared.script import load_script
from lm_deluge.usage import Usage

EXECUTABLE = os.environ.get("DELUGE_REDIS_SERVER") or shutil.which("redis-server") or shutil.which("valkey-server")
"""The variable names another one: both are supported, in several versions."""
RETRY_S = 0.5
START_S = 20.0  # a server starts within 0.1 s; the machine of the tests may be busy
_numbers = itertools.count(1)


def free_port() -> int:
    """Return a free port; the one 10,000 above it exists, too, which the nodes of a cluster use."""
    while True:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = int(free.getsockname()[1])
        if port + 10_000 < 65_536:
            return port


class RedisServer:
    """A server process without files that last. `options`: further ones of its command line."""

    def __init__(self, *options: str) -> None:
        self.options = options
        self.folder = tempfile.mkdtemp(prefix="deluge-redis-")
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        assert EXECUTABLE is not None
        command = [EXECUTABLE, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        command += ["--dir", self.folder, "--unixsocket", str(Path(self.folder) / "redis.sock")]
        command += self.options
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603 - our own command
        give_up_at = time.monotonic() + START_S
        while True:
            try:
                with redis.Redis(port=self.port) as client:
                    client.ping()
            except redis.ConnectionError:
                assert self.process.poll() is None, "redis-server ended"
                assert time.monotonic() < give_up_at, "redis-server does not answer"
                time.sleep(0.02)
            else:
                return

    def kill(self) -> None:
        """End the server at once; what it knew is lost."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def pause(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


@functools.cache
def server_of_tests() -> RedisServer:
    """Return the server that all tests of this process share; it is closed with the process."""
    server = RedisServer()
    atexit.register(server.close)
    return server


def need_redis() -> None:
    """Skip the test where there is no server; fail if `DELUGE_REQUIRE` has `redis`."""
    need("redis", found=EXECUTABLE is not None, how="install the package redis-server or valkey-server")


TIMED = load_script().text.replace(b"redis.call('TIME')", b"{ ARGV[3], 0 }")
"""The script with a clock that the test sets; everything else is as it runs in production."""


class AskedAtOnce:
    """A shared limiter that exchanges with a real server whenever that is due, by a clock of the test's own.

    The server's clock is `ahead_s` ahead of the process's.
    """

    def __init__(self, limiter: SharedLimiter, run: Callable[..., Any], ahead_s: float = 1_764_000_000.25) -> None:
        self.limiter = limiter
        self.ahead_s = ahead_s
        self._run = run
        self.exchanges = 0
        self.is_down = False
        self.retry_at = 0.0

    def exchange(self, now: float, *, leaves: bool = False) -> None:
        if now < self.retry_at:
            return
        if self.is_down:  # as `link.py` does it
            self.limiter.fail_exchange(self.limiter.begin_exchange(now, age_s=1.0))
            self.limiter.use_share(now)
            self.retry_at = now + RETRY_S
            return
        for _ in range(4):  # it joins again where the server has forgotten it
            exchange = self.limiter.begin_exchange(now, age_s=1.0, leaves=leaves)
            clock = f"{now + self.ahead_s:.6f}"
            reply = self._run(keys=exchange.keys, args=[*exchange.arguments, clock])
            self.exchanges += 1
            self.limiter.end_exchange(exchange, reply, now)
            if self.limiter.next_exchange_at(now) > now:
                return

    @property
    def has_room(self) -> bool:
        return self.limiter.has_room

    def reserve(self, request: ReservationRequest, now: float, *, before: Ticket | None = None) -> Ticket | None:
        ticket = self.limiter.reserve(request, now, before=before)
        if ticket is None or ticket.at < float("inf"):
            return ticket
        self.exchange(now)
        ticket = self.limiter.advance(ticket, now)
        if ticket.at == float("inf"):
            self.limiter.release(ticket, now, was_sent=False)
            return None
        return ticket

    def advance(self, ticket: Ticket, now: float) -> Ticket:
        ticket = self.limiter.advance(ticket, now)
        if ticket.at < float("inf"):
            return ticket
        self.exchange(now)  # a slot that came too late was given up
        return self.limiter.advance(ticket, now)

    def check(self, request: ReservationRequest) -> None:
        self.limiter.check(request)

    def earliest(self, request: ReservationRequest, now: float) -> float:
        self.exchange(now)
        return self.limiter.earliest(request, now)

    def opens_at(self, model: str, key: str, now: float) -> float:
        return self.limiter.opens_at(model, key, now)

    def limited_by(self, now: float) -> str | None:
        return self.limiter.limited_by(now)

    def settle(self, ticket: Ticket, usage: Usage, now: float) -> None:
        self.limiter.settle(ticket, usage, now)

    def release(self, ticket: Ticket, now: float, *, was_sent: bool = True, delivered: Usage | None = None) -> None:
        self.limiter.release(ticket, now, was_sent=was_sent, delivered=delivered)

    def observe(self, observation: Observation, now: float) -> None:
        self.limiter.observe(observation, now)
        if self.limiter.next_exchange_at(now) <= now:
            self.exchange(now)


@functools.cache
def timed_script(server: RedisServer) -> Callable[..., Any]:
    """Return the script with a clock of the test's own, as a function of keys and arguments."""
    return redis.Redis(port=server.port).register_script(TIMED)


def configuration_of(
    client: Sequence[Limit], route: Sequence[Limit], places: int | None, name: str | None = None
) -> SharedConfiguration:
    found = SharedConfiguration(state_key([name or f"test {next(_numbers)}"]), GroupLimits(client, places))
    found.add("m", "", GroupLimits(route))
    return found


def shared(
    run: Callable[..., Any],
    client: Sequence[Limit] = (),
    route: Sequence[Limit] = (),
    places: int | None = None,
    *,
    state: str | None = None,
    process: str | None = None,
) -> AskedAtOnce:
    limiter = SharedLimiter(configuration_of(client, route, places, state), process or f"process {next(_numbers)}")
    limiter.waiting = lambda: 0
    return AskedAtOnce(limiter, run)
