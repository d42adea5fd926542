"""`retry-after` headers in all their forms."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_deluge.wire.decimal_text import parse_decimal
from lm_deluge.wire.retry_after import find_wait, parse_retry_after

AT_NOON = "Wed, 21 Oct 2015 12:00:00 GMT"
HEADERS: list[tuple[dict[str, str], float | None]] = [
    ({}, None),
    ({"retry-after": "7"}, 7.0),
    ({"retry-after": "0"}, 0.0),
    ({"retry-after": "1.5"}, 1.5),
    ({"retry-after": " 7 "}, 7.0),
    ({"retry-after-ms": "250"}, 0.25),
    ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
    ({"retry-after-ms": "", "retry-after": "7"}, 7.0),
    ({"retry-after-ms": "-1", "retry-after": "7"}, 7.0),
    ({"retry-after-ms": "soon", "retry-after": "7"}, 7.0),
    ({"retry-after-ms": "nan", "retry-after": "7"}, 7.0),
    ({"retry-after": "86400"}, 86_400.0),
    ({"retry-after": "-1"}, None),
    ({"retry-after": "nan"}, None),
    ({"retry-after": "inf"}, None),
    ({"retry-after": "-inf"}, None),
    ({"retry-after": "1e300"}, None),
    ({"retry-after": "9" * 400}, None),
    ({"retry-after": ""}, None),
    ({"retry-after": "1_0"}, None),
    ({"retry-after-ms": "1_000", "retry-after": "7"}, 7.0),
    ({"retry-after": "\u0663"}, None),
    ({"retry-after": "+7"}, None),
    ({"retry-after": "0x7"}, None),
    ({"retry-after": "soon"}, None),
    ({"retry-after": "Wed, 21 Oct 2015 12:00:30 GMT", "date": AT_NOON}, 30.0),
    ({"retry-after": AT_NOON, "date": AT_NOON}, 0.0),
    ({"retry-after": "Wed, 21 Oct 2015 11:59:59 GMT", "date": AT_NOON}, None),
    ({"retry-after": "Wed, 21 Oct 2015 14:00:30 +0200", "date": AT_NOON}, 30.0),
    ({"retry-after": "Fri, 21 Oct 2095 12:00:00 GMT", "date": AT_NOON}, None),
    ({"retry-after": "Wed, 21 Oct 2015 12:00:30 GMT"}, None),
    ({"retry-after": "Wed, 21 Oct 2015 12:00:30 GMT", "date": "today"}, None),
    ({"retry-after": "Wed, 99 Oct 2015 12:00:30 GMT", "date": AT_NOON}, None),
    ({"retry-after": "Wed, 21 Oct 2015 12:00:30 -0000", "date": AT_NOON}, None),
    ({"retry-after": "Wed, 21 Oct 99999 12:00:30 GMT", "date": AT_NOON}, None),
]


@pytest.mark.parametrize(("headers", "expected"), HEADERS, ids=str)
def test_what_headers_say(headers: dict[str, str], expected: float | None) -> None:
    assert parse_retry_after(headers) == expected


@given(st.dictionaries(st.sampled_from(["retry-after", "retry-after-ms", "date"]), st.text(max_size=40)))
def test_any_header_is_a_usable_wait_or_none(headers: dict[str, str]) -> None:
    wait = parse_retry_after(headers)
    assert wait is None or (math.isfinite(wait) and wait >= 0)


NAMED: list[tuple[str, float | None]] = [
    ("Rate limit reached for gpt-4o. Limit: 3 / min. Please try again in 12.1s. Visit https://x.test.", 12.1),
    ("Please try again in 820ms.", 0.82),
    ("Please try again in 1m3.5s. Need more tokens?", 63.5),
    ("Please try again in 2h5m0s.", 7_500.0),
    ("Please retry after 20 seconds.", 20.0),
    ("Please retry after 1 second.", 1.0),
    ("Please retry in 34.074824224s.", 34.074824224),
    ("please wait 5 minutes before you send more", 300.0),
    ("Try again in 1 minute and 30 seconds", 90.0),
    ("Try again in about 2 hours", 7_200.0),
    ("API usage exceeded rate limit, try again in 15.25 secs", 15.25),
    ("The limit resets in 3 min.", 180.0),
    ("Retry your request after: 250 milliseconds", 0.25),
    ("retry_after: 20", 20.0),
    ("Retry after 20", 20.0),
    ("Wait 3s, or try again in 9s", 9.0),
    ("Please try again later.", None),
    ("Please try again in 1_0s", None),
    ("Please try again in 5 million years", None),
    ("Retry after 1000 requests", None),
    ("Please try again. The limit is 60 s.", None),
    ("Limit 200, used 12s", None),
    ("Please try again in 99999999999d", None),
    ("", None),
]


@pytest.mark.parametrize(("message", "expected"), NAMED)
def test_a_wait_in_a_message(message: str, expected: float | None) -> None:
    assert find_wait(None, message) == (None if expected is None else pytest.approx(expected))


FIELDS: list[tuple[object, float | None]] = [
    ({"error": {"retry_after": 3}}, 3.0),
    ({"error": {"retry_after": "3.5"}}, 3.5),
    ({"retryAfterMs": 250}, 0.25),
    ({"error": {"metadata": {"retry_after_seconds": 4}}}, 4.0),
    ({"error": {"details": [{"@type": "google.rpc.RetryInfo", "retryDelay": "34.5s"}]}}, 34.5),
    ([{"error": {"details": [{"retryDelay": "0.25s"}]}}], 0.25),
    ({"detail": {"retry-after": 2}, "retry_after": 1}, 2.0),
    ({"error": {"retry_after": True}}, None),
    ({"error": {"retry_after": None}}, None),
    ({"error": {"retry_after": -1}}, None),
    ({"error": {"retry_after": 1e300}}, None),
    ({"error": {"retry_after": "1_0"}}, None),
    ({"error": {"retry_after": "soon"}}, None),
    ("retry_after", None),
]


@pytest.mark.parametrize(("payload", "expected"), FIELDS, ids=str)
def test_a_wait_in_a_field(payload: object, expected: float | None) -> None:
    assert find_wait(payload, "") == expected


@given(
    st.recursive(
        st.none() | st.text() | st.floats() | st.integers(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["retry_after", "error"]), inner),
    ),
    st.text(),
)
def test_any_error_has_a_usable_wait_or_none(payload: object, message: str) -> None:
    wait = find_wait(payload, message)
    assert wait is None or (math.isfinite(wait) and wait >= 0)


@pytest.mark.parametrize(
    "text", ["1_0", "nan", "inf", "-1", "+1", "", " ", "1 2", "\u0663", "1e", "1e9999", "0x1", "\u00b2"]
)
def test_what_is_no_number(text: str) -> None:
    assert parse_decimal(text) is None


@given(st.floats(min_value=0, max_value=1e15))
def test_a_number_is_read_as_it_is_written(number: float) -> None:
    assert parse_decimal(f" {number!r}\t") == number
