"""The admin API: keys and spend for the holder of the master key, and what its rules do to calls."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.ledger.ledgers import open_ledger
from gateway.serving import Serving, serve
from lm_deluge.gateway.configuration.settings import GatewaySettings
from lm_deluge.gateway.key_access import KeyAccess
from lm_deluge.gateway.routes.admin import admin_app
from lm_deluge.simulator import Simulator

MASTER = {"authorization": "Bearer the-master"}


@contextlib.asynccontextmanager
async def admin_of(access: KeyAccess) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(admin_app(access._ledger, access))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8001", headers=MASTER) as client:
        yield client


@pytest.fixture
async def access(tmp_path: Path) -> AsyncIterator[KeyAccess]:
    async with open_ledger(f"sqlite:///{tmp_path / 'ledger.db'}") as ledger:
        yield KeyAccess(ledger, master_key="the-master")


@pytest.fixture
async def admin(access: KeyAccess) -> AsyncIterator[httpx.AsyncClient]:
    async with admin_of(access) as client:
        yield client


@pytest.fixture
async def serving(simulator: Simulator, access: KeyAccess) -> AsyncIterator[Serving]:
    async with serve(GatewaySettings(), simulator, access=access) as running:
        yield running


async def ask(serving: Serving, token: str, model: str = "gpt-4o") -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}]}
    async with httpx.AsyncClient(base_url=serving.url, timeout=30) as client:
        return await client.post("/v1/chat/completions", json=body, headers={"x-api-key": token})


async def test_a_key_is_created_listed_and_revoked(admin: httpx.AsyncClient) -> None:
    asked = {
        "name": "alice",
        "models": ["fast", "gpt-4o"],
        "budget": "20/month",
        "requests": "60/minute",
        "tokens": 100_000,
        "concurrent": 4,
        "expires": "30d",
    }
    created = await admin.post("/keys", json=asked)
    assert created.status_code == 201
    fields = created.json()
    assert fields.pop("key").startswith("sk-deluge-")
    assert fields["models"] == ["fast", "gpt-4o"]
    assert (fields["budget"], fields["period"]) == (20, "month")
    assert (fields["requests_per_minute"], fields["tokens_per_minute"], fields["max_concurrent"]) == (60, 100_000, 4)
    assert fields["expires_at"] - fields["created_at"] == pytest.approx(30 * 86_400, abs=60)
    assert (await admin.get("/keys")).json() == {"keys": [fields]}  # without the key itself
    assert (await admin.delete("/keys/alice")).json() == {"revoked": "alice"}
    assert (await admin.delete("/keys/alice")).status_code == 404
    (listed,) = (await admin.get("/keys")).json()["keys"]
    assert listed["revoked_at"] >= listed["created_at"]


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[]", "the body is wrong"),
        ({}, "name"),
        ({"name": ""}, "the name of a key"),
        ({"name": 5}, "name"),
        ({"name": "a", "budgets": "1"}, "budgets"),
        ({"name": "a", "budget": "much"}, "the budget 'much' cannot be read"),
        ({"name": "a", "budget": -1}, "the budget '-1' cannot be read"),
        ({"name": "a", "budget": 1e12}, "cannot be read"),
        ({"name": "a", "requests": 0}, "the requests '0' cannot be read"),
        ({"name": "a", "tokens": True}, "tokens"),
        ({"name": "a", "concurrent": 0}, "concurrent"),
        ({"name": "a", "concurrent": "4"}, "concurrent"),
        ({"name": "a", "expires": "soon"}, "the duration 'soon' cannot be read"),
        ({"name": "a", "models": [1]}, "models"),
        (b" " * 70_000, "more than"),
    ],
)
async def test_bodies_that_are_wrong(admin: httpx.AsyncClient, body: Any, problem: str) -> None:
    sent = {"content": body} if isinstance(body, bytes) else {"json": body}
    answer = await admin.post("/keys", **sent)
    assert answer.status_code == 400, answer.text
    assert problem in answer.json()["error"]["message"]
    assert (await admin.get("/keys")).json() == {"keys": []}


async def test_a_name_has_one_key(admin: httpx.AsyncClient) -> None:
    assert (await admin.post("/keys", json={"name": "a/b c"})).status_code == 201
    assert "there is a key" in (await admin.post("/keys", json={"name": "a/b c"})).json()["error"]["message"]
    assert (await admin.delete("/keys/a/b%20c")).status_code == 200


@pytest.mark.parametrize(
    "headers", [{}, {"authorization": "Bearer wrong"}, {"authorization": "the-master"}, {"x-api-key": ""}]
)
@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/keys"), ("POST", "/keys"), ("DELETE", "/keys/a"), ("GET", "/spend")]
)
async def test_without_the_master_key_there_is_nothing(
    access: KeyAccess, method: str, path: str, headers: dict[str, str]
) -> None:
    async with admin_of(access) as client:
        del client.headers["authorization"]
        answer = await client.request(method, path, headers=headers)
        assert answer.status_code == 401
        assert answer.json() == {"error": {"message": "the admin API needs the master key"}}


async def test_a_key_of_the_gateway_administers_nothing(admin: httpx.AsyncClient) -> None:
    token = (await admin.post("/keys", json={"name": "a"})).json()["key"]
    assert (await admin.get("/keys", headers={"authorization": f"Bearer {token}"})).status_code == 401


async def test_the_spend_of_keys_and_models(admin: httpx.AsyncClient, serving: Serving) -> None:
    assert (await admin.get("/spend")).json() == {"spend": []}
    tokens = {name: (await admin.post("/keys", json={"name": name})).json()["key"] for name in ("a", "b")}
    for name, model in (("a", "gpt-4o"), ("a", "gpt-4o-mini"), ("b", "gpt-4o")):
        assert (await ask(serving, tokens[name], model)).status_code == 200
    rows = (await admin.get("/spend", params={"by": "key,model"})).json()["spend"]
    assert [(row["key"], row["model"], row["calls"]) for row in rows] == [
        ("a", "gpt-4o", 1),
        ("a", "gpt-4o-mini", 1),
        ("b", "gpt-4o", 1),
    ]
    (total,) = (await admin.get("/spend", params={"by": ""})).json()["spend"]
    assert total["cost"] == pytest.approx(sum(row["cost"] for row in rows))
    assert total["cost"] == pytest.approx(sum(call.cost or 0 for call in serving.log.calls))
    assert (await admin.get("/spend", params={"since": "2999-01-01"})).json() == {"spend": []}
    for wrong in ({"by": "user"}, {"since": "soon"}, {"since": "2026-13-01"}):
        assert (await admin.get("/spend", params=wrong)).status_code == 400


@pytest.mark.parametrize(
    ("rules", "status", "code"),
    [
        ({"expires": "0s"}, 401, "invalid_api_key"),
        ({"budget": 0}, 429, "budget_exceeded"),
        ({"budget": "0.000001/day"}, 429, "budget_exceeded"),
        ({"models": "fast"}, 403, "permission_denied"),
        ({"tokens": "1/minute"}, 200, None),  # a request above the limit fits an empty minute
        ({"expires": "1h", "budget": "5/month", "models": ["gpt-4o"], "concurrent": 1, "requests": 1}, 200, None),
    ],
)
async def test_the_rules_of_a_new_key_hold(
    admin: httpx.AsyncClient, serving: Serving, rules: dict[str, Any], status: int, code: str | None
) -> None:
    token = (await admin.post("/keys", json={"name": "a", **rules})).json()["key"]
    answer = await ask(serving, token)
    assert answer.status_code == status, answer.text
    if status != 200:
        assert answer.json()["error"].get("code") == code
        assert serving.simulator.stats.requests == 0
    if rules.get("requests") == 1:
        assert (await ask(serving, token)).status_code == 429


async def test_a_revoked_key_is_refused(admin: httpx.AsyncClient, serving: Serving) -> None:
    token = (await admin.post("/keys", json={"name": "a"})).json()["key"]
    await admin.delete("/keys/a")
    answer = await ask(serving, token)
    assert (answer.status_code, answer.json()["error"]["message"]) == (401, "this key was revoked")
