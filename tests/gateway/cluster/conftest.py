"""A Redis server and a database of PostgreSQL that gateways share, in front of a simulated provider."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dispatch.scheduling.shared.redis_server import RedisServer, need_redis
from gateway.cluster.processes import Shared
from gateway.ledger.postgres import PostgresServer
from lm_deluge.simulator import Pace, Simulator

TEXT = "One two three, and four; that is the whole answer of the model. " * 4


@pytest.fixture
def redis_url() -> Iterator[str]:
    """The URL of a server of its own, so that nothing of another test limits this one."""
    need_redis()
    server = RedisServer()
    yield server.url
    server.close()


@pytest.fixture
def shared(tmp_path: Path, redis_url: str, postgres: PostgresServer) -> Iterator[Shared]:
    with Simulator(TEXT, pace=Pace(tokens_per_second=150)).start_in_thread() as simulator:
        yield Shared(tmp_path, postgres.new_database(), redis_url, simulator)
