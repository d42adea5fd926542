"""Processes that share limits: the real script on a real server, in virtual time."""

from __future__ import annotations

import itertools
import math
import os
import statistics
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dispatch.scheduling.servers import SlidingWindow
from dispatch.scheduling.shared.crowd import Crowd
from dispatch.scheduling.shared.redis_server import AskedAtOnce, need_redis, server_of_tests, shared, timed_script
from dispatch.scheduling.virtual import Load
from lm_deluge.dispatch.scheduling.limiter import Limit, Observation, ReservationRequest, Ticket
from lm_deluge.dispatch.scheduling.shared.configuration import state_key
from lm_deluge.usage import Usage
from lm_deluge.wire.rate_limit_headers import RateLimit

NOW = 5_000.0
REQUEST = ReservationRequest("m", input_tokens=100, max_output_tokens=400)
PER_MINUTE = [Limit("requests", 60)]
LOAD = Load(jitter_s=0.02, tells_delays=True)
SOAK = "DELUGE_SOAK" in os.environ
_states = itertools.count(1)


@pytest.fixture
def run() -> Any:
    need_redis()
    return timed_script(server_of_tests())


@pytest.fixture
def state() -> str:
    return f"shared {next(_states)}"


def take(limiter: AskedAtOnce, request: ReservationRequest = REQUEST, now: float = NOW) -> Ticket:
    ticket = limiter.reserve(request, now)
    assert ticket is not None
    return ticket


def observe(limiter: AskedAtOnce, ticket: Ticket, status: int, now: float = NOW, **changes: Any) -> None:
    values = {"sent_at": now, "chance": 0.0, **changes}
    limiter.observe(Observation(ticket=ticket, status=status, **values), now)


SIZES = [(3, 240, 90.0)]
if SOAK:
    SIZES += [(processes, amount, 300.0) for processes in (1, 4, 16, 64) for amount in (60, 600, 10_000)]


@pytest.mark.parametrize(("processes", "amount", "seconds"), SIZES)
@pytest.mark.timeout(3_000)
def test_one_limit_is_used_evenly_and_never_exceeded(
    run: Any, state: str, processes: int, amount: float, seconds: float
) -> None:
    crowd = Crowd(
        run,
        processes,
        [Limit("requests", amount)],
        {"requests": SlidingWindow(amount, 60.0)},
        LOAD,
        state=state,
    )
    per_process_s = processes * 60 / amount
    first = crowd.run_for(max(5.0, 2 * per_process_s))
    later = crowd.run_for(max(seconds, 10 * per_process_s))
    assert first.refused + later.refused == 0
    assert later.used >= (0.97 if processes == 64 else 0.98)
    assert later.spread <= 1.5


@pytest.mark.parametrize("processes", [1, 3, *([16] if SOAK else [])])
def test_a_limit_of_tokens_is_shared(run: Any, state: str, processes: int) -> None:
    load = Load(
        jitter_s=0.02,
        tells_delays=True,
        input_tokens=lambda chance: chance.randint(500, 1_500),
        output_tokens=lambda _: 1,
        input_share=1.0,
    )
    crowd = Crowd(
        run,
        processes,
        [Limit("input_tokens", 100_000)],
        {"input_tokens": SlidingWindow(100_000, 60.0)},
        load,
        state=state,
    )
    first, later = crowd.run_for(70.0), crowd.run_for(60.0)
    assert first.refused + later.refused == 0
    assert later.used >= 0.98
    assert later.spread <= 1.5


@pytest.mark.parametrize("processes", [4, *([16, 64] if SOAK else [])])
def test_processes_that_wake_late_share_a_limit(run: Any, state: str, processes: int) -> None:
    load = Load(jitter_s=0.02, tells_delays=True, lateness_s=1.0)
    limits, servers = [Limit("requests", 600)], {"requests": SlidingWindow(600, 60.0)}
    crowd = Crowd(run, processes, limits, servers, load, state=state)
    first, later = crowd.run_for(70.0), crowd.run_for(70.0)
    assert first.refused + later.refused == 0
    assert later.used >= (0.97 if processes < 64 else 0.96)  # a second of a minute is their margin
    assert later.spread <= 1.5


