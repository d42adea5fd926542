"""`client.warm()`: what the first call would wait for is done before it, and nothing is sent to a model."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from typing import Any

import pytest

from lm_deluge import LLMClient
from lm_deluge.errors import ConnectError, MissingAPIKeyError
from lm_deluge.simulator import Simulator
from loopback import HELLO, Loopback, answer

_TWO_CALLS = """
import asyncio, json, sys
from lm_deluge import LLMClient

async def main():
    async with LLMClient("gpt-4o-mini", api_key="k", base_url=sys.argv[1]) as client:
        if sys.argv[2] == "warm":
            assert await client.warm() == {"gpt-4o-mini": None}
        before = set(sys.modules)
        await client.stream("hi", echo=None)
        print(json.dumps(sorted(set(sys.modules) - before)))

asyncio.run(main())
"""


async def test_the_first_call_uses_the_connection_and_nothing_is_sent_before() -> None:
    async with Loopback(answer(HELLO)) as server, LLMClient("gpt-4o", api_key="k", base_url=server.url) as client:
        assert await client.warm() == {"gpt-4o": None}
        assert server.requests == []
        response = await client.stream("hi", echo=None)
    assert response.completion == "Hello world"
    assert (server.connections, len(server.requests)) == (1, 1)


def test_the_first_call_of_a_process_imports_nothing() -> None:
    with Loopback(answer(HELLO)) as server:
        assert _imported_by_first_call(server.url, "cold") != []
    with Loopback(answer(HELLO)) as server:
        assert _imported_by_first_call(server.url, "warm") == []


def _imported_by_first_call(url: str, how: str) -> list[str]:
    command = [sys.executable, "-c", _TWO_CALLS, url, how]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("how", ["async", "sync"])
def test_a_host_that_is_down_is_reported_and_not_raised(how: str) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/v1"
    client = LLMClient(["gpt-4o", "gpt-4o-mini"], api_key="k", base_url=url)
    found = client.warm_sync() if how == "sync" else asyncio.run(_warm(client))
    assert sorted(found) == ["gpt-4o", "gpt-4o-mini"]
    assert all(isinstance(error, ConnectError) for error in found.values())


async def _warm(client: LLMClient) -> dict[str, Any]:
    async with client:
        return await client.warm()


async def test_a_missing_key_stands_in_the_way_of_its_model_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MISTRAL_API_KEY", raising=False)
    async with Simulator() as sim:
        client = LLMClient(
            ["gpt-4o", "mistral:mistral-small-latest"], api_key={"openai": "k"}, base_url={"openai": sim.base_url}
        )
        async with client:
            found = await client.warm()
    assert [type(error) for error in found.values()] == [type(None), MissingAPIKeyError]


async def test_models_of_one_host_share_a_connection() -> None:
    async with (
        Loopback(answer(HELLO)) as server,
        LLMClient(["gpt-4o", "gpt-4o-mini"], fallback="gpt-4.1", api_key="k", base_url=server.url) as client,
    ):
        assert await client.warm() == {"gpt-4o": None, "gpt-4o-mini": None, "gpt-4.1": None}
        await client.stream("hi", echo=None)
    assert server.connections == 1
