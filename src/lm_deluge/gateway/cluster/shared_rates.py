"""The rate limits of keys for all processes that serve them, counted by a Redis or Valkey server."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import Any

import msgspec

from lm_deluge.dispatch.scheduling.shared.connection import Address, ScriptConnection
from lm_deluge.dispatch.scheduling.shared.script import LimiterScript
from lm_deluge.errors import ConnectError, DelugeError, DispatchError, RateLimitError
from lm_deluge.gateway.dialects import KeyLimit
from lm_deluge.gateway.ledger.keys import GatewayKey, KeyRules
from lm_deluge.gateway.ledger.rates import WINDOW_S, KeyRates, limit_reached
from lm_deluge.gateway.rate_limits import KeyPermit

__all__ = ["SharedRates"]

_RENEWED_EACH_S = 5.0  # leases of running calls end after three of these, see `key_rates.lua`
_RETRY_S = 0.5  # between two attempts to reach the server, as in the limiter of the providers' limits
_TIMEOUT_S = 3.0  # the same limiter's: a server nearby answers in milliseconds, but a busy machine may be late
_QUICK_S = 0.5  # an error that comes so soon is a connection that the server closed while it was idle: try again
_NAME_BYTES = 8  # random: no two processes have the same name
_MARK = LimiterScript.of(
    b"local was = redis.call('EXISTS', KEYS[1]) redis.call('SET', KEYS[1], 1, 'EX', 3600) return tostring(was)"
)
"""Leaves a mark of this process on the server, and returns whether it was there: else the server has lost its data."""

logger = logging.getLogger("lm_deluge.gateway")
_encode = msgspec.json.Encoder().encode


@cache
def load_rates_script() -> LimiterScript:
    """Return the script that counts."""
    return LimiterScript.of(files("lm_deluge.gateway.cluster").joinpath("key_rates.lua").read_bytes())


class _Call(msgspec.Struct, eq=False):
    """A call of this process. `is_reported`: whether the server knows its present state."""

    id: str
    started_at: float
    tokens: int
    runs: bool = True
    is_reported: bool = False


class _KeyUse:
    """What this process knows of a key: its own calls, which it reports, and counts while the server is away."""

    def __init__(self, key: GatewayKey) -> None:
        self.rules = key.rules
        self.names = tuple(f"{{deluge:key:{key.id}}}:{part}" for part in ("window", "tokens", "sums", "running"))
        self.own = KeyRates(key.rules)
        self.calls: dict[str, _Call] = {}

    def unreported(self) -> list[_Call]:
        return [call for call in self.calls.values() if not call.is_reported]

    def forget(self, now: float) -> None:
        """Forget calls that no limit counts any more."""
        self.calls = {
            name: call
            for name, call in self.calls.items()
            if call.runs or not call.is_reported or now - call.started_at < WINDOW_S
        }


class SharedRates:
    """RateLimits of all processes that use the same server.

    While the server cannot be reached, each process uses its share of the limits: an equal part for each process that
    serves these keys. The share counts the calls before the outage, too, and applies for a minute after it, until
    everything that happened meanwhile is out of the window. So nothing comes twice.

    Args:
        address: The server.
        processes: Returns how many processes serve these keys.
        clock: Returns the time in seconds.
    """

    def __init__(
        self, address: Address, processes: Callable[[], int], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._address = address
        self._processes = processes
        self._clock = clock
        self._connection = ScriptConnection(address)
        self._mark = f"deluge:gateway:{secrets.token_hex(_NAME_BYTES)}"
        self._lock = asyncio.Lock()
        self._uses: dict[str, _KeyUse] = {}
        self._is_known = False  # whether the mark was ever set
        self._is_connected = False
        self._is_lost = False
        self._shares_until = -float("inf")
        self._work = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    async def begin(self, key: GatewayKey, call_id: str, tokens: int) -> KeyPermit:
        """Return the place of a call.

        Raises:
            RateLimitError: A limit of the key is reached.
        """
        use = self._uses.get(key.id)
        if use is None:
            use = self._uses[key.id] = _KeyUse(key)
        if not _limits_of(use.rules):
            return _SharedPermit(self, use, None, None, [])
        if self._keeper is None:
            self._keeper = asyncio.get_running_loop().create_task(self._keep())
        call = _Call(call_id, self._clock(), tokens)
        async with self._lock:  # so that no other call begins between the check and the note of this one
            limits, entry = await self._admit(use, call)
        return _SharedPermit(self, use, call, entry, limits)

    async def _admit(self, use: _KeyUse, call: _Call) -> tuple[list[KeyLimit], list[float] | None]:
        """Note a call that may begin; return the limits after it, and the entry of its tokens."""
        try:
            reply = await self._exchange(use, call)
        except RateLimitError:
            raise
        except BaseException:  # the client left, and the server may have counted the call
            use.calls[call.id] = call
            self.end(call, 0)
            raise
        if reply is None:
            self._check_share(use, call)
        elif reply["kind"]:
            raise limit_reached(reply["kind"], _limits_of(use.rules)[reply["kind"]], reply["wait"])
        call.is_reported = reply is not None
        use.calls[call.id] = call
        entry = use.own.add(call.tokens, self._clock())
        return _shown(use, reply, self._clock()), entry

    def end(self, call: _Call, tokens: int) -> None:
        """Note the end of a call; the server gets to know it with the next exchange."""
        call.runs, call.tokens, call.is_reported = False, tokens, False
        self._work.set()

    def _check_share(self, use: _KeyUse, call: _Call) -> None:
        use.own.check(call.tokens, self._clock(), share=self._processes())

    async def close(self) -> None:
        """Report what is not reported yet, and disconnect."""
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
            self._keeper = None
        if not self._is_lost:
            await self._report()
        await self._connection.close()

    async def _exchange(self, use: _KeyUse, want: _Call | None = None) -> dict[str, Any] | None:
        """Report calls of a key, and ask for one; return the reply, None if the server is away. The lock is held.

        Raises:
            RateLimitError: The server was away lately, and the share of this process is used up.
        """
        if self._is_lost:
            return None
        began = time.monotonic()
        try:
            return await self._send(use, want)
        except ConnectError as error:
            self._is_connected = False
            if time.monotonic() - began > _QUICK_S:
                self._lose(error)
                return None
        except DispatchError as error:
            self._lose(error)
            return None
        try:
            return await self._send(use, want)
        except (ConnectError, DispatchError) as error:
            self._lose(error)
        return None

    async def _send(self, use: _KeyUse, want: _Call | None) -> dict[str, Any]:
        if not self._is_connected:
            await self._connect()
        if want is not None and self._clock() < self._shares_until:
            self._check_share(use, want)
        now, calls = self._clock(), use.unreported()
        request = {
            "calls": [(call.id, max(0.0, now - call.started_at), call.tokens, int(call.runs)) for call in calls],
            "limits": [-1 if limit is None else limit for limit in _all_limits(use.rules)],
        }
        if want is not None:
            request["want"] = (want.id, want.tokens)
        states = [(call, call.runs, call.tokens) for call in calls]
        reply = await self._connection.run(use.names, (_encode(request), b""), _TIMEOUT_S, script=load_rates_script())
        for call, runs, tokens in states:  # one may have ended meanwhile
            call.is_reported = (call.runs, call.tokens) == (runs, tokens)
        found: dict[str, Any] = msgspec.json.decode(reply)
        return found

    async def _connect(self) -> None:
        """Find out whether the server still knows what it knew; else report everything again."""
        was_there = await self._connection.run((self._mark,), (b"", b""), _TIMEOUT_S, script=_MARK)
        self._is_connected = True
        if was_there != b"1" and self._is_known:
            self._share_for_a_while()
            for use in self._uses.values():
                for call in use.calls.values():
                    call.is_reported = False
        self._is_known = True

    def _share_for_a_while(self) -> None:
        self._shares_until = self._clock() + WINDOW_S

    def _lose(self, error: DelugeError) -> None:
        if self._is_lost:
            return
        self._is_lost, self._is_connected = True, False
        self._work.set()
        share = self._processes()
        part = f"1/{share} of the limits of keys" if share > 1 else "the limits of keys alone"
        logger.warning("%s; this process uses %s until it is back", str(error).rstrip("."), part)

    # What happens beside the calls

    async def _keep(self) -> None:
        """Report the ends of calls, renew the leases of those that run, and look whether the server is back."""
        renewed_at = time.monotonic()
        while True:
            if self._is_lost:
                await asyncio.sleep(_RETRY_S)
                await self._return()
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_RENEWED_EACH_S):
                    await self._work.wait()
            self._work.clear()
            if time.monotonic() - renewed_at >= _RENEWED_EACH_S:
                renewed_at = time.monotonic()
                self._renew()
            await self._report()

    def _renew(self) -> None:
        self._is_connected = False  # the next exchange looks whether the server was emptied
        for use in self._uses.values():
            use.forget(self._clock())
            for call in use.calls.values():
                call.is_reported = call.is_reported and not call.runs

    async def _report(self) -> None:
        for use in list(self._uses.values()):
            if not self._is_lost and use.unreported():
                async with self._lock:
                    await self._exchange(use)

    async def _return(self) -> None:
        """Try to reach the server again."""
        async with self._lock:
            try:
                await self._connect()
            except DelugeError:
                return
            self._is_lost = False
            self._share_for_a_while()
        logger.warning("the server of the limiter at %s is back: limits of keys are shared again", self._address.shown)
        await self._report()


class _SharedPermit:
    def __init__(
        self,
        rates: SharedRates,
        use: _KeyUse,
        call: _Call | None,
        entry: list[float] | None,
        limits: list[KeyLimit],
    ) -> None:
        self._rates = rates
        self._use = use
        self._call = call
        self._entry = entry
        self.limits = limits

    def end(self, tokens: int) -> None:
        call, self._call = self._call, None
        if call is not None:
            self._use.own.end(self._entry, tokens)
            self._rates.end(call, tokens)


def _all_limits(rules: KeyRules) -> tuple[int | None, int | None, int | None]:
    return rules.requests_per_minute, rules.tokens_per_minute, rules.max_concurrent


def _limits_of(rules: KeyRules) -> dict[str, int]:
    named = zip(("requests", "tokens", "calls"), _all_limits(rules), strict=True)
    return {kind: limit for kind, limit in named if limit is not None}


def _shown(use: _KeyUse, reply: dict[str, Any] | None, now: float) -> list[KeyLimit]:
    """Return the limits for the headers, as the server has them; without it, those of this process."""
    if reply is None:
        return use.own.shown(now)
    limits = _limits_of(use.rules)
    return [
        KeyLimit(kind, limits[kind], max(0, limits[kind] - used), max(0.0, reply["reset"]))
        for kind, used in zip(("requests", "tokens"), reply["used"], strict=True)
        if kind in limits
    ]
