"""The files that the gateway is configured by: its own TOML, and LiteLLM's YAML."""

from pathlib import Path

import httpx
import pytest

from gateway.conftest import TEXT
from gateway.serving import Serving, serve
from lm_deluge.config import Timeouts
from lm_deluge.errors import ConfigurationError
from lm_deluge.gateway.app import Gateway
from lm_deluge.gateway.configuration.settings import GatewaySettings, ServedModel, parse_settings, read_settings
from lm_deluge.gateway.serve import check_address
from lm_deluge.simulator import Simulator

TOML = """
[server]
host = "127.0.0.1"
port = 9000
database = "sqlite:///deluge.db"

[[models]]
name = "fast"
models = ["gpt-4.1-mini", "claude-haiku-4-5"]
fallback = ["gpt-4o-mini"]
max_requests_per_minute = 5000
timeouts = { idle = 20 }

[[models]]
name = "gpt-4o"
"""

YAML = """
model_list:
  - model_name: fast
    litellm_params: {model: openai/gpt-4o-mini, api_key: os.environ/OPENAI_API_KEY, rpm: 60, tpm: 100000, weight: 3}
  - model_name: fast
    litellm_params: {model: anthropic/claude-haiku-4-5, weight: 1, drop_params: true}
    model_info: {id: two}
  - model_name: spare
    litellm_params: {model: gpt-4.1-mini, temperature: 0.2, max_tokens: 100}
router_settings:
  fallbacks: [{fast: [spare]}]
  routing_strategy: simple-shuffle
general_settings: {master_key: sk-1234}
litellm_settings: {num_retries: 3}
"""


