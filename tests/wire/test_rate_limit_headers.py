"""Rate limit headers of each provider."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_deluge.wire.rate_limit_headers import DAY_S, MINUTE_S, RateLimit, parse_rate_limits

DATE = "Wed, 21 Oct 2015 12:00:00 GMT"
AT_DATE = 1_445_428_800

CASES: dict[str, tuple[dict[str, str], dict[str, RateLimit]]] = {
    "nothing": ({"content-type": "text/event-stream", "retry-after": "3"}, {}),
    "openai": (
        {
            "x-ratelimit-limit-requests": "10000",
            "x-ratelimit-remaining-requests": "9999",
            "x-ratelimit-reset-requests": "6ms",
            "x-ratelimit-limit-tokens": "200000",
            "x-ratelimit-remaining-tokens": "150000",
            "x-ratelimit-reset-tokens": "15s",
            "x-ratelimit-limit-tokens_usage_based": "100",
        },
        {
            "requests": RateLimit("requests", MINUTE_S, 10_000, 9_999, 0.006),
            "tokens": RateLimit("tokens", MINUTE_S, 200_000, 150_000, 15.0),
            "tokens (usage based)": RateLimit("tokens", None, 100, qualifier="usage based"),
        },
    ),
    "openai, a low tier: requests are per day": (
        {
            "x-ratelimit-limit-requests": "200",
            "x-ratelimit-remaining-requests": "199",
            "x-ratelimit-reset-requests": "7m12s",
        },
        {"requests": RateLimit("requests", DAY_S, 200, 199, 432.0, is_inferred=True)},
    ),
    "azure: -1 is nothing": (
        {
            "x-ratelimit-limit-requests": "-1",
            "x-ratelimit-remaining-requests": "-1",
            "x-ratelimit-remaining-tokens": "-1",
            "x-ratelimit-limit-tokens": "1000",
            "x-ratelimit-reset-tokens": "0",
        },
        {"tokens": RateLimit("tokens", None, 1_000, None, 0.0)},
    ),
    "anthropic": (
        {
            "date": DATE,
            "anthropic-ratelimit-requests-limit": "50",
            "anthropic-ratelimit-requests-remaining": "49",
            "anthropic-ratelimit-requests-reset": "2015-10-21T12:00:01.25Z",
            "anthropic-ratelimit-input-tokens-limit": "40000",
            "anthropic-ratelimit-input-tokens-remaining": "39000",
            "anthropic-ratelimit-input-tokens-reset": "2015-10-21T14:00:30+02:00",
            "anthropic-ratelimit-output-tokens-remaining": "8000",
            "anthropic-ratelimit-tokens-reset": "2015-10-21T11:59:59Z",
            "anthropic-priority-input-tokens-limit": "7",
        },
        {
            "requests": RateLimit("requests", MINUTE_S, 50, 49, 1.25),
            "input_tokens": RateLimit("input_tokens", None, 40_000, 39_000, 30.0),
            "output_tokens": RateLimit("output_tokens", None, None, 8_000),
            "tokens": RateLimit("tokens", None, None, None, 0.0),
            "input_tokens (priority)": RateLimit("input_tokens", None, 7, qualifier="priority"),
        },
    ),
    "groq: the figures tell days from minutes": (
        {
            "x-ratelimit-limit-requests": "14400",
            "x-ratelimit-remaining-requests": "14370",
            "x-ratelimit-reset-requests": "2m59.56s",
            "x-ratelimit-limit-tokens": "18000",
            "x-ratelimit-remaining-tokens": "17997",
            "x-ratelimit-reset-tokens": "10ms",
        },
        {
            "requests": RateLimit("requests", DAY_S, 14_400, 14_370, 179.56, is_inferred=True),
            "tokens": RateLimit("tokens", MINUTE_S, 18_000, 17_997, 0.01),
        },
    ),
    "cerebras": (
        {
            "x-ratelimit-limit-requests-day": "1000",
            "x-ratelimit-remaining-requests-day": "999",
            "x-ratelimit-reset-requests-day": "33011.382867",
            "x-ratelimit-limit-tokens-minute": "60000",
            "x-ratelimit-remaining-tokens-minute": "59000",
        },
        {
            "requests/day": RateLimit("requests", DAY_S, 1_000, 999, 33_011.382867),
            "tokens/minute": RateLimit("tokens", MINUTE_S, 60_000, 59_000),
        },
    ),
    "mistral": (
        {
            "x-ratelimitbysize-limit-minute": "500000",
            "x-ratelimitbysize-remaining-minute": "499000",
            "x-ratelimitbysize-limit-month": "1000000000",
            "ratelimitbysize-reset": "15",
            "ratelimitbysize-query-cost": "32",
            "x-ratelimit-limit-req-minute": "60",
            "x-ratelimit-remaining-req-minute": "59",
            "x-ratelimit-tokens-query-cost": "7",
        },
        {
            "tokens/minute": RateLimit("tokens", MINUTE_S, 500_000, 499_000),
            "tokens/month": RateLimit("tokens", 30 * DAY_S, 1_000_000_000),
            "tokens": RateLimit("tokens", None, None, None, 15.0),
            "requests/minute": RateLimit("requests", MINUTE_S, 60, 59),
        },
    ),
    "fireworks": (
        {
            "x-ratelimit-limit-requests": "600",
            "x-ratelimit-limit-tokens-prompt": "60000",
            "x-ratelimit-remaining-tokens-generated": "5000",
            "x-ratelimit-over-limit": "yes",
        },
        {
            "requests": RateLimit("requests", None, 600),
            "input_tokens": RateLimit("input_tokens", None, 60_000),
            "output_tokens": RateLimit("output_tokens", None, None, 5_000),
        },
    ),
    "together": (
        {
            "x-ratelimit-limit": "10",
            "x-ratelimit-remaining": "9",
            "x-ratelimit-reset": "1",
            "x-tokenlimit-limit": "3000",
            "x-tokenlimit-remaining": "2990",
        },
        {"requests": RateLimit("requests", None, 10, 9, 1.0), "tokens": RateLimit("tokens", None, 3_000, 2_990)},
    ),
    "openrouter: a point in time in ms": (
        {
            "date": DATE,
            "x-ratelimit-limit": "20",
            "x-ratelimit-remaining": "5",
            "x-ratelimit-reset": f"{AT_DATE + 12}500",
        },
        {"requests": RateLimit("requests", None, 20, 5, 12.5)},
    ),
    "a point in time in seconds": (
        {"date": DATE, "x-ratelimit-reset": str(AT_DATE + 7)},
        {"requests": RateLimit("requests", None, None, None, 7.0)},
    ),
    "a point in time without a clock to hold it against": ({"x-ratelimit-reset": str(AT_DATE)}, {}),
    "the draft of the IETF": (
        {"ratelimit-limit": "100, 100;w=60", "ratelimit-remaining": "50", "ratelimit-reset": "30;x=1"},
        {"requests": RateLimit("requests", MINUTE_S, 100, 50, 30.0)},
    ),
    "more left than there is": (
        {"x-ratelimit-limit": "10", "x-ratelimit-remaining": "11"},
        {"requests": RateLimit("requests", None, 10, 10)},
    ),
    "names in any case": ({"X-RateLimit-Limit": "10"}, {"requests": RateLimit("requests", None, 10)}),
    "no numbers": ({"x-ratelimit-limit": "1_0", "x-ratelimit-remaining": "+5", "x-ratelimit-reset": "\u0663"}, {}),
    "an hour": (
        {"x-ratelimit-remaining": "3", "x-ratelimit-reset": "30m"},
        {"requests": RateLimit("requests", 3_600.0, None, 3, 1_800.0, is_inferred=True)},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_providers_say(case: str) -> None:
    headers, expected = CASES[case]
    assert parse_rate_limits(headers) == expected


RESETS = {
    "12ms": 0.012,
    "1.5s": 1.5,
    "6m0s": 360.0,
    "2h5m0s": 7_500.0,
    "1d": DAY_S,
    "250us": 0.00025,
    "0": 0.0,
    "0s": 0.0,
    "2015-10-21T12:00:05.5Z": 5.5,
    "2015-10-21T12:00:05": 5.0,
    "-3": None,
    "-3s": None,
    "nan": None,
    "inf": None,
    "soon": None,
    "": None,
    "5 apples": None,
    "1_0": None,
    "1_0s": None,
    "\u0665s": None,
    "9" * 400: None,
    "9" * 400 + "h": None,
    "2999-01-01T00:00:00Z": None,
    "0001-01-01T00:00:00+23:59": None,
}


@pytest.mark.parametrize("text", RESETS)
def test_when_it_resets(text: str) -> None:
    found = parse_rate_limits({"x-ratelimit-reset": text, "x-ratelimit-limit": "5", "date": DATE})
    assert found["requests"].reset_after_s == RESETS[text]


def test_milliseconds_by_name() -> None:
    assert parse_rate_limits({"x-ratelimit-reset-requests-ms": "250"})["requests"].reset_after_s == 0.25


WORDS = st.sampled_from(
    [
        "x",
        "anthropic",
        "ratelimit",
        "ratelimitbysize",
        "tokenlimit",
        "priority",
        "limit",
        "remaining",
        "reset",
        "requests",
        "tokens",
        "input",
        "generated",
        "minute",
        "day",
        "ms",
        "",
        "project",
        "é",
    ]
)
VALUES = st.one_of(
    st.text(max_size=30),
    st.floats().map(str),
    st.integers().map(str),
    st.integers().map("{}ms".format),
    st.datetimes().map(lambda moment: moment.isoformat() + "Z"),
    st.sampled_from(
        ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "1e308h", "9" * 5_000, "1;", ",", "0x10"]
    ),
)


@given(
    st.dictionaries(
        st.one_of(st.lists(WORDS, max_size=7).map("-".join), st.lists(WORDS, max_size=7).map("_".join), st.text()),
        VALUES,
    ),
    st.one_of(st.none(), st.just(DATE), VALUES),
)
def test_any_headers_give_a_result(headers: dict[str, str], date: str | None) -> None:
    if date is not None:
        headers = {**headers, "date": date}
    for bucket in parse_rate_limits(headers).values():
        values = (bucket.limit, bucket.remaining, bucket.reset_after_s, bucket.period_s)
        assert all(value is None or (math.isfinite(value) and value >= 0) for value in values)
        assert bucket.limit is None or bucket.remaining is None or bucket.remaining <= bucket.limit
