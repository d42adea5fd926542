"""The owner of the limits and its members, each with its own runner, in one event loop, with pickled messages."""

import asyncio
import pickle
from functools import partial
from typing import Any

import pytest

from lm_deluge import LLMClient
from lm_deluge.dispatch.scheduling.queue import Job
from lm_deluge.dispatch.scheduling.scheduler import Admission
from lm_deluge.dispatch.sharing.admissions import Admissions, Member
from lm_deluge.dispatch.sharing.remote_runner import RemoteRunner, SharedBudget
from lm_deluge.errors import BudgetError, ConnectError, DispatchError, RateLimitError
from lm_deluge.usage import Usage

MODEL = "gpt-4o"


def copied(message: Any) -> Any:
    return pickle.loads(pickle.dumps(message))  # noqa: S301 - what was just pickled


class Owner:
    """The process that owns the limits."""

    def __init__(self, **options: Any) -> None:
        dispatcher = LLMClient(MODEL, api_key="any", **options).dispatcher
        self.runner = dispatcher.runner()
        self.admissions = Admissions(self.runner, dispatcher.budget)
        self.members: list[Remote] = []

    def join(self) -> "Remote":
        self.members.append(Remote(self))
        return self.members[-1]


class Remote:
    """A process that sends requests."""

    def __init__(self, owner: Owner, max_cost: float = 1.0) -> None:
        self.budget = SharedBudget(max_cost, "the client")
        self.connect(owner)
        client = LLMClient(MODEL, api_key="any")
        make = partial(RemoteRunner, post=self._post, budget=self.budget)
        self.runner: RemoteRunner = client.dispatcher.make_runner(make)
        self.last_id = 0

    def connect(self, owner: Owner) -> None:
        self.member: Member = owner.admissions.join(self._reply)

    def _post(self, message: Any) -> None:
        asyncio.get_running_loop().call_soon(self.member.receive, [copied(message)])

    def _reply(self, message: Any) -> None:
        asyncio.get_running_loop().call_soon(lambda: self.runner.receive([copied(message)]))

    def ask(self, **fields: Any) -> asyncio.Task[Admission]:
        self.last_id += 1
        return asyncio.create_task(self.runner.admit(Job(id=self.last_id, input_tokens=10, **fields)))


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def ended(tasks: list[asyncio.Task[Admission]]) -> list[asyncio.Task[Admission]]:
    return [task for task in tasks if task.done()]


@pytest.fixture
async def owner() -> Owner:
    return Owner(max_concurrent_requests=3)


async def test_a_limit_holds_over_all_members_and_each_release_admits_the_next(owner: Owner) -> None:
    one, two = owner.join(), owner.join()
    tasks = [remote.ask() for _ in range(4) for remote in (one, two)]
    await turns()
    assert len(ended(tasks)) == 3
    assert one.runner.waiting + two.runner.waiting == 5
    one.runner.settle(tasks[0].result().ticket, Usage(input_tokens=10, output_tokens=1))
    two.runner.give_back(tasks[1].result().ticket, was_sent=True)
    await turns()
    assert ended(tasks) == tasks[:5], "in the order of arrival, whoever asks"
    assert len({task.result().ticket.id for task in ended(tasks)}) == 5
    for task in tasks:
        task.cancel()


async def test_a_member_that_dies_frees_what_it_held(owner: Owner) -> None:
    dead, alive = owner.join(), owner.join()
    held = [dead.ask() for _ in range(5)]
    await turns()
    tasks = [alive.ask() for _ in range(2)]
    await turns()
    assert not ended(tasks)
    dead.member.leave()
    await turns()
    assert ended(tasks) == tasks
    assert owner.runner.waiting == 0, "what the dead member waited for is given to nobody"
    for task in held:
        task.cancel()


async def test_a_call_that_is_cancelled_takes_no_place(owner: Owner) -> None:
    one = owner.join()
    tasks = [one.ask() for _ in range(4)]
    await turns()
    tasks[3].cancel()
    await turns()
    assert owner.runner.waiting == 0
    late = one.ask()
    one.runner.give_back(tasks[0].result().ticket, was_sent=False)
    await turns()
    assert late.done()
    cancelled = one.ask()  # its admission is on the way when it is cancelled
    one.runner.give_back(tasks[1].result().ticket, was_sent=False)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    cancelled.cancel()
    await turns()
    assert len(one.member.tickets) == 2
    last = one.ask()
    await turns()
    assert last.done()


