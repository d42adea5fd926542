"""The limiter against somebody else's server, through real sockets: mocklimit's four ways to count, side by side.

Its windows may be short, so two of them take seconds. `make soak` runs ten longer ones and asks for no refusal at all;
in between a machine that stalls for a tenth of a second may cost one.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from lm_deluge.dispatch.scheduling.limiter import Limit, Observation
from lm_deluge.dispatch.scheduling.local_limiter import LocalLimiter
from lm_deluge.dispatch.scheduling.scheduler import Admission, Job, Route, Scheduler
from lm_deluge.usage import Usage
from lm_deluge.wire.rate_limit_headers import parse_rate_limits
from lm_deluge.wire.retry_after import parse_retry_after

IS_SOAK = bool(os.environ.get("DELUGE_SOAK"))
WINDOW_S, WINDOWS, AMOUNT = (20.0, 10, 1_000) if IS_SOAK else (3.0, 2, 120)

LIMITS = {
    "sliding_window": f"[{{limit: {AMOUNT}, window_seconds: {WINDOW_S}}}]",
    "fixed_window": f"[{{limit: {AMOUNT}, window_seconds: {WINDOW_S}}}]",
    "token_bucket": f"[{{capacity: {AMOUNT}, refill_rate: {AMOUNT / WINDOW_S}}}]",
    "quantized": f"[{{limit: {AMOUNT}, window_seconds: {WINDOW_S}}}, "
    f"{{limit: {AMOUNT // 2}, window_seconds: {WINDOW_S / 2}}}]",
}
HEADERS = (
    "{limit: x-ratelimit-limit-requests, remaining: x-ratelimit-remaining-requests, reset: x-ratelimit-reset-requests}"
)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    import uvicorn
    from loguru import logger
    from mocklimit.server.app import create_app

    logger.remove()
    folder: Path = tmp_path_factory.mktemp("mocklimit")
    paths = "".join(
        f"  /{kind}:\n    post:\n      operationId: {kind}\n      responses:\n        '200': {{description: ok}}\n"
        for kind in LIMITS
    )
    head = "openapi: 3.0.0\ninfo: {title: t, version: '1'}\n"
    (folder / "spec.yaml").write_text(f"{head}paths:\n{paths}", "utf-8")
    policies = "".join(
        f"  {kind}:\n    strategy: {kind}\n    scope: ip\n    limits: {limits}\n    headers: {HEADERS}\n"
        for kind, limits in LIMITS.items()
    )
    endpoints = "".join(f"  /{kind}: {{methods: [POST], policy: {kind}}}\n" for kind in LIMITS)
    (folder / "limits.yaml").write_text(f"policies:\n{policies}endpoints:\n{endpoints}", "utf-8")
    app = create_app(str(folder / "spec.yaml"), str(folder / "limits.yaml"))
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="critical", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


class Sender:
    """Sends as much as it may to one endpoint, for a while."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session, self.url = session, url
        self.limiter = LocalLimiter()
        self.limiter.set_limits("m", "", [Limit("requests", AMOUNT, WINDOW_S)])
        self.scheduler = Scheduler(self.limiter, [Route("m")])
        self.sent = self.refused = 0

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + WINDOW_S * WINDOWS
        async with asyncio.TaskGroup() as group:
            while (now := loop.time()) < until:
                while len(self.scheduler) < 5:
                    self.scheduler.submit(Job(id=self.sent + len(self.scheduler)), now)
                plan = self.scheduler.poll(now)
                for start in plan.start:
                    self.sent += 1
                    group.create_task(self.call(start))
                await asyncio.sleep(max(0.0, plan.wake_at - loop.time()))

    async def call(self, start: Admission) -> None:
        loop = asyncio.get_running_loop()
        sent_at = loop.time()
        async with self.session.post(self.url, json={}) as answer:
            headers = {name.lower(): value for name, value in answer.headers.items()}
            # Read, not learned from: limits that name no period are per minute, and these windows last seconds.
            assert parse_rate_limits(headers)["requests"].limit is not None
            observation = Observation(
                ticket=start.ticket,
                status=answer.status,
                sent_at=sent_at,
                retry_after_s=parse_retry_after(headers),
            )
        self.limiter.observe(observation, loop.time())
        self.limiter.settle(start.ticket, Usage(), loop.time())
        self.refused += answer.status == 429


@pytest.mark.timeout(WINDOW_S * WINDOWS + 60)
async def test_four_ways_to_count(address: str) -> None:
    async with aiohttp.ClientSession() as session:
        senders = {kind: Sender(session, f"{address}/{kind}") for kind in LIMITS}
        await asyncio.gather(*(sender.run() for sender in senders.values()))
    figures = {kind: (sender.sent, sender.refused) for kind, sender in senders.items()}
    for kind, (sent, refused) in figures.items():
        assert sent > 0, (kind, figures)
        if IS_SOAK:
            assert refused == 0, (kind, figures)
            assert sent >= 0.95 * AMOUNT * WINDOWS, (kind, figures)
        else:
            assert refused <= 0.02 * AMOUNT * WINDOWS, (kind, figures)
