"""Tokens for Google Cloud: asked for once, at a server that knows the key, and shown to Google alone."""

from __future__ import annotations

import asyncio
import builtins
import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from lm_deluge import LLMClient
from lm_deluge.adapters.catalog import find_adapter
from lm_deluge.api_requests.authorize import authorize
from lm_deluge.api_requests.credentials import authorization, find_key, has_key
from lm_deluge.api_requests.request import build_call
from lm_deluge.config import Secret
from lm_deluge.errors import ConnectError, MissingAPIKeyError, MissingExtraError
from lm_deluge.models.registry import find_model, find_provider
from lm_deluge.simulator import Simulator
from loopback import Loopback, plain

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of its imports
    from lm_deluge.api_requests import google

MODEL = "vertex:gemini-3-pro"
TOKEN = json.dumps({"access_token": "ya29.the-token", "expires_in": 3600, "token_type": "Bearer"}).encode()


@pytest.fixture(autouse=True)
def _project(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    google._found.clear()
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "my-project")
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    yield
    google._found.clear()


def credentials_at(url: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    fields = {
        "type": "service_account",
        "project_id": "my-project",
        "private_key_id": "k",
        "private_key": pem,
        "client_email": "me@my-project.iam.gserviceaccount.com",
        "token_uri": f"{url}/token",
    }
    file = path / "credentials.json"
    file.write_text(json.dumps(fields))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))


async def headers(**options: Any) -> dict[str, str]:
    call = build_call(find_model(MODEL), "Hi", **options)
    return await authorize(find_adapter(call.provider.adapter).build_request(call), call)


async def test_a_token_is_asked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Loopback(plain("200 OK", TOKEN)) as server:
        credentials_at(server.url.removesuffix("/v1"), tmp_path, monkeypatch)
        found = await asyncio.gather(*(headers() for _ in range(5)))
        found.append(await headers())
    assert {each["authorization"] for each in found} == {"Bearer ya29.the-token"}
    assert len(server.requests) == 1


async def test_a_proxy_gets_no_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    for url in ("https://googleapis.com.evil.test", "http://aiplatform.googleapis.com", "https://proxy.test"):
        assert await headers(base_url=url) == {}


async def test_a_key_goes_into_its_header() -> None:
    assert authorization(find_provider(find_model(MODEL).provider), Secret("the-key")) == {"x-goog-api-key": "the-key"}
    async with Simulator("Hello") as sim:
        client = LLMClient(MODEL, base_url=sim.url, api_key="the-key")
        response = await client.stream("Hi", echo=None)
        await client.close()
    assert response.completion == "Hello"


def test_the_environment_s_key_is_for_express_mode_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_API_KEY", "the-key")
    vertex, express = find_provider("vertex"), find_provider("vertex-express")
    assert find_key(vertex, find_model(MODEL), "https://x.test", None) is None
    found = find_key(express, find_model("vertex-express:x"), express.base_url, None)
    assert found is not None
    assert found.reveal() == "the-key"
    assert has_key(vertex)


async def test_no_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    with pytest.raises(MissingAPIKeyError, match="gcloud auth application-default login"):
        await headers()


async def test_credentials_that_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refusal = json.dumps({"error": "invalid_grant", "error_description": "No."}).encode()
    async with Loopback(plain("400 Bad Request", refusal)) as server:
        credentials_at(server.url.removesuffix("/v1"), tmp_path, monkeypatch)
        with pytest.raises(MissingAPIKeyError, match="RefreshError"):
            await headers()


async def test_an_endpoint_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Loopback(plain("200 OK", TOKEN)) as server:
        url = server.url.removesuffix("/v1")
    credentials_at(url, tmp_path, monkeypatch)
    monkeypatch.setattr("google.auth._exponential_backoff._DEFAULT_INITIAL_INTERVAL_SECONDS", 0.01)
    with pytest.raises(ConnectError, match="token endpoint was not reached"):
        await headers()


def test_without_google_auth(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any) -> Any:
        if name.startswith("google"):
            raise ImportError(name)
        return real(name, *args)

    monkeypatch.delitem(sys.modules, "lm_deluge.api_requests.google")
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"pip install 'google-auth\[requests\]'"):
        asyncio.run(headers())
