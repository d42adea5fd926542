"""Tells refusals that come at any rate from those that come with it: where nobody names a limit, both look the same.

A host that has no room for one request in twenty refuses as many whether it was asked often within the last minute or
seldom. One that keeps a limit refuses none as long as the minute has room. So the answers to requests before which
there were few are held against those before which there were many, and so are those to which few were under way.
"""

from __future__ import annotations

from collections import Counter, deque
from operator import itemgetter

__all__ = ["BaselineRefusals"]

_KEPT = 1_000
_ENOUGH = 40  # answers behind few requests, and as many behind many
_LEAST_REFUSED = 3
_APART, _ALIKE = 1.5, 0.5
_MOST = 0.3
_LOOK_EVERY = 20
_SLOTS = 60  # of a period, in which it is counted what left
_LATELY = 100
_EXCESS, _SPARE = 2.0, 0.02


class BaselineRefusals:
    """The answers of late under a limit that nobody named.

    Args:
        period_s: Over how long such a host may count, in seconds.
    """

    def __init__(self, period_s: float) -> None:
        self._slot_s = period_s / _SLOTS
        self._left = Counter[int]()
        # How many left within a period, up to it; how many were under way; whether it was refused.
        self._answers: deque[tuple[int, int, bool]] = deque(maxlen=_KEPT)
        self._share: float | None = None  # of the requests that are refused at any rate
        self._unlooked = 0

    def _slot_of(self, moment: float) -> int:
        return int(moment // self._slot_s)

    def add_request(self, at: float) -> None:
        """Note a request that leaves then."""
        slot = self._slot_of(at)
        self._left[slot] += 1
        if len(self._left) > 3 * _SLOTS:
            self._left = Counter({each: count for each, count in self._left.items() if each > slot - 2 * _SLOTS})

    def add_response(self, sent_at: float, under_way: int, *, is_refused: bool) -> None:
        """Note an answer, when its request left, and how many are under way."""
        slot = self._slot_of(sent_at)
        number = sum(map(self._left.__getitem__, range(slot - _SLOTS + 1, slot + 1)))
        self._answers.append((number, under_way, is_refused))
        self._unlooked += 1

    def explains_refusals(self) -> bool:
        """Whether no more are refused than would be of fewer requests, so that going slower is of no use."""
        if self._unlooked >= _LOOK_EVERY:
            self._unlooked = 0
            self._share = self._found() or self._share
        if self._share is None:
            return False
        lately = [is_refused for _, _, is_refused in self._answers][-_LATELY:]
        return sum(lately) / len(lately) <= min(_EXCESS * self._share + _SPARE, _MOST)

    def _found(self) -> float | None:
        """Return how large a share is refused at any rate, None where it is another one of few than of many."""
        within_period = _share_of_few([(number, is_refused) for number, _, is_refused in self._answers])
        at_once = _share_of_few([(under_way, is_refused) for _, under_way, is_refused in self._answers])
        return None if within_period is None or at_once is None else min(within_period, at_once)


def _share_of_few(answers: list[tuple[int, bool]]) -> float | None:
    """Return the share that is refused where there were few, None where it is another one where there were many."""
    by_load = sorted(answers, key=itemgetter(0))  # and not by how they ended
    size = max(_ENOUGH, len(by_load) // 4)
    few, many = by_load[:size], by_load[-size:]
    if len(by_load) < 2 * size or sum(load for load, _ in many) < _APART * sum(load for load, _ in few):
        return None
    one, other = (sum(is_refused for _, is_refused in part) for part in (few, many))
    return one / size if min(one, other) >= max(_ALIKE * max(one, other), _LEAST_REFUSED) else None
