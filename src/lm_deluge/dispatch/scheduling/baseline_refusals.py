"""Distinguish 429s that do not depend on our request rate from those it causes, for a limit that no provider named.

A provider without capacity for one request in twenty refuses that share, whether few or many requests were sent within
the last minute. A provider that enforces a limit refuses none as long as the minute has room. So the refused share of
requests sent at low load is compared with the share at high load, with load measured both as requests within the last
period and as requests in flight.
"""

from __future__ import annotations

from collections import Counter, deque
from operator import itemgetter

__all__ = ["BaselineRefusals"]

_RESPONSES_KEPT = 1_000  # some minutes of traffic, so that both low and high load are among them
_LEAST_COMPARED = 40  # responses at low and at high load each: with fewer, shares of 5% differ by chance
_LEAST_REFUSED = 3  # in each part; fewer are chance
_LOAD_RATIO = 1.5  # high load must be so much higher than low load for the shares to be comparable
_SIMILARITY = 0.5  # the smaller of two shares must be at least this part of the larger one
_MOST_EXPLAINED = 0.3  # a higher share of refusals is treated as a limit in any case
_INFER_EVERY = 20  # responses; sorting them for each refusal would cost more than it brings
_SLOTS = 60  # parts of a period in which requests are counted: a second each for a period of a minute
_RECENT = 100  # responses that show the present share
_EXCESS, _ALLOWANCE = 2.0, 0.02  # the present share may vary up to so many times the baseline, and a little more


class BaselineRefusals:
    """The recent responses under a guessed limit.

    Args:
        period_s: Period over which the provider may count, in seconds.
    """

    def __init__(self, period_s: float) -> None:
        self._slot_s = period_s / _SLOTS
        self._requests_in_slot = Counter[int]()
        # For each response: requests within a period before it, requests in flight, whether it was refused.
        self._responses: deque[tuple[int, int, bool]] = deque(maxlen=_RESPONSES_KEPT)
        self._baseline_share: float | None = None
        self._new_responses = 0

    def _slot_of(self, moment: float) -> int:
        return int(moment // self._slot_s)

    def add_request(self, at: float) -> None:
        """Count a request that leaves at a moment."""
        slot = self._slot_of(at)
        self._requests_in_slot[slot] += 1
        if len(self._requests_in_slot) > 3 * _SLOTS:
            recent = {each: count for each, count in self._requests_in_slot.items() if each > slot - 2 * _SLOTS}
            self._requests_in_slot = Counter(recent)

    def add_response(self, sent_at: float, in_flight: int, *, is_refused: bool) -> None:
        """Note a response: when its request left, how many requests are in flight, and whether it was refused."""
        slot = self._slot_of(sent_at)
        within_period = sum(map(self._requests_in_slot.__getitem__, range(slot - _SLOTS + 1, slot + 1)))
        self._responses.append((within_period, in_flight, is_refused))
        self._new_responses += 1

    def explains_refusals(self) -> bool:
        """Whether the present share of refusals would be the same at a lower rate, so that slowing down is useless."""
        if self._new_responses >= _INFER_EVERY:
            self._new_responses = 0
            self._baseline_share = self._infer() or self._baseline_share
        if self._baseline_share is None:
            return False
        recent = [is_refused for _, _, is_refused in self._responses][-_RECENT:]
        return sum(recent) / len(recent) <= min(_EXCESS * self._baseline_share + _ALLOWANCE, _MOST_EXPLAINED)

    def _infer(self) -> float | None:
        """Return the refused share that does not depend on the load; None if the share depends on it."""
        by_rate = _share_at_low_load([(count, is_refused) for count, _, is_refused in self._responses])
        by_concurrency = _share_at_low_load([(in_flight, is_refused) for _, in_flight, is_refused in self._responses])
        return None if by_rate is None or by_concurrency is None else min(by_rate, by_concurrency)


def _share_at_low_load(responses: list[tuple[int, bool]]) -> float | None:
    """Return the refused share at low load, from pairs of load and refusal; None if it differs at high load."""
    by_load = sorted(responses, key=itemgetter(0))  # the sort is stable, and must not order by refusal
    size = max(_LEAST_COMPARED, len(by_load) // 4)
    low, high = by_load[:size], by_load[-size:]
    if len(by_load) < 2 * size or sum(load for load, _ in high) < _LOAD_RATIO * sum(load for load, _ in low):
        return None
    refused_low, refused_high = (sum(is_refused for _, is_refused in part) for part in (low, high))
    least = max(_SIMILARITY * max(refused_low, refused_high), _LEAST_REFUSED)
    return refused_low / size if min(refused_low, refused_high) >= least else None
