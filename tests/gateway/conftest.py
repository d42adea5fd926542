"""Providers of the gateway's tests: the simulator, by the addresses in the environment."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import certifi
import pytest

from gateway.ledger.postgres import PostgresServer, run_postgres
from gateway.serving import Serving, serve
from lm_deluge.gateway.configuration.settings import GatewaySettings
from lm_deluge.simulator import Simulator

_PEM_END = "-----END CERTIFICATE-----"

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


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("certificates") / "one.pem"
    path.write_text(Path(certifi.where()).read_text().partition(_PEM_END)[0] + _PEM_END + "\n")
    return path


@pytest.fixture(autouse=True)
def _one_certificate(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let clients trust one authority: to load all of them takes 30 ms of CPU time for each client, of which there are
    hundreds here, and none of them needs any."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))


@pytest.fixture
async def simulator(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Simulator]:
    async with Simulator(TEXT) as running:
        point_providers_at(running, monkeypatch)
        yield running


@pytest.fixture
async def serving(simulator: Simulator) -> AsyncIterator[Serving]:
    async with serve(GatewaySettings(), simulator) as running:
        yield running


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    with run_postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, of each kind that is supported."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.db'}"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.new_database()
