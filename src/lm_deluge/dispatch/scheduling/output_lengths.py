"""Output tokens of a model's recent responses, and an estimate for the responses that are still in flight."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

__all__ = ["AnswerLength", "Expected", "LengthSample", "RecentLengths"]

_LENGTHS_KEPT = 4_000  # enough for the variance of a long-tailed distribution, little enough to sort
_RECOMPUTED_AT = 0.05  # share of new lengths: a new table costs a sort of all lengths
_LENGTHS_NEEDED = 20  # for a first mean; _VARIANCE_DOUBT allows for their small number
_TAIL = 4  # lengths needed for a mean; the estimate for a response that takes longer grows with its duration
_UNKNOWN_TOKENS = (
    4_096  # reserved before any length is known: rather too many, so that the first minute stays in limits
)
_VARIANCE_DOUBT = 50  # with so many lengths the variance is doubled: long tails show late
_STRAGGLER_S, _STRAGGLER_FACTOR, _USUAL_QUANTILE = 60.0, 1.25, 0.98
"""The count of later responses waits for a slow one for 1.25 times the 98th percentile, at least a minute."""
_DURATIONS_NEEDED = 200  # for that percentile; before, twice the longest duration
_OFFERED = 32  # newest samples that other processes may get: a process that exchanges so rarely has enough of its own
_LONGEST_DECAY = 0.99  # per response: one slow response is forgotten after some hundreds


class LengthSample(NamedTuple):
    """A response that took `first` seconds and has `second` tokens; of an input, the reserved and the actual tokens."""

    is_input: int
    first: float
    second: float


class Expected(NamedTuple):
    """Mean, variance and third central moment of a number of tokens."""

    mean: float
    variance: float
    third: float = 0.0

    def plus(self, other: Expected) -> Expected:
        """Return the moments of the sum of two independent numbers."""
        return Expected(self.mean + other.mean, self.variance + other.variance, self.third + other.third)

    def at_most(self, deviations: float) -> float:
        """Return the quantile that a normal distribution has at so many standard deviations above its mean.

        Long responses are rare and very long: the second term of the Cornish-Fisher expansion allows for the skew.
        """
        if not self.variance:
            return self.mean
        skewed = (deviations * deviations - 1) / 6 * self.third / self.variance
        return self.mean + deviations * math.sqrt(self.variance) + max(0.0, skewed)


class AnswerLength(msgspec.Struct, eq=False):
    """One response. `tokens` is None while it is in flight, and after that if its length is not known."""

    started_at: float
    input_tokens: int = 0
    reserved: int = 0
    most: float = math.inf
    took_s: float = 0.0
    tokens: int | None = None
    is_over: bool = False
    is_skipped: bool = False


class RecentLengths:
    """The output tokens of a model's recent responses.

    Short responses end first, so the mean of those that have ended is too low: a response counts after all that started
    before it have ended. A response in flight is expected to be as long as the recent ones that took longer than it has
    taken so far, which is more than the mean.

    Attributes:
        is_known: Whether enough lengths are known for an estimate.
    """

    def __init__(self) -> None:
        self._started: deque[AnswerLength] = deque()
        self._recent: deque[tuple[float, int]] = deque(maxlen=_LENGTHS_KEPT)
        self._inputs: deque[tuple[int, int]] = deque(maxlen=_LENGTHS_KEPT)
        self._offered: deque[LengthSample] = deque(maxlen=_OFFERED)
        self._longest_s = 0.0
        self.is_known = False
        self._new = 0
        self._sum = self._sum_reserved = self._sum_real = 0
        self._input_variance = 0.0
        self._durations: list[float] = []
        self._remaining_after: list[Expected] = []

    # Recording

    def begin(self, at: float, input_tokens: int, reserved: int, most: int | None) -> AnswerLength:
        """Record a response that starts at a moment: its reserved tokens, and the limit of its output."""
        answer = AnswerLength(at, input_tokens, reserved, math.inf if most is None else most)
        self._started.append(answer)
        return answer

    def end(self, answer: AnswerLength, now: float, tokens: int | None) -> None:
        """Record the length of a complete response; None if it was cut, or its length is not known."""
        answer.is_over, answer.tokens, answer.took_s = True, tokens, max(0.0, now - answer.started_at)
        if tokens is not None:
            self._longest_s = max(_LONGEST_DECAY * self._longest_s, answer.took_s)
        if answer.is_skipped:
            self._count(answer)
        started = self._started
        while started:
            first = started[0]
            if first.is_over:
                self._count(started.popleft())
            elif now - first.started_at > self._patience_s():
                started.popleft().is_skipped = True  # it counts when it ends
            else:
                break

    def _patience_s(self) -> float:
        """Return how long one response may delay the count of later ones."""
        if len(self._durations) < _DURATIONS_NEEDED:
            return max(_STRAGGLER_S, 2 * self._longest_s)
        return max(_STRAGGLER_S, _STRAGGLER_FACTOR * self._durations[int(_USUAL_QUANTILE * len(self._durations))])

    def _count(self, answer: AnswerLength) -> None:
        if answer.tokens is not None:
            self._add_length(answer.took_s, answer.tokens)
            self._offered.append(LengthSample(0, answer.took_s, answer.tokens))

    def _add_length(self, took_s: float, tokens: int) -> None:
        if len(self._recent) == _LENGTHS_KEPT:
            self._sum -= self._recent[0][1]
        self._recent.append((took_s, tokens))
        self.is_known = len(self._recent) >= _LENGTHS_NEEDED
        self._sum += tokens
        self._new += 1

    def note_input(self, reserved: int, real: int) -> None:
        """Record the reserved and the actual tokens of an input."""
        self._add_input(reserved, real)
        self._offered.append(LengthSample(1, reserved, real))

    def _add_input(self, reserved: int, real: int) -> None:
        if reserved > 0:
            if len(self._inputs) == _LENGTHS_KEPT:
                oldest = self._inputs[0]
                self._sum_reserved -= oldest[0]
                self._sum_real -= oldest[1]
            self._inputs.append((reserved, real))
            self._sum_reserved += reserved
            self._sum_real += real

    @property
    def count(self) -> int:
        """Number of lengths that the estimates are made of."""
        return len(self._recent)

    def take_offered(self) -> list[LengthSample]:
        """Return the newest samples of this process since the last time."""
        offered = list(self._offered)
        self._offered.clear()
        return offered

    def learn(self, samples: Iterable[LengthSample]) -> None:
        """Add the samples of other processes."""
        for sample in samples:
            if sample.is_input:
                self._add_input(int(sample.first), int(sample.second))
            else:
                self._add_length(sample.first, int(sample.second))

    # Estimating

    @property
    def input_share(self) -> float:
        """Actual input tokens as a share of the reserved ones; 1 while too few are known."""
        return self._sum_real / self._sum_reserved if len(self._inputs) >= _LENGTHS_NEEDED else 1.0

    def estimate(self, max_output_tokens: int | None) -> int:
        """Return the output tokens to reserve: the mean; before it is known, the limit of the request."""
        if not self.is_known:
            return _UNKNOWN_TOKENS if max_output_tokens is None else max_output_tokens
        expected = math.ceil(self._sum / len(self._recent))
        return expected if max_output_tokens is None else min(expected, max_output_tokens)

    def in_flight(self, now: float, since: float) -> tuple[Expected, float]:
        """Return by how much the responses in flight that started after `since` may exceed their reservations.

        Returns:
            The excess of output tokens, and the variance of the input tokens.
        """
        if not self.is_known:
            return Expected(0.0, 0.0), 0.0
        self._recompute()
        exceeds = expected = variance = third = inputs = 0.0
        for answer in self._started:
            if answer.is_over or answer.started_at <= since:
                continue
            rest = self._expected_after(now - answer.started_at)
            mean = min(rest.mean, answer.most)
            expected += mean
            exceeds += mean - answer.reserved
            variance += rest.variance
            third += rest.third
            inputs += answer.input_tokens * answer.input_tokens
        # Mean and variance are themselves estimates from a limited number of lengths.
        whole, known = self._remaining_after[0], len(self._recent)
        error = whole.variance / max(whole.mean, 1.0) ** 2 / known
        variance = (variance + expected * expected * error) * (1 + _VARIANCE_DOUBT / known)
        return Expected(exceeds, variance, third), inputs * self._input_variance

    def _expected_after(self, age_s: float) -> Expected:
        """Return the expected length of a response in flight that started so many seconds ago."""
        place = bisect_right(self._durations, age_s)
        last = len(self._durations) - _TAIL
        if place <= last:
            return self._remaining_after[place]
        tail = self._remaining_after[last]
        stretch = max(1.0, age_s / max(self._durations[last], 1e-3))
        return Expected(tail.mean * stretch, tail.variance * stretch**2, tail.third * stretch**3)

    def _recompute(self) -> None:
        if self._durations and self._new <= _RECOMPUTED_AT * len(self._recent):
            return
        self._new = 0
        ordered = sorted(self._recent)
        self._durations = [took_s for took_s, _ in ordered]
        self._remaining_after = []
        total = squares = cubes = 0.0
        for count, (_, tokens) in enumerate(reversed(ordered), 1):
            total += tokens
            squares += tokens * tokens
            cubes += tokens**3
            mean = total / count
            variance = max(0.0, squares / count - mean * mean)
            self._remaining_after.append(Expected(mean, variance, cubes / count - 3 * mean * variance - mean**3))
        self._remaining_after.reverse()
        if len(self._inputs) >= _LENGTHS_NEEDED:
            share, count = self.input_share, len(self._inputs)
            self._input_variance = sum((real / reserved - share) ** 2 for reserved, real in self._inputs) / count
