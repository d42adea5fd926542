"""The tables of the ledger. Amounts of money are whole nano-dollars, so that sums are exact."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, Index, Integer, MetaData, String, Table, Text

__all__ = ["CALLS", "DAYS", "KEYS", "METADATA", "SERVERS", "SPENDS", "dollars", "nano_dollars"]

METADATA = MetaData()

KEYS = Table(
    "deluge_keys",
    METADATA,
    Column("id", String(32), primary_key=True),
    Column("name", Text, unique=True, nullable=False),
    Column("digest", String(64), unique=True, nullable=False),  # SHA-256 of the key, which is stored nowhere
    Column("models", Text, nullable=False),  # names, one for each line; empty: all models
    Column("budget", BigInteger),
    Column("period", String(8), nullable=False),  # day, month or total
    Column("requests_per_minute", BigInteger),
    Column("tokens_per_minute", BigInteger),
    Column("max_concurrent", BigInteger),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float),
    Column("revoked_at", Float),
)

# What a key has spent and reserved in one period of its budget.
SPENDS = Table(
    "deluge_spends",
    METADATA,
    Column("key_id", String(32), primary_key=True),
    Column("period", String(10), primary_key=True),  # 2026-11-30, 2026-11 or total
    Column("spent", BigInteger, nullable=False),
    Column("reserved", BigInteger, nullable=False),
)

CALLS = Table(
    "deluge_calls",
    METADATA,
    Column("id", String(40), primary_key=True),
    Column("server", String(32), nullable=False),  # the process that runs the call
    Column("key_id", String(32), nullable=False),
    Column("period", String(10), nullable=False),
    Column("model", Text, nullable=False),
    Column("answered_by", Text, nullable=False),
    Column("started_at", Float, nullable=False),
    Column("reserved", BigInteger, nullable=False),  # 0 as soon as the call is settled
    Column("state", String(8), nullable=False),  # open, settled or lost
    Column("cost", BigInteger, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("status", Integer, nullable=False),
    Index("deluge_calls_by_state", "state"),
    Index("deluge_calls_by_start", "started_at"),
)

# The processes that run calls, so that a start recognises calls whose process ended without settling them.
SERVERS = Table(
    "deluge_servers",
    METADATA,
    Column("id", String(32), primary_key=True),
    Column("host", String(255), nullable=False),
    Column("process", Integer, nullable=False),
    Column("seen_at", Float, nullable=False),
)

# Sums, which stay when single calls are removed.
DAYS = Table(
    "deluge_days",
    METADATA,
    Column("day", String(10), primary_key=True),
    Column("key_id", String(32), primary_key=True),
    Column("model", Text, primary_key=True),
    Column("calls", BigInteger, nullable=False),
    Column("errors", BigInteger, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("cost", BigInteger, nullable=False),
)

_NANO = 1_000_000_000  # the cheapest token costs 10 nano-dollars (2026-11)


def nano_dollars(dollars: float) -> int:
    """Return an amount as whole nano-dollars."""
    return round(dollars * _NANO)


def dollars(nano: int) -> float:
    """Return an amount in US dollars."""
    return nano / _NANO