async def test_a_pause_that_one_member_learns_of_holds_for_all(owner: Owner) -> None:
    one, two = owner.join(), owner.join()
    first = one.ask()
    await turns()
    ticket = first.result().ticket
    error = RateLimitError("slow down", status_code=429, retry_after_s=60.0)
    one.runner.failed(ticket, error, one.runner.now())
    one.runner.give_back(ticket, was_sent=True, error=error)
    await turns()
    waiting = two.ask()
    await turns()
    assert not waiting.done()
    assert owner.runner.limited_by is not None
    waiting.cancel()


async def test_a_model_that_is_blocked_fails_the_calls_of_all_members(owner: Owner) -> None:
    one, two = owner.join(), owner.join()
    tasks = [one.ask() for _ in range(3)]
    await turns()
    waiting = two.ask()
    error = RateLimitError("come back tomorrow", status_code=429, retry_after_s=80_000.0)
    route = tasks[0].result().route
    one.runner.decide(error, attempt=1, unreached=0, time_left_s=1e9, route=route, models=None)
    await turns()
    with pytest.raises(RateLimitError, match="come back tomorrow"):
        await waiting


async def test_a_failed_connection_is_known_to_the_owner(owner: Owner) -> None:
    one = owner.join()
    task = one.ask()
    await turns()
    one.runner.is_outage(ConnectError("no route"), task.result().route)
    await turns()
    assert owner.runner.only_breaker is not None
    assert owner.runner.only_breaker.is_open
    assert one.runner.only_breaker is not None
    assert one.runner.only_breaker.is_open


async def test_a_request_that_can_never_fit_is_refused() -> None:
    owner = Owner(max_input_tokens_per_minute=100)
    one = owner.join()
    with pytest.raises(BudgetError, match="100"):
        await one.runner.admit(Job(id=1, input_tokens=1_000))


async def test_a_budget_is_shared() -> None:
    owner = Owner(max_cost=1.0)
    one, two = owner.join(), owner.join()
    one.budget.spent += 0.75
    one.runner.report_cost()
    await turns()
    assert two.budget.total == 0.75
    assert two.budget.refusal(0.2) is None
    assert one.budget.total == 0.75
    two.budget.spent += 0.5
    two.runner.report_cost()
    await turns()
    assert one.budget.refusal() is not None
    assert "has spent $1.25" in str(one.budget.refusal())
    two.member.leave()
    assert owner.join() is not None
    await turns()
    assert owner.members[-1].budget.total == 1.25, "what a dead member has spent is spent"


async def test_after_a_restart_of_the_owner_the_waiting_calls_are_asked_again(owner: Owner) -> None:
    one = owner.join()
    tasks = [one.ask() for _ in range(5)]
    one.budget.spent = 0.5
    await turns()
    assert len(ended(tasks)) == 3
    other = Owner(max_concurrent_requests=3, max_cost=1.0)
    one.connect(other)
    one.runner.reconnect()
    await turns()
    assert ended(tasks) == tasks
    assert other.runner.waiting == 0
    for task in tasks[:3]:  # tickets of the old owner
        one.runner.settle(task.result().ticket, Usage())
    await turns()
    assert len(one.member.tickets) == 2


async def test_without_the_owner_calls_fail_and_do_not_wait(owner: Owner) -> None:
    one = owner.join()
    tasks = [one.ask() for _ in range(4)]
    await turns()
    one.runner.fail(DispatchError("the owner is gone"))
    with pytest.raises(DispatchError, match="the owner is gone"):
        await tasks[3]
    with pytest.raises(DispatchError, match="the owner is gone"):
        await one.ask()
    assert tasks[0].result().ticket


async def test_a_message_that_arrives_twice_changes_nothing(owner: Owner) -> None:
    one = owner.join()
    receive = one.member.receive

    def twice(messages: list[Any]) -> None:
        receive(messages)
        receive(messages)

    one.member.receive = twice
    tasks = [one.ask() for _ in range(2)]
    await turns()
    assert ended(tasks) == tasks
    for task in tasks:
        one.runner.settle(task.result().ticket, Usage())
    await turns()
    assert one.member.tickets == {}
    more = [one.ask() for _ in range(1)]
    await turns()
    assert ended(more) == more
    assert len(one.member.tickets) == 1
