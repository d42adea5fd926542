"""Faults met by calls of every kind, with retries on: what was asked, what the server saw, what came of it."""

import asyncio
import functools
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from grammar import check_grammar
from lm_deluge import LLMClient, Timeouts
from lm_deluge.dispatch.scheduling.runner import Runner
from lm_deluge.errors import DelugeError
from lm_deluge.events import Event, TextDelta
from lm_deluge.response import APIResponse
from lm_deluge.simulator import Fault, Script, Simulator
from loopback import HELLO, Loopback, Step, answer

MOST_ATTEMPTS = 3
PROMPTS = [f"question {number}" for number in range(4)]
PATIENT = Timeouts(connect=30, first_token=30, idle=30, progress=30)
WAYS = ("batch", "merged", "single")


@dataclass
class Run:
    """What came of the prompts, and how often the server was asked for each."""

    prompts: Sequence[str]
    responses: list[APIResponse] = field(default_factory=list)
    asked: Counter[str] = field(default_factory=Counter)
    raised: BaseException | None = None
    texts: list[str] = field(default_factory=list)
    """What was handed over in pieces; the same as the answers' texts."""


Server = AbstractAsyncContextManager[tuple[str, Callable[[], Sequence[str]]]]
"""Yields the base URL, and what tells which prompts were asked for."""


@asynccontextmanager
async def simulated(faults: Any) -> AsyncIterator[tuple[str, Callable[[], Sequence[str]]]]:
    async with Simulator(
        lambda request: Script(text=text_for(request.conversation[-1].completion)), faults=faults
    ) as sim:
        yield sim.base_url, lambda: [each.json["messages"][-1]["content"] for each in sim.requests]


@asynccontextmanager
async def scripted(*transcripts: list[Step]) -> AsyncIterator[tuple[str, Callable[[], Sequence[str]]]]:
    async with Loopback(*transcripts) as server:
        yield server.url, lambda: [json.loads(body)["messages"][-1]["content"] for _, _, body in server.requests]


def once(fault: str | Fault | list[Step]) -> Server:
    """The first request meets the fault, no other one."""
    return scripted(fault, answer(HELLO)) if isinstance(fault, list) else simulated([fault])


def always(fault: str | Fault | list[Step]) -> Server:
    return scripted(fault) if isinstance(fault, list) else simulated(fault)


def text_for(prompt: str) -> str:
    return f"This is the answer to {prompt}, and no other."


async def run(server: Server, way: str, prompts: Sequence[str] = PROMPTS, **options: Any) -> Run:
    """Ask the prompts in one of the ways."""
    found = Run(prompts)
    options = {"timeouts": PATIENT, "max_attempts": MOST_ATTEMPTS, "progress": "none", "api_key": "sk-test", **options}
    async with server as (url, asked), asyncio.timeout(60), LLMClient("gpt-4o", base_url=url, **options) as client:
        client.dispatcher.make_runner(functools.partial(Runner, chance=lambda: 0.0))  # no waits between attempts
        try:
            await _ASK[way](client, found)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is what the test is about
            found.raised = error
        found.asked = Counter(asked())
    return found


async def _batch(client: LLMClient, found: Run) -> None:
    found.responses = await client.process_prompts_async(found.prompts)
    found.texts = [response.completion for response in found.responses]


async def _merged(client: LLMClient, found: Run) -> None:
    events: dict[int, list[Event]] = {index: [] for index in range(len(found.prompts))}
    merged = client.stream_many(found.prompts)
    async for index, event in merged:
        events[index].append(event)
    for each in events.values():
        check_grammar(each)
    found.responses = [merged.responses[index] for index in range(len(found.prompts))]
    found.texts = ["".join(event.text for event in each if isinstance(event, TextDelta)) for each in events.values()]


async def _single(client: LLMClient, found: Run) -> None:
    """One after the other, so that the first one meets the fault."""
    for prompt in found.prompts:
        pieces = []
        stream = client.stream(prompt)
        try:
            async for token in stream:
                pieces.append(token)  # noqa: PERF401 - what came before a failure counts
            response = stream.response
        except DelugeError as error:
            response = error.partial or APIResponse()
            response.error = error
        found.responses.append(response)
        found.texts.append("".join(pieces))


_ASK = {"batch": _batch, "merged": _merged, "single": _single}
