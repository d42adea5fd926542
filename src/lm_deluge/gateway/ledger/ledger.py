"""The ledger: reservations before a call, settlements after it, sums for each day.

A reservation is one UPDATE with the budget in its condition: calls at the same time cannot spend the same money, also
if several servers run them. What was read before a change is locked: by SELECT FOR UPDATE, in SQLite by its only lock
for writing.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import secrets
import socket
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from lm_deluge.errors import ConfigurationError
from lm_deluge.gateway.ledger.database import Database
from lm_deluge.gateway.ledger.keys import GatewayKey, KeyRules, NewKey, insert_key, key_of_row, list_keys, revoke_key
from lm_deluge.gateway.ledger.tables import CALLS, DAYS, KEYS, SERVERS, SPENDS, dollars, nano_dollars

__all__ = ["SIGN_ON_S", "Ledger", "SettledCall", "SpendRow", "machine_name"]

_DAY_S = 86_400  # seconds of a day
SIGN_ON_S = 20.0  # so that a server is missed within a minute
_LOST_AFTER_S = 3 * SIGN_ON_S
_LONGEST_HOST = 255  # characters of the column


class SettledCall(NamedTuple):
    """What a call used."""

    answered_by: str = ""
    cost: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0
    status: int = 0


class SpendRow(NamedTuple):
    """A sum of the ledger; `group` has the values that it was grouped by."""

    group: tuple[str, ...]
    calls: int
    errors: int
    input_tokens: int
    output_tokens: int
    cost: float


class Ledger:
    """Keys and money in a database.

    Args:
        database: The database, which is open.

    Attributes:
        servers: How many processes serve the keys, as of the last look for lost calls.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._server = secrets.token_hex(8)
        self.servers = 1

    # Keys

    async def create_key(self, name: str, rules: KeyRules) -> NewKey:
        """Make a key; only the returned value has its text.

        Raises:
            ConfigurationError: There is a key with this name.
        """
        return await self._database.run(lambda connection: insert_key(connection, name, rules))

    async def keys(self) -> list[GatewayKey]:
        """Return all keys, the oldest first."""
        return await self._database.read(list_keys)

    async def revoke(self, name: str) -> bool:
        """Revoke the key of a name; return whether there is one that was valid."""
        return await self._database.run(lambda connection: revoke_key(connection, name))

    async def has_keys(self) -> bool:
        """Whether any key was ever created."""

        async def count(connection: AsyncConnection) -> bool:
            return (await connection.execute(select(KEYS.c.id).limit(1))).first() is not None

        return await self._database.read(count)

    async def find_key(self, digest: str) -> GatewayKey | None:
        """Return the key with a digest, None if there is none."""

        async def find(connection: AsyncConnection) -> GatewayKey | None:
            row = (await connection.execute(select(KEYS).where(KEYS.c.digest == digest))).mappings().first()
            return None if row is None else key_of_row(dict(row))

        return await self._database.read(find)

    # Money

    async def reserve(
        self, key: GatewayKey, call_id: str, model: str, cost: float, *, least: float = 0.0, now: float
    ) -> bool:
        """Reserve money for a call, and note the call; return whether the budget has it.

        Args:
            key: The key that pays.
            call_id: An id for the call.
            model: The name that the client asks for.
            cost: US dollars to reserve.
            least: US dollars that the call costs in any case, once it is sent: those of its prompt.
            now: The time, in seconds since 1970.
        """
        period, amount = key.period_at(now), nano_dollars(cost)
        row = {
            "id": call_id,
            "server": self._server,
            "key_id": key.id,
            "period": period,
            "model": model,
            "answered_by": "",
            "started_at": now,
            "reserved": amount,
            "state": "open",
            "cost": nano_dollars(least),
            "input_tokens": 0,
            "output_tokens": 0,
            "status": 0,
        }

        async def run(connection: AsyncConnection) -> bool:
            if not await _add_reserved(connection, key, period, amount):
                return False
            await connection.execute(insert(CALLS).values(**row))
            return True

        return await self._database.run(run, order=key.id, is_new=True)

    async def extend(self, key: GatewayKey, call_id: str, cost: float, *, now: float) -> bool:
        """Reserve more for a call that goes on; return whether the budget has it."""
        amount = nano_dollars(cost)

        async def run(connection: AsyncConnection) -> bool:
            statement = select(CALLS.c.period).where(CALLS.c.id == call_id, CALLS.c.state == "open").with_for_update()
            period = (await connection.execute(statement)).scalar()
            if period is None or not await _add_reserved(connection, key, period, amount):
                return False
            await connection.execute(
                update(CALLS).where(CALLS.c.id == call_id).values(reserved=CALLS.c.reserved + amount)
            )
            return True

        return await self._database.run(run, order=key.id)

    def note_cost(self, key: GatewayKey, call_id: str, cost: float) -> None:
        """Note what a running call has cost so far, for the case that the process ends without settling it."""

        async def run(connection: AsyncConnection) -> None:
            await connection.execute(
                update(CALLS).where(CALLS.c.id == call_id, CALLS.c.state == "open").values(cost=nano_dollars(cost))
            )

        self._database.post(run, order=key.id)

    async def settle(self, key: GatewayKey, call_id: str, settled: SettledCall) -> None:
        """Replace the reservation of a call by what it cost. A second time has no effect."""
        await self._database.run(lambda connection: _settle(connection, call_id, settled, "settled"), order=key.id)

    async def sign_on(self) -> None:
        """Note that this server runs; call it again every `SIGN_ON_S` seconds."""
        values = {"host": machine_name(), "process": os.getpid(), "seen_at": time.time()}

        async def run(connection: AsyncConnection) -> None:
            found = await connection.execute(update(SERVERS).where(SERVERS.c.id == self._server).values(**values))
            if not found.rowcount:
                await connection.execute(insert(SERVERS).values(id=self._server, **values))

        await self._database.run(run)

    async def settle_lost(self) -> int:
        """Settle the calls of servers that ended without settling them, at their last known cost; return their number.

        That cost is at most a second old. What the provider billed in that second cannot be known.
        """

        async def run(connection: AsyncConnection) -> int:
            rows = (await connection.execute(select(SERVERS))).all()
            servers = {self._server, *(row.id for row in rows if _runs(row))}
            statement = (
                select(CALLS.c.id, CALLS.c.server, CALLS.c.cost)
                .where(CALLS.c.state == "open")
                .order_by(CALLS.c.key_id)  # as the operations of other servers
            )
            lost = [row for row in (await connection.execute(statement)).all() if row.server not in servers]
            settled = [await _settle(connection, row.id, SettledCall(cost=dollars(row.cost)), "lost") for row in lost]
            await connection.execute(delete(SERVERS).where(SERVERS.c.id.not_in(servers)))
            self.servers = len(servers)
            return sum(settled)

        return await self._database.run(run)

    async def spent(self, key: GatewayKey, *, now: float) -> tuple[float, float]:
        """Return what a key has spent, and what it has reserved, in the current period of its budget."""

        async def read(connection: AsyncConnection) -> tuple[float, float]:
            statement = select(SPENDS.c.spent, SPENDS.c.reserved).where(
                SPENDS.c.key_id == key.id, SPENDS.c.period == key.period_at(now)
            )
            row = (await connection.execute(statement)).first()
            return (0.0, 0.0) if row is None else (dollars(row[0]), dollars(row[1]))

        return await self._database.read(read)

    # Reports

    async def sums(self, by: Sequence[str], *, since: str = "") -> list[SpendRow]:
        """Return sums of the spend.

        Args:
            by: What they are grouped by: `day`, `key`, `model`.
            since: The first day, as `2026-11-30`; empty: the first one.

        Raises:
            ConfigurationError: `since` is not a day.
        """
        try:
            since = since and dt.date.fromisoformat(since).isoformat()
        except ValueError:
            raise ConfigurationError(f"{since!r} is not a day", hint="Write 2026-11-30, for example.") from None
        return await self._database.read(lambda connection: _sums(connection, by, since))

    async def remove_old(self, days: int) -> int:
        """Remove calls that started more than so many days ago; sums stay. Return their number."""
        limit = time.time() - days * _DAY_S

        async def run(connection: AsyncConnection) -> int:
            found = await connection.execute(delete(CALLS).where(CALLS.c.started_at < limit, CALLS.c.state != "open"))
            return int(found.rowcount)

        return await self._database.run(run)


