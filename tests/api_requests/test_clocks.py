"""What is left on each clock, as numbers."""

import math
from typing import Any

import pytest

from lm_deluge.api_requests.clocks import StreamClocks
from lm_deluge.config import Timeouts


def clocks(deadline: float | None = None, **settings: Any) -> StreamClocks:
    return StreamClocks(Timeouts(**{"first_token": 10.0, "idle": 4.0, "progress": 9.0, **settings}), deadline)


def test_before_the_first_token_only_its_clock_runs() -> None:
    own = clocks()
    assert own.limit(100.0) == (110.0, "first_token")
    own.waited(3.0, is_progress=False)
    assert own.limit(200.0) == (207.0, "first_token")
    own.waited(7.5, is_progress=False)
    limit, clock = own.limit(300.0)
    assert limit < 300.0
    assert clock == "first_token"


def test_after_it_silence_is_measured_by_idle_and_pings_by_progress() -> None:
    own = clocks()
    own.waited(9.0, is_progress=True)
    assert own.limit(100.0) == (104.0, "idle")
    own.waited(3.0, is_progress=False)
    assert own.limit(103.0) == (107.0, "idle")
    own.waited(3.0, is_progress=False)
    assert own.limit(106.0) == (109.0, "progress")
    own.waited(2.0, is_progress=True)
    assert own.limit(108.0) == (112.0, "idle")


def test_the_time_of_a_slow_consumer_counts_for_nothing() -> None:
    own = clocks()
    own.waited(1.0, is_progress=True)
    for now in (0.0, 1e3, 1e6):
        assert own.limit(now) == (now + 4.0, "idle")
        own.waited(3.9, is_progress=True)


def test_a_tie_is_named_idle() -> None:
    own = clocks(idle=9.0)
    own.waited(0.0, is_progress=True)
    assert own.limit(0.0) == (9.0, "idle")


@pytest.mark.parametrize("phase", ["first", "flowing"])
def test_the_deadline_cuts_every_other_clock(phase: str) -> None:
    own = clocks(deadline=101.0, total=50.0)
    if phase == "flowing":
        own.waited(0.0, is_progress=True)
    assert own.limit(100.0) == (101.0, "total")
    assert own.limit(200.0) == (101.0, "total")
    assert own.limit(90.0)[1] != "total"
    assert own.setting("total") == 50.0


def test_after_the_finish_reason_nobody_waits_long() -> None:
    own = clocks(idle=60.0)
    own.waited(0.0, is_progress=True)
    own.waited(0.0, is_progress=False, is_complete=True)
    assert own.limit(100.0) == (105.0, "idle")
    short = clocks(idle=2.0)
    short.waited(0.0, is_progress=False, is_complete=True)
    assert short.limit(100.0) == (102.0, "idle")


def test_clocks_that_are_off_never_run_out() -> None:
    own = clocks(first_token=None, idle=None, progress=None)
    assert own.limit(5.0)[0] == math.inf
    own.waited(1e9, is_progress=False)
    assert own.limit(5.0)[0] == math.inf
    own.waited(1.0, is_progress=True)
    assert own.limit(5.0) == (math.inf, "idle")
    assert clocks(first_token="auto").limit(0.0)[0] == math.inf
    own.waited(0.0, is_progress=False, is_complete=True)
    assert own.limit(5.0) == (10.0, "idle")


def test_each_clock_knows_its_setting() -> None:
    own = clocks(total=77.0)
    assert [own.setting(name) for name in ("first_token", "idle", "progress", "total")] == [10.0, 4.0, 9.0, 77.0]
    assert clocks().setting("total") == math.inf
