"""The used share of a rate limit and the number of refusals, in virtual time, against several models of servers."""

import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))  # the server models and the virtual runner

from dispatch.scheduling.foreign_servers import MockLimit, MovingWindow, set_clocks
from dispatch.scheduling.servers import Server, SlidingWindow
from dispatch.scheduling.test_in_virtual_time import answers
from dispatch.scheduling.virtual import Load, Outcome, VirtualRunner
from lm_deluge.dispatch.scheduling.limiter import Limit
from lm_deluge.dispatch.scheduling.local_limiter import LocalLimiter
from lm_deluge.wire.rate_limit_headers import Dimension

MINUTES = 11  # of virtual time: ten full windows of a minute, after the first window
JITTERS_S = (0.0, 0.5, 1.0)  # largest delay of a request on its way to the server: none, usual, bad

REQUESTS: dict[str, Callable] = {
    "limits: moving window": MovingWindow,
    "mocklimit: sliding window": lambda clock, most: MockLimit(clock, "sliding_window", most),
    "mocklimit: token bucket": lambda clock, most: MockLimit(clock, "token_bucket", most),
    "mocklimit: fixed window": lambda clock, most: MockLimit(clock, "fixed_window", most),
    "mocklimit: slices of 10 s": lambda clock, most: MockLimit(clock, "quantized", most, 10.0),
    "mocklimit: slices of 1 s": lambda clock, most: MockLimit(clock, "quantized", most, 1.0),
}
REPORTING_LIMITS = {"mocklimit: slices of 10 s", "mocklimit: slices of 1 s"}
SILENT = {  # a limit per minute that the server enforces over a shorter time, without headers
    "200 in 10 s, for 1,200 a minute": lambda: (SlidingWindow(200, 10.0), 1_200),
    "20 in 1 s, for 1,200 a minute": lambda: (SlidingWindow(20, 1.0), 1_200),
    "1,200 in a minute": lambda: (SlidingWindow(1_200, 60.0), 1_200),
}
SILENT_JITTERS_S = (0.0, 0.01, 0.05, 0.15, 0.3)
ANSWERS = {
    "6 s on average": answers(),
    "30 s on average": answers(latency_s=lambda _, tokens: 5.0 + tokens / 20),
}


def measure(
    server: Server,
    load: Load,
    dimension: Dimension = "requests",
    *,
    reports_limits: bool = False,
    warm_up_s: float = 0.0,
) -> Outcome:
    limiter = LocalLimiter()
    limiter.set_limits("m", "", [Limit(dimension, server.amount)])
    run = VirtualRunner(limiter, {dimension: server}, load, tells_limits=reports_limits)
    return run.run(60.0 * MINUTES, warm_up_s=warm_up_s)


def limits() -> None:
    """Print the refused requests and the used share of the limit, for eleven virtual minutes each."""
    rates = (60, 600, 10_000) if "all" in sys.argv else (60, 600)
    print(
        f"\n{'requests a minute, jitter':28}"
        + "".join(f"{rate:>9} {jitter:g} s" for rate in rates for jitter in JITTERS_S)
    )
    for name, make in REQUESTS.items():
        cells = []
        for rate in rates:
            for jitter_s in JITTERS_S:
                with set_clocks() as clock:
                    found = measure(make(clock, rate), Load(jitter_s=jitter_s), reports_limits=name in REPORTING_LIMITS)
                cells.append(f"{found.refused:4} {found.share:7.2%}")
        print(f"  {name:26}" + " ".join(cells), flush=True)
    print(f"\n{'sliding windows, measured jitter':34}" + "".join(f"{jitter:>13g} s" for jitter in SILENT_JITTERS_S))
    for name, silent in SILENT.items():
        cells = []
        for jitter_s in SILENT_JITTERS_S:
            server, per_minute = silent()
            limiter = LocalLimiter([Limit("requests", per_minute)])
            found = VirtualRunner(limiter, {"requests": server}, Load(jitter_s=jitter_s, tells_delays=True)).run(300.0)
            cells.append(f"{found.refused:6} {found.share:7.2%}")
        print(f"  {name:32}" + " ".join(cells), flush=True)
    print("\ntokens a minute, output of unknown length (log-normal, mean 500), jitter 1 s, after two minutes")
    for name, load in ANSWERS.items():
        for amount in (200_000, 500_000, 1_000_000, 2_000_000):
            found = measure(SlidingWindow(amount, 60.0), load, "tokens", warm_up_s=120.0)
            print(f"  {name:18} {amount:10,} {found}", flush=True)
