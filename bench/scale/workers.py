"""CPU time and speed of `deluge batch` with one process and with workers.

`python -m bench.scale.workers [CALLS] [WORKERS ...]`

The provider is a process of its own that sends bytes which were rendered beforehand: answers of 200 deltas, each in a
chunk of its own, as providers send them. The CPU time of all processes is read from /proc (Linux), so that the figures
mean something on a busy machine, too: what the command itself needs for a call bounds the number of useful workers.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

DELTAS = 200
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def _body() -> bytes:
    events = [
        {"id": "c", "model": "gpt-4o", "choices": [{"index": 0, "delta": {"content": f"word{number} "}}]}
        for number in range(DELTAS)
    ]
    events.append({"id": "c", "model": "gpt-4o", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    events.append({"id": "c", "choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": DELTAS}})
    frames = [b"data: " + json.dumps(event).encode() + b"\n\n" for event in events] + [b"data: [DONE]\n\n"]
    return _HEAD + b"".join(b"%x\r\n%b\r\n" % (len(frame), frame) for frame in frames) + b"0\r\n\r\n"


async def _serve() -> None:
    answer = _body()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
                await reader.readexactly(length)
                writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, backlog=1_000)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def measure(url: str, calls: int, workers: int) -> tuple[float, float, float]:
    """Return the seconds from the first answers to the end, and the CPU seconds of the command and of its workers."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (home / "in.jsonl").write_text("".join(f'"line {number}"\n' for number in range(calls)))
        command = (sys.executable, "-m", "lm_deluge", "batch", "in.jsonl", "out.jsonl", "--model", "gpt-4o")
        options = ("--base-url", url, "--api-key", "any", "--progress", "none", "--workers", str(workers))
        limits = ("--limit-concurrency", "64")
        source = str(Path(__file__).resolve().parents[2] / "src")
        environment = {**os.environ, "PYTHONPATH": source}
        process = subprocess.Popen([*command, *options, *limits], cwd=home, env=environment)
        journal = home / "out.jsonl.journal"
        started, own, others = None, 0.0, {}
        begun_own, begun_others = 0.0, {}
        while process.poll() is None:
            try:
                own = _cpu_s(process.pid)
                others.update({pid: _cpu_s(pid) for pid in _children(process.pid)})
            except OSError:
                break
            if started is None and journal.exists() and journal.stat().st_size > 20_000:
                started, begun_own, begun_others = time.perf_counter(), own, dict(others)
            time.sleep(0.02)
        assert process.wait() == 0
        took = time.perf_counter() - (started or time.perf_counter())
    return took, own - begun_own, sum(others.values()) - sum(begun_others.values())


def main(calls: int, counts: list[int]) -> None:
    """Print a table."""
    server = subprocess.Popen([sys.executable, "-m", "bench.scale.workers", "serve"], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    url = f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
    print("workers | seconds | answers/s | CPU ms a call: command | workers")
    try:
        for workers in counts:
            took, own, others = measure(url, calls, workers)
            print(
                f"{workers} | {took:.1f} | {calls / took:.0f} | {own / calls * 1e3:.2f} | {others / calls * 1e3:.2f}",
                flush=True,
            )
    finally:
        server.kill()


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        asyncio.run(_serve())
    else:
        main(int(sys.argv[1]) if sys.argv[1:] else 3_000, [int(each) for each in sys.argv[2:]] or [1, 2, 1, 2])