@pytest.mark.parametrize("processes", [16, *([64] if SOAK else [])])
def test_slots_that_passed_during_a_stall_are_not_used_together(run: Any, state: str, processes: int) -> None:
    amount = 15.0 * processes
    limits, servers = [Limit("requests", amount)], {"requests": SlidingWindow(amount, 60.0)}
    crowd = Crowd(run, processes, limits, servers, LOAD, state=state)
    outcomes = [crowd.run_for(20.0)]
    for _ in range(5):
        for runner in crowd.runners:
            runner.stalled_until = crowd.world.now + 4.0
        outcomes.append(crowd.run_for(20.0))
    assert [outcome.refused for outcome in outcomes] == [0] * len(outcomes)
    # A fifth passes in stalls. It is lost, or there is a margin of four seconds in a minute, which begins with a gap.
    assert statistics.fmean(outcome.used for outcome in outcomes) > 0.8


def test_a_slot_that_passed_long_ago_is_given_up(run: Any, state: str) -> None:
    one, two = (shared(run, route=PER_MINUTE, state=state) for _ in range(2))
    take(one)
    late, in_time = take(one), take(one)
    now = in_time.at + 0.5
    assert one.advance(in_time, now).at <= now, "the margin of the limit is a second"
    now = late.at + 5
    assert take(two, now=now).at == now
    moved = one.advance(late, now)
    assert moved.at > now + 0.9, "the slot after that of the other process"
    assert one.advance(moved, moved.at).at == moved.at
    one.settle(moved, Usage(), moved.at)
    one.settle(in_time, Usage(), moved.at)


def test_a_longer_lateness_applies_at_once_and_a_shorter_one_a_period_later(run: Any, state: str) -> None:
    one, two = (shared(run, route=[Limit("requests", 6_000)], state=state) for _ in range(2))
    for _ in range(60):
        observe(one, take(one), 200, delay_s=0.01)

    def gap_after(delay_s: float, now: float, samples: int) -> float:
        for _ in range(samples):
            observe(one, take(one, now=now), 200, now=now, delay_s=delay_s)
        one.exchange(now)
        earlier, later = take(two, now=now + 20).at, take(two, now=now + 20).at
        return later - earlier

    short = gap_after(0.01, NOW, 1)
    long = gap_after(2.0, NOW + 100, 1)
    assert long > 1.02 * short
    assert gap_after(0.01, NOW + 130, 250) == pytest.approx(long), "requests may still arrive so late"
    gap_after(0.01, NOW + 170, 250)
    assert gap_after(0.01, NOW + 240, 250) == pytest.approx(short, rel=0.01)


# Seconds without the server, whether it starts again empty, and by how much its clock is another one then.
OUTAGES = {
    "pause": (20.0, False, 0.0),
    "kill": (20.0, True, 0.0),
    "kill for a moment": (0.5, True, 0.0),
    "clock ahead": (20.0, False, 5_000.0),
    "clock back": (20.0, False, -5_000.0),
    "clock ahead at once": (0.0, False, 5_000.0),
    "clock back at once": (0.0, False, -5_000.0),
}


@pytest.mark.parametrize(("away_s", "is_empty", "ahead_s"), OUTAGES.values(), ids=OUTAGES)
@pytest.mark.parametrize("processes", [4, *([16, 64] if SOAK else [])])
def test_an_outage_causes_no_refusal_and_stops_nobody(
    run: Any, state: str, processes: int, away_s: float, is_empty: bool, ahead_s: float
) -> None:
    amount = 240.0 if processes == 4 else 600.0
    crowd = Crowd(
        run,
        processes,
        [Limit("requests", amount)],
        {"requests": SlidingWindow(amount, 60.0)},
        LOAD,
        state=state,
    )
    outcomes = [crowd.run_for(30.0)]
    crowd.set_down(is_down=True)
    during = crowd.run_for(away_s)
    if is_empty:
        redis.Redis(port=server_of_tests().port).flushdb()
    for limiter in crowd.limiters:
        limiter.ahead_s += ahead_s
    crowd.set_down(is_down=False)
    outcomes += [crowd.run_for(20.0), crowd.run_for(45.0)]
    assert [outcome.refused for outcome in (during, *outcomes)] == [0] * 4
    assert min(outcome.used for outcome in outcomes) >= 0.8
    assert away_s < 1 or during.used >= 0.8
    assert outcomes[-1].used >= 0.97
    assert all(count > 0 for count in outcomes[-1].counts)


