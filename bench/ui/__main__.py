"""A FastAPI application that relays a model to many users, next to the same application with a constant generator.

`python -m bench.ui` prints the CPU time of the application's process per token, and the time to the first token, of 200
users with 20 to 50 tokens a second each. Application, provider and clients are processes of their own. Each token is a
frame of the provider. The applications take turns, and the median of the ratios counts. `relay` is what an application
costs at least: it passes on the provider's bytes with aiohttp, without reading them.
"""

import asyncio
import json
import statistics
import sys
import time
from typing import NamedTuple

import aiohttp

from bench.gateway import cpu_s
from bench.serving import serving

USERS = 200
SLOWEST, FASTEST = 20, 50  # tokens per second and user, as models of late 2026 have them
FIRST_TOKEN_S = 0.2  # what a fast model takes; the constant generator waits as long
SECONDS = 15
ARRIVAL_S = 5  # in which all users arrive
ROUNDS = 5
APPS = ("constant", "deluge", "relay")
MOST_CPU, MOST_FIRST_TOKEN = 1.6, 1.5


class Run(NamedTuple):
    cpu_per_token: float
    first_token_s: float
    cores: float
    reads_per_token: float


async def user(session: aiohttp.ClientSession, url: str, number: int) -> tuple[int, float, int]:
    """Read one answer; return the number of its tokens, the time to the first one, and the number of reads."""
    rate = SLOWEST + (FASTEST - SLOWEST) * number / USERS
    await asyncio.sleep(ARRIVAL_S * number / USERS)
    text = f"{int(rate * SECONDS)} {1 / rate} {FIRST_TOKEN_S}"
    body = {"id": str(number), "messages": [{"role": "user", "parts": [{"type": "text", "text": text}]}]}
    tokens, reads, first, tail = 0, 0, 0.0, b""
    started = time.perf_counter()
    async with session.post(url, json=body) as answer:
        assert answer.status == 200, await answer.text()
        async for data in answer.content.iter_any():
            found = data.count(b" word")
            if found and not tokens:
                first = time.perf_counter() - started
            tokens += found
            reads += 1
            tail = (tail + data)[-20:]
    assert b"[DONE]" in tail, tail
    return tokens, first, reads


async def measure(port: str, pid: int, users: int = USERS) -> Run:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        before, started = cpu_s(pid), time.perf_counter()
        found = await asyncio.gather(*(user(session, f"http://127.0.0.1:{port}/chat", n) for n in range(users)))
        used, wall = cpu_s(pid) - before, time.perf_counter() - started
    tokens = sum(each[0] for each in found)
    first = statistics.median(each[1] for each in found)
    return Run(used / tokens, first, used / wall, sum(each[2] for each in found) / tokens)


def show(name: str, run: Run) -> None:
    print(
        f"  {name:9} {run.cpu_per_token * 1e6:6.1f} us of CPU per token ({run.cores:.2f} cores, "
        f"{run.reads_per_token:.2f} reads per token), first token p50 {run.first_token_s * 1e3:5.1f} ms",
        flush=True,
    )


async def main() -> int:
    ratios: dict[str, list[float]] = {"cpu": [], "first": []}
    with (
        serving("bench.gateway_upstream") as (_, upstream_port),
        serving("bench.ui.apps", "constant", upstream_port) as (constant, constant_port),
        serving("bench.ui.apps", "deluge", upstream_port) as (deluge, deluge_port),
        serving("bench.ui.apps", "relay", upstream_port) as (relay, relay_port),
    ):
        servers = {
            "constant": (constant_port, constant.pid),
            "deluge": (deluge_port, deluge.pid),
            "relay": (relay_port, relay.pid),
        }
        for port, pid in servers.values():
            await measure(port, pid, 10)
        for _ in range(ROUNDS):
            runs = {name: await measure(*servers[name]) for name in APPS}
            for name, run in runs.items():
                show(name, run)
            ratios["cpu"].append(runs["deluge"].cpu_per_token / runs["constant"].cpu_per_token)
            ratios["first"].append(runs["deluge"].first_token_s / runs["constant"].first_token_s)
            print(f"  ratio: CPU {ratios['cpu'][-1]:.2f}, first token {ratios['first'][-1]:.2f}", flush=True)
    cpu, first = statistics.median(ratios["cpu"]), statistics.median(ratios["first"])
    print(json.dumps({"cpu_ratio": round(cpu, 2), "first_token_ratio": round(first, 2), "rounds": ROUNDS}))
    return 0 if cpu <= MOST_CPU and first <= MOST_FIRST_TOKEN else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
