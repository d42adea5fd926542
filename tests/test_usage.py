"""Token counts and their cost."""

from __future__ import annotations

import pytest

from lm_deluge.usage import Price, PriceTier, Usage

PRICE = Price(input=2.0, output=8.0, cache_read=0.5, cache_write=2.5)
TIERED = Price(
    input=2.0,
    output=8.0,
    cache_read=0.5,
    tiers=(
        PriceTier(above_input_tokens=1_000, input=4.0, output=12.0, cache_read=1.0),
        PriceTier(above_input_tokens=5_000, input=6.0),
    ),
)


def cost(price: Price, **tokens: int) -> float:
    """Return the cost of a million such answers, which is the sum of tokens times prices."""
    return price.cost(Usage(**tokens)) * 1e6


def test_input_and_output_have_their_own_price() -> None:
    assert PRICE.cost(Usage(input_tokens=1_000_000, output_tokens=500_000)) == pytest.approx(2.0 + 4.0)


def test_no_tokens_cost_nothing() -> None:
    assert PRICE.cost(Usage()) == 0


def test_cached_tokens_are_part_of_the_input_and_cheaper() -> None:
    assert cost(PRICE, input_tokens=1_000, cache_read_tokens=400) == pytest.approx(600 * 2.0 + 400 * 0.5)


def test_tokens_written_to_the_cache_are_part_of_the_input_and_dearer() -> None:
    dollars = cost(PRICE, input_tokens=1_000, cache_read_tokens=400, cache_write_tokens=100)
    assert dollars == pytest.approx(500 * 2.0 + 400 * 0.5 + 100 * 2.5)


def test_without_a_cache_price_cached_tokens_cost_what_input_costs() -> None:
    plain = Price(input=2.0, output=8.0)
    dollars = cost(plain, input_tokens=1_000, cache_read_tokens=400, cache_write_tokens=100)
    assert dollars == pytest.approx(1_000 * 2.0)


def test_a_free_cache_is_not_a_missing_price() -> None:
    free = Price(input=2.0, output=8.0, cache_read=0.0)
    assert cost(free, input_tokens=1_000, cache_read_tokens=1_000) == 0


def test_reasoning_is_part_of_the_output_and_not_charged_twice() -> None:
    assert cost(PRICE, output_tokens=1_000, reasoning_tokens=900) == pytest.approx(1_000 * 8.0)


def test_more_cached_tokens_than_input_never_make_a_rebate() -> None:
    assert cost(PRICE, input_tokens=100, cache_read_tokens=400) == pytest.approx(400 * 0.5)


@pytest.mark.parametrize(
    ("tokens", "dollars"),
    [
        ({"input_tokens": 1_000, "output_tokens": 10}, 1_000 * 2.0 + 10 * 8.0),
        ({"input_tokens": 1_001, "output_tokens": 10}, 1_001 * 4.0 + 10 * 12.0),
        ({"input_tokens": 2_000, "cache_read_tokens": 500}, 1_500 * 4.0 + 500 * 1.0),
        (
            {"input_tokens": 6_000, "cache_read_tokens": 500, "output_tokens": 1},
            5_500 * 6.0 + 500 * 1.0 + 12.0,
        ),
    ],
    ids=["at the limit", "above it", "with cached tokens", "a higher tier inherits what it does not say"],
)
def test_a_tier_holds_for_the_whole_request(tokens: dict[str, int], dollars: float) -> None:
    assert cost(TIERED, **tokens) == pytest.approx(dollars)


def test_the_order_of_the_tiers_does_not_matter() -> None:
    turned = Price(input=2.0, output=8.0, cache_read=0.5, tiers=TIERED.tiers[::-1])
    usage = Usage(input_tokens=6_000, cache_read_tokens=500, output_tokens=7)
    assert turned.cost(usage) == TIERED.cost(usage)


def test_a_tiers_input_price_holds_for_cached_tokens_without_a_price_of_their_own() -> None:
    price = Price(input=2.0, output=8.0, tiers=(PriceTier(above_input_tokens=10, input=4.0),))
    assert cost(price, input_tokens=100, cache_read_tokens=50) == pytest.approx(100 * 4.0)


def test_the_total_is_input_and_output() -> None:
    usage = Usage(input_tokens=3, output_tokens=4, cache_read_tokens=2, reasoning_tokens=1)
    assert usage.total_tokens == 7