def test_a_refusal_of_one_process_pauses_all(run: Any, state: str) -> None:
    one, two = (shared(run, route=PER_MINUTE, state=state) for _ in range(2))
    two.exchange(NOW)
    observe(one, take(one), 429, retry_after_s=30.0)
    two.exchange(NOW)
    assert two.opens_at("m", "", NOW) == pytest.approx(NOW + 30)
    assert take(two).at >= NOW + 29.99


def test_a_process_looks_for_refusals_before_it_uses_a_slot_far_ahead(run: Any, state: str) -> None:
    one, two = (shared(run, route=PER_MINUTE, state=state) for _ in range(2))
    first, _ = take(one), take(one)
    far = take(two)
    assert far.at > NOW + 2
    observe(one, first, 429, now=NOW + 1, retry_after_s=30.0)
    due_at = two.limiter.next_exchange_at(NOW + 1)
    assert far.at - 0.1 <= due_at < far.at
    two.exchange(due_at)
    assert two.opens_at("m", "", due_at) == pytest.approx(NOW + 31)


def test_a_limit_in_headers_holds_for_all(run: Any, state: str) -> None:
    one, two = (shared(run, state=state) for _ in range(2))
    limits = {"requests": RateLimit("requests", 60.0, 60, 0, 40.0)}
    observe(one, take(one), 200, now=NOW, rate_limits=limits)
    assert take(two, now=NOW).at < NOW + 1
    assert take(two, now=NOW).at >= NOW + 1, "the limit of the headers"
    observe(one, take(one), 200, now=NOW + 1, rate_limits=limits)
    one.exchange(NOW + 1)
    assert take(two, now=NOW + 1).at >= NOW + 39, "what remains of it"


def test_the_jitter_is_that_of_all(run: Any, state: str) -> None:
    processes = [shared(run, route=[Limit("requests", 6_000)], state=state) for _ in range(6)]
    gaps = []
    for _ in range(2):
        moments = [take(processes[0]).at for _ in range(2)]
        gaps.append(moments[1] - moments[0])
        for process in processes:  # ten delays each are too few for one process, and enough for six
            for _ in range(10):
                observe(process, take(process), 200, delay_s=0.01)
            process.exchange(NOW)
        processes[0].exchange(NOW)
    assert gaps[1] < gaps[0]


def test_the_places_of_a_dead_process_come_back(run: Any, state: str) -> None:
    dead, other = (shared(run, places=2, state=state) for _ in range(2))
    take(dead), take(dead)
    assert other.reserve(REQUEST, NOW) is None
    assert other.reserve(REQUEST, NOW + 14) is None
    assert other.reserve(REQUEST, NOW + 16) is not None


def test_the_slots_of_a_dead_process_come_back(run: Any, state: str) -> None:
    dead, other = (shared(run, route=[Limit("requests", 3)], state=state) for _ in range(2))
    take(dead)
    lost = take(dead).at  # twenty seconds ahead
    later = take(other)
    assert lost < later.at
    other.exchange(NOW + 16)
    assert take(other, now=NOW + 16).at == pytest.approx(lost)


def test_a_process_that_leaves_gives_its_slots_back(run: Any, state: str) -> None:
    one, other = (shared(run, route=PER_MINUTE, state=state) for _ in range(2))
    take(one)
    unused = take(one)
    one.release(unused, NOW, was_sent=False)
    one.exchange(NOW, leaves=True)
    ticket = take(other)
    assert ticket.at == pytest.approx(unused.at)
    assert other.limiter.processes == 1


def test_places_go_to_the_process_that_has_waited_longest(run: Any, state: str) -> None:
    processes = [shared(run, places=1, state=state, process=f"{state} {name}") for name in "abc"]
    holder, now = take(processes[0]), NOW
    assert processes[1].reserve(REQUEST, now) is None
    assert processes[2].reserve(REQUEST, now) is None
    processes[0].settle(holder, Usage(), now)
    processes[0].exchange(now)
    assert processes[2].reserve(REQUEST, now) is None
    assert processes[0].reserve(REQUEST, now) is None
    assert processes[1].reserve(REQUEST, now) is not None


