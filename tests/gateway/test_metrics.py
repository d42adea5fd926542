"""`/metrics` of the admin port, read with Prometheus' own parser."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.serving import Serving, serve
from lm_deluge.errors import ConfigurationError
from lm_deluge.gateway.configuration.settings import GatewaySettings, ServedModel
from lm_deluge.gateway.key_access import KeyAccess
from lm_deluge.gateway.ledger.database import Database
from lm_deluge.gateway.ledger.keys import KeyRules
from lm_deluge.gateway.ledger.ledger import Ledger
from lm_deluge.gateway.metrics import GatewayMetrics
from lm_deluge.gateway.routes.admin import admin_app
from lm_deluge.gateway.serve import bind_admin
from lm_deluge.simulator import Simulator
from lm_deluge.telemetry.logs import logger
from telemetry.test_otel import Exported
from telemetry.test_prometheus import Samples, samples_of

BODY = {"model": "gpt-4o", "messages": [{"role": "user", "content": "a confidential prompt"}], "stream": True}


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[Ledger]:
    database = Database(f"sqlite:///{tmp_path / 'ledger.db'}")
    await database.open()
    yield Ledger(database)
    await database.close()


async def ask(serving: Serving, path: str = "/v1/chat/completions", token: str = "", **fields: Any) -> httpx.Response:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    async with httpx.AsyncClient(base_url=serving.url, timeout=60) as client:
        return await client.post(path, json={**BODY, **fields}, headers=headers)


async def scrape(ledger: Ledger, metrics: GatewayMetrics | None, **headers: str) -> httpx.Response:
    app = admin_app(ledger, KeyAccess(ledger, master_key="the-master"), metrics)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8001") as client:
        return await client.get("/metrics", headers=headers)


def value(samples: Samples, name: str, **labels: str) -> float | None:
    return samples.get((f"deluge_{name}", frozenset(labels.items())))


async def test_calls_and_requests_are_counted(simulator: Simulator, ledger: Ledger) -> None:
    metrics = GatewayMetrics()
    async with serve(GatewaySettings(), simulator, metrics=metrics) as serving:
        assert (await ask(serving)).status_code == 200
        assert (await ask(serving, stream=False)).status_code == 200
        assert (await ask(serving, "/v1/messages", model="claude-sonnet-4-5", max_tokens=9)).status_code == 200
        assert (await ask(serving, model="no such model of a user")).status_code == 404
    response = await scrape(ledger, metrics)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=")
    samples = samples_of(response.text)
    assert value(samples, "gateway_requests_total", dialect="openai-chat", status="200") == 2
    assert value(samples, "gateway_requests_total", dialect="openai-chat", status="404") == 1
    assert value(samples, "gateway_requests_total", dialect="anthropic-messages", status="200") == 1
    assert value(samples, "gateway_request_seconds_count", dialect="openai-chat") == 3
    assert value(samples, "gateway_in_progress") == 0
    assert value(samples, "requests_total", model="gpt-4o", status="ok") == 2
    assert value(samples, "requests_total", model="claude-sonnet-4-5", status="ok") == 1
    assert value(samples, "tokens_total", model="gpt-4o", kind="output") > 0
    assert value(samples, "cost_dollars_total", model="gpt-4o") > 0
    assert "confidential" not in response.text
    assert "such" not in response.text


async def test_names_that_users_make_up_are_no_labels(simulator: Simulator, ledger: Ledger) -> None:
    metrics = GatewayMetrics()
    async with serve(GatewaySettings(), simulator, metrics=metrics) as serving:
        assert (await ask(serving, model="openai:made-up-by-a-user")).status_code == 200
    samples = samples_of((await scrape(ledger, metrics)).text)
    assert value(samples, "requests_total", model="other", status="ok") == 1
    assert "made-up" not in str(samples)


async def test_configured_names_are_labels(simulator: Simulator, ledger: Ledger) -> None:
    own = ServedModel(name="team", models=("openai:our-model",), options={"fallback": "openai:its-substitute"})
    metrics = GatewayMetrics()
    async with serve(GatewaySettings(models=(own,)), simulator, metrics=metrics) as serving:
        assert (await ask(serving, model="team")).status_code == 200
        assert metrics.observer.label_of("openai:its-substitute") == "openai:its-substitute"
    samples = samples_of((await scrape(ledger, metrics)).text)
    assert value(samples, "requests_total", model="openai:our-model", status="ok") == 1


@pytest.mark.parametrize("by_key", [False, True])
async def test_names_of_keys_are_labels_on_request(simulator: Simulator, ledger: Ledger, *, by_key: bool) -> None:
    new = await ledger.create_key("the-team", KeyRules())
    metrics, access = GatewayMetrics(by_key=by_key), KeyAccess(ledger, master_key="the-master")
    async with serve(GatewaySettings(), simulator, access=access, metrics=metrics) as serving:
        assert (await ask(serving, token=new.token)).status_code == 200
        assert (await ask(serving, token="sk-unknown")).status_code == 401
    text = (await scrape(ledger, metrics)).text
    samples = samples_of(text)
    own = {"key": "the-team"} if by_key else {}
    assert value(samples, "gateway_requests_total", dialect="openai-chat", status="200", **own) == 1
    assert ("the-team" in text) is by_key
    for secret in (new.token, "sk-unknown", "the-master", "sk-openai"):
        assert secret not in text


async def test_pages_of_other_sites_cannot_read_metrics(ledger: Ledger) -> None:
    assert (await scrape(ledger, GatewayMetrics(), host="evil.example")).status_code == 403


async def test_without_the_package_there_is_a_hint(ledger: Ledger) -> None:
    response = await scrape(ledger, None)
    assert (response.status_code, response.text) == (501, "Run pip install prometheus-client.\n")


async def test_calls_of_the_gateway_have_spans_on_request(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported = Exported()
    monkeypatch.setattr("opentelemetry.trace._TRACER_PROVIDER", exported.tracer_provider)
    async with serve(GatewaySettings(opentelemetry=True), simulator) as serving:
        await ask(serving)
        await ask(serving, stream=False)
    assert [span.name for span in exported.spans] == ["chat gpt-4o", "chat gpt-4o"]
    assert [(span.attributes or {})["gen_ai.request.stream"] for span in exported.spans] == [True, False]


# The admin port


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


async def test_the_command_serves_metrics_without_a_master_key(simulator: Simulator, tmp_path: Path) -> None:
    admin_port = free_port()
    config = tmp_path / "deluge.toml"
    config.write_text(f'[server]\nadmin_port = {admin_port}\ndatabase = "sqlite:///{tmp_path}/gateway.db"\n')
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "lm_deluge", "serve", "--port", "0", "--quiet", "--config", str(config)),
        stderr=asyncio.subprocess.PIPE,
        cwd=tmp_path,
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(30), httpx.AsyncClient(timeout=20) as client:
            url = (await process.stderr.readline()).decode().split()[-1]
            assert (await client.post(f"{url}/v1/chat/completions", json=BODY)).status_code == 200
            admin = f"http://127.0.0.1:{admin_port}"
            response = await client.get(f"{admin}/metrics")
            assert (await client.get(f"{admin}/keys")).status_code == 401
            assert (await client.get(f"{url}/metrics")).status_code == 404  # not where clients are
    finally:
        process.terminate()
        await process.communicate()
    samples = samples_of(response.text)
    assert value(samples, "requests_total", model="gpt-4o", status="ok") == 1
    assert value(samples, "gateway_requests_total", dialect="openai-chat", status="200") == 1
    assert ("process_resident_memory_bytes", frozenset()) in samples


def test_an_admin_port_that_is_taken(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"the admin port {port} cannot be used"):
            bind_admin(port, must=True)
        with caplog.at_level(logging.WARNING, logger.name):
            assert bind_admin(port, must=False) is None
    assert "there is no /metrics" in caplog.text
    assert bind_admin(None, must=True) is None
