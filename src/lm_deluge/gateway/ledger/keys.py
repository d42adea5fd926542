"""Keys of the gateway: how they are made, stored and described."""

from __future__ import annotations

import datetime as dt
import hashlib
import re
import secrets
import time
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import msgspec
from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from lm_deluge.errors import ConfigurationError
from lm_deluge.gateway.ledger.tables import KEYS, dollars, nano_dollars

__all__ = [
    "GatewayKey",
    "HashedKey",
    "KeyRules",
    "digest_of",
    "insert_key",
    "key_of_row",
    "list_keys",
    "parse_rules",
    "revoke_key",
]

Period = Literal["day", "month", "total"]

_PREFIX = "sk-deluge-"  # so that scanners for leaked keys recognise it
_RANDOM_BYTES = 32  # 256 bits: a key cannot be guessed, and its hash not be searched for
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_PERIODS = ("day", "month", "total")
_LONGEST_NAME = 200  # characters: a name is for people, and stands in the log of each call
_MOST_BUDGET = 1e9  # US dollars; the database counts nano-dollars with 64 bits


class KeyRules(msgspec.Struct, frozen=True, kw_only=True):
    """What a key may do.

    Attributes:
        models: The names of the models that it may ask for; empty: all.
        budget: US dollars for each period; None: no limit.
        period: The period of the budget: a day or a month of UTC, or the whole life of the key.
        requests_per_minute, tokens_per_minute, max_concurrent: Its limits; None: no limit.
        expires_at: When it ends, in seconds since 1970; None: never.
    """

    models: tuple[str, ...] = ()
    budget: float | None = None
    period: Period = "total"
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    max_concurrent: int | None = None
    expires_at: float | None = None


class GatewayKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key as the database has it, without the key itself."""

    id: str
    name: str
    rules: KeyRules
    created_at: float
    revoked_at: float | None = None

    def refusal(self, now: float) -> str | None:
        """Return why the key is not valid at a time; None if it is."""
        if self.revoked_at is not None:
            return "this key was revoked"
        if self.rules.expires_at is not None and now >= self.rules.expires_at:
            return "this key has expired"
        return None

    def period_at(self, now: float) -> str:
        """Return the period of the budget that a time belongs to."""
        day = dt.datetime.fromtimestamp(now, tz=dt.UTC)
        return {"day": day.strftime("%Y-%m-%d"), "month": day.strftime("%Y-%m")}.get(self.rules.period, "total")


class NewKey(NamedTuple):
    """A key that was just made; `token` is known only now."""

    key: GatewayKey
    token: str


class HashedKey(str):
    """The digest of a key, in the place of the key: a session of the page knows no more of it.

    No header of a request becomes one, so a digest that leaks opens nothing.
    """

    __slots__ = ()


def digest_of(token: str) -> str:
    """Return what is stored of a key. It has 256 random bits, so a plain hash cannot be reversed."""
    if isinstance(token, HashedKey):
        return str.__str__(token)
    return hashlib.sha256(token.encode()).hexdigest()


def parse_rules(
    *,
    models: str = "",
    budget: str | None = None,
    requests: str | None = None,
    tokens: str | None = None,
    concurrent: int | None = None,
    expires: str | None = None,
) -> KeyRules:
    """Return the rules that a person wrote: `20/month`, `60/minute`, `30d`.

    Raises:
        ConfigurationError: A value cannot be read.
    """
    amount, period = _budget(budget)
    return KeyRules(
        models=tuple(name.strip() for name in models.split(",") if name.strip()),
        budget=amount,
        period=period,
        requests_per_minute=_per_minute("requests", requests),
        tokens_per_minute=_per_minute("tokens", tokens),
        max_concurrent=concurrent,
        expires_at=None if expires is None else time.time() + _duration(expires),
    )


def _budget(text: str | None) -> tuple[float | None, Period]:
    if text is None:
        return None, "total"
    number, _, period = text.strip().removeprefix("$").partition("/")
    found: Any = period.strip() or "total"
    try:
        amount = float(number)
    except ValueError:
        amount = -1.0
    if not 0 <= amount <= _MOST_BUDGET or found not in _PERIODS:
        raise ConfigurationError(f"the budget {text!r} cannot be read", hint="Write 20/month, 5/day or 100.")
    return amount, found


def _per_minute(name: str, text: str | None) -> int | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,12})(/min(ute)?)?", text.strip())
    if match is None or int(match[1]) < 1:
        raise ConfigurationError(f"the {name} {text!r} cannot be read", hint="Write 60/minute.")
    return int(match[1])


def _duration(text: str) -> float:
    match = re.fullmatch(r"(\d{1,6})([smhdw])", text.strip())
    if match is None:
        raise ConfigurationError(f"the duration {text!r} cannot be read", hint="Write 30d, 12h or 10m.")
    return int(match[1]) * _SECONDS[match[2]]


async def insert_key(connection: AsyncConnection, name: str, rules: KeyRules) -> NewKey:
    """Make a key.

    Raises:
        ConfigurationError: The name cannot be used, or there is a key with it.
    """
    if not 0 < len(name) <= _LONGEST_NAME or not name.isprintable():
        raise ConfigurationError(
            f"the name of a key has 1 to {_LONGEST_NAME} characters, all of them printable", hint="Choose another name."
        )
    token = _PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)
    key = GatewayKey(id=secrets.token_hex(8), name=name, rules=rules, created_at=time.time())
    row = {
        "id": key.id,
        "name": name,
        "digest": digest_of(token),
        "models": "\n".join(rules.models),
        "budget": None if rules.budget is None else nano_dollars(rules.budget),
        "period": rules.period,
        "requests_per_minute": rules.requests_per_minute,
        "tokens_per_minute": rules.tokens_per_minute,
        "max_concurrent": rules.max_concurrent,
        "created_at": key.created_at,
        "expires_at": rules.expires_at,
    }
    try:
        await connection.execute(insert(KEYS).values(**row))
    except IntegrityError:
        raise ConfigurationError(f"there is a key with the name {name!r}", hint="Choose another name.") from None
    return NewKey(key, token)


async def list_keys(connection: AsyncConnection) -> list[GatewayKey]:
    """Return all keys, the oldest first."""
    rows = await connection.execute(select(KEYS).order_by(KEYS.c.created_at))
    return [key_of_row(dict(row)) for row in rows.mappings()]


async def revoke_key(connection: AsyncConnection, name: str) -> bool:
    """Revoke the key of a name; return whether there is one that was valid."""
    found = await connection.execute(
        update(KEYS).where(KEYS.c.name == name, KEYS.c.revoked_at.is_(None)).values(revoked_at=time.time())
    )
    return bool(found.rowcount)


def key_of_row(row: Mapping[str, Any]) -> GatewayKey:
    """Return a key as its row has it."""
    rules = KeyRules(
        models=tuple(row["models"].split("\n")) if row["models"] else (),
        budget=None if row["budget"] is None else dollars(row["budget"]),
        period=row["period"],
        requests_per_minute=row["requests_per_minute"],
        tokens_per_minute=row["tokens_per_minute"],
        max_concurrent=row["max_concurrent"],
        expires_at=row["expires_at"],
    )
    return GatewayKey(
        id=row["id"], name=row["name"], rules=rules, created_at=row["created_at"], revoked_at=row["revoked_at"]
    )
