"""Ledgers in a database, each with a pool of connections of its own, as each server has one."""

import contextlib
from collections.abc import AsyncIterator

from lm_deluge.gateway.ledger.database import Database
from lm_deluge.gateway.ledger.ledger import Ledger


@contextlib.asynccontextmanager
async def open_ledger(url: str) -> AsyncIterator[Ledger]:
    database = Database(url)
    await database.open()
    try:
        yield Ledger(database)
    finally:
        await database.close()
