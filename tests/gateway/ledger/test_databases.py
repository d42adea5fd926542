"""The ledger in each kind of database: several servers at a time, `kill -9`, sums, retention, and failures."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from sqlalchemy import update

from gateway.ledger.ledgers import open_ledger
from gateway.ledger.postgres import PostgresServer
from lm_deluge.errors import ConfigurationError, MissingExtraError, OverloadedError
from lm_deluge.gateway.ledger import ledger as ledger_module
from lm_deluge.gateway.ledger.database import Database
from lm_deluge.gateway.ledger.keys import KeyRules
from lm_deluge.gateway.ledger.ledger import Ledger, SettledCall, SpendRow, machine_name
from lm_deluge.gateway.ledger.tables import CALLS, DAYS
from pages import ROOT

MODELS = ("gpt-4o", "gpt-4o-mini", "claude-haiku-4-5")
DAY_S = 86_400.0


@contextlib.asynccontextmanager
async def servers(url: str, number: int) -> AsyncIterator[list[Ledger]]:
    """Ledgers of several servers, which all create the tables at the same time."""
    async with contextlib.AsyncExitStack() as stack:
        yield list(await asyncio.gather(*(stack.enter_async_context(open_ledger(url)) for _ in range(number))))


async def test_two_servers_never_exceed_a_budget_together(database_url: str) -> None:
    async with servers(database_url, 2) as (one, other):
        new = await one.create_key("team", KeyRules(budget=1.0, period="day"))
        now = time.time()
        granted = await asyncio.gather(
            *(
                ledger.reserve(new.key, f"call-{at}", MODELS[at % 3], 0.03, now=now)
                for at, ledger in enumerate([one, other] * 100)
            )
        )
        assert sum(granted) == 33  # of 0.03 dollars each
        assert await other.spent(new.key, now=now) == (0.0, pytest.approx(0.99))
        calls = [f"call-{at}" for at, is_granted in enumerate(granted) if is_granted]
        settled = SettledCall(cost=0.01, input_tokens=2, output_tokens=3, status=200)
        # Each call twice, by both servers: the second has no effect.
        await asyncio.gather(*(ledger.settle(new.key, call, settled) for call in calls for ledger in (one, other)))
        assert await one.spent(new.key, now=now) == (pytest.approx(0.33), 0.0)
        assert await one.sums(["key"]) == [SpendRow(("team",), 33, 0, 66, 99, pytest.approx(0.33))]


async def test_servers_with_many_keys_do_not_block_each_other(database_url: str) -> None:
    """Each transaction of a server changes the rows of many keys, in another order than they were asked for."""
    async with servers(database_url, 2) as ledgers:
        keys = [(await ledgers[0].create_key(f"team-{at}", KeyRules(budget=1.0))).key for at in range(12)]
        now = time.time()

        async def call(ledger: Ledger, server: int, at: int) -> None:
            key = keys[at % 12 if server else -1 - at % 12]
            assert await ledger.reserve(key, f"call-{server}-{at}", MODELS[at % 3], 0.02, now=now)
            assert await ledger.extend(key, f"call-{server}-{at}", 0.02, now=now)
            await ledger.settle(key, f"call-{server}-{at}", SettledCall(cost=0.01, status=200))

        await asyncio.gather(*(call(ledger, server, at) for server, ledger in enumerate(ledgers) for at in range(60)))
        for key in keys:
            assert await ledgers[1].spent(key, now=now) == (pytest.approx(0.10), 0.0)
        assert sum(row.calls for row in await ledgers[0].sums(["model"])) == 120


CALLER = """
import asyncio, sys, time
from lm_deluge.gateway.ledger.database import Database
from lm_deluge.gateway.ledger.ledger import Ledger

async def main(url, name):
    database = Database(url)
    await database.open()
    ledger = Ledger(database)
    await ledger.sign_on()
    (key,) = await ledger.keys()
    now = time.time()
    assert await ledger.reserve(key, f"{name}-one", "gpt-4o", 0.3, least=0.01, now=now)
    assert await ledger.reserve(key, f"{name}-two", "gpt-4o", 0.1, least=0.01, now=now)
    ledger.note_cost(key, f"{name}-two", 0.07)
    await ledger.sign_on()  # after the note
    print("ready", flush=True)
    await asyncio.sleep(60)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_calls_of_killed_processes_are_settled_once_at_their_last_known_cost(database_url: str) -> None:
    async with servers(database_url, 2) as (one, other):
        key = (await one.create_key("team", KeyRules(budget=1.0))).key
        await asyncio.gather(*(killed_caller(database_url, name) for name in ("first", "second")))
        now = time.time()
        assert await one.spent(key, now=now) == (0.0, pytest.approx(0.8))
        assert sum(await asyncio.gather(one.settle_lost(), other.settle_lost())) == 4
        assert await one.spent(key, now=now) == (pytest.approx(0.16), 0.0)
        (row,) = await one.sums(["key"])
        assert (row.calls, row.errors, row.cost) == (4, 4, pytest.approx(0.16))
        assert not await one.extend(key, "first-one", 0.1, now=now)  # it is settled
        assert await one.settle_lost() == 0


