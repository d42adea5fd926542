"""One limit for several processes on one Redis server: refused requests, used share, fairness, CPU per reservation.

    python -m bench.shared_limits [seconds] [processes,...] [limit,...]
    python -m bench.shared_limits outages [processes,...] [limit,...]
    python -m bench.shared_limits cpu

`outages` stops the Redis server (SIGSTOP) for 20 seconds, kills it, and starts it again, empty.

A limit is a number of requests a minute, or of tokens with `t`: `600`, `200000t`. A strict server with a sliding window
of a minute counts refused requests, too. The processes are forks that send as fast as they may, without HTTP: a line
for each request, so that the figures are of the limiter alone.
"""

import asyncio
import contextlib
import json
import logging
import os
import random
import resource
import sys
import time
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))  # the server models, and the Redis server of the tests

from dispatch.scheduling.servers import SlidingWindow
from dispatch.scheduling.shared.redis_server import RedisServer
from lm_deluge.dispatch.scheduling.limiter import Limit, Observation
from lm_deluge.dispatch.scheduling.local_limiter import LocalLimiter
from lm_deluge.dispatch.scheduling.runner import LimiterLock, Runner
from lm_deluge.dispatch.scheduling.scheduler import Job, Route
from lm_deluge.dispatch.scheduling.shared.configuration import GroupLimits, SharedConfiguration, state_key
from lm_deluge.dispatch.scheduling.shared.connection import parse_address
from lm_deluge.dispatch.scheduling.shared.limiter import SharedLimiter
from lm_deluge.dispatch.scheduling.shared.link import LimiterLink
from lm_deluge.usage import Usage

AT_ONCE = 24  # calls of each process that wait
LATENCY_S = 0.5  # of an answer
INPUT_TOKENS, OUTPUT_TOKENS = 300, 200  # means, of requests under a limit of tokens
WARM_UP_S = 5.0
PHASES_S = {"before": 25.0, "stopped": 20.0, "resumed": 20.0, "killed": 10.0, "started again": 45.0}
FIRST_SECOND_S = 1.0  # of an outage, in which a process may not know of it yet


