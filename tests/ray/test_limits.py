"""The actor that owns the limits of a cluster, as a plain object: `tests/ray/on_cluster.py` runs it with Ray."""

import asyncio
import importlib.util
from typing import Any

import pytest

from lm_deluge import LLMClient
from lm_deluge.client.batch.client_copy import ClientCopy
from lm_deluge.dispatch.scheduling.queue import Job
from lm_deluge.dispatch.sharing.messages import Admit, Admitted, OthersSpent, Spent, TicketSettled
from lm_deluge.errors import MissingExtraError
from lm_deluge.ray import ask, limits
from lm_deluge.ray.limits import LimitsActor
from lm_deluge.usage import Usage


def actor(**options: object) -> LimitsActor:
    return LimitsActor(ClientCopy.of(LLMClient("gpt-5.4", api_key="secret", **options), has_key=False))


async def test_members_share_the_limits_and_fetch_their_admissions() -> None:
    owner = actor(max_concurrent_requests=1)
    one, first = await owner.exchange("one", [Admit(Job(id=1))], waits=True)
    assert isinstance(first[0], Admitted)
    waiting = asyncio.create_task(owner.exchange("two", [Admit(Job(id=1))], waits=True))
    await asyncio.sleep(0)
    assert not waiting.done()
    same, nothing = await owner.exchange("one", [TicketSettled(first[0].ticket, Usage())], waits=False)
    two, second = await waiting
    assert (same, nothing) == (one, [])
    assert two != one
    assert isinstance(second[0], Admitted)


@pytest.fixture
def owner(monkeypatch: pytest.MonkeyPatch) -> LimitsActor:
    monkeypatch.setattr(limits, "_WATCH_S", 0.01)
    return actor(max_concurrent_requests=2, max_cost=10.0)


def be_silent(owner: LimitsActor, name: str) -> None:
    """Let a member have fetched nothing for the time after which it counts as silent."""
    owner._members[name].seen_at -= limits._UNFETCHED_S
    owner._members[name]._admitted_at -= limits._UNFETCHED_S


async def changed(owner: LimitsActor, name: str, before: str) -> None:
    """Wait until a membership has ended."""
    async with asyncio.timeout(10):
        while name in owner._members and owner._members[name].identity == before:
            await asyncio.sleep(0.01)


async def test_what_a_silent_member_holds_is_released(owner: LimitsActor) -> None:
    await owner.exchange("dead", [Admit(Job(id=1)), Admit(Job(id=2))], waits=True)
    await owner.exchange("alive", [Admit(Job(id=1))], waits=False)
    owner._members["dead"].seen_at -= limits._LEASE_S
    async with asyncio.timeout(10):
        while not (await owner.exchange("alive", [], waits=True))[1]:
            pass


async def test_what_a_dead_member_is_admitted_goes_to_the_others(owner: LimitsActor) -> None:
    """Its calls that wait would take their share of the limit until its lease ends."""
    await owner.exchange("alive", [Admit(Job(id=1))], waits=True)
    dead, _ = await owner.exchange("dead", [Admit(Job(id=number)) for number in range(100)], waits=False)
    while not owner._members["dead"]._admitted_at:
        await asyncio.sleep(0)
    be_silent(owner, "dead")
    await changed(owner, "dead", dead)
    async with asyncio.timeout(10):
        _, replies = await owner.exchange("alive", [Admit(Job(id=2))], waits=True)
    assert isinstance(replies[0], Admitted)


async def test_a_member_that_stood_still_asks_again_and_keeps_its_requests(owner: LimitsActor) -> None:
    waiting = [Admit(Job(id=2)), Admit(Job(id=3))]
    before, first = await owner.exchange("slow", [Admit(Job(id=1))], waits=True)
    await owner.exchange("slow", waiting, waits=False)
    while not owner._members["slow"]._admitted_at:
        await asyncio.sleep(0)
    be_silent(owner, "slow")
    await changed(owner, "slow", before)
    after, replies = await owner.exchange("slow", waiting, waits=True)
    assert after != before
    assert [(type(each), each.job_id) for each in replies] == [(Admitted, 2)], "one request is still in flight"
    _, replies = await owner.exchange("slow", [TicketSettled(first[0].ticket, Usage())], waits=True)
    assert [each.job_id for each in replies] == [3]


async def test_what_a_member_spent_counts_once_when_it_comes_back(owner: LimitsActor) -> None:
    before, _ = await owner.exchange("slow", [Spent(2.0)], waits=False)
    owner._members["slow"].seen_at -= limits._LEASE_S
    await changed(owner, "slow", before)
    after, _ = await owner.exchange("slow", [Spent(2.0)], waits=False)
    _, others = await owner.exchange("other", [], waits=True)
    assert after != before
    assert others == [OthersSpent(2.0)]


class Exchange:
    """In place of the handle of the actor: a call goes to the object, and may be answered by another one."""

    def __init__(self, owner: LimitsActor) -> None:
        self.owner = owner

    @property
    def exchange(self) -> "Exchange":
        return self

    async def remote(self, *arguments: Any, **more: Any) -> Any:
        return await self.owner.exchange(*arguments, **more)


async def test_calls_that_wait_survive_the_end_of_their_membership(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that was stopped for longer than its lease, as a laptop that sleeps, would wait for ever."""
    monkeypatch.setattr(limits, "_POLL_S", 0.01)
    owner = actor(max_concurrent_requests=1)
    client = LLMClient("gpt-5.4", api_key="secret", max_concurrent_requests=1)
    monkeypatch.setattr(limits, "_actor_id", lambda: "")
    monkeypatch.setattr(limits, "import_ray", lambda: Ray)
    monkeypatch.setattr(limits, "_named_actor", lambda *_: Exchange(owner))
    own = limits.ClusterLimits(client)
    first = await own.runner.admit(Job(id=1))
    waiting = asyncio.create_task(own.runner.admit(Job(id=2)))
    async with asyncio.timeout(10):
        while not owner._members[own._name].state._waiting:
            await asyncio.sleep(0.01)
        owner._drop(own._name)
        assert (await waiting).job.id == 2
    own.runner.settle(first.ticket, Usage())
    own.close()


class Ray:
    """What `ClusterLimits` uses of Ray when its actor does not die."""

    class exceptions:  # noqa: N801 - a module of Ray
        RayActorError = OSError


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
