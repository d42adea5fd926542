"""A child process makes connections of its own and leaves its parent's alone; one client serves loop after loop."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

import lm_deluge
from loopback import HELLO, Loopback, answer

COMMON = """
import asyncio, os, sys
from lm_deluge import LLMClient

client = LLMClient("gpt-4o", api_key="k", base_url=sys.argv[1])

def wait_for(child):
    _, status = os.waitpid(child, 0)
    assert status == 0, status

def say(who, response):
    os.write(1, f"{who}: {response.completion}\\n".encode())

def ask_blocking():
    with client.stream_sync("hi") as stream:
        for _ in stream:
            pass
    return stream.response

async def ask():
    return await client.stream("hi", echo=None)
"""

# The child leaves by the front door: everything that runs at the end of a process runs in it.
BLOCKING = """
say("parent", ask_blocking())
child = os.fork()
if not child:
    say("child", ask_blocking())
    say("child", ask_blocking())
    sys.exit(0)
wait_for(child)
say("parent", ask_blocking())
"""

WITHIN_A_LOOP = """
async def main():
    say("parent", await ask())
    child = os.fork()
    if not child:
        asyncio.run(twice())
        os._exit(0)
    wait_for(child)
    say("parent", await ask())

async def twice():
    say("child", await ask())
    say("child", await ask())

asyncio.run(main())
"""

THE_SAME_LOOP_GOES_ON_IN_THE_CHILD = """
async def main():
    say("parent", await ask())
    child = os.fork()
    if not child:
        say("child", ask_blocking())
        say("child", ask_blocking())
        os._exit(0)
    wait_for(child)
    say("parent", await ask())

asyncio.run(main())
"""

FROM_LOOP_TO_CHILD = """
loop = asyncio.new_event_loop()
say("parent", loop.run_until_complete(ask()))
child = os.fork()
if not child:
    say("child", asyncio.run(ask()))
    say("child", asyncio.run(ask()))
    os._exit(0)
wait_for(child)
say("parent", loop.run_until_complete(ask()))
loop.run_until_complete(client.close())
loop.close()
"""


async def run(script: str, server: Loopback) -> list[str]:
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-W", "error", "-c", COMMON + script, server.url],
        env={**os.environ, "PYTHONPATH": str(Path(lm_deluge.__file__).parents[1])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        out, complaints = await process.communicate()
    assert (process.returncode, complaints.decode()) == (0, "")
    return out.decode().splitlines()


FORKS = {
    "blocking": (BLOCKING, 2),
    "within a loop": (WITHIN_A_LOOP, 2),
    "blocking in the child of a loop": (THE_SAME_LOOP_GOES_ON_IN_THE_CHILD, 2),
    "two loops in the child": (FROM_LOOP_TO_CHILD, 3),
}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.parametrize("name", FORKS)
async def test_a_child_leaves_its_parent_s_connection_alone(name: str) -> None:
    script, connections = FORKS[name]
    async with Loopback(answer(HELLO)) as server:
        said = await run(script, server)
        assert said == [f"{who}: Hello world" for who in ("parent", "child", "child", "parent")]
        # The parent's connection is used before and after; the child made the others.
        assert server.connections == connections
        assert len(server.requests) == 4


TWO_RUNS = """
say("one", asyncio.run(ask()))
say("two", asyncio.run(ask()))
say("three", ask_blocking())
say("four", asyncio.run(ask()))

async def both():
    say("inside", ask_blocking())
    return await ask()

say("five", asyncio.run(both()))
"""


async def test_one_client_serves_loops_and_blocking_calls_in_turn() -> None:
    async with Loopback(answer(HELLO)) as server:
        said = await run(TWO_RUNS, server)
        assert [line.split(": ")[1] for line in said] == ["Hello world"] * 6
        # One for each of the four loops, and one that the blocking calls share.
        assert server.connections == 5
