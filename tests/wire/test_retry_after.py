"""`retry-after` headers in all their forms."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_deluge.wire.retry_after import parse_retry_after

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
