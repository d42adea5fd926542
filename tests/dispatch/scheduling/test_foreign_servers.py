"""The limiter against servers of other packages: no refusal, and at least 98 % of the limit.

The strict sliding window of the package `limits`, and mocklimit's four ways to count, over eleven minutes of virtual
time. DELUGE_SOAK=1 runs all of the table, 10,000 a minute included; `python -m bench limits` prints it.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from dispatch.scheduling.foreign_servers import MockLimit, MovingWindow, VirtualTime, set_clocks
from dispatch.scheduling.servers import Server
from dispatch.scheduling.virtual import Load, Outcome, VirtualRunner
from lm_deluge.dispatch.scheduling.limiter import Limit
from lm_deluge.dispatch.scheduling.local_limiter import LocalLimiter

IS_SOAK = bool(os.environ.get("DELUGE_SOAK"))
WINDOWS = 11 if IS_SOAK else 6
RATES = (60, 600, 10_000) if IS_SOAK else (60, 600)
SEEDS = (1, 2, 3) if IS_SOAK else (1,)
JITTERS_S = (0.0, 0.5, 1.0) if IS_SOAK else (1.0,)

Make = Callable[[VirtualTime, int], Server]
SERVERS: dict[str, Make] = {
    "limits' moving window": MovingWindow,
    "mocklimit sliding_window": lambda clock, amount: MockLimit(clock, "sliding_window", amount),
    "mocklimit fixed_window": lambda clock, amount: MockLimit(clock, "fixed_window", amount),
    "mocklimit token_bucket": lambda clock, amount: MockLimit(clock, "token_bucket", amount),
}


def run(make: Make, amount: int, jitter_s: float, *, seed: int = 1, tells_limits: bool = False) -> Outcome:
    with set_clocks() as clock:
        limiter = LocalLimiter()
        limiter.set_limits("m", "", [Limit("requests", amount)])
        server = make(clock, amount)
        load = Load(jitter_s=jitter_s)
        return VirtualRunner(limiter, {"requests": server}, load, seed=seed, tells_limits=tells_limits).run(
            60.0 * WINDOWS
        )


@pytest.mark.timeout(900 if IS_SOAK else 120)
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("jitter_s", JITTERS_S)
@pytest.mark.parametrize("amount", RATES)
@pytest.mark.parametrize("kind", SERVERS)
def test_no_refusal_and_nearly_all_of_the_limit(kind: str, amount: int, jitter_s: float, seed: int) -> None:
    outcome = run(SERVERS[kind], amount, jitter_s, seed=seed)
    assert outcome.refused == 0, outcome
    assert outcome.share >= 0.98, outcome


@pytest.mark.timeout(900 if IS_SOAK else 120)
@pytest.mark.parametrize("amount", RATES)
@pytest.mark.parametrize("kind", ["sliding_window", "fixed_window", "token_bucket"])
def test_their_headers_cost_nothing(kind: str, amount: int) -> None:
    outcome = run(lambda clock, most: MockLimit(clock, kind, most), amount, 1.0, tells_limits=True)
    assert outcome.refused == 0, outcome
    assert outcome.share >= 0.98, outcome


@pytest.mark.timeout(900 if IS_SOAK else 120)
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("jitter_s", JITTERS_S)
@pytest.mark.parametrize("amount", RATES)
def test_slices_of_ten_seconds_are_kept_whose_headers_tell_of_them(amount: int, jitter_s: float, seed: int) -> None:
    outcome = run(
        lambda clock, most: MockLimit(clock, "quantized", most, 10.0), amount, jitter_s, seed=seed, tells_limits=True
    )
    assert outcome.refused == 0, outcome
    assert outcome.share >= 0.98, outcome


@pytest.mark.timeout(900 if IS_SOAK else 120)
@pytest.mark.parametrize(
    ("jitter_s", "refused", "share"),
    [
        (0.0, 1, 0.98),
        (0.3, 3, 0.97),
        # No moment is safe where ways differ by as much as a slice is long: W / (W + J) is all there is.
        (1.0, 1, 0.47),
    ],
)
@pytest.mark.parametrize("amount", RATES)
def test_slices_of_a_second(amount: int, jitter_s: float, refused: int, share: float) -> None:
    """Some requests are refused before the headers have revealed the windows."""
    outcome = run(lambda clock, most: MockLimit(clock, "quantized", most, 1.0), amount, jitter_s, tells_limits=True)
    assert outcome.refused <= refused, outcome
    assert outcome.share >= share, outcome


def test_these_servers_do_refuse() -> None:
    with set_clocks() as clock:
        for make in (*SERVERS.values(), lambda clock, amount: MockLimit(clock, "quantized", amount)):
            server = make(clock, 60)
            assert not all(server.admit(1_000.0 + number / 100).is_admitted for number in range(200))