async def _add_reserved(connection: AsyncConnection, key: GatewayKey, period: str, amount: int) -> bool:
    """Add to what a key has reserved, unless its budget does not have it."""
    same = (SPENDS.c.key_id == key.id) & (SPENDS.c.period == period)
    if (await connection.execute(select(SPENDS.c.key_id).where(same))).first() is None:
        # Another server may insert the row between the two statements: then the operation runs again.
        await connection.execute(insert(SPENDS).values(key_id=key.id, period=period, spent=0, reserved=0))
    statement = update(SPENDS).where(same).values(reserved=SPENDS.c.reserved + amount)
    if key.rules.budget is not None:
        limit = nano_dollars(key.rules.budget)
        statement = statement.where(SPENDS.c.spent + SPENDS.c.reserved + amount <= limit)
    return bool((await connection.execute(statement)).rowcount)


async def _settle(connection: AsyncConnection, call_id: str, settled: SettledCall, state: str) -> bool:
    """Replace the reservation of a call by what it cost; return whether it was open."""
    columns = (CALLS.c.key_id, CALLS.c.period, CALLS.c.model, CALLS.c.reserved, CALLS.c.started_at)
    statement = select(*columns).where(CALLS.c.id == call_id, CALLS.c.state == "open")
    row = (await connection.execute(statement.with_for_update())).first()
    if row is None:
        return False
    key_id, period, model, reserved, started_at = row
    cost = nano_dollars(settled.cost)
    await connection.execute(
        update(SPENDS)
        .where(SPENDS.c.key_id == key_id, SPENDS.c.period == period)
        .values(spent=SPENDS.c.spent + cost, reserved=SPENDS.c.reserved - reserved)
    )
    await connection.execute(
        update(CALLS)
        .where(CALLS.c.id == call_id)
        .values(
            state=state,
            reserved=0,
            cost=cost,
            answered_by=settled.answered_by,
            input_tokens=settled.input_tokens,
            output_tokens=settled.output_tokens,
            status=settled.status,
        )
    )
    await _add_to_day(connection, _day(started_at), key_id, model, settled, cost)
    return True


