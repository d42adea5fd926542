"""The cost of agent loops: 1,000 loops of three rounds at once, per round, as a ratio to plain calls.

A plain call is one of the same conversations: the same requests and answers, with the results put in by hand.
"""

import asyncio
import statistics
import subprocess
import sys
import time

from bench.serving import serving
from bench.short_server import ROUNDS

LOOPS = 1_000
TURNS = 3  # runs per peer, of which the median counts
PEERS = ("by-hand", "loops", "short-calls")


def agents() -> None:
    """Print the CPU time per round of each peer, in one process per run."""
    print(f"\n{LOOPS} agent loops of {ROUNDS} rounds at once: CPU per round, and ratio to plain calls")
    taken: dict[str, list[float]] = {peer: [] for peer in PEERS}
    with serving("bench.short_server", "calling") as (_, port):
        for _ in range(TURNS):
            for peer in PEERS:
                command = [sys.executable, "-m", "bench.agents", peer, port]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                taken[peer].append(float(done.stdout))
    base = statistics.median(taken["by-hand"])
    for peer, times in taken.items():
        median = statistics.median(times)
        print(f"  {peer:14} {median / (LOOPS * ROUNDS) * 1e6:7.0f} us   {median / base:5.2f}")


async def weather(city: str) -> str:
    """Return the weather in a city."""
    return f"21 degrees in {city}"


async def run(peer: str, port: str) -> float:
    """Run all loops, or the plain calls; return the CPU seconds."""
    from lm_deluge import Conversation, LLMClient, Tool

    tool = Tool.from_function(weather)
    prompt = "Write two dozen words about the weather in spring."

    async def loop() -> None:
        response = await client.stream(prompt, tools=[tool], run_tools=True, echo=None).read_to_end()
        assert len(response.rounds) == ROUNDS, response

    async def by_hand() -> None:
        conversation = Conversation.user(prompt)
        for _ in range(ROUNDS):
            response = await client.stream(conversation, tools=[tool], echo=None).read_to_end()
            conversation.add(response.content)
            for call in response.tool_calls:
                conversation.tool_result(call.id, "21 degrees in Rome")
        assert len(conversation) == 2 * ROUNDS

    async def short_calls() -> None:
        for _ in range(ROUNDS):
            await client.stream(prompt, echo=None).read_to_end()

    work = {"loops": loop, "by-hand": by_hand, "short-calls": short_calls}[peer]
    async with LLMClient("gpt-4o-mini", api_key="none", base_url=f"http://127.0.0.1:{port}/v1") as client:
        await work()  # imports, connections and tables are paid before
        started = time.process_time()
        await asyncio.gather(*(work() for _ in range(LOOPS)))
        return time.process_time() - started


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(asyncio.run(run(sys.argv[1], sys.argv[2])))
    else:
        agents()
