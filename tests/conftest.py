"""Fixtures of every test: no keys from the environment, no proxy, no network beyond the loopback."""

import gc
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings

# Same examples in each run, because a random failure does not show which change caused it. `make soak` draws new ones.
settings.register_profile("check", derandomize=True, deadline=None)
settings.register_profile("soak", deadline=None)
settings.load_profile("soak" if os.environ.get("DELUGE_SOAK") else "check")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[Any]:
    """Leave the imported modules out of all collections of garbage: they are millions of objects, and a second each."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the tests that have more time than others, so that none of them runs alone at the end."""
    items.sort(key=lambda item: item.get_closest_marker("timeout") is None)


_PREFIXES = (
    *("OPENAI_", "AWS_", "DELUGE_", "GOOGLE_", "GEMINI_", "CLOUDSDK_", "CLOUD_ML_", "ANTHROPIC_", "AZURE_", "CO_"),
    *("OLLAMA_", "HF_", "DATABRICKS_", "SNOWFLAKE_", "CLOUDFLARE_", "GITHUB_"),
)
_SUFFIXES = ("_API_KEY", "_BASE_URL")
_KEPT_NAMES = ("DELUGE_REQUIRE", "DELUGE_SHARED", "DELUGE_SOAK")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("live"):
        return
    for name in list(os.environ):
        is_ours = (name.startswith(_PREFIXES) or name.endswith(_SUFFIXES)) and name not in _KEPT_NAMES
        if is_ours or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("DELUGE_MODELS", os.devnull)  # no model rows of the developer


@pytest.fixture(autouse=True)
def _only_loopback(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[None]:
    """Refuse connections to other hosts, so that no test can depend on the network."""
    if request.node.get_closest_marker("live"):
        yield
        return
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1"):
            raise AssertionError(f"a test tried to connect to {address[0]}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
    yield