async def killed_caller(url: str, name: str) -> None:
    """Run a process that reserves money, and kill it."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CALLER, url, name, stdout=asyncio.subprocess.PIPE, env=environment
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGKILL)
    await process.wait()


async def test_calls_of_a_running_server_are_not_lost(database_url: str) -> None:
    async with servers(database_url, 2) as (one, other):
        key = (await one.create_key("team", KeyRules(budget=1.0))).key
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            CALLER,
            database_url,
            "alive",
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        )
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        assert await other.settle_lost() == 0
        process.kill()
        await process.wait()
        assert await other.settle_lost() == 2
        assert (await one.spent(key, now=time.time()))[1] == 0.0


async def test_sums_for_each_day_key_and_model(database_url: str) -> None:
    async with open_ledger(database_url) as ledger:
        keys = [(await ledger.create_key(name, KeyRules())).key for name in ("zoe", "adam")]
        for at in range(12):
            key, model, day = keys[at % 2], MODELS[at % 3], 20_000 + at // 6
            assert await ledger.reserve(key, f"call-{at}", model, 0.1, now=day * DAY_S)
            status = 200 if at % 4 else 500
            await ledger.settle(
                key, f"call-{at}", SettledCall(cost=0.001, input_tokens=10, output_tokens=at, status=status)
            )
        assert [row.group for row in await ledger.sums(["day", "key"])] == [
            ("2024-10-04", "adam"),
            ("2024-10-04", "zoe"),
            ("2024-10-05", "adam"),
            ("2024-10-05", "zoe"),
        ]
        assert await ledger.sums([]) == [SpendRow((), 12, 3, 120, 66, pytest.approx(0.012))]
        (late,) = await ledger.sums(["day"], since="2024-10-05")
        assert (late.calls, late.output_tokens) == (6, 51)
        assert {row.group for row in await ledger.sums(["model"])} == {(model,) for model in MODELS}
        with pytest.raises(ConfigurationError, match="is not a day"):
            await ledger.sums(["day"], since="yesterday\0")


async def test_old_calls_are_removed_and_sums_stay(database_url: str) -> None:
    async with open_ledger(database_url) as ledger:
        key = (await ledger.create_key("team", KeyRules())).key
        now = time.time()
        for name, days in (("old", 40), ("new", 20), ("open", 40)):
            assert await ledger.reserve(key, name, "gpt-4o", 0.1, now=now - days * DAY_S)
        for name in ("old", "new"):
            await ledger.settle(key, name, SettledCall(cost=0.01, status=200))
        assert await ledger.remove_old(30) == 1
        assert await ledger.remove_old(30) == 0
        assert sum(row.calls for row in await ledger.sums(["day"])) == 2


async def test_amounts_and_counts_beyond_32_bits(database_url: str) -> None:
    rules = KeyRules(budget=1e9, tokens_per_minute=10**12)
    async with open_ledger(database_url) as ledger:
        key = (await ledger.create_key("team " + "x" * 195, rules)).key
        assert await ledger.reserve(key, "one", "m" * 300, 9e8, now=5.0)
        await ledger.settle(key, "one", SettledCall(cost=9e8, input_tokens=2**40, output_tokens=2**40, status=200))
        assert await ledger.spent(key, now=5.0) == (9e8, 0.0)
        assert (await ledger.keys())[0].rules == rules


@pytest.mark.parametrize("name", ["", "x" * 201, "a\0b", "a\nb"])
async def test_names_of_keys_that_cannot_be_used(database_url: str, name: str) -> None:
    async with open_ledger(database_url) as ledger:
        with pytest.raises(ConfigurationError, match="the name of a key"):
            await ledger.create_key(name, KeyRules())


# Failures


async def test_a_failing_operation_takes_no_other_with_it(database_url: str) -> None:
    async with open_ledger(database_url) as ledger:
        new = await ledger.create_key("team", KeyRules(budget=1.0))
        now = time.time()
        outcomes = await asyncio.gather(
            ledger.reserve(new.key, "one", "gpt-4o", 0.1, now=now),
            ledger.reserve(new.key, "one", "gpt-4o", 0.1, now=now),  # the same call twice
            ledger.create_key("team", KeyRules()),
            ledger.reserve(new.key, "two", "gpt-4o", 0.1, now=now),
            return_exceptions=True,
        )
        assert [type(outcome) for outcome in outcomes] == [bool, OverloadedError, ConfigurationError, bool]
        assert await ledger.spent(new.key, now=now) == (0.0, pytest.approx(0.2))


async def test_a_database_that_fails_is_an_error_of_ours(database_url: str) -> None:
    database = Database(database_url)
    await database.open()
    ledger = Ledger(database)

    async def broken(connection: object) -> None:
        await connection.execute(update(CALLS).values(state="x" * 5, id=None))  # type: ignore[attr-defined]

    await ledger.create_key("team", KeyRules())
    key = (await ledger.keys())[0]
    assert await ledger.reserve(key, "one", "gpt-4o", 0.1, now=time.time())
    for run in (database.run, database.read):
        with pytest.raises(OverloadedError, match="the database of the gateway failed") as caught:
            await run(broken)
        assert caught.value.status_code == 503
        assert "UPDATE" not in str(caught.value)
    assert await ledger.has_keys()
    await database.close()


async def test_a_restart_of_postgres_is_no_failure(postgres: PostgresServer) -> None:
    async with open_ledger(postgres.new_database()) as ledger:
        key = (await ledger.create_key("team", KeyRules())).key
        await asyncio.gather(ledger.keys(), ledger.keys())  # two connections
        await asyncio.to_thread(postgres.restart)
        assert await ledger.has_keys()
        assert await ledger.reserve(key, "one", "gpt-4o", 0.1, now=time.time())


@contextlib.contextmanager
def silent_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda url: url.replace("ledger_", "no_such_"), 'database "no_such_0" does not exist'),
        (lambda url: url.replace("deluge@", "stranger:the-password@"), "stranger"),
        (lambda url: url + "?sslmode=require", "rejected SSL upgrade"),
        (lambda url: url + "?no_such=1", "does not know a parameter"),
    ],
)
async def test_postgres_that_cannot_be_opened(postgres: PostgresServer, change: object, reason: str) -> None:
    url = change(postgres.url("ledger_0"))  # type: ignore[operator]
    with pytest.raises(ConfigurationError, match=reason) as caught:
        await Database(url).open()
    assert "the-password" not in str(caught.value)


async def test_postgres_that_does_not_run() -> None:
    pytest.importorskip("asyncpg")
    with silent_port() as port:
        pass
    with pytest.raises(ConfigurationError, match="Connect call failed"):
        await Database(f"postgresql://deluge:the-password@127.0.0.1:{port}/ledger").open()


async def test_postgres_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("asyncpg")
    monkeypatch.setattr("lm_deluge.gateway.ledger.database._OPENING_S", 0.2)
    with silent_port() as port, pytest.raises(ConfigurationError, match="no answer"):
        await Database(f"postgresql://deluge@127.0.0.1:{port}/ledger").open()


async def test_the_parameters_that_hosts_of_postgres_give(postgres: PostgresServer) -> None:
    url = postgres.new_database().replace("postgresql:", "postgres:") + "?sslmode=prefer&channel_binding=prefer"
    async with open_ledger(url) as ledger:
        assert not await ledger.has_keys()


def test_without_its_driver_postgres_is_an_error_with_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    with pytest.raises(MissingExtraError, match="the database needs asyncpg") as caught:
        Database("postgresql://deluge@127.0.0.1/ledger")
    assert caught.value.hint == "Run pip install asyncpg."


@pytest.mark.parametrize(
    "url",
    [
        "deluge.db",
        "nosuch://host/name",
        "postgresql://host:port/name",
        "postgresql://host:70000/name",
        "sqlite+nosuch:///x",
    ],
)
def test_urls_that_are_not_valid(url: str) -> None:
    with pytest.raises(ConfigurationError):
        Database(url)


async def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="the database cannot be opened: unable to open database file"):
        await Database(f"sqlite:///{tmp_path / 'no' / 'such' / 'folder.db'}").open()


def test_the_sums_have_one_row_for_each_day_key_and_model() -> None:
    assert [column.name for column in DAYS.primary_key.columns] == ["day", "key_id", "model"]


async def test_a_server_does_not_settle_its_own_running_calls(database_url: str) -> None:
    async with open_ledger(database_url) as ledger:
        key = (await ledger.create_key("team", KeyRules(budget=1.0))).key
        await ledger.sign_on()
        assert await ledger.reserve(key, "one", "gpt-4o", 0.1, now=time.time())
        assert await ledger.settle_lost() == 0  # as it looks every 20 seconds
        assert await ledger.spent(key, now=time.time()) == (0.0, pytest.approx(0.1))
        assert ledger.servers == 1


async def test_a_machine_with_the_same_name_is_another_one(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers of processes are those of one machine: the same host name alone does not show which one it is."""
    async with servers(database_url, 2) as (one, other):
        key = (await one.create_key("team", KeyRules(budget=1.0))).key
        name = machine_name()
        assert name.startswith(socket.gethostname())
        with monkeypatch.context() as patch:
            patch.setattr(ledger_module, "machine_name", lambda: name.replace("-", "+"))
            await one.sign_on()
        assert await one.reserve(key, "one", "gpt-4o", 0.1, now=time.time())
        assert await other.settle_lost() == 0
        assert other.servers == 2
