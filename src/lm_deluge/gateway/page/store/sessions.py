"""Who uses the page: the local user of a server without keys, or the owner of a key, by a cookie.

The cookie is a random number. The database has its hash and that of the key, so neither opens anything if it leaks.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any, NamedTuple

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from lm_deluge.errors import AuthenticationError, RateLimitError
from lm_deluge.gateway.access import AccessControl
from lm_deluge.gateway.ledger.keys import HashedKey, digest_of
from lm_deluge.gateway.page.store.database import PageDatabase
from lm_deluge.gateway.page.store.tables import SESSIONS

__all__ = ["SESSION_S", "Attempts", "Sessions", "Visitor"]

SESSION_S = 7 * 86_400.0  # a week of use between two sign-ins
_COOKIE_BYTES = 32  # 256 random bits: a cookie cannot be guessed, and its hash not be searched for
_MOST_FAILURES = 10  # of an address, and a minute: mistyped keys, and no more
_MOST_ADDRESSES = 10_000  # that are remembered
_MINUTE_S = 60.0  # the period in which failures are counted


class Visitor(NamedTuple):
    """The user that a request comes from.

    Attributes:
        owner: Name of the key; empty for the user of a server without keys.
        token: Stands for the key; None without keys.
    """

    owner: str
    token: str | None


class Attempts:
    """Counts sign-ins that failed, so that guessing does not load the database.

    Args:
        clock: Returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()

    def check(self, address: str) -> None:
        """Check that an address may try.

        Raises:
            RateLimitError: It failed too often within a minute.
        """
        failures, now = self._failures.get(address), self._clock()
        while failures and now - failures[0] >= _MINUTE_S:
            failures.popleft()
        if failures and len(failures) >= _MOST_FAILURES:
            wait_s = failures[0] + _MINUTE_S - now
            raise RateLimitError("too many keys were wrong: wait a minute", status_code=429, retry_after_s=wait_s)

    def note_failure(self, address: str) -> None:
        """Note that a sign-in failed."""
        self._failures.setdefault(address, deque()).append(self._clock())
        self._failures.move_to_end(address)
        if len(self._failures) > _MOST_ADDRESSES:
            self._failures.popitem(last=False)


class Sessions:
    """The sessions of users with keys.

    Args:
        database: The database, which is open.
        access: Knows the keys.
        clock: Returns the time in seconds since 1970.
    """

    def __init__(self, database: PageDatabase, access: AccessControl, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._access = access
        self._clock = clock

    async def visitor(self, cookie: str | None) -> Visitor:
        """Return the user of a request with this cookie.

        Raises:
            AuthenticationError: A key is needed, and there is no session, or its key is not valid any more.
        """
        if not await self._access.needs_key():
            return Visitor("", None)
        key = None if cookie is None else await self._key_of(cookie)
        if key is None or cookie is None:
            raise AuthenticationError("sign in first", status_code=401)
        try:
            return Visitor(await self._access.check(key), key)
        except AuthenticationError:
            await self.sign_out(cookie)  # the key was revoked, or has expired
            raise

    async def sign_in(self, token: str) -> tuple[str, str]:
        """Start a session; return the cookie and the name of the key.

        Raises:
            AuthenticationError: The key is not valid, or is that of the administrator.
        """
        name = await self._access.check(token)
        cookie, now = secrets.token_urlsafe(_COOKIE_BYTES), self._clock()
        row = {"digest": _digest(cookie), "key_digest": digest_of(token), "expires_at": now + SESSION_S}

        async def run(connection: AsyncConnection) -> None:
            await connection.execute(delete(SESSIONS).where(SESSIONS.c.expires_at < now))
            await connection.execute(insert(SESSIONS).values(**row))

        await self._database.run(run)
        return cookie, name

    async def sign_out(self, cookie: str) -> None:
        """End a session."""

        async def run(connection: AsyncConnection) -> Any:
            return await connection.execute(delete(SESSIONS).where(SESSIONS.c.digest == _digest(cookie)))

        await self._database.run(run)

    async def _key_of(self, cookie: str) -> HashedKey | None:
        s = SESSIONS.c
        statement = select(s.key_digest).where(s.digest == _digest(cookie), s.expires_at > self._clock())

        async def run(connection: AsyncConnection) -> str | None:
            found = (await connection.execute(statement)).scalar()
            return None if found is None else str(found)

        digest = await self._database.read(run)
        return None if digest is None else HashedKey(digest)


def _digest(cookie: str) -> str:
    return hashlib.sha256(cookie.encode()).hexdigest()
