"""Providers of the gateway's tests: the simulator, by the addresses in the environment."""

from collections.abc import AsyncIterator

import pytest

from gateway.serving import Serving, serve
from lm_deluge.gateway.configuration.settings import GatewaySettings
from lm_deluge.simulator import Simulator

TEXT = "One two three, and four; that is the whole answer of the model."


def point_providers_at(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    origin = simulator.base_url.removesuffix("/v1")
    for name, value in {
        "OPENAI_API_KEY": "sk-openai",
        "OPENAI_BASE_URL": f"{origin}/v1",
        "ANTHROPIC_API_KEY": "sk-anthropic",
        "ANTHROPIC_BASE_URL": origin,
        "GEMINI_API_KEY": "gemini-key",
        "GOOGLE_GEMINI_BASE_URL": origin,
    }.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
async def simulator(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Simulator]:
    async with Simulator(TEXT) as running:
        point_providers_at(running, monkeypatch)
        yield running


@pytest.fixture
async def serving(simulator: Simulator) -> AsyncIterator[Serving]:
    async with serve(GatewaySettings(), simulator) as running:
        yield running
