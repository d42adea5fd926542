"""Every fault of plain streams in round two of a loop: each loop ends once, and its conversation is valid."""

import asyncio
import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from agents.loops import assert_next_turn_everywhere, check_loop
from client.faults.fault_runs import MOST_ATTEMPTS, PATIENT
from client.faults.test_fault_matrix import _attempts, _end, _fault, _options
from lm_deluge import LLMClient
from lm_deluge.dispatch.scheduling.runner import Runner
from lm_deluge.errors import DelugeError
from lm_deluge.events import Event, ResponseFinished, ResponseStarted, ToolCallFinished, ToolResult
from lm_deluge.response import APIResponse
from lm_deluge.simulator import FAULTS, Script, Simulator

TEXT = "It is 21 degrees in Rome, and it stays so until the evening."
WAYS = (("stream", "once"), ("stream", "always"), ("batch", "always"))
NAMES = [name for name in FAULTS if name != "retry_after_day"]  # one of an hour stands for both
# The connection of round one is used again; if it is closed without a byte, the transport sends the request again.
REUSED = ("empty_reply", "reset_first")
CASES = [(name, way, kind) for name in NAMES for way, kind in WAYS]


@dataclass
class Run:
    """What came of a loop."""

    response: APIResponse
    events: list[Event]
    requests: int
    ran: list[str] = field(default_factory=list)
    raised: BaseException | None = None


def answer_to(request: Any) -> Script:
    roles = [message.role for message in request.conversation]
    return Script(text=TEXT) if "tool" in roles else Script(text="Well.", tool_calls=[("weather", {"city": "Rome"})])


async def run(name: str, way: str, kind: str) -> Run:
    """Run a loop whose second round meets a fault, once or at each attempt."""
    ran: list[str] = []

    def weather(city: str) -> str:
        ran.append(city)
        return "21 degrees"

    faults = [None, _fault(name)] if kind == "once" else [None, *[_fault(name)] * 12]
    options = {"timeouts": PATIENT, "max_attempts": MOST_ATTEMPTS, "progress": "none", "api_key": "k", **_options(name)}
    async with asyncio.timeout(60), Simulator(answer_to, faults=faults) as sim:
        async with LLMClient("gpt-4o", base_url=sim.base_url, **options) as client:
            client.dispatcher.make_runner(functools.partial(Runner, chance=lambda: 0.0))  # no waits between attempts
            found = await (_stream if way == "stream" else _batch)(client, weather)
        found.requests, found.ran = len(sim.requests), ran
    return found


async def _stream(client: LLMClient, weather: Callable[..., Any]) -> Run:
    stream = client.stream("Weather?", tools=[weather], run_tools=True)
    found = Run(APIResponse(), [], 0)
    try:
        async with stream:
            async for event in stream.events():
                found.events.append(event)
    except DelugeError as error:
        found.raised = error
    found.response = stream.response
    return found


async def _batch(client: LLMClient, weather: Callable[..., Any]) -> Run:
    (response,) = await client.process_prompts_async(["Weather?"], tools=[weather], run_tools=True)
    return Run(response, [], 0)


@pytest.fixture(scope="module")
def runs() -> dict[tuple[str, str, str], Run]:
    """Play all of it at once: most of the time goes by in waits."""

    async def play() -> dict[tuple[str, str, str], Run]:
        places = asyncio.Semaphore(20)

        async def one(case: tuple[str, str, str]) -> tuple[tuple[str, str, str], Run]:
            async with places:
                return case, await run(*case)

        return dict(await asyncio.gather(*map(one, CASES)))

    return asyncio.run(play())


@pytest.mark.timeout(400)
@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_a_fault_in_round_two(runs: dict[tuple[str, str, str], Run], case: tuple[str, str, str]) -> None:
    name, way, kind = case
    found = runs[case]
    attempts, end = _attempts(name, "batch" if way == "batch" else "single"), _end(name)
    is_over = end is not None and (kind == "always" or attempts == 1)
    assert type(found.response.error) is (end if is_over else type(None)), found.response.error
    assert found.ran == ["Rome"]
    if found.raised is not None:
        assert found.raised.partial.conversation == found.response.conversation
    if way == "stream":
        assert type(found.raised) is type(found.response.error)
        check_loop(found.events, is_complete=not is_over)
        kinds = [type(event) for event in found.events]
        assert (kinds.count(ResponseStarted), kinds.count(ResponseFinished)) == (1, 0 if is_over else 1)
        not_run = 0 if is_over else len(found.response.rounds[-1].tool_calls)  # some faults are answers with calls
        assert kinds.count(ToolResult) == kinds.count(ToolCallFinished) - not_run
    conversation = found.response.conversation
    assert conversation[2].parts[0].content == "21 degrees"
    assert_next_turn_everywhere(found.response)
    assert found.response.usage.input_tokens > 0
    if end is not None and name not in REUSED:
        assert found.response.stats.attempts == (1 + attempts if is_over else 3)
