"""The actor that owns the limits of a cluster, as a plain object: `tests/ray/on_cluster.py` runs it with Ray."""

import asyncio
import importlib.util
from typing import Any

import pytest

from lm_deluge import LLMClient
from lm_deluge.client.batch.client_copy import ClientCopy
from lm_deluge.dispatch.scheduling.queue import Job
from lm_deluge.dispatch.sharing.messages import Admit, Admitted, TicketSettled
from lm_deluge.errors import MissingExtraError
from lm_deluge.ray import ask, limits
from lm_deluge.ray.limits import LimitsActor
from lm_deluge.usage import Usage


def actor(**options: object) -> LimitsActor:
    return LimitsActor(ClientCopy.of(LLMClient("gpt-5.4", api_key="secret", **options), has_key=False))


async def test_members_share_the_limits_and_fetch_their_admissions() -> None:
    owner = actor(max_concurrent_requests=1)
    _, first = await owner.exchange("one", [Admit(Job(id=1))], waits=True)
    assert isinstance(first[0], Admitted)
    waiting = asyncio.create_task(owner.exchange("two", [Admit(Job(id=1))], waits=True))
    await asyncio.sleep(0)
    assert not waiting.done()
    same, nothing = await owner.exchange("one", [TicketSettled(first[0].ticket, Usage())], waits=False)
    identity, second = await waiting
    assert (identity, nothing) == (same, [])
    assert isinstance(second[0], Admitted)


async def test_what_a_silent_member_holds_is_released(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_POLL_S", 0.01)
    monkeypatch.setattr(limits, "_LEASE_S", 0.05)
    owner = actor(max_concurrent_requests=1)
    await owner.exchange("dead", [Admit(Job(id=1))], waits=True)
    await owner.exchange("alive", [Admit(Job(id=1))], waits=False)
    async with asyncio.timeout(10):
        while not (await owner.exchange("alive", [], waits=True))[1]:
            pass


async def test_an_actor_that_is_started_again_frees_what_it_held_before() -> None:
    owner = actor(max_concurrent_requests=1)
    await owner.exchange("actor-1/before", [Admit(Job(id=1))], waits=True)
    _, replies = await owner.exchange("actor-1/after", [Admit(Job(id=1))], waits=True)
    assert isinstance(replies[0], Admitted)


def test_a_copy_without_the_key_has_no_key() -> None:
    client = LLMClient("gpt-5.4", api_key="secret", max_requests_per_minute=5)
    assert ClientCopy.of(client, has_key=False).make().options.api_key is None
    copy = ClientCopy.of(client).make()
    assert (copy.options, copy.models) == (client.options, client.models)


@pytest.mark.parametrize("keys", ["a", ["a", "b"], {"openai": "a"}, {"openai": ["a", "b", "c"]}])
async def test_a_copy_without_the_keys_has_the_same_routes(keys: Any) -> None:
    client = LLMClient("gpt-5.4", api_key=keys)
    copy = ClientCopy.of(client, has_key=False).make()
    assert copy.dispatcher.runner().routes == client.dispatcher.runner().routes
    assert "'a'" not in repr(copy.options.api_key)


def test_each_key_and_each_set_of_limits_has_an_actor_of_its_own() -> None:
    named = {
        limits._digest_of(LLMClient("gpt-5.4", api_key=key, max_requests_per_minute=rate))
        for key in ("one", "two")
        for rate in (5, 6)
    }
    assert len(named) == 4
    assert not any("one" in each or "two" in each for each in named)


def test_without_ray_the_hint_names_the_package() -> None:
    if importlib.util.find_spec("ray") is not None:
        pytest.skip("Ray is installed here")
    with pytest.raises(MissingExtraError, match=r"ray\[data\]"):
        ask(None, "gpt-5.4")