def test_interactive_calls_go_before_the_batches_of_other_processes(run: Any, state: str) -> None:
    batches = [shared(run, route=PER_MINUTE, state=state) for _ in range(20)]
    user = shared(run, route=PER_MINUTE, state=state)
    interactive = ReservationRequest("m", input_tokens=100, max_output_tokens=400, is_interactive=True)
    take(user, interactive)  # from now on slots are kept
    waits = [take(batch).at - NOW for batch in batches]
    assert max(waits) > 20
    assert take(user, interactive).at - NOW < 12
    assert len({round(wait, 2) for wait in waits}) == len(waits)


def test_many_slots_come_with_one_exchange_where_the_rate_is_high(run: Any, state: str) -> None:
    fast = shared(run, route=[Limit("requests", 60_000)], state=state)
    fast.limiter.waiting = lambda: 500
    now, moments = NOW, []
    for _ in range(500):
        moments.append(take(fast, now=now).at)
        now = max(now, moments[-1])
    assert fast.exchanges < 500 / 20
    assert all(later - earlier < 0.002 for earlier, later in itertools.pairwise(moments[100:]))


def test_one_slot_comes_with_one_exchange_where_the_rate_is_low(run: Any, state: str) -> None:
    slow = shared(run, route=[Limit("requests", 600)], state=state)
    slow.limiter.waiting = lambda: 500
    take(slow), take(slow)
    assert slow.exchanges == 2, "a process takes no slots that others may use earlier"


def test_slots_that_no_call_needs_go_back(run: Any, state: str) -> None:
    one, two = (shared(run, route=[Limit("requests", 6_000)], state=state) for _ in range(2))
    one.limiter.waiting = lambda: 50
    take(one), take(one)
    one.limiter.waiting = lambda: 0
    one.exchange(NOW)
    expected = take(one).at
    assert expected < NOW + 0.03
    assert take(two).at < NOW + 0.06


def test_a_request_that_comes_late_is_ignored(run: Any, state: str) -> None:
    one = shared(run, route=PER_MINUTE, state=state)
    take(one)
    one.limiter.reserve(REQUEST, NOW)
    late = one.limiter.begin_exchange(NOW, age_s=1.0)
    reply = run(keys=late.keys, args=[*late.arguments, f"{NOW + one.ahead_s + 20:.6f}"])
    assert b'"late"' in reply
    one.limiter.end_exchange(late, reply, NOW + 20)
    one.exchange(NOW + 20)
    assert take(one, now=NOW + 20).at <= NOW + 22, "nothing was reserved for the late request"


def test_a_new_process_after_a_restart_does_not_start_a_burst(run: Any, state: str) -> None:
    """It finds the server empty and does not know of the others, which come after it."""
    amount = 240.0
    crowd = Crowd(run, 4, [Limit("requests", amount)], {"requests": SlidingWindow(amount, 60.0)}, LOAD, state=state)
    outcomes = [crowd.run_for(60.0)]
    redis.Redis(port=server_of_tests().port).flushdb()
    new = shared(run, route=[Limit("requests", amount)], state=state)
    take(new, now=crowd.world.now)
    outcomes.append(crowd.run_for(60.0))
    assert [outcome.refused for outcome in outcomes] == [0, 0]


def test_the_server_gets_no_key(run: Any, state: str) -> None:
    key = state_key(["api.openai.com sk-secret"])
    assert key.startswith("{deluge:")
    assert "secret" not in key
    assert key == state_key(["api.openai.com sk-secret"]) != state_key(["api.openai.com sk-other"])


TIGHT = [Limit("requests", 120), Limit("input_tokens", 20_000), Limit("output_tokens", 30_000)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200 if SOAK else 10)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 2),
            st.integers(0, 9_000),
            st.integers(0, 9_000),
            st.floats(0, 10),
            st.sampled_from(["settle", "cancel", "unsent", "429"]),
        ),
        max_size=40,
    )
)
def test_no_window_ever_carries_more_for_several_processes(
    run: Any, steps: list[tuple[int, int, int, float, str]]
) -> None:
    state = f"window {next(_states)}"
    limiters = [shared(run, route=TIGHT, state=state) for _ in range(3)]
    now, sent = NOW, list[tuple[float, int, int]]()
    for place, input_tokens, output_tokens, pause_s, end in steps:
        limiter = limiters[place]
        request = ReservationRequest("m", input_tokens=input_tokens, max_output_tokens=output_tokens)
        ticket = take(limiter, request, now)
        if end == "unsent":
            limiter.release(ticket, now, was_sent=False)
            continue
        sent.append((ticket.at, input_tokens, output_tokens))
        now = max(now, ticket.at) + pause_s
        if end == "429":
            observe(limiter, ticket, 429, now, retry_after_s=2.0)
        limiter.settle(ticket, Usage(input_tokens=input_tokens, output_tokens=output_tokens), now)
    for begin, _, _ in sent:
        inside = [entry for entry in sent if begin <= entry[0] < begin + 60]
        assert len(inside) <= 120
        assert sum(entry[1] for entry in inside) <= 20_000
        assert sum(entry[2] for entry in inside) <= 30_000


