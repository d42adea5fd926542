"""Keys and budgets: reserved before a call, settled after it, exact with any number of calls at a time."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from gateway.ledger.ledgers import open_ledger
from gateway.serving import Serving, serve
from lm_deluge.errors import ConfigurationError
from lm_deluge.gateway.configuration.settings import GatewaySettings
from lm_deluge.gateway.key_access import KeyAccess
from lm_deluge.gateway.ledger.keys import KeyRules, parse_rules
from lm_deluge.gateway.ledger.ledger import Ledger, SettledCall
from lm_deluge.simulator import Simulator

BODY = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}], "stream": True}


@pytest.fixture
async def ledger(database_url: str) -> AsyncIterator[Ledger]:
    async with open_ledger(database_url) as opened:
        yield opened


@pytest.fixture
async def keyed(ledger: Ledger, simulator: Simulator) -> AsyncIterator[Serving]:
    access = KeyAccess(ledger, master_key="the-master")
    async with serve(GatewaySettings(), simulator, access=access) as running:
        yield running


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


async def ask(serving: Serving, token: str | None, **fields: object) -> httpx.Response:
    headers = {} if token is None else bearer(token)
    async with httpx.AsyncClient(base_url=serving.url, timeout=60) as client:
        return await client.post("/v1/chat/completions", json={**BODY, **fields}, headers=headers)


async def test_calls_at_the_same_time_never_exceed_a_budget(ledger: Ledger) -> None:
    new = await ledger.create_key("team", KeyRules(budget=1.0, period="day"))
    now = time.time()
    granted = await asyncio.gather(
        *(ledger.reserve(new.key, f"call-{number}", "gpt-4o", 0.03, now=now) for number in range(200))
    )
    assert sum(granted) == 33  # of 0.03 dollars each
    assert await ledger.spent(new.key, now=now) == (0.0, pytest.approx(0.99))
    calls = [f"call-{number}" for number, is_granted in enumerate(granted) if is_granted]
    await asyncio.gather(*(ledger.settle(new.key, call, SettledCall(cost=0.01, status=200)) for call in calls))
    assert await ledger.spent(new.key, now=now) == (pytest.approx(0.33), 0.0)
    await ledger.settle(new.key, calls[0], SettledCall(cost=5.0, status=200))  # a second time has no effect
    assert (await ledger.sums(["key"]))[0].cost == pytest.approx(0.33)


async def test_a_running_call_reserves_more_as_long_as_the_budget_has_it(ledger: Ledger) -> None:
    new = await ledger.create_key("team", KeyRules(budget=0.10))
    now = time.time()
    assert await ledger.reserve(new.key, "one", "gpt-4o", 0.04, now=now)
    assert await ledger.extend(new.key, "one", 0.04, now=now)
    assert not await ledger.extend(new.key, "one", 0.04, now=now)
    await ledger.settle(new.key, "one", SettledCall(cost=0.05, status=200))
    assert await ledger.spent(new.key, now=now) == (pytest.approx(0.05), 0.0)


async def test_budgets_of_a_day_and_of_a_month_begin_again(ledger: Ledger) -> None:
    new = await ledger.create_key("team", KeyRules(budget=1.0, period="day"))
    day = 86_400.0
    assert await ledger.reserve(new.key, "one", "gpt-4o", 0.9, now=day * 100 + 5)
    assert not await ledger.reserve(new.key, "two", "gpt-4o", 0.9, now=day * 101 - 1)
    assert await ledger.reserve(new.key, "three", "gpt-4o", 0.9, now=day * 101)


async def test_a_call_over_http_is_booked_at_the_cost_of_its_response(keyed: Serving, ledger: Ledger) -> None:
    new = await ledger.create_key("team", KeyRules(budget=1.0))
    answer = await ask(keyed, new.token, stream=False)
    assert answer.status_code == 200
    cost = float(answer.headers["x-deluge-cost"])
    stream = await ask(keyed, new.token)
    assert stream.text.endswith("data: [DONE]\n\n")
    spent, reserved = await ledger.spent(new.key, now=time.time())
    assert spent == pytest.approx(2 * cost)
    assert reserved == 0
    (row,) = await ledger.sums(["key", "model"])
    assert (row.group, row.calls, row.errors) == (("team", "gpt-4o"), 2, 0)


async def test_calls_over_http_at_the_same_time_stay_within_the_budget(
    keyed: Serving, ledger: Ledger, database_url: str
) -> None:
    # A reservation of 2,048 tokens costs about 2 cents, and an answer of 16 tokens 0.02 cents.
    new = await ledger.create_key("team", KeyRules(budget=1.0))
    number = 200 if database_url.startswith("sqlite") else 60
    limits = httpx.Limits(max_connections=number)
    async with httpx.AsyncClient(base_url=keyed.url, timeout=60, limits=limits, headers=bearer(new.token)) as client:
        answers = await asyncio.gather(*(client.post("/v1/chat/completions", json=BODY) for _ in range(number)))
    refused = [answer for answer in answers if answer.status_code != 200]
    assert all(answer.json()["error"]["code"] == "budget_exceeded" for answer in refused)
    granted = [answer for answer in answers if answer.status_code == 200]
    assert len(granted) >= 48  # so many reservations fit at once
    assert all(answer.text.endswith("data: [DONE]\n\n") for answer in granted)
    spent, reserved = await ledger.spent(new.key, now=time.time())
    assert spent <= 1.0
    assert reserved == 0
    assert spent == pytest.approx(sum(call.cost or 0 for call in keyed.log.calls))


async def test_a_budget_for_two_calls_refuses_the_others(keyed: Serving, ledger: Ledger) -> None:
    new = await ledger.create_key("team", KeyRules(budget=0.05))
    async with httpx.AsyncClient(base_url=keyed.url, timeout=60, headers=bearer(new.token)) as client:
        answers = await asyncio.gather(*(client.post("/v1/chat/completions", json=BODY) for _ in range(20)))
    assert any(answer.status_code == 429 for answer in answers)
    spent, reserved = await ledger.spent(new.key, now=time.time())
    assert (spent <= 0.05, reserved) == (True, 0)


async def test_an_answer_stops_where_the_budget_ends(monkeypatch: pytest.MonkeyPatch, ledger: Ledger) -> None:
    from gateway.conftest import point_providers_at

    long = "word " * 20_000
    async with Simulator(long) as simulator:
        point_providers_at(simulator, monkeypatch)
        async with serve(GatewaySettings(), simulator, access=KeyAccess(ledger)) as serving:
            new = await ledger.create_key("team", KeyRules(budget=0.06))
            answer = await ask(serving, new.token)
    assert answer.status_code == 200
    assert "data: [DONE]" not in answer.text
    assert "insufficient_quota" in answer.text.splitlines()[-2]
    spent, reserved = await ledger.spent(new.key, now=time.time())
    assert reserved == 0
    assert 0.03 < spent < 0.06 + 0.0205


@pytest.mark.parametrize("token", [None, "sk-wrong", "the-master"])
async def test_without_a_valid_key_there_is_no_answer(keyed: Serving, token: str | None) -> None:
    answer = await ask(keyed, token)
    assert answer.status_code == 401
    async with httpx.AsyncClient(base_url=keyed.url) as client:
        assert (await client.get("/v1/models", headers=bearer(token or "x"))).status_code == 401
        assert (await client.get("/health/live")).status_code == 200
    assert keyed.simulator.stats.requests == 0


async def test_keys_are_limited_to_models_rates_and_time(keyed: Serving, ledger: Ledger) -> None:
    only = await ledger.create_key("only", KeyRules(models=("gpt-4o-mini",)))
    assert (await ask(keyed, only.token)).status_code == 403
    assert (await ask(keyed, only.token, model="gpt-4o-mini")).status_code == 200
    slow = await ledger.create_key("slow", KeyRules(requests_per_minute=2))
    answers = [await ask(keyed, slow.token) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[0].headers["x-ratelimit-limit-requests"] == "2"
    assert answers[1].headers["x-ratelimit-remaining-requests"] == "0"
    assert 50 < int(answers[2].headers["retry-after"]) <= 60
    over = await ledger.create_key("over", KeyRules(expires_at=time.time() - 1))
    assert (await ask(keyed, over.token)).status_code == 401
    gone = await ledger.create_key("gone", KeyRules())
    assert await ledger.revoke("gone")
    assert (await ask(keyed, gone.token)).status_code == 401
    assert not await ledger.revoke("gone")


async def test_one_call_at_a_time(monkeypatch: pytest.MonkeyPatch, keyed: Serving, ledger: Ledger) -> None:
    one = await ledger.create_key("one", KeyRules(max_concurrent=1))
    answers = await asyncio.gather(*(ask(keyed, one.token) for _ in range(5)))
    codes = sorted(answer.status_code for answer in answers)
    assert codes[0] == 200
    assert codes[-1] == 429
    assert (await ask(keyed, one.token)).status_code == 200


async def test_as_long_as_there_is_no_key_everyone_may_call(simulator: Simulator, ledger: Ledger) -> None:
    async with serve(GatewaySettings(), simulator, access=KeyAccess(ledger)) as serving:
        assert (await ask(serving, None)).status_code == 200


async def test_the_key_itself_is_not_in_the_database(tmp_path: Path) -> None:
    async with open_ledger(f"sqlite:///{tmp_path / 'ledger.db'}") as ledger:
        new = await ledger.create_key("team", KeyRules())
        stored = b"".join(map(Path.read_bytes, [tmp_path / "ledger.db", tmp_path / "ledger.db-wal"]))
    assert new.token.encode() not in stored
    assert b"team" in stored


async def test_a_name_has_one_key(ledger: Ledger) -> None:
    assert (await ledger.create_key("team", KeyRules())).key.name == "team"
    with pytest.raises(ConfigurationError, match="team"):
        await ledger.create_key("team", KeyRules())


@pytest.mark.parametrize(
    ("written", "rules"),
    [
        ({"budget": "20/month"}, KeyRules(budget=20, period="month")),
        ({"budget": "$5/day"}, KeyRules(budget=5, period="day")),
        ({"budget": "100"}, KeyRules(budget=100)),
        ({"requests": "60/minute", "tokens": "100000"}, KeyRules(requests_per_minute=60, tokens_per_minute=100_000)),
        ({"models": "fast, slow"}, KeyRules(models=("fast", "slow"))),
    ],
)
def test_rules_as_a_person_writes_them(written: dict[str, str], rules: KeyRules) -> None:
    assert parse_rules(**written) == rules


@pytest.mark.parametrize(
    "written",
    [
        *({"budget": text} for text in ("much", "nan", "-1", "1/week")),
        *({"requests": "0"}, {"tokens": "1/hour"}, {"expires": "soon"}),
    ],
)
def test_rules_that_cannot_be_read(written: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError):
        parse_rules(**written)
