"""What the limiter learns from responses."""

import tracemalloc

from lm_deluge.dispatch.scheduling.learned_limits import ServedAmounts


def test_a_minute_counts() -> None:
    served = ServedAmounts()
    for second in range(100):
        served.add(float(second), requests=1, input_tokens=10, output_tokens=5)
    # Those after second 39: 60 requests, 600 input tokens, 300 output tokens.
    assert served.contradicts("requests", 29.9, 60.0, 99.0)
    assert not served.contradicts("requests", 30.0, 60.0, 99.0)
    assert served.contradicts("input_tokens", 299.9, 60.0, 99.0)
    assert not served.contradicts("input_tokens", 300.0, 60.0, 99.0)
    assert served.contradicts("tokens", 299.9, 60.0, 99.0)
    assert not served.contradicts("tokens", 300.0, 60.0, 99.0)
    assert served.contradicts("output_tokens", 14.9, 60.0, 99.0)
    assert not served.contradicts("output_tokens", 15.0, 60.0, 99.0)


def test_what_is_older_than_a_minute_takes_no_memory_where_no_limit_is_known() -> None:
    """A server of one's own names no limits, so nothing is ever compared."""
    served = ServedAmounts()
    tracemalloc.start()
    try:
        for second in range(100_000):
            served.add(float(second), requests=1, input_tokens=10.5)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 100_000  # bytes: a minute of them, not all
