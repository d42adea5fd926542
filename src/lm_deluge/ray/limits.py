"""One set of limits for all actors of a cluster: a named actor owns them and admits each request.

The actor is detached, so that it outlives the task that needed it first; it ends by itself a minute after the last
actor that used it. If it dies, Ray starts it again without its past: requests then leave at the even pace of the
limits, and only the number of concurrent requests may be exceeded until those that were in flight have ended.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
import uuid
from functools import partial
from typing import Any

import msgspec

from lm_deluge.client.batch.client_copy import ClientCopy
from lm_deluge.client.client import LLMClient
from lm_deluge.config import LIMIT_NAMES
from lm_deluge.dispatch.sharing.admissions import Admissions, Member
from lm_deluge.dispatch.sharing.messages import Admitted, FromMember, Released, ToMember
from lm_deluge.dispatch.sharing.remote_runner import RemoteRunner, SharedBudget
from lm_deluge.errors import DispatchError
from lm_deluge.ray.packages import import_ray

__all__ = ["ClusterLimits", "LimitsActor"]

NAMESPACE = "lm_deluge"
_POLL_S = 3.0  # how long the actor holds a call for replies: a sign of life from each member in this time
_LEASE_S = 15.0  # five signs of life were missed: the member is dead, and its tickets are free
_UNFETCHED_S = 0.75  # a live member fetches a reply within milliseconds; what a dead one is admitted is lost to all
_WATCH_S = 0.25  # between two searches for dead members
_IDLE_S = 60.0  # longer than Ray needs to start another actor in place of the last one that died
_GATHER_S = 0.005  # messages of this time share one call, which costs a millisecond of CPU on both sides
_RETRY_S = 0.5  # between two attempts to reach the actor while Ray starts it again
_MOST_CALLS = 10_000  # one call waits for replies for each member


class LimitsActor:
    """The actor that owns the limits.

    Args:
        client: A client with the models and limits; it sends nothing.
    """

    def __init__(self, client: ClientCopy) -> None:
        self._client = client.make()
        self._admissions: Admissions | None = None
        self._members: dict[str, _RemoteMember] = {}
        self._spent: dict[str, float] = {}  # of members that were taken for dead, and may call again
        self._idle_since = time.monotonic()
        self._guard: asyncio.Task[None] | None = None

    async def exchange(self, name: str, messages: list[FromMember], *, waits: bool) -> tuple[str, list[ToMember]]:
        """Act on the messages of a member; return the identity of its membership, and the replies.

        A membership ends when this actor dies, or takes the member for dead. The member then has another one, and
        asks again for all that it waits for.

        Args:
            name: The member: the id of its Ray actor, and a name of its process.
            messages: Its messages.
            waits: Whether to wait until there are replies, for some seconds at most.
        """
        member = self._member(name)
        member.seen_at = time.monotonic()
        member.state.receive(messages)
        return member.identity, await member.replies(_POLL_S) if waits else []

    def _member(self, name: str) -> _RemoteMember:
        if self._admissions is None:
            dispatcher = self._client.dispatcher
            self._admissions = Admissions(dispatcher.runner(), dispatcher.budget)
            self._guard = asyncio.get_running_loop().create_task(self._watch())
        member = self._members.get(name)
        if member is None:
            actor = name.partition("/")[0]
            for dead in [each for each in self._members if actor and each.partition("/")[0] == actor]:
                self._drop(dead)  # Ray has started the actor again
            member = self._members[name] = _RemoteMember(self._admissions, self._spent.pop(name, 0.0))
        return member

    def _drop(self, name: str) -> None:
        state = self._members.pop(name).state
        state.leave()
        if state.spent:
            self._spent[name] = state.spent

    async def _watch(self) -> None:
        """Release what dead members hold, and end this actor if it has no members."""
        while True:
            await asyncio.sleep(_WATCH_S)
            now = time.monotonic()
            for name, member in list(self._members.items()):
                member.suspend_if_silent(now)
                if now - member.seen_at > _LEASE_S:
                    self._drop(name)
            if self._members:
                self._idle_since = now
            elif now - self._idle_since > _IDLE_S:
                import_ray().kill(import_ray().get_runtime_context().current_actor)


class _RemoteMember:
    """A member, and the replies that it has not fetched yet.

    Attributes:
        identity: Of its membership.
        seen_at: When the last call of the member came.
    """

    def __init__(self, admissions: Admissions, spent: float) -> None:
        self.identity = uuid.uuid4().hex
        self.seen_at = time.monotonic()
        self._replies: list[ToMember] = []
        self._admitted_at: float | None = None  # the first admission among the replies
        self._has_replies = asyncio.Event()
        self.state: Member = admissions.join(self._reply, spent)

    def _reply(self, message: ToMember) -> None:
        if self._admitted_at is None and isinstance(message, Admitted):
            self._admitted_at = time.monotonic()
        self._replies.append(message)
        self._has_replies.set()

    def suspend_if_silent(self, now: float) -> None:
        """Admit nothing more to a member that does not fetch what it was admitted: it is dead, or stands still.

        What it was admitted goes to the others. A member that calls again has another identity, and asks again.
        """
        if self._admitted_at is None or now - max(self._admitted_at, self.seen_at) <= _UNFETCHED_S:
            return
        self.identity = uuid.uuid4().hex
        self._admitted_at = None
        unused = [reply.ticket for reply in self._replies if isinstance(reply, Admitted)]
        self._replies = [reply for reply in self._replies if not isinstance(reply, Admitted)]
        if not self._replies:
            self._has_replies.clear()
        self.state.receive([Released(ticket, was_sent=False, delivered=None) for ticket in unused])
        self.state.suspend()

    async def replies(self, within_s: float) -> list[ToMember]:
        """Return the replies as soon as there are some; none after some seconds."""
        try:
            async with asyncio.timeout(within_s):
                await self._has_replies.wait()
        except TimeoutError:
            return []
        self._has_replies.clear()
        replies, self._replies, self._admitted_at = self._replies, [], None
        return replies


class ClusterLimits:
    """The limits of the cluster, as one of its actors uses them. Create it in the event loop of the calls.

    Args:
        client: The client whose calls are to be admitted.
    """

    def __init__(self, client: LLMClient) -> None:
        options, dispatcher = client.options, client.dispatcher
        self._client = client
        self._name = f"{_actor_id()}/{uuid.uuid4().hex}"
        self._posted: list[FromMember] = []
        self._has_posted = asyncio.Event()
        self._identity: str | None = None
        self._actor: Any = None
        budget = None if options.max_cost is None else SharedBudget(options.max_cost, "the client")
        dispatcher.budget = budget
        runner = dispatcher.make_runner(partial(RemoteRunner, post=self._post, budget=budget))
        assert isinstance(runner, RemoteRunner)  # noqa: S101 - for the type checkers
        self.runner = runner
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(each) for each in (self._send(), self._fetch())]
        for task in self._tasks:
            task.add_done_callback(self._note_end)

    def _post(self, message: FromMember) -> None:
        self._posted.append(message)
        self._has_posted.set()

    async def _send(self) -> None:
        """Send the messages, one call after another, so that they arrive in their order."""
        while True:
            await self._has_posted.wait()
            await asyncio.sleep(_GATHER_S)
            self._has_posted.clear()
            messages, self._posted = self._posted, []
            # A message that arrives twice, after a failed call, changes nothing.
            await self._exchange(messages, waits=False)

    async def _fetch(self) -> None:
        """Fetch the replies."""
        while True:
            await self._exchange([], waits=True)

    async def _exchange(self, messages: list[FromMember], *, waits: bool) -> None:
        ray = import_ray()
        while True:
            try:
                if self._actor is None:
                    self._actor = _named_actor(ray, self._client)
                answer = await self._actor.exchange.remote(self._name, messages, waits=waits)
                break
            except (ray.exceptions.RayActorError, ValueError):  # it died; a name can be taken by one that is dying
                self._actor = None
                await asyncio.sleep(_RETRY_S)
        identity, replies = answer
        if self._identity not in (None, identity):
            self.runner.reconnect()
        self._identity = identity
        self.runner.receive(replies)

    def _note_end(self, task: asyncio.Task[None]) -> None:
        """Fail the calls after an error that is not the death of the actor: they would wait forever."""
        if not task.cancelled() and (error := task.exception()) is not None:
            failure = DispatchError(f"the limits of the cluster cannot be asked ({type(error).__name__})")
            failure.__cause__ = error
            self.runner.fail(failure)

    def close(self) -> None:
        """Stop exchanging messages. The owner releases what this member holds after a lease."""
        for task in self._tasks:
            task.cancel()


def _actor_id() -> str:
    """Return the id of the Ray actor of this process, which it keeps when Ray starts it again; empty if it is none."""
    return import_ray().get_runtime_context().get_actor_id() or ""


def _named_actor(ray: Any, client: LLMClient) -> Any:
    """Return the actor for clients with the same models, limits and key; the first one that asks creates it."""
    kind = ray.remote(LimitsActor)
    named = kind.options(
        name=f"limits-{_digest_of(client)}",
        namespace=NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        num_cpus=0,
        max_restarts=-1,
        max_concurrency=_MOST_CALLS,
    )
    return named.remote(ClientCopy.of(client, has_key=False))


def _digest_of(client: LLMClient) -> str:
    options = client.options
    named = [
        [model.id for model in client.dispatcher.all_models],
        [getattr(options, name) for name in (*LIMIT_NAMES, "max_concurrent_requests", "max_cost")],
        options.model_limits,
        repr(options.base_url),
        repr(options.api_key),  # each key has limits of its own; the hash does not reveal it
    ]
    return hashlib.sha256(msgspec.json.encode(named, enc_hook=str)).hexdigest()[:16]
