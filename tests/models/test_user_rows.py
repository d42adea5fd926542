"""Rows from a file of the user."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lm_deluge.errors import ConfigurationError
from lm_deluge.models import registry
from lm_deluge.models.rows import ModelRow
from lm_deluge.models.user_rows import read_user_rows
from lm_deluge.usage import Price, PriceChange


@pytest.fixture(autouse=True)
def _fresh_registry() -> Iterator[None]:
    registry._registry.cache_clear()
    yield
    registry._registry.cache_clear()


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """Return a function that writes the file to the path in the environment variable."""
    path = tmp_path / "rows.toml"
    monkeypatch.setenv("DELUGE_MODELS", str(path))

    def do(text: str) -> None:
        path.write_text(text, "utf-8")

    return do


def test_a_new_provider_with_models(write) -> None:
    write(
        """
        [providers.acme]
        adapter = "openai-chat"
        base_url = "https://acme.test/v1"
        key_env = ["ACME_KEY"]
        quirks = { max_tokens_field = "max_tokens" }

        [models."acme:large"]
        context_window = 1000
        price = { input = 1, output = 2.5 }

        [models.small]
        provider = "acme"
        name = "small-v2"
        """
    )
    provider = registry.find_provider("acme")
    assert (provider.id, provider.otel_name, provider.quirks.max_tokens_field) == ("acme", "acme", "max_tokens")
    large, small = registry.find_model("acme:large"), registry.find_model("small")
    assert (large.name, large.provider, large.context_window) == ("large", "acme", 1000)
    assert large.price is not None
    assert (large.price.input, large.price.output) == (1, 2.5)
    assert (small.name, small.provider) == ("small-v2", "acme")
    assert small in registry.list_models(provider="acme")


def test_of_rows_of_the_package_only_what_is_said_is_different(write) -> None:
    write("")
    before, host = registry.find_model("gpt-4o"), registry.find_provider("groq")
    registry._registry.cache_clear()
    write(
        """
        [models.gpt-4o]
        price.input = 1.25
        capabilities.tools = false

        [providers.groq]
        base_url = "https://eu.groq.test/v1"
        quirks.developer_role = true
        """
    )
    after, there = registry.find_model("gpt-4o"), registry.find_provider("groq")
    assert before.price is not None
    assert after.price is not None
    assert (after.price.input, after.price.output) == (1.25, before.price.output)
    assert not after.capabilities.tools
    assert (after.name, after.capabilities.json_schema) == (before.name, before.capabilities.json_schema)
    assert (there.base_url, there.key_env) == ("https://eu.groq.test/v1", host.key_env)
    assert (there.quirks.developer_role, there.quirks.rejects) == (True, host.quirks.rejects)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[models.x\n", r"rows\.toml is not valid TOML: .*line 1"),
        ("[model.x]\n", r"rows\.toml: unknown table 'model'"),
        ("models = 3\n", r"rows\.toml: models is not a table"),
        ("[models]\nx = 3\n", r"rows\.toml: models\.x is not a table"),
        ("[models.x]\nprovider = 'openai'\ntypo = 1\n", r"rows\.toml: models\.x: .*unknown field `typo`"),
        (
            "[models.x]\nprovider = 'openai'\ncontext_window = 'big'\n",
            r"rows\.toml: models\.x\.context_window: expected",
        ),
        (
            "[models.x]\nprovider = 'openai'\nprice = { input = 1 }\n",
            r"models\.x\.price: .*missing required field `output`",
        ),
        ("[models.x]\nprovider = 'nobody'\n", r"models\.x\.provider: there is no provider 'nobody'"),
        ("[models.x]\n", r"models\.x: .*missing required field `provider`"),
        ("[models.x]\nid = 'y'\nprovider = 'openai'\n", r"models\.x\.id is not the table's name"),
        ("[providers.x]\nadapter = 'openai-chat'\n", r"providers\.x: .*missing required field `base_url`"),
        ("[providers.groq]\nquirks.typo = 1\n", r"providers\.groq\.quirks: .*unknown field `typo`"),
        ("[providers.groq]\nauth = 'magic'\n", r"providers\.groq\.auth: invalid enum value 'magic'"),
    ],
)
def test_what_is_wrong_names_file_and_key(write, text: str, said: str) -> None:
    write(text)
    with pytest.raises(ConfigurationError, match=said):
        registry.find_model("gpt-4o")


def test_a_file_that_is_named_must_be_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DELUGE_MODELS", str(tmp_path / "gone.toml"))
    with pytest.raises(ConfigurationError, match=r"gone\.toml was not read: No such file.*DELUGE_MODELS"):
        registry.find_model("gpt-4o")


def test_what_is_no_text_is_no_file_of_rows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "rows.toml").write_bytes(b"\xff\xfe")
    monkeypatch.setenv("DELUGE_MODELS", str(tmp_path / "rows.toml"))
    with pytest.raises(ConfigurationError, match=r"rows\.toml was not read: it is not UTF-8 text"):
        registry.find_model("gpt-4o")


def test_a_folder_is_no_file_of_rows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DELUGE_MODELS", str(tmp_path))
    with pytest.raises(ConfigurationError, match="was not read"):
        registry.find_model("gpt-4o")


@pytest.mark.skipif(os.name == "nt", reason="folders of another kind")
@pytest.mark.parametrize("place", ["xdg", "home"])
def test_the_usual_place_is_looked_at(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: str) -> None:
    monkeypatch.delenv("DELUGE_MODELS")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "conf") if place == "xdg" else "not/absolute")
    assert registry.find_model("gpt-4o").id == "gpt-4o"
    registry._registry.cache_clear()
    folder = tmp_path / ("conf" if place == "xdg" else ".config") / "lm_deluge"
    folder.mkdir(parents=True)
    (folder / "models.toml").write_text("[models.mine]\nprovider = 'openai'\n", "utf-8")
    assert registry.find_model("mine").provider == "openai"


def test_an_announced_change_does_not_end_a_price_of_the_user() -> None:
    changes = (PriceChange(start="2001-01-01", price=Price(input=9.0, output=9.0)),)
    price = Price(input=1.0, output=2.0, cache_read=0.1, changes=changes)
    known = ModelRow(id="m", name="m", provider="openai", price=price)
    providers = {"openai": registry.find_provider("openai")}
    _, models = read_user_rows("[models.m]\nprice.input = 0.5\n", "f.toml", providers, {"m": known})
    assert models["m"].price == Price(input=0.5, output=2.0, cache_read=0.1)
    _, models = read_user_rows("[models.m]\ncontext_window = 5\n", "f.toml", providers, {"m": known})
    assert models["m"].price == price
