"""Streams that another process of the gateway holds: read, cancelled, and refused."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from dispatch.scheduling.shared.redis_server import RedisServer, need_redis, server_of_tests
from gateway.conftest import TEXT
from gateway.ledger.ledgers import open_ledger
from gateway.test_resume import CHAT, RESUMABLE, text_of
from lm_deluge.dispatch.scheduling.shared.connection import parse_address
from lm_deluge.gateway.app import Gateway
from lm_deluge.gateway.cluster import peers
from lm_deluge.gateway.cluster.peers import StreamPeers
from lm_deluge.gateway.configuration.settings import GatewaySettings
from lm_deluge.gateway.ledger.keys import KeyRules
from lm_deluge.gateway.serve import open_gateway
from lm_deluge.simulator import Simulator


class Running(NamedTuple):
    """A gateway, and a client with a key for it."""

    gateway: Gateway
    client: httpx.AsyncClient

    @property
    def peers(self) -> StreamPeers:
        found = self.gateway._services.peers
        assert found is not None
        return found


@contextlib.asynccontextmanager
async def running(database: str, token: str, limiter: str) -> AsyncIterator[Running]:
    settings = GatewaySettings(limiter=limiter)
    async with (
        open_gateway(settings, database=database, master_key=None, log=None, metrics=None) as (gateway, _, _),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(gateway), base_url="http://127.0.0.1", headers={"x-api-key": token}
        ) as client,
    ):
        yield Running(gateway, client)
        await gateway._services.streams.drain(1.0)
        await gateway._services.catalog.close()


@pytest.fixture
async def keys(tmp_path: Path) -> tuple[str, str, str]:
    """A database, and two keys in it."""
    database = f"sqlite:///{tmp_path / 'ledger.db'}"
    async with open_ledger(database) as ledger:
        own, other = [(await ledger.create_key(name, KeyRules())).token for name in ("own", "other")]
    return database, own, other


@pytest.fixture
async def pair(simulator: Simulator, keys: tuple[str, str, str]) -> AsyncIterator[tuple[Running, Running]]:
    need_redis()
    limiter = server_of_tests().url
    async with running(keys[0], keys[1], limiter) as one, running(keys[0], keys[1], limiter) as other:
        yield one, other


async def begin(gateway: Running) -> tuple[str, str]:
    """Return the id and the body of a stream that has ended."""
    answer = await gateway.client.post("/v1/chat/completions", json=CHAT, headers=RESUMABLE)
    return answer.headers["x-deluge-stream"], answer.text


async def test_a_stream_is_read_through_another_process(pair: tuple[Running, Running]) -> None:
    one, other = pair
    stream, body = await begin(one)
    read = await other.client.get(f"/v1/streams/{stream}")
    assert read.text == body
    assert text_of(read.text) == TEXT
    assert read.headers["content-type"].startswith("text/event-stream")
    assert read.headers["x-deluge-stream"] == stream
    rest = await other.client.get(f"/v1/streams/{stream}", headers={"last-event-id": f"{stream}:2"})
    assert body.endswith(rest.text)
    assert f"id: {stream}:3\n" in rest.text
    assert f"id: {stream}:2\n" not in rest.text
    assert (await other.client.get(f"/v1/streams/{stream}?after={stream}:2")).text == rest.text
    assert (await other.client.get(f"/v1/streams/{stream}?after=x:y")).status_code == 400
    receipt = (await other.client.post(f"/v1/streams/{stream}/stop")).json()
    assert receipt["text"] == TEXT


async def test_a_response_is_found_by_its_own_id(pair: tuple[Running, Running]) -> None:
    one, other = pair
    body = {"model": "claude-sonnet-5-5", "input": "Hello", "background": True}
    created = (await one.client.post("/v1/responses", json=body)).json()
    path = f"/v1/responses/{created['id']}"
    streamed = await other.client.get(f"{path}?stream=true&starting_after=0")
    assert "response.completed" in streamed.text
    assert (await other.client.get(path)).json()["status"] == "completed"
    assert (await other.client.post(f"{path}/cancel")).json()["id"] == created["id"]


async def test_only_the_key_that_started_a_stream_reads_it(
    pair: tuple[Running, Running], keys: tuple[str, str, str]
) -> None:
    one, other = pair
    stream, _ = await begin(one)
    path = f"/v1/streams/{stream}"
    assert (await other.client.get(path, headers={"x-api-key": keys[2]})).status_code == 404
    assert (await other.client.get(path, headers={"x-api-key": "sk-unknown"})).status_code == 401
    assert (await other.client.get("/v1/streams/0123")).status_code == 404


@pytest.mark.parametrize("secret", ["", "wrong", None])
async def test_the_address_for_other_processes_needs_their_secret(
    pair: tuple[Running, Running], keys: tuple[str, str, str], secret: str | None
) -> None:
    one, _ = pair
    stream, body = await begin(one)
    headers = {"x-api-key": keys[1], "x-deluge-peer": one.peers.secret if secret is None else secret}
    async with httpx.AsyncClient(base_url=one.peers._url, headers=headers) as client:
        read = await client.get(f"/v1/streams/{stream}")
        asked = await client.post("/v1/chat/completions", json=CHAT)
    assert (read.status_code, read.text) == ((200, body) if secret is None else (403, ""))
    assert asked.status_code == 404  # it answers no prompts


async def test_streams_of_a_process_that_has_ended(simulator: Simulator, keys: tuple[str, str, str]) -> None:
    need_redis()
    limiter = server_of_tests().url
    async with running(keys[0], keys[1], limiter) as other:
        async with running(keys[0], keys[1], limiter) as one:
            stream, _ = await begin(one)
        read = await other.client.get(f"/v1/streams/{stream}")
    assert read.status_code == 404
    assert "the process of the gateway that held this stream has ended" in read.text


async def test_streams_of_a_machine_that_names_no_address(
    pair: tuple[Running, Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = pair
    with monkeypatch.context() as patch:
        patch.setattr(peers, "machine_name", lambda: "another machine")
        stream, _ = await begin(one)
    read = await other.client.get(f"/v1/streams/{stream}")
    assert read.status_code == 404
    assert "this stream is on another machine; set peer_host in [server] there" in read.text


async def test_without_the_server_a_process_has_its_own_streams(
    simulator: Simulator, keys: tuple[str, str, str]
) -> None:
    need_redis()
    server = await asyncio.to_thread(RedisServer)
    async with running(keys[0], keys[1], server.url) as one:
        server.close()
        stream, body = await begin(one)
        assert (await one.client.get(f"/v1/streams/{stream}")).text == body
        missing = await one.client.get("/v1/streams/0123")
    assert missing.status_code == 503
    assert "cannot be found at present" in missing.text


async def test_an_entry_is_kept_for_a_day(simulator: Simulator, keys: tuple[str, str, str]) -> None:
    import redis

    need_redis()
    server = server_of_tests()
    found = StreamPeers(parse_address(server.url), "http://127.0.0.1:1")
    await found.announce("some-stream", owner="own")
    with redis.Redis(port=server.port) as client:
        assert 86_300 < client.ttl("deluge:stream:some-stream") <= 86_400
    holder = await found.find("some-stream")
    assert holder is not None
    assert (holder.url, holder.owner, holder.secret) == ("http://127.0.0.1:1", "own", found.secret)
    await found.close()
