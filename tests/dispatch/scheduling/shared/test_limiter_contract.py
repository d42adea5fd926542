"""The contract of every limiter, independent of where its state is kept.

To hold another implementation against the contract, add its factory to `FACTORIES`: it takes the limits of the client,
those of the (key, model) `("m", "")`, and the number of places, and returns a `Limiter` without a history.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatch.scheduling.shared.redis_server import need_redis, server_of_tests, shared, timed_script
from lm_deluge.dispatch.scheduling.limiter import Limit, Limiter, Observation, ReservationRequest, Ticket
from lm_deluge.dispatch.scheduling.local_limiter import LocalLimiter
from lm_deluge.errors import BudgetError
from lm_deluge.usage import Usage
from lm_deluge.wire.rate_limit_headers import RateLimit

Factory = Callable[[Sequence[Limit], Sequence[Limit], int | None], Limiter]


def local(client: Sequence[Limit], route: Sequence[Limit], places: int | None) -> Limiter:
    limiter = LocalLimiter(client, max_concurrent=places)
    limiter.set_limits("m", "", route)
    return limiter


def on_redis(client: Sequence[Limit], route: Sequence[Limit], places: int | None) -> Limiter:
    need_redis()
    return shared(timed_script(server_of_tests()), client, route, places)


FACTORIES: dict[str, Factory] = {"local": local, "redis": on_redis}
NOW = 5_000.0
PER_MINUTE = (Limit("requests", 60),)
REQUEST = ReservationRequest("m", input_tokens=100, max_output_tokens=400)


@pytest.fixture(params=FACTORIES)
def make(request: pytest.FixtureRequest) -> Any:
    factory = FACTORIES[request.param]

    def build(client: Sequence[Limit] = (), route: Sequence[Limit] = PER_MINUTE, places: int | None = None) -> Limiter:
        return factory(client, route, places)

    return build


def take(limiter: Limiter, request: ReservationRequest = REQUEST, now: float = NOW) -> Ticket:
    ticket = limiter.reserve(request, now)
    assert ticket is not None
    return ticket


def observation(ticket: Ticket, status: int, sent_at: float = NOW, **changes: Any) -> Observation:
    return Observation(ticket=ticket, status=status, sent_at=sent_at, **{"chance": 0.0, **changes})


def test_the_first_goes_at_once_and_the_next_have_slots(make: Any) -> None:
    limiter = make()
    moments = [take(limiter).at for _ in range(4)]
    assert moments[0] == NOW
    gaps = [later - earlier for earlier, later in itertools.pairwise(moments)]
    assert all(1.0 <= gap + 0.11 <= 1.2 for gap in gaps)  # a second, and the margin; the first may be a tenth early


def test_earliest_says_what_reserve_does_and_reserves_nothing(make: Any) -> None:
    limiter = make()
    take(limiter)
    promised = limiter.earliest(REQUEST, NOW)
    assert limiter.earliest(REQUEST, NOW) == promised
    assert take(limiter).at == promised


def test_where_it_says_that_there_is_no_room_nothing_can_be_reserved(make: Any) -> None:
    limiter = make(route=[], places=1)
    assert limiter.has_room
    ticket = take(limiter)
    assert limiter.has_room or limiter.reserve(REQUEST, NOW) is None
    limiter.settle(ticket, Usage(), NOW)
    assert limiter.has_room


def test_all_limits_hold_and_the_tightest_decides(make: Any) -> None:
    limiter = make(client=[Limit("tokens", 6_000)], route=[Limit("requests", 60_000)])
    first, second = take(limiter), take(limiter)
    assert first.at == NOW
    assert second.at > NOW + 4  # 500 of 6,000 tokens a minute are five seconds


def test_places_are_limited_and_come_back_once(make: Any) -> None:
    limiter = make(route=[], places=2)
    one, _ = take(limiter), take(limiter)
    assert limiter.reserve(REQUEST, NOW) is None
    assert limiter.earliest(REQUEST, NOW) == float("inf")
    limiter.settle(one, Usage(input_tokens=100, output_tokens=10), NOW)
    limiter.settle(one, Usage(input_tokens=100, output_tokens=10), NOW)
    limiter.release(one, NOW)
    take(limiter)
    assert limiter.reserve(REQUEST, NOW) is None


def test_what_can_never_fit_fails_at_once_with_the_numbers(make: Any) -> None:
    limiter = make(route=[Limit("input_tokens", 1_000)])
    for ask in (limiter.check, lambda request: limiter.reserve(request, NOW)):
        with pytest.raises(BudgetError, match=r"needs 1,001 input tokens.*limit is 1,000 in 60 s"):
            ask(ReservationRequest("m", input_tokens=1_001))
    limiter.check(ReservationRequest("m", input_tokens=1_000))
    assert take(limiter).at == NOW, "the failed one has reserved nothing"


def test_an_estimate_alone_refuses_nothing(make: Any) -> None:
    limiter = make(route=[Limit("output_tokens", 1_000)])
    assert take(limiter, ReservationRequest("m", max_output_tokens=100_000)).at == NOW


def test_what_was_never_sent_is_refunded(make: Any) -> None:
    limiter = make()
    take(limiter)
    before = limiter.earliest(REQUEST, NOW)
    limiter.release(take(limiter), NOW, was_sent=False)
    assert limiter.earliest(REQUEST, NOW) == pytest.approx(before)


def leave_open(limiter: Limiter, ticket: Ticket) -> None:
    pass


def wait_after(make: Any, end: Callable[[Limiter, Ticket], None]) -> float:
    limiter = make(route=[Limit("tokens", 6_000)])
    ticket = take(limiter)
    end(limiter, ticket)
    return limiter.earliest(REQUEST, NOW) - NOW


def test_what_was_not_used_is_given_back(make: Any) -> None:
    as_reserved = wait_after(make, leave_open)
    settled = wait_after(make, lambda limiter, ticket: limiter.settle(ticket, Usage(input_tokens=100), NOW))
    assert 0 < settled < as_reserved / 3


def test_more_than_reserved_is_charged(make: Any) -> None:
    as_reserved = wait_after(make, leave_open)
    dear = Usage(input_tokens=100, output_tokens=900)
    assert wait_after(make, lambda limiter, ticket: limiter.settle(ticket, dear, NOW)) > 1.7 * as_reserved


def test_a_cancelled_answer_is_charged_as_far_as_it_was_delivered(make: Any) -> None:
    as_reserved = wait_after(make, leave_open)
    unknown = wait_after(make, lambda limiter, ticket: limiter.release(ticket, NOW))
    half = Usage(output_tokens=200)
    delivered = wait_after(make, lambda limiter, ticket: limiter.release(ticket, NOW, delivered=half))
    nothing = wait_after(make, lambda limiter, ticket: limiter.release(ticket, NOW, delivered=Usage()))
    assert unknown == as_reserved
    assert 0 < nothing < delivered < as_reserved, "never a full refund"


def test_an_idle_hour_earns_nothing(make: Any) -> None:
    limiter = make()
    for _ in range(3):
        limiter.settle(take(limiter), Usage(), NOW)
    later = NOW + 3_600
    at_once = [ticket for ticket in (take(limiter, now=later) for _ in range(20)) if ticket.at == later]
    assert len(at_once) == 1


def test_a_refusal_closes_the_gate_of_that_model_only(make: Any) -> None:
    limiter = make()
    ticket = take(limiter)
    limiter.observe(observation(ticket, 429, retry_after_s=30.0), NOW)
    limiter.release(ticket, NOW, delivered=Usage())
    assert limiter.opens_at("m", "", NOW) == NOW + 30
    assert limiter.earliest(REQUEST, NOW) >= NOW + 30
    assert limiter.opens_at("other", "", NOW) == NOW
    assert limiter.opens_at("m", "other key", NOW) == NOW
    assert limiter.earliest(ReservationRequest("other"), NOW) == NOW


def test_five_hundred_refusals_close_it_once(make: Any) -> None:
    limiter = make(route=[Limit("requests", 60_000, burst_s=0.6)])
    tickets = [take(limiter) for _ in range(500)]
    for ticket in tickets:
        limiter.observe(observation(ticket, 429, retry_after_s=5.0), NOW + 1)
        limiter.release(ticket, NOW + 1, delivered=Usage())
    later = NOW + 10
    moments = [take(limiter, now=later).at for _ in range(2_000)]
    rate = 1_000 / (moments[-1] - moments[-1_001])
    assert 750 < rate < 950  # 1,000 a second less a margin, less a tenth: not less 0.9 ** 500


def test_the_gate_opens_with_a_ramp(make: Any) -> None:
    limiter = make(route=[Limit("requests", 6_000)])
    limiter.observe(observation(take(limiter), 429, retry_after_s=30.0), NOW)
    at_opening = [moment for moment in (take(limiter).at for _ in range(50)) if moment < NOW + 30.2]
    assert len(at_opening) <= 25


def test_a_jittered_wait_is_no_shorter_than_asked(make: Any) -> None:
    limiter = make()
    limiter.observe(observation(take(limiter), 429, retry_after_s=10.0, chance=1.0), NOW)
    assert limiter.opens_at("m", "", NOW) == pytest.approx(NOW + 11)


def test_headers_that_know_of_less_are_believed(make: Any) -> None:
    limiter = make()
    ticket = take(limiter)
    limits = {"requests": RateLimit("requests", 60.0, 60, 0, 40.0)}
    limiter.observe(observation(ticket, 200, rate_limits=limits), NOW + 1)
    assert limiter.earliest(REQUEST, NOW + 1) >= NOW + 39


def test_headers_never_throw_and_never_move_time_far(make: Any) -> None:
    limiter = make()
    for remaining, reset_after_s in [(0, 1e9), (1e15, 0.0), (0, 0), (60, 1e6)]:
        ticket = take(limiter)
        limits = {"requests": RateLimit("requests", 60.0, 60, remaining, reset_after_s)}
        limiter.observe(observation(ticket, 200, rate_limits=limits), NOW)
    assert limiter.earliest(REQUEST, NOW) <= NOW + 70


def test_an_overloaded_provider_gets_fewer_at_once_not_slower_ones(make: Any) -> None:
    limiter = make(route=[Limit("requests", 60_000, burst_s=10.0)])
    tickets = [take(limiter) for _ in range(10)]
    for ticket in tickets:
        limiter.observe(observation(ticket, 529), NOW + 1)
        limiter.release(ticket, NOW + 1, delivered=Usage())
    assert limiter.opens_at("m", "", NOW + 1) == NOW + 1
    got = 0
    while limiter.reserve(REQUEST, NOW + 1) is not None:
        got += 1
    assert 5 <= got <= 7


def test_a_gap_is_filled_only_where_that_delays_nobody(make: Any) -> None:
    limiter = make(client=[Limit("input_tokens", 6_000)], route=[Limit("requests", 6_000)])
    big = ReservationRequest("m", input_tokens=3_000)
    take(limiter, big)
    held = take(limiter, big)
    assert held.at > NOW + 20
    filler = limiter.reserve(ReservationRequest("m", input_tokens=10), NOW + 1, before=held)
    assert filler is None, "input tokens are what it waits for"
    assert (
        limiter.reserve(
            ReservationRequest("m", input_tokens=10), NOW + 1, before=take(limiter, ReservationRequest("other"))
        )
        is None
    )


TIGHT = [
    Limit("requests", 120),
    Limit("input_tokens", 20_000),
    Limit("output_tokens", 30_000),
]


@pytest.mark.parametrize("name", FACTORIES)
@given(
    steps=st.lists(
        st.tuples(
            st.integers(0, 9_000),
            st.integers(0, 9_000),
            st.floats(0, 20),
            st.sampled_from(["settle", "cancel", "unsent", "429", "529"]),
        ),
        max_size=60,
    )
)
def test_no_window_ever_carries_more(name: str, steps: list[tuple[int, int, float, str]]) -> None:
    """For any sequence of calls, the reservations that were not refunded fit every window."""
    limiter = FACTORIES[name]([], TIGHT, None)
    now = NOW
    sent: list[tuple[float, int, int]] = []
    for input_tokens, output_tokens, pause_s, end in steps:
        ticket = take(limiter, ReservationRequest("m", input_tokens=input_tokens, max_output_tokens=output_tokens), now)
        assert ticket.at >= now
        if end == "unsent":
            limiter.release(ticket, now, was_sent=False)
            continue
        sent.append((ticket.at, input_tokens, output_tokens))
        now = max(now, ticket.at) + pause_s
        if end in ("429", "529"):
            limiter.observe(observation(ticket, int(end), ticket.at, retry_after_s=2.0), now)
        usage = Usage(input_tokens=input_tokens, output_tokens=output_tokens)
        limiter.settle(ticket, usage, now)
    for begin, _, _ in sent:
        inside = [entry for entry in sent if begin <= entry[0] < begin + 60]
        assert len(inside) <= 120
        assert sum(entry[1] for entry in inside) <= 20_000
        assert sum(entry[2] for entry in inside) <= 30_000