class StrictServer:
    """Counts requests in a sliding window; the share is measured between two moments."""

    def __init__(self, amount: float, *, is_tokens: bool) -> None:
        self.window = SlidingWindow(amount, 60.0)
        self.is_tokens = is_tokens
        self.events: list[tuple[float, str, float, bool]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        name = (await reader.readline()).decode().strip()
        with contextlib.suppress(ConnectionError):
            await self._count(name, reader, writer)

    async def _count(self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            number, tokens = line.split()
            cost = float(tokens) if self.is_tokens else 1.0
            now = time.monotonic()
            verdict = self.window.admit(now, cost)
            self.events.append((now, name, cost, verdict.is_admitted))
            if not writer.is_closing():
                writer.write(b"%b %d\n" % (number, 200 if verdict.is_admitted else 429))
        writer.close()


class Worker:
    """One process: it sends as fast as the limiter lets it."""

    def __init__(self, limiter: LimiterLock, port: int, name: str, at_once: int, start: float, until: float) -> None:
        self.runner = Runner(limiter, [Route("m")])
        self.port, self.name, self.at_once, self.start, self.until = port, name, at_once, start, until
        self.chance = random.Random(name)
        self.answers: dict[bytes, asyncio.Future[int]] = {}
        self.admitted = 0

    async def run(self) -> None:
        reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.writer.write(f"{self.name}\n".encode())
        listener = asyncio.ensure_future(self.listen(reader))
        calls = [asyncio.ensure_future(self.call(number)) for number in range(self.at_once)]
        await asyncio.sleep(self.start - time.monotonic())
        before, admitted = time.process_time(), self.admitted
        await asyncio.sleep(self.until - time.monotonic())
        self.cpu_s, self.admitted = time.process_time() - before, self.admitted - admitted
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        self.writer.close()
        await listener

    async def listen(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            number, status = line.split()
            answer = self.answers.pop(number)
            if not answer.done():  # the call was cancelled, at the end of the measurement
                answer.set_result(int(status))

    async def call(self, place: int) -> None:
        number = place
        while True:
            number += self.at_once
            tokens = self.chance.randint(INPUT_TOKENS // 2, INPUT_TOKENS * 3 // 2)
            job = Job(id=number, input_tokens=tokens, max_output_tokens=OUTPUT_TOKENS * 2)
            admission = await self.runner.admit(job)
            self.admitted += 1
            sent_at = time.monotonic()
            usage = Usage(input_tokens=tokens, output_tokens=self.chance.randint(1, OUTPUT_TOKENS * 2))
            key = str(number).encode()
            answer = self.answers[key] = asyncio.get_running_loop().create_future()
            self.writer.write(b"%b %d\n" % (key, usage.total_tokens))
            status = await answer
            now = time.monotonic()
            with self.runner._limiter as limiter:  # noqa: SLF001 - what `head_came` does, without headers to parse
                observation = Observation(
                    ticket=admission.ticket, status=status, sent_at=sent_at, delay_s=now - sent_at
                )
                limiter.observe(observation, now)
            if status == 200:
                await asyncio.sleep(LATENCY_S)
                self.runner.settle(admission.ticket, usage)
            else:
                self.runner.give_back(admission.ticket, was_sent=True, delivered=Usage())
            self.runner.forget(job)


def run_worker(url: str, limit: Limit, processes: int, port: int, name: str, *times: float) -> dict[str, float]:
    per_s = limit.amount / limit.period_s / (1 if limit.dimension == "requests" else INPUT_TOKENS + OUTPUT_TOKENS)
    at_once = AT_ONCE + int(2 * per_s * LATENCY_S / processes)

    logged: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = logged.append  # type: ignore[method-assign]
    logging.getLogger("lm_deluge.limiter").addHandler(handler)

    async def main() -> dict[str, float]:
        link = None
        if url:
            configuration = SharedConfiguration(state_key(["bench"]))
            configuration.add("m", "", GroupLimits([limit]))
            address = parse_address(url)
            limiter = SharedLimiter(configuration, name, processes=address.processes)
            lock = LimiterLock(limiter)
            link = LimiterLink(limiter, lock, address)
        else:
            local = LocalLimiter()
            local.set_limits("m", "", [limit], is_firm=True)
            lock = LimiterLock(local)
        worker = Worker(lock, port, name, at_once, *times)
        await worker.run()
        if link is not None:
            await link.close()
        return {"admitted": worker.admitted, "cpu_s": worker.cpu_s, "logged": len(logged)}

    return asyncio.run(main())


def fork_worker(*arguments) -> tuple[int, int]:
    """Return the id of a process that runs a worker, and the pipe with its result."""
    read, write = os.pipe()
    child = os.fork()
    if child:
        os.close(write)
        return child, read
    os.close(read)
    try:
        os.write(write, json.dumps(run_worker(*arguments)).encode())
    except Exception:  # noqa: BLE001 - of a child, whose traceback no other place prints
        traceback.print_exc()
    finally:
        os._exit(0)


def collect(children: list[tuple[int, int]]) -> list[dict[str, float]]:
    results = []
    for child, read in children:
        with os.fdopen(read, "rb") as file:
            results.append(json.loads(file.read() or "{}"))
        os.waitpid(child, 0)
    return results


async def run_processes(
    url: str, processes: int, limit: Limit, seconds: float, during: Callable[[], Awaitable[None]] | None = None
) -> tuple[StrictServer, list[dict[str, float]], float]:
    """Return the server, what the processes report, and when the measurement began."""
    server = StrictServer(limit.amount, is_tokens=limit.dimension == "tokens")
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, backlog=256)
    port = listener.sockets[0].getsockname()[1]
    until = time.monotonic() + WARM_UP_S + seconds
    children = [
        fork_worker(url, limit, processes, port, f"w{number}", until - seconds, until) for number in range(processes)
    ]
    acting = None if during is None else asyncio.ensure_future(during())
    results = await asyncio.to_thread(collect, children)
    if acting is not None:
        await acting
    listener.close()
    return server, results, until - seconds


async def measure(url: str, processes: int, limit: Limit, seconds: float) -> str:
    """Return a line with the results of one configuration."""
    server, results, start = await run_processes(url, processes, limit, seconds)
    window = [event for event in server.events if start <= event[0] < start + seconds]
    used = sum(cost for _, _, cost, is_admitted in window if is_admitted)
    shares = Counter(name for _, name, _, is_admitted in window if is_admitted)
    counts = [shares[f"w{number}"] for number in range(processes)]
    refused = sum(not is_admitted for _, _, _, is_admitted in server.events)
    admitted = sum(result.get("admitted", 0) for result in results)
    cpu_ms = 1_000 * sum(result.get("cpu_s", 0.0) for result in results) / max(1, admitted)
    used_share = used / (limit.amount * seconds / limit.period_s)
    return (
        f"{processes:3} processes {limit.amount:9,.0f} {limit.dimension:8} a minute: {refused:4} refused, "
        f"{used_share:7.2%} used, {min(counts):4} to {max(counts):4} per process, {cpu_ms:6.3f} ms CPU per request"
    )


async def measure_outages(redis: RedisServer, processes: int, limit: Limit) -> None:
    """Print what happens in each phase of outages."""
    begun = dict.fromkeys(PHASES_S, 0.0)
    acts = {"stopped": redis.pause, "resumed": redis.resume, "killed": redis.kill, "started again": redis.start}

    async def act() -> None:
        await asyncio.sleep(WARM_UP_S)
        for phase, phase_s in PHASES_S.items():
            begun[phase] = time.monotonic()
            if phase in acts:
                await asyncio.to_thread(acts[phase])
            await asyncio.sleep(max(0.0, begun[phase] + phase_s - time.monotonic()))

    server, results, _ = await run_processes(redis.url, processes, limit, sum(PHASES_S.values()), act)
    for phase, phase_s in PHASES_S.items():
        inside = [event for event in server.events if begun[phase] <= event[0] < begun[phase] + phase_s]
        used = sum(cost for _, _, cost, is_admitted in inside if is_admitted)
        refused = [event[0] - begun[phase] for event in inside if not event[3]]
        late = sum(after_s > FIRST_SECOND_S for after_s in refused)
        share = used / (limit.amount * phase_s / limit.period_s)
        counts = Counter(name for _, name, _, is_admitted in inside if is_admitted)
        print(
            f"{processes:3} processes, {phase:13}: {len(refused)} refused ({late} after the first second), "
            f"{share:7.2%} used, {len(counts)} processes served",
            flush=True,
        )
    logged = Counter(result.get("logged", -1) for result in results)
    print(f"{processes:3} processes: lines in the log of a process: {dict(logged)}", flush=True)


def cpu_per_reservation(url: str, at_once: int, count: int = 4_000) -> float:
    """Return milliseconds of CPU time for a reservation and its settlement, without a limit that delays."""

    async def main() -> float:
        limit = Limit("requests", 100_000_000.0)
        if url:
            configuration = SharedConfiguration(state_key([f"cpu {at_once}"]))
            configuration.add("m", "", GroupLimits([limit]))
            limiter = SharedLimiter(configuration, "cpu")
            lock = LimiterLock(limiter)
            link = LimiterLink(limiter, lock, parse_address(url))
        else:
            local = LocalLimiter()
            local.set_limits("m", "", [limit], is_firm=True)
            lock, link = LimiterLock(local), None
        runner = Runner(lock, [Route("m")])

        async def call(number: int) -> None:
            job = Job(id=number, input_tokens=100)
            admission = await runner.admit(job)
            runner.settle(admission.ticket, Usage())
            runner.forget(job)

        used_s = 0.0
        for start in range(0, count + at_once, at_once):
            before = time.process_time()
            await asyncio.gather(*(call(start + each) for each in range(at_once)))
            used_s += time.process_time() - before if start else 0.0  # the first round connects
        if link is not None:
            await link.close()
        return 1_000 * used_s / count

    return asyncio.run(main())


def print_cpu() -> None:
    redis = RedisServer()
    for at_once in (1, 8, 64):
        local, shared = (min(cpu_per_reservation(url, at_once) for _ in range(3)) for url in ("", redis.url))
        print(f"{at_once:3} reservations at once: local {local:.3f} ms CPU each, shared {shared:.3f} ms", flush=True)
    redis.close()


def main() -> None:
    first, named, amounts = [*sys.argv[1:], "", "", ""][:3]
    if first == "cpu":
        print_cpu()
        return
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    are_outages = first == "outages"
    processes = [int(each) for each in (named or "1,4,16,64").split(",")]
    for text in (amounts or ("600" if are_outages else "60,600,10000,200000t,2000000t")).split(","):
        limit = Limit("tokens" if text.endswith("t") else "requests", float(text.rstrip("t")))
        if not are_outages:
            print(f"local limiter: {asyncio.run(measure('', 1, limit, float(first or 60)))}", flush=True)
        for count in processes:
            redis = RedisServer()
            try:
                if are_outages:
                    asyncio.run(measure_outages(redis, count, limit))
                else:
                    print(
                        f"shared:        {asyncio.run(measure(redis.url, count, limit, float(first or 60)))}",
                        flush=True,
                    )
            finally:
                redis.close()


if __name__ == "__main__":
    main()
