"""Who may use the page: keys, cookies, their end, and pages of other sites."""

import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.page.chat_page import DELETES, PageClient, chat_page
from gateway.test_bad_clients import until
from lm_deluge.errors import RateLimitError
from lm_deluge.gateway.key_access import KeyAccess
from lm_deluge.gateway.ledger.database import Database
from lm_deluge.gateway.ledger.keys import HashedKey, KeyRules, digest_of
from lm_deluge.gateway.ledger.ledger import Ledger
from lm_deluge.gateway.page.store.sessions import SESSION_S, Attempts
from lm_deluge.simulator import Pace

MASTER = "the-master"


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[Ledger]:
    database = Database(f"sqlite:///{tmp_path / 'ledger.db'}")
    await database.open()
    yield Ledger(database)
    await database.close()


@contextlib.asynccontextmanager
async def keyed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, ledger: Ledger, *options: Any, **settings: Any
) -> AsyncIterator[PageClient]:
    access = KeyAccess(ledger, master_key=MASTER)
    async with chat_page(folder, monkeypatch, *options, access=access, **settings) as page:
        yield page


async def sign_in(page: PageClient, key: str) -> httpx.Response:
    return await page.http.post("/page/api/session", json={"key": key})


async def test_a_key_opens_a_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ledger: Ledger) -> None:
    new = await ledger.create_key("team", KeyRules(models=("gpt-4o",)))
    async with keyed(tmp_path, monkeypatch, ledger) as page:
        closed = {"needs_key": True, "signed_in": False, "name": None, "simulated": False}
        assert await page.json("GET", "session") == closed
        for path in ("models", "conversations", "csp-reports", f"answers/{'0' * 32}/events", f"files/{'0' * 32}"):
            refused = await page.json("GET", path, status=401)
            assert refused["error"]["type"] == "AuthenticationError"
        answer = await sign_in(page, f" {new.token} ")
        assert answer.json() == {"needs_key": True, "signed_in": True, "name": "team", "simulated": False}
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert "Secure" not in cookie  # without TLS a browser would not send it
        assert new.token not in answer.text + str(answer.headers)
        assert [each["id"] for each in (await page.json("GET", "models"))["models"]] == ["gpt-4o"]
        conversation = await page.conversation()
        assert (await page.answered(conversation))["status"] == "complete"
        refused = await page.ask(conversation, models=("gpt-4.1",), status=403)
        assert refused["error"]["type"] == "PermissionDeniedError"
        (stolen,) = page.http.cookies.jar
        assert (await page.http.request("DELETE", "/page/api/session", headers=DELETES)).status_code == 204
        assert await page.json("GET", "session") == closed
        page.http.cookies.set(stolen.name, str(stolen.value))
        await page.json("GET", "conversations", status=401)
    (call,) = page.serving.log.calls
    assert (call.key_name, call.status) == ("team", 200)
    assert (await ledger.spent(new.key, now=time.time()))[0] == pytest.approx(call.cost)


async def test_neither_key_nor_cookie_is_in_the_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ledger: Ledger
) -> None:
    new = await ledger.create_key("team", KeyRules())
    async with keyed(tmp_path, monkeypatch, ledger) as page:
        await sign_in(page, new.token)
        (cookie,) = page.http.cookies.jar
    assert cookie.value is not None
    stored = b"".join(path.read_bytes() for path in tmp_path.glob("page.db*"))  # noqa: ASYNC240
    assert digest_of(new.token).encode() in stored
    assert new.token.encode() not in stored
    assert cookie.value.encode() not in stored
    async with keyed(tmp_path, monkeypatch, ledger) as again:  # what a thief of the database would try
        for wrong in (digest_of(new.token), digest_of(cookie.value), HashedKey(digest_of(new.token))):
            assert (await sign_in(again, wrong)).status_code == 401
            again.http.cookies.set(cookie.name, wrong)
            await again.json("GET", "conversations", status=401)


async def test_a_session_survives_a_restart_but_not_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ledger: Ledger
) -> None:
    new = await ledger.create_key("team", KeyRules())
    async with keyed(tmp_path, monkeypatch, ledger) as page:
        await sign_in(page, new.token)
        (cookie,) = page.http.cookies.jar
    assert cookie.value is not None

    async def use(page: PageClient) -> int:
        port = page.http.base_url.port
        page.http.cookies.set(f"deluge_session_{port}", str(cookie.value))
        return (await page.http.get("/page/api/conversations")).status_code

    async with keyed(tmp_path, monkeypatch, ledger) as again:
        assert await use(again) == 200
    await ledger.revoke("team")
    async with keyed(tmp_path, monkeypatch, ledger) as again:
        assert await use(again) == 401
    async with keyed(tmp_path, monkeypatch, ledger) as again:
        assert await use(again) == 401