def test_usage_adds_up() -> None:
    one = Usage(input_tokens=1, output_tokens=2, cache_read_tokens=3, reasoning_tokens=4, raw={"id": 1})
    two = Usage(input_tokens=10, output_tokens=20, cache_read_tokens=30, cache_write_tokens=50)
    assert one + two == Usage(
        input_tokens=11, output_tokens=22, cache_read_tokens=33, cache_write_tokens=50, reasoning_tokens=4
    )


def test_what_neither_reports_stays_unknown() -> None:
    total = Usage(input_tokens=1) + Usage(input_tokens=2)
    assert (total.cache_read_tokens, total.cache_write_tokens, total.reasoning_tokens) == (None, None, None)


@pytest.mark.parametrize("estimated", [(True, False), (False, True)])
def test_a_sum_with_an_estimate_is_an_estimate(estimated: tuple[bool, bool]) -> None:
    one, two = (Usage(input_tokens=1, estimated=flag) for flag in estimated)
    assert (one + two).estimated
    assert not (Usage() + Usage()).estimated


FULL = Price(
    input=2.0,
    output=8.0,
    cache_read=0.5,
    cache_write=2.5,
    cache_write_1h=4.0,
    reasoning=3.0,
    input_audio=32.0,
    cache_read_audio=1.0,
    output_audio=64.0,
    output_image=30.0,
    request=0.012,
)


@pytest.mark.parametrize(
    ("tokens", "dollars"),
    [
        ({"input_tokens": 100, "cache_write_tokens": 60, "cache_write_1h_tokens": 40}, 40 * 2.0 + 20 * 2.5 + 40 * 4.0),
        ({"output_tokens": 100, "reasoning_tokens": 40}, 60 * 8.0 + 40 * 3.0),
        ({"input_tokens": 100, "input_audio_tokens": 70}, 30 * 2.0 + 70 * 32.0),
        (
            {
                "input_tokens": 100,
                "cache_read_tokens": 30,
                "input_audio_tokens": 70,
                "cache_read_audio_tokens": 20,
            },
            20 * 2.0 + 10 * 0.5 + 50 * 32.0 + 20 * 1.0,
        ),
        (
            {"output_tokens": 100, "output_audio_tokens": 50, "output_image_tokens": 30},
            20 * 8.0 + 50 * 64.0 + 30 * 30.0,
        ),
    ],
    ids=["an hour in the cache", "reasoning", "sound", "sound from the cache", "sound and images"],
)
def test_every_kind_of_token_has_its_own_price(tokens: dict[str, int], dollars: float) -> None:
    assert cost(FULL, **tokens) == pytest.approx(12_000 + dollars)
    assert cost(Price(input=2.0, output=2.0), **tokens) == pytest.approx(100 * 2.0)


def test_an_hour_in_the_cache_costs_what_a_while_does_where_no_price_says_else() -> None:
    assert cost(PRICE, input_tokens=9, cache_write_tokens=9, cache_write_1h_tokens=9) == pytest.approx(9 * 2.5)


def test_a_request_may_cost_something_before_its_first_token() -> None:
    assert Price(input=1.0, output=1.0, request=0.012).cost(Usage()) == pytest.approx(0.012)


MODES = Price(input=2.0, output=8.0, modes={"batch": Price(input=1.0, output=4.0), "priority": FULL})


def test_how_a_request_is_served_has_its_price() -> None:
    usage = Usage(input_tokens=1_000_000, output_tokens=1_000_000)
    assert MODES.cost(usage) == MODES.cost(usage, "default") == MODES.cost(usage, None) == 10.0
    assert MODES.cost(usage, "batch") == 5.0


def test_how_it_was_served_overrules_how_it_was_wanted() -> None:
    usage = Usage(input_tokens=1_000_000, service_tier="default")
    assert MODES.cost(usage, "priority") == 2.0
    assert MODES.cost(Usage(input_tokens=1_000_000, service_tier="batch"), "priority") == 1.0


def test_of_a_sum_the_tier_is_known_where_all_were_served_alike() -> None:
    flex, other = Usage(service_tier="flex"), Usage(service_tier="default")
    assert (flex + flex).service_tier == "flex"
    assert (flex + other).service_tier is None
    assert Usage(cache_write_1h_tokens=1) + Usage(cache_write_1h_tokens=2, output_audio_tokens=3) == Usage(
        cache_write_1h_tokens=3, output_audio_tokens=3
    )
