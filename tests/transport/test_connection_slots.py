"""More calls than the limit of open files: they wait for each other, and all are answered."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lm_deluge.errors import ConnectError
from lm_deluge.simulator import Pace, Script, Simulator
from lm_deluge.transport.connection_slots import ConnectionSlots

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no such limit")

# The script of a child process: it sets its own limit of open files, makes calls, and prints their results.
_BEGIN = """
import asyncio, collections, json, os, resource, sys
from lm_deluge import LLMClient

base_url, limit, calls = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
prompts = [f"q{number}" for number in range(calls)]
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
options = dict(api_key="any-text", base_url=base_url, progress="none", max_concurrent_requests=calls)


def fill(left):
    held = []
    while True:
        try:
            held.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            break
    for _ in range(min(left, len(held))):
        os.close(held.pop())
    return held


def say(responses):
    print(json.dumps({
        "texts": [each.completion for each in responses],
        "errors": [str(each.error) for each in responses if each.error],
        "attempts": sum(each.stats.attempts for each in responses if each.stats),
    }))
"""
_BATCH = """
async def main():
    async with LLMClient("gpt-4o", **options) as client:
        say(await client.process_prompts_async(prompts))

asyncio.run(main())
"""
_STREAMS = """
async def main():
    async with LLMClient("gpt-4o", **options) as client:
        say(await asyncio.gather(*(client.stream(prompt, echo=None) for prompt in prompts)))

asyncio.run(main())
"""
_OTHERS_HOLD_THEM = """
async def main():
    async with LLMClient("gpt-4o", **options) as client:
        first = await client.process_prompts_async(prompts[:1])  # what is imported on first use opens files
        held = fill(6)
        say(first + await client.process_prompts_async(prompts[1:]))

asyncio.run(main())
"""
_OTHERS_LET_GO = """
async def main():
    async with LLMClient("gpt-4o", **options) as client:
        first = await client.process_prompts_async(prompts[:1])
        await client.close()
        held = fill(0)
        asyncio.get_running_loop().call_later(0.3, lambda: [os.close(each) for each in held])
        say(first + await client.process_prompts_async(prompts[1:]))

asyncio.run(main())
"""


def echo(request) -> Script:
    return Script(text=f"answer to {request.conversation[-1].completion}")


async def run_child(code: str, base_url: str, *, limit: int, calls: int) -> dict[str, Any]:
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _BEGIN + code, base_url, str(limit), str(calls)),
        cwd=Path(__file__).parent,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(90):
        out, err = await child.communicate()
    assert child.returncode == 0, err.decode()[-2_000:]
    return json.loads(out)


@pytest.mark.parametrize(
    ("code", "limit", "most_open"),
    [
        (_BATCH, 200, 100),
        (_BATCH, 40, 40),
        (_STREAMS, 200, 100),
        (_OTHERS_HOLD_THEM, 200, 7),
        (_OTHERS_LET_GO, 200, 100),
    ],
    ids=["batch", "few", "streams", "others hold the files", "others let them go"],
)
async def test_all_calls_are_answered(code: str, limit: int, most_open: int) -> None:
    calls = 300
    async with Simulator(echo, pace=Pace(first_token_s=0.02)) as sim:
        found = await run_child(code, sim.base_url, limit=limit, calls=calls)
        assert found["errors"] == []
        assert found["texts"] == [f"answer to q{number}" for number in range(calls)]
        assert found["attempts"] == sim.stats.requests == calls
        assert sim.stats.most_open <= most_open


async def test_slots_are_granted_in_order_of_arrival_and_none_is_lost() -> None:
    slots = ConnectionSlots(2)
    held = [await slots.take(), await slots.take()]
    order: list[int] = []

    async def call(number: int) -> None:
        slot = await slots.take()
        order.append(number)
        await asyncio.sleep(0)
        slot.give_back()
        slot.give_back()

    tasks = [asyncio.create_task(call(number)) for number in range(20)]
    await asyncio.sleep(0)
    tasks[3].cancel()  # while it waits
    held[0].give_back()
    tasks[0].cancel()  # together with its slot
    held[1].give_back()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == [1, 2, *range(4, 20)]
    assert slots.used == 0


async def test_descriptors_held_by_other_code_are_not_waited_for_indefinitely() -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    slot = await ConnectionSlots(100, sleep=sleep).take()

    async def wait_again_and_again() -> None:
        while True:
            await slot.wait_again()

    with pytest.raises(ConnectError, match="has reached its limit of open files"):
        await wait_again_and_again()
    assert slept[:3] == [0.05, 0.05, 0.1]
    assert 29 <= sum(slept) <= 31


def test_the_commands_raise_the_limit_as_far_as_they_may() -> None:
    code = """
import contextlib, io, resource
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
from lm_deluge.cli.main import cli
with contextlib.redirect_stdout(io.StringIO()):
    cli.main(["decode", "--help"], standalone_mode=False)
soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
print(soft > 256, soft == hard)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)  # noqa: S603
    assert done.stdout.split() in (["True", "True"], ["True", "False"] if sys.platform == "darwin" else [])