async def test_a_session_expires(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ledger: Ledger) -> None:
    from lm_deluge.gateway.page.store.database import PageDatabase
    from lm_deluge.gateway.page.store.sessions import Sessions

    new = await ledger.create_key("team", KeyRules())
    database = PageDatabase(f"sqlite:///{tmp_path / 'page.db'}")
    await database.open()
    now = 1_000.0
    sessions = Sessions(database, KeyAccess(ledger), clock=lambda: now)
    cookie, name = await sessions.sign_in(new.token)
    now += SESSION_S - 1
    assert (await sessions.visitor(cookie)).owner == name == "team"
    now += 2
    with pytest.raises(Exception, match="sign in first"):
        await sessions.visitor(cookie)
    await database.close()


@pytest.mark.parametrize("key", ["sk-wrong", MASTER, "", "ü" * 100])
async def test_wrong_keys_are_refused_and_their_number_limited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ledger: Ledger, key: str
) -> None:
    new = await ledger.create_key("team", KeyRules())
    async with keyed(tmp_path, monkeypatch, ledger) as page:
        answers = [await sign_in(page, key) for _ in range(11)]
        assert [answer.status_code for answer in answers] == [401] * 10 + [429]
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 60
        assert (await sign_in(page, new.token)).status_code == 429


def test_failures_are_forgotten_after_a_minute() -> None:
    now = 0.0
    attempts = Attempts(clock=lambda: now)
    for _ in range(10):
        attempts.check("1.2.3.4")
        attempts.note_failure("1.2.3.4")
        now += 1
    with pytest.raises(RateLimitError) as refused:
        attempts.check("1.2.3.4")
    assert refused.value.retry_after_s == 50
    attempts.check("5.6.7.8")
    now = 60.0
    attempts.check("1.2.3.4")


async def test_users_see_only_what_is_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ledger: Ledger
) -> None:
    one, two = [await ledger.create_key(name, KeyRules()) for name in ("one", "two")]
    slow = {"pace": Pace(tokens_per_second=30)}
    async with keyed(tmp_path, monkeypatch, ledger, "word " * 200, **slow) as page:
        await sign_in(page, one.token)
        conversation = await page.conversation(title="Secret")
        headers = {"x-file-name": "a", "content-type": "text/plain"}
        file = (await page.http.post("/page/api/files", content=b"secret", headers=headers)).json()["file_id"]
        (answer,) = (await page.ask(conversation))["answers"]
        await until(lambda: page.simulator.stats.requests == 1)
        page.http.cookies.clear()
        await sign_in(page, two.token)
        own = await page.conversation()
        assert [each["id"] for each in (await page.json("GET", "conversations"))["conversations"]] == [own]
        assert (await page.json("GET", "conversations?query=Secret"))["conversations"] == []
        for method, path, body in (
            ("GET", f"conversations/{conversation}", None),
            ("GET", f"conversations/{conversation}/export", None),
            ("PATCH", f"conversations/{conversation}", {"title": "x"}),
            ("DELETE", f"conversations/{conversation}", None),
            ("GET", f"files/{file}", None),
            ("POST", f"answers/{answer['id']}/stop", {}),
        ):
            await page.json(method, path, body, status=404)
        await page.ask(conversation, status=404)
        await page.ask(own, files=({"file_id": file},), status=404)
        await page.ask(own, parent=answer["id"], status=404)
        assert (await page.http.get(f"/page/api/answers/{answer['id']}/events")).status_code == 204
        page.http.cookies.clear()
        await sign_in(page, one.token)
        await page.json("POST", f"answers/{answer['id']}/stop", {})


async def test_a_budget_that_is_used_up_is_a_failed_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ledger: Ledger
) -> None:
    new = await ledger.create_key("team", KeyRules(budget=0.0))
    async with keyed(tmp_path, monkeypatch, ledger) as page:
        await sign_in(page, new.token)
        answer = await page.answered(await page.conversation())
        assert answer["status"] == "failed"
        assert answer["error"]["type"] == "QuotaExceededError"
        assert answer["error"]["retryable"]
        assert page.simulator.stats.requests == 0