async def _add_to_day(
    connection: AsyncConnection, day: str, key_id: str, model: str, settled: SettledCall, cost: int
) -> None:
    amounts = {
        "calls": 1,
        "errors": int(settled.status != 200),  # noqa: PLR2004 - the status of a success
        "input_tokens": settled.input_tokens,
        "output_tokens": settled.output_tokens,
        "cost": cost,
    }
    same = (DAYS.c.day == day) & (DAYS.c.key_id == key_id) & (DAYS.c.model == model)
    added = {name: DAYS.c[name] + amount for name, amount in amounts.items()}
    if not (await connection.execute(update(DAYS).where(same).values(**added))).rowcount:
        await connection.execute(insert(DAYS).values(day=day, key_id=key_id, model=model, **amounts))


async def _sums(connection: AsyncConnection, by: Sequence[str], since: str) -> list[SpendRow]:
    columns = {"day": DAYS.c.day, "key": func.coalesce(KEYS.c.name, DAYS.c.key_id), "model": DAYS.c.model}
    group = [columns[name] for name in by]
    amounts = [func.sum(DAYS.c[name]) for name in ("calls", "errors", "input_tokens", "output_tokens", "cost")]
    statement: Any = (
        select(*group, *amounts)
        .select_from(DAYS.outerjoin(KEYS, KEYS.c.id == DAYS.c.key_id))
        .where(DAYS.c.day >= since)
    )
    if group:
        statement = statement.group_by(*group).order_by(*group)
    rows = (await connection.execute(statement)).all()
    return [_spend_row(tuple(row), len(group)) for row in rows]


def _spend_row(row: tuple[Any, ...], group: int) -> SpendRow:
    calls, errors, input_tokens, output_tokens, cost = (int(value or 0) for value in row[group:])
    return SpendRow(tuple(map(str, row[:group])), calls, errors, input_tokens, output_tokens, dollars(cost))


@cache
def machine_name() -> str:
    """Return a name of this machine, or of this container, which differs from that of others with the same host name.

    Numbers of processes mean something only within it.
    """
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):  # not on Linux
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(parts)[-_LONGEST_HOST:]


def _runs(server: Any) -> bool:
    """Whether a server still runs: on this machine its process exists, elsewhere it signed on lately."""
    if server.host != machine_name():
        return bool(time.time() - server.seen_at < _LOST_AFTER_S)
    if server.process == os.getpid():
        return False  # an earlier process with the same number, as in a container
    try:
        os.kill(server.process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it belongs to another user
        return True
    return True


def _day(moment: float) -> str:
    return dt.datetime.fromtimestamp(moment, tz=dt.UTC).strftime("%Y-%m-%d")