def test_a_toml_file(tmp_path: Path) -> None:
    path = tmp_path / "deluge.toml"
    path.write_text(TOML)
    settings = read_settings(path)
    assert (settings.port, settings.database) == (9000, "sqlite:///deluge.db")
    fast, own = settings.models
    assert fast.models == ("gpt-4.1-mini", "claude-haiku-4-5")
    assert fast.options["fallback"] == ["gpt-4o-mini"]
    assert fast.options["timeouts"] == Timeouts(idle=20)
    assert (own.name, own.models) == ("gpt-4o", ("gpt-4o",))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[server]\nprot = 1", "prot.*Do you mean 'port'"),
        ("[sever]\nport = 1", "sever.*Do you mean 'server'"),
        ("[server]\nport = 'x'", r"\[server\]"),
        ("[[models]]\nmodels = ['gpt-4o']", "number 1"),
        ("[[models]]\nname = 'a'\nmax_atempts = 1", "max_attempts"),
        ("[[models]]\nname = 'a'\n[[models]]\nname = 'a'", "two models"),
        ("[[models]]\nname = 'a'\ntimeouts = { idel = 1 }", "Do you mean 'idle'"),
        ("models = 1", "list of tables"),
        ("[server", "not valid TOML"),
    ],
)
def test_mistakes_in_a_toml_file(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "deluge.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        read_settings(path)


def test_a_model_that_does_not_exist_is_named_at_the_start() -> None:
    settings = parse_settings({"models": [{"name": "fast", "models": ["gpt-4o-minni"]}]}, "deluge.toml")
    with pytest.raises(ConfigurationError, match=r"'fast'.*gpt-4o-minni"):
        Gateway(settings)


def test_a_configuration_of_litellm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-from-environment")
    path = tmp_path / "config.yaml"
    path.write_text(YAML)
    settings = read_settings(path)
    fast, spare = settings.models
    assert fast.models == ("openai:gpt-4o-mini", "anthropic:claude-haiku-4-5")
    assert fast.options["model_weights"] == [3.0, 1.0]
    assert fast.options["api_key"] == {"openai": "sk-from-environment"}
    assert fast.options["fallback"] == ["gpt-4.1-mini"]
    limits = {"max_requests_per_minute": 60.0, "max_tokens_per_minute": 100_000.0}
    assert fast.options["model_limits"] == {"openai:gpt-4o-mini": limits}
    assert spare.options["temperature"] == 0.2
    assert spare.options["max_new_tokens"] == 100
    assert set(settings.ignored) == {
        *("model_list.model_info", "litellm_params.drop_params", "router_settings.routing_strategy"),
        *("general_settings.master_key", "litellm_settings.num_retries"),
    }
    Gateway(settings)  # all of it is understood


def test_several_keys_of_a_provider_in_a_configuration_of_litellm(tmp_path: Path) -> None:
    entry = "{model_name: pool, litellm_params: {model: openai/%s, api_key: %s, rpm: %d, weight: %d}}"
    entries = [
        entry % each for each in (("gpt-4o", "k1", 60, 1), ("gpt-4o", "k2", 90, 2), ("gpt-4o-mini", "k1", 60, 1))
    ]
    (tmp_path / "config.yaml").write_text(f"model_list: [{', '.join(entries)}]")
    settings = read_settings(tmp_path / "config.yaml")
    (served,) = settings.models
    assert served.models == ("openai:gpt-4o", "openai:gpt-4o-mini")
    assert served.options["api_key"] == ["k1", "k2"]
    assert served.options["model_weights"] == [3.0, 1.0]
    assert served.options["model_limits"]["openai:gpt-4o"] == {"max_requests_per_minute": 60.0}
    assert settings.ignored == ("other limits of a second openai:gpt-4o in pool",)


def test_files_that_a_configuration_of_litellm_includes(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(
        "include: [models.yaml]\nmodel_list: [{model_name: a, litellm_params: {model: gpt-4o}}]"
    )
    (tmp_path / "models.yaml").write_text("model_list: [{model_name: b, litellm_params: {model: gpt-4o-mini}}]")
    assert [model.name for model in read_settings(tmp_path / "config.yaml").models] == ["a", "b"]
    (tmp_path / "models.yaml").write_text("include: [models.yaml]")
    with pytest.raises(ConfigurationError, match="circle"):
        read_settings(tmp_path / "config.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "model_list: [{model_name: a, litellm_params: {model: m, api_key: os.environ/NOT_SET}}]",
            "NOT_SET is not set",
        ),
        ("model_list: [{model_name: a}]", "number 1"),
        ("model_list: [", "not valid YAML in line"),
        ("- a", "not a mapping"),
    ],
)
def test_mistakes_in_a_configuration_of_litellm(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "config.yml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        read_settings(path)


def test_an_address_that_others_can_reach_needs_keys() -> None:
    check_address(GatewaySettings(host="127.0.0.1"), has_keys=False)
    check_address(GatewaySettings(host="::1"), has_keys=False)
    check_address(GatewaySettings(host="192.168.1.4"), has_keys=True)
    for host in ("192.168.1.4", "example.com"):
        with pytest.raises(ConfigurationError, match="deluge keys create"):
            check_address(GatewaySettings(host=host), has_keys=False)


async def test_two_providers_share_a_name(simulator: Simulator) -> None:
    model = ServedModel(name="fast", models=("gpt-4o", "claude-sonnet-5-5"), options={"progress": "none"})
    async with (
        serve(GatewaySettings(models=(model,)), simulator) as serving,
        httpx.AsyncClient(base_url=serving.url) as client,
    ):
        body = {"model": "fast", "messages": [{"role": "user", "content": "Hello"}]}
        answers = [await client.post("/v1/chat/completions", json=body) for _ in range(4)]
        other = await client.post("/v1/chat/completions", json={**body, "model": "gpt-4o"})
        listed = (await client.get("/v1/models")).json()
    assert {answer.headers["x-deluge-model"] for answer in answers} == {"gpt-4o", "claude-sonnet-5-5"}
    assert {answer.json()["choices"][0]["message"]["content"] for answer in answers} == {TEXT}
    assert other.status_code == 404
    assert [each["id"] for each in listed["data"]] == ["fast"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"host": "localhost:8000"}, 200),
        ({"host": "[::1]:8000"}, 200),
        ({"host": "evil.example"}, 403),
        ({"host": "evil.example:8000"}, 403),
        ({"origin": "http://127.0.0.1:3000"}, 200),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
    ],
)
async def test_pages_of_other_sites_cannot_use_a_local_server(
    serving: Serving, headers: dict[str, str], status: int
) -> None:
    async with httpx.AsyncClient(base_url=serving.url) as client:
        assert (await client.get("/v1/models", headers=headers)).status_code == status