async def test_the_limits_of_a_key_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ledger: Ledger) -> None:
    new = await ledger.create_key("team", KeyRules(requests_per_minute=1))
    async with keyed(tmp_path, monkeypatch, ledger) as page:
        await sign_in(page, new.token)
        conversation = await page.conversation()
        first = await page.answered(conversation)
        second = await page.answered(conversation, "Again", parent=first["id"])
        assert (first["status"], second["status"]) == ("complete", "failed")
        assert (second["error"]["type"], second["error"]["retryable"]) == ("RateLimitError", True)
        assert [call.status for call in page.serving.log.calls] == [200, 429]
        assert page.simulator.stats.requests == 1


async def test_an_answer_ends_where_the_budget_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ledger: Ledger
) -> None:
    new = await ledger.create_key("team", KeyRules(budget=0.06))
    async with keyed(tmp_path, monkeypatch, ledger, "word " * 20_000) as page:
        await sign_in(page, new.token)
        answer = await page.answered(await page.conversation())
    assert (answer["status"], answer["error"]["type"]) == ("failed", "BudgetError")
    assert len(answer["parts"][0]["text"]) > 1000
    spent, reserved = await ledger.spent(new.key, now=time.time())
    assert reserved == 0
    assert spent == pytest.approx(answer["cost"])
    assert 0.03 < spent < 0.06 + 0.0205


FOREIGN = [
    {"origin": "https://evil.example"},
    {"origin": "null"},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
    {"sec-fetch-site": "none"},
    {"host": "evil.example"},
    {"origin": "http://127.0.0.1:1"},  # another server on this machine
]


@pytest.mark.parametrize("headers", FOREIGN)
async def test_pages_of_other_sites_change_nothing(page: PageClient, headers: dict[str, str]) -> None:
    conversation = await page.conversation()
    for method, path in (
        ("POST", "conversations"),
        ("PATCH", f"conversations/{conversation}"),
        ("DELETE", f"conversations/{conversation}"),
        ("POST", f"conversations/{conversation}/answers"),
        ("POST", "files"),
        ("POST", "session"),
        ("DELETE", "session"),
        ("POST", "csp-reports"),
    ):
        answer = await page.http.request(
            method, f"/page/api/{path}", content=b"{}", headers={**DELETES, "x-file-name": "x", **headers}
        )
        assert answer.status_code == 403, (method, path)
    assert len((await page.json("GET", "conversations"))["conversations"]) == 1


async def test_the_page_itself_and_programs_may_use_it(page: PageClient) -> None:
    own = {"sec-fetch-site": "same-origin", "origin": str(page.http.base_url).rstrip("/")}
    for headers in ({}, own, {"origin": own["origin"]}):
        answer = await page.http.post("/page/api/conversations", json={}, headers=headers)
        assert answer.status_code == 201
    typed = await page.http.get("/page/api/conversations", headers={"sec-fetch-site": "none"})
    assert typed.status_code == 200
    for site in ("cross-site", "same-site"):
        refused = await page.http.get("/page/api/conversations", headers={"sec-fetch-site": site})
        assert refused.status_code == 403


async def test_reports_of_browsers_are_kept(page: PageClient) -> None:
    report = {"csp-report": {"violated-directive": "img-src"}}
    headers = {"content-type": "application/csp-report", "sec-fetch-site": "same-origin"}
    for number in range(101):
        body = {**report, "number": number}
        assert (await page.http.post("/page/api/csp-reports", json=body, headers=headers)).status_code == 204
    found = (await page.json("GET", "csp-reports"))["reports"]
    assert len(found) == 100
    assert found[-1] == {**report, "number": 100}
    large = await page.http.post("/page/api/csp-reports", content=b"x" * 70_000, headers=headers)
    assert large.status_code == 413


async def test_the_cookie_is_for_tls_only_where_there_is_tls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ledger: Ledger
) -> None:
    new = await ledger.create_key("team", KeyRules())
    async with keyed(tmp_path, monkeypatch, ledger) as page:
        transport = httpx.ASGITransport(page.serving.gateway)
        async with httpx.AsyncClient(transport=transport, base_url="https://127.0.0.1") as client:
            answer = await client.post("/page/api/session", json={"key": new.token})
        assert "Secure" in answer.headers["set-cookie"]
