"""A runner in virtual time: drives scheduler and limiter as the real runner does, against a model of a server."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec

from dispatch.scheduling.servers import MakesHeaders, Server, Verdict
from lm_deluge.dispatch.scheduling.limiter import Limiter, Observation
from lm_deluge.dispatch.scheduling.scheduler import Admission, Job, Route, Scheduler
from lm_deluge.usage import Usage
from lm_deluge.wire.rate_limit_headers import Dimension, RateLimit, parse_rate_limits


class Load(msgspec.Struct, kw_only=True):
    """The requests to send, their network delay, and their responses."""

    jitter_s: float = 0.0
    lateness_s: float = 0.002  # of the runner's timer
    tells_delays: bool = False
    says_when: bool = True  # a refusal: when to come again
    input_tokens: Callable[[random.Random], int] = lambda _: 100
    output_tokens: Callable[[random.Random], int] = lambda _: 100
    max_output_tokens: int | None = None
    latency_s: Callable[[random.Random, int], float] = lambda _chance, _tokens: 2.0
    input_share: float = 0.8  # of the upper bound that is reserved


class Outcome(NamedTuple):
    sent: int
    refused: int
    used: float  # units that were admitted
    share: float  # of what the limit would have allowed

    def __str__(self) -> str:
        return f"{self.sent} sent, {self.refused} refused, {self.share:.2%} used"


class World:
    """Virtual time: a queue of events."""

    def __init__(self, seed: int) -> None:
        self.now = 1_000.0
        self.chance = random.Random(seed)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()

    def at(self, moment: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._events, (max(moment, self.now), next(self._count), act))

    def run(self, until: float) -> None:
        while self._events and self._events[0][0] < until:
            self.now, _, act = heapq.heappop(self._events)
            act()


class VirtualRunner:
    """Runs with more jobs than can be sent."""

    def __init__(
        self,
        limiter: Limiter,
        servers: Mapping[Dimension, Server],
        load: Load,
        *,
        seed: int = 1,
        tells_limits: bool = False,
        waiting: int = 20,
        world: World | None = None,
    ) -> None:
        self.world = world or World(seed)
        self.limiter, self.servers, self.load = limiter, servers, load
        self.scheduler = Scheduler(limiter, [Route("m")])
        self.tells_limits, self.waiting = tells_limits, waiting
        self.ids = itertools.count()
        self.sent = self.refused = self.since = 0
        self.used: dict[Dimension, float] = dict.fromkeys(servers, 0.0)
        self.sent_at: list[float] = []
        self.refused_at: list[float] = []
        self.stalled_until = 0.0  # until then the process gets no CPU, so it sends nothing
        self._timer = 0

    def run(self, seconds: float, *, warm_up_s: float = 0.0) -> Outcome:
        """Run; shares are measured after `warm_up_s`, refusals from the start."""
        begun = self.world.now
        self.turn()
        self.world.run(begun + warm_up_s)
        before = dict(self.used)
        self.world.run(begun + warm_up_s + seconds)
        shares = {
            dimension: (self.used[dimension] - before[dimension]) / (server.amount * seconds / server.period_s)
            for dimension, server in self.servers.items()
        }
        tightest = max(shares, key=lambda dimension: shares[dimension])
        return Outcome(self.sent, self.refused, self.used[tightest], shares[tightest])

    def turn(self) -> None:
        now = self.world.now
        if now < self.stalled_until:
            self.world.at(self.stalled_until, self.turn)
            return
        while len(self.scheduler) < self.waiting:
            tokens = self.load.input_tokens(self.world.chance)
            job = Job(id=next(self.ids), input_tokens=tokens, max_output_tokens=self.load.max_output_tokens)
            self.scheduler.submit(job, now)
        plan = self.scheduler.poll(now)
        assert not plan.failed
        for start in plan.start:
            self.send(start)
        self._timer += 1
        mark = self._timer
        late_s = self.world.chance.uniform(0, self.load.lateness_s)
        self.world.at(plan.wake_at + late_s, lambda: self.turn() if mark == self._timer else None)

    def send(self, start: Admission) -> None:
        assert start.ticket.at <= self.world.now
        self.sent += 1
        self.sent_at.append(self.world.now)
        sent_at = self.world.now
        delay_s = self.world.chance.uniform(0, self.load.jitter_s)
        self.world.at(sent_at + delay_s, lambda: self.arrive(start, sent_at))

    def arrive(self, start: Admission, sent_at: float) -> None:
        world, now = self.world, self.world.now
        output = self.load.output_tokens(world.chance)
        if start.job.max_output_tokens is not None:
            output = min(output, start.job.max_output_tokens)
        usage = Usage(
            input_tokens=int(start.job.input_tokens * self.load.input_share),
            output_tokens=output,
        )
        costs: dict[Any, float] = {
            "requests": 1.0,
            "input_tokens": usage.input_tokens,
            "output_tokens": output,
            "tokens": usage.total_tokens,
        }
        verdicts = {dimension: server.admit(now, costs[dimension]) for dimension, server in self.servers.items()}
        limits = self.told(verdicts) if self.tells_limits else {}
        hit = [dimension for dimension, verdict in verdicts.items() if not verdict.is_admitted]
        observation = Observation(
            ticket=start.ticket,
            status=429 if hit else 200,
            sent_at=sent_at,
            rate_limits=limits,
            retry_after_s=max(1.0, verdicts[hit[0]].reset_after_s) if hit and self.load.says_when else None,
            dimension=hit[0] if hit else None,
            chance=world.chance.random(),
            delay_s=now - sent_at if self.load.tells_delays else None,
        )
        if hit:
            self.refused += 1
            self.refused_at.append(now)
            world.at(now, lambda: self.refuse(start, observation))
            return
        for dimension in self.servers:
            self.used[dimension] += costs[dimension]
        latency_s = self.load.latency_s(world.chance, output)
        world.at(now + latency_s / 4, lambda: self.limiter.observe(observation, world.now))
        world.at(now + latency_s, lambda: self.finish(start, usage))

    def told(self, verdicts: Mapping[Dimension, Verdict]) -> Mapping[str, RateLimit]:
        """Return the rate limits of a response, parsed from headers if the server model creates them."""
        found: dict[str, RateLimit] = {}
        for dimension, server in self.servers.items():
            verdict = verdicts[dimension]
            if isinstance(server, MakesHeaders):
                found |= parse_rate_limits(server.headers(verdict))
            else:
                found[dimension] = RateLimit(
                    dimension, server.period_s, server.amount, verdict.remaining, verdict.reset_after_s
                )
        return found

    def refuse(self, start: Admission, observation: Observation) -> None:
        now = self.world.now
        self.limiter.observe(observation, now)
        self.limiter.release(start.ticket, now, delivered=Usage())
        self.scheduler.submit(start.job, now, not_before=now + 1.0)
        self.turn()

    def finish(self, start: Admission, usage: Usage) -> None:
        self.limiter.settle(start.ticket, usage, self.world.now)
        self.scheduler.forget(start.job.id)
        self.turn()
