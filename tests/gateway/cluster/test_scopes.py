"""The limiter of the gateway's models: what they share, and what each of them has for itself."""

from pathlib import Path

import pytest

from dispatch.scheduling.shared.redis_server import need_redis, server_of_tests
from lm_deluge.client.client import LLMClient
from lm_deluge.dispatch.scheduling.shared.configuration import SharedConfiguration
from lm_deluge.dispatch.scheduling.shared.limiter import SharedLimiter
from lm_deluge.errors import ConfigurationError
from lm_deluge.gateway.app import Gateway
from lm_deluge.gateway.catalog import ModelCatalog
from lm_deluge.gateway.cluster.workers import check_workers
from lm_deluge.gateway.configuration.settings import GatewaySettings, ServedModel, parse_settings
from lm_deluge.gateway.serve import open_gateway


def limiter_of(client: LLMClient) -> SharedLimiter:
    client.dispatcher.limiter()
    link = client.dispatcher._limiter_link
    assert link is not None
    return link._limiter


def configuration_of(client: LLMClient) -> SharedConfiguration:
    return limiter_of(client).configuration


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-openai")


def test_models_share_what_a_key_has_and_not_what_is_set_for_one_of_them() -> None:
    """Two names with limits of their own at one provider: the limits of the one are not those of the other."""
    pytest.importorskip("redis")
    models = tuple(
        ServedModel(name=name, models=("gpt-4o",), options={"max_requests_per_minute": limit, "progress": "none"})
        for name, limit in (("fast", 600), ("slow", 6))
    )
    catalog = ModelCatalog(GatewaySettings(limiter="redis://127.0.0.1:6379/0", models=models))
    fast, slow = (configuration_of(catalog.find(name)) for name in ("fast", "slow"))
    assert fast.keys[0] == slow.keys[0]  # what responses show about the key
    assert fast.keys[1] != slow.keys[1]
    assert fast.keys[1] == configuration_of(ModelCatalog(catalog_settings(models)).find("fast")).keys[1]


def catalog_settings(models: tuple[ServedModel, ...]) -> GatewaySettings:
    return GatewaySettings(limiter="redis://127.0.0.1:6379/0", models=models)


def test_a_model_may_have_a_limiter_of_its_own() -> None:
    pytest.importorskip("redis")
    own = ServedModel(name="own", models=("gpt-4o",), options={"limiter": "redis://127.0.0.1:1/5"})
    catalog = ModelCatalog(catalog_settings((own, ServedModel(name="usual", models=("gpt-4o",)))))
    assert catalog.find("own").options.limiter == "redis://127.0.0.1:1/5"
    assert catalog.find("usual").options.limiter == "redis://127.0.0.1:6379/0?scope=usual"


async def test_models_without_configuration_have_the_limiter_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    need_redis()
    gateway = Gateway(GatewaySettings(limiter=server_of_tests().url))
    client = gateway._services.catalog.find("gpt-4o")
    assert client.options.limiter == f"{server_of_tests().url}?scope=gpt-4o"


@pytest.mark.parametrize(
    ("server", "problem"),
    [
        ({"workers": 0}, "workers"),
        ({"workers": 10_000}, "workers"),
        ({"limiter": 5}, "limiter"),
        ({"limiter": "http://127.0.0.1"}, "limiter is not the URL of a Redis server"),
        ({"workers": 2}, "2 workers without a limiter"),
    ],
)
def test_settings_that_cannot_be_used(server: dict[str, object], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        check_workers(parse_settings({"server": server}, "deluge.toml"))


async def test_workers_begin_with_their_share_while_the_server_is_away(tmp_path: Path) -> None:
    pytest.importorskip("redis")
    own = ServedModel(name="own", models=("gpt-4o",), options={"limiter": "redis://127.0.0.1:1/5?processes=8"})
    usual = ServedModel(name="usual", models=("gpt-4o",), options={"max_requests_per_minute": 600})
    settings = GatewaySettings(limiter="redis://127.0.0.1:1/0", workers=3, models=(own, usual))
    database = f"sqlite:///{tmp_path / 'keys.db'}"
    async with open_gateway(settings, database=database, master_key=None, log=None, metrics=None) as opened:
        catalog = opened.gateway._services.catalog
        processes = {}
        for name in ("own", "usual"):
            processes[name] = limiter_of(catalog.find(name)).processes
    assert processes == {"own": 8, "usual": 3}, "what a URL names goes first"