def test_a_second_outage_knows_no_tickets_of_the_first(run: Any, state: str) -> None:
    one = shared(run, places=1, state=state)
    one.exchange(NOW)
    one.is_down = True
    one.exchange(NOW)
    old = take(one)
    one.is_down, one.retry_at = False, 0.0
    one.exchange(NOW + 1)
    one.is_down = True
    one.exchange(NOW + 2)
    other = one.limiter.reserve(REQUEST, NOW + 60)
    one.settle(old, Usage(), NOW + 60)
    if other is None:  # the old one held the only place
        other = one.limiter.reserve(REQUEST, NOW + 61)
    assert other is not None
    assert one.limiter.reserve(REQUEST, NOW + 120) is None, "the place belongs to the new ticket"


def test_a_request_larger_than_the_share_is_possible_during_an_outage(run: Any, state: str) -> None:
    one = shared(run, route=[Limit("input_tokens", 10_000)], state=state)
    [shared(run, route=[Limit("input_tokens", 10_000)], state=state).exchange(NOW) for _ in range(7)]
    one.exchange(NOW)
    assert one.limiter.processes == 8
    one.is_down = True
    one.exchange(NOW)
    large = ReservationRequest("m", input_tokens=9_999)
    assert take(one, large).at < NOW + 500


def test_what_one_process_reserves_is_infinite_until_the_reply(run: Any, state: str) -> None:
    limiter = shared(run, route=PER_MINUTE, state=state).limiter
    ticket = limiter.reserve(REQUEST, NOW)
    assert ticket is not None
    assert ticket.at == math.inf
    assert limiter.advance(ticket, NOW) is ticket


@pytest.mark.parametrize("processes", [8, *([64] if SOAK else [])])
def test_a_process_knows_the_lengths_of_the_answers_of_others(run: Any, state: str, processes: int) -> None:
    """Each process alone would need minutes to learn them, and reserve twice as much meanwhile."""
    load = Load(
        jitter_s=0.02,
        tells_delays=True,
        input_tokens=lambda chance: chance.randint(150, 450),
        output_tokens=lambda chance: chance.randint(1, 400),
        max_output_tokens=400,
        latency_s=lambda _chance, _tokens: 0.5,
        input_share=0.5,
    )
    amount = 3_000.0 * processes
    limits, servers = [Limit("tokens", amount)], {"tokens": SlidingWindow(amount, 60.0)}
    crowd = Crowd(run, processes, limits, servers, load, state=state)
    first, later = crowd.run_for(90.0), crowd.run_for(60.0)
    assert first.refused + later.refused == 0
    assert later.used >= (0.97 if processes == 64 else 0.9)  # of a small limit, one answer is much
    assert later.spread <= 1.5
    assert min(limiter.limiter._routes["m", ""].lengths.count for limiter in crowd.limiters) > 4 * max(later.counts)


def test_lengths_are_learned_once_each_and_again_after_a_restart(run: Any, state: str) -> None:
    tokens = [Limit("tokens", 1_000_000)]
    one, two = (shared(run, route=tokens, state=state) for _ in range(2))

    def answer(limiter: AskedAtOnce, count: int, now: float) -> None:
        for _ in range(count):
            limiter.settle(take(limiter, now=now), Usage(input_tokens=50, output_tokens=100), now)
        limiter.exchange(now)

    def count(limiter: AskedAtOnce) -> int:
        return limiter.limiter._routes["m", ""].lengths.count

    one.exchange(NOW), two.exchange(NOW)
    answer(one, 10, NOW)
    answer(two, 5, NOW)
    one.exchange(NOW)
    two.exchange(NOW)
    assert (count(one), count(two)) == (15, 15)
    redis.Redis(port=server_of_tests().port).flushdb()
    answer(one, 3, NOW + 1)
    two.exchange(NOW + 1)
    assert (count(one), count(two)) == (18, 18)
