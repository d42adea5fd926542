"""Several processes in virtual time that share limits on a real Redis server, against one strict server."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any, NamedTuple

from dispatch.scheduling.servers import Server
from dispatch.scheduling.shared.redis_server import RETRY_S, AskedAtOnce, shared
from dispatch.scheduling.virtual import Load, VirtualRunner, World
from lm_deluge.dispatch.scheduling.limiter import Limit
from lm_deluge.wire.rate_limit_headers import Dimension

HEARTBEAT_S = 2.0


class CrowdOutcome(NamedTuple):
    refused: int
    used: float  # share of the limit
    counts: list[int]  # requests of each process

    @property
    def spread(self) -> float:
        return max(self.counts) / max(1, min(self.counts))


class Crowd:
    """Processes that have more jobs than they may send.

    Their limiters are real, and so are the server and its script; the clocks are virtual.
    """

    def __init__(
        self,
        run: Any,
        processes: int,
        limits: list[Limit],
        servers: Mapping[Dimension, Server],
        load: Load,
        *,
        state: str,
        tells_limits: bool = False,
        client: tuple[Limit, ...] = (),
    ) -> None:
        self.world = World(1)
        self.servers = servers
        self.runners: list[VirtualRunner] = []
        self.limiters: list[AskedAtOnce] = []
        for number in range(processes):
            limiter = shared(run, client, limits, state=state, process=f"{state} {number}")
            runner = VirtualRunner(
                limiter,
                servers,
                load,
                world=self.world,
                tells_limits=tells_limits,
                waiting=4,  # type: ignore[arg-type]
            )
            limiter.limiter.waiting = runner.scheduler.__len__
            self.limiters.append(limiter)
            self.runners.append(runner)
            self.world.at(self.world.now + self.world.chance.uniform(0, 0.2), runner.turn)
            self.world.at(self.world.now + HEARTBEAT_S, lambda place=number: self.beat(place))

    def beat(self, place: int) -> None:
        limiter, now = self.limiters[place], self.world.now
        was_reachable = limiter.limiter.is_reachable
        if limiter.limiter.next_exchange_at(now) <= now or not was_reachable:
            limiter.exchange(now)
        if limiter.limiter.is_reachable != was_reachable:
            self.runners[place].turn()
        pause = HEARTBEAT_S / 4 if limiter.limiter.is_reachable else RETRY_S
        self.world.at(now + pause * self.world.chance.uniform(0.8, 1), lambda: self.beat(place))

    def set_down(self, *, is_down: bool) -> None:
        for limiter in self.limiters:
            limiter.is_down = is_down

    def run_for(self, seconds: float) -> CrowdOutcome:
        """Run on, and return what happened meanwhile."""
        sent = [runner.sent - runner.refused for runner in self.runners]
        refused = sum(runner.refused for runner in self.runners)
        used = {dimension: self.used(dimension) for dimension in self.servers}
        self.world.run(self.world.now + seconds)
        shares = [
            (self.used(dimension) - used[dimension]) / (server.amount * max(seconds, 1e-9) / server.period_s)
            for dimension, server in self.servers.items()
        ]
        return CrowdOutcome(
            sum(runner.refused for runner in self.runners) - refused,
            max(shares),
            [runner.sent - runner.refused - before for runner, before in zip(self.runners, sent, strict=True)],
        )

    def used(self, dimension: Dimension) -> float:
        return sum(runner.used[dimension] for runner in self.runners)

    @property
    def exchanges_per_request(self) -> float:
        sent = sum(runner.sent for runner in self.runners)
        return statistics.fsum(limiter.exchanges for limiter in self.limiters) / max(1, sent)
