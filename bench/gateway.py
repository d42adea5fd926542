"""The gateway next to a bare Starlette relay and, on request, LiteLLM's proxy, in the same run.

`python -m bench.gateway [--litellm ENVIRONMENT/bin/litellm]` prints the latency of a plain call, the CPU time for each
relayed event, and how 1,000 streams of 20 events a second go. LiteLLM stands in an environment of its own.
"""

import asyncio
import contextlib
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp

from bench.serving import serving

PLAIN_CALLS = 300  # for a median that repeats within a few per cent
STREAMS, EVENTS = 10, 2_000  # long enough that the start of a stream does not count
CROWD, PER_SECOND, CROWD_S = 1_000, 20, 15
KEY = "sk-bench-key-of-32-characters-or-more-0123456789"  # LiteLLM refuses short ones
_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process and of its children that still run."""
    total = 0
    for task in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = task.read_text().rpartition(")")[2].split()
            if int(task.parent.name) == pid or int(fields[1]) == pid:
                total += int(fields[11]) + int(fields[12])
    return total / _TICKS


def body(events: int, pause_s: float, *, is_streamed: bool) -> dict[str, object]:
    messages = [{"role": "user", "content": f"{events} {pause_s}"}]
    return {"model": "gpt-4o", "messages": messages, "stream": is_streamed}


async def plain_latency_s(url: str) -> float:
    """Return the median latency of plain calls, one after the other over one connection."""
    times = []
    async with aiohttp.ClientSession(headers={"authorization": f"Bearer {KEY}"}) as session:
        for _ in range(PLAIN_CALLS):
            started = time.perf_counter()
            async with session.post(f"{url}/chat/completions", json=body(0, 0, is_streamed=False)) as answer:
                assert answer.status == 200, await answer.text()
                await answer.read()
            times.append(time.perf_counter() - started)
    return statistics.median(times)


async def stream(session: aiohttp.ClientSession, url: str, events: int, pause_s: float) -> tuple[int, bool]:
    """Read a stream; return the number of its events, and whether its end came."""
    count, tail = 0, b""
    async with session.post(f"{url}/chat/completions", json=body(events, pause_s, is_streamed=True)) as answer:
        async for data in answer.content.iter_any():
            count += data.count(b"data: {")
            tail = (tail + data)[-20:]
    return count, b"[DONE]" in tail


async def cpu_per_event(url: str, pid: int) -> float:
    """Return the CPU seconds of the server for each relayed event."""
    timeout = aiohttp.ClientTimeout(total=600)
    async with aiohttp.ClientSession(headers={"authorization": f"Bearer {KEY}"}, timeout=timeout) as session:
        await stream(session, url, 50, 0)
        before = cpu_s(pid)
        for _ in range(STREAMS):
            count, has_end = await stream(session, url, EVENTS, 0)
            assert has_end
            assert count >= EVENTS
        return (cpu_s(pid) - before) / (STREAMS * EVENTS)


async def crowd(url: str, pid: int) -> str:
    """Return how many streams at once went."""
    connector = aiohttp.TCPConnector(limit=0)
    headers = {"authorization": f"Bearer {KEY}"}
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
        before, started = cpu_s(pid), time.perf_counter()
        events = PER_SECOND * CROWD_S
        streams = [stream(session, url, events, 1 / PER_SECOND) for _ in range(CROWD)]
        found = await asyncio.gather(*streams, return_exceptions=True)
        wall, used = time.perf_counter() - started, cpu_s(pid) - before
    whole = sum(1 for each in found if not isinstance(each, BaseException) and each[1])
    return f"{whole} of {CROWD} whole, {wall:.1f} s for {CROWD_S} s of events, {used / wall:.2f} cores"


@contextlib.contextmanager
def litellm(command: str, upstream: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run LiteLLM's proxy."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.yaml"
        config.write_text(
            "model_list:\n  - model_name: gpt-4o\n    litellm_params:\n      model: openai/gpt-4o\n"
            f"      api_base: {upstream}\n      api_key: sk-bench-key\n"
            f"general_settings:\n  master_key: {KEY}\n"
        )
        arguments = [command, "--config", str(config), "--port", str(port), "--host", "127.0.0.1"]
        environment = {
            **os.environ,
            "PYTHONPATH": "",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        }  # no request to the internet
        with subprocess.Popen(
            arguments, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment, cwd=folder
        ) as process:
            try:
                for _ in range(1_500):  # it imports for up to minutes on a slow machine
                    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                        break
                    time.sleep(0.2)
                yield process, str(port)
            finally:
                process.kill()


async def measure(name: str, port: str, pid: int, direct_s: float) -> None:
    url = f"http://127.0.0.1:{port}/v1"
    latency = min([await plain_latency_s(url) for _ in range(3)])
    cpu = min([await cpu_per_event(url, pid) for _ in range(2)])
    print(f"  {name:10} plain call {latency * 1e3:6.2f} ms, {(latency - direct_s) * 1e3:6.2f} ms added; ", end="")
    print(f"{cpu * 1e6:6.1f} us of CPU per relayed event", flush=True)


async def main() -> None:
    command = sys.argv[sys.argv.index("--litellm") + 1] if "--litellm" in sys.argv else None
    with serving("bench.gateway_upstream") as (_, upstream_port):
        upstream = f"http://127.0.0.1:{upstream_port}/v1"
        direct = min([await plain_latency_s(upstream) for _ in range(3)])
        print(f"one after the other, {PLAIN_CALLS} plain calls; {STREAMS} streams of {EVENTS} events")
        print(f"  {'direct':10} plain call {direct * 1e3:6.2f} ms", flush=True)
        with serving("bench.gateway_peers", "starlette", upstream) as (process, port):
            await measure("starlette", port, process.pid, direct)
        with serving("bench.gateway_peers", "deluge", upstream) as (process, port):
            await measure("deluge", port, process.pid, direct)
            print(f"  {'deluge':10} {await crowd(f'http://127.0.0.1:{port}/v1', process.pid)}", flush=True)
        if command is not None:
            with litellm(command, upstream) as (process, port):
                await measure("litellm", port, process.pid, direct)


if __name__ == "__main__":
    asyncio.run(main())
