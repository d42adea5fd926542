"""How long a model's answers are, and what to expect of those that are still under way."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from typing import NamedTuple

import msgspec

__all__ = ["AnswerLength", "Expected", "RecentLengths"]

_KEPT = 4_000
_SUMMED_UP_AGAIN = 0.05  # when so many are new
_ENOUGH = 20
_TAIL = 4  # so many are needed for a mean; what lasts longer is judged by how long it has lasted
_UNKNOWN = 4_096  # before anything is known: rather too much
_DOUBT = 50  # of so many answers half of the variance is still unseen
_STRAGGLES_S, _STRAGGLES, _USUAL = 60.0, 1.25, 0.98
_MANY = 200
_FADES = 0.99  # with each answer


class Expected(NamedTuple):
    """Mean, variance and third central moment of a number of tokens."""

    mean: float
    variance: float
    third: float = 0.0

    def plus(self, other: Expected) -> Expected:
        """Return what is known of the sum."""
        return Expected(self.mean + other.mean, self.variance + other.variance, self.third + other.third)

    def at_most(self, deviations: float) -> float:
        """Return the number that is exceeded as seldom as a normal one exceeds so many standard deviations.

        Long answers are rare and very long: the second term of Cornish and Fisher's expansion allows for that.
        """
        if not self.variance:
            return self.mean
        skewed = (deviations * deviations - 1) / 6 * self.third / self.variance
        return self.mean + deviations * math.sqrt(self.variance) + max(0.0, skewed)


class AnswerLength(msgspec.Struct, eq=False):
    """One answer, from its start on. `tokens` is None while it is under way, and where nobody knows its length."""

    started_at: float
    input_tokens: int = 0
    reserved: int = 0
    most: float = math.inf
    took_s: float = 0.0
    tokens: int | None = None
    is_over: bool = False
    is_skipped: bool = False


class RecentLengths:
    """The output tokens of a model's last answers.

    Short answers end first, so what has ended so far says too little of all: an answer counts once all that began
    before it have ended, too. Those under way are expected to be as long as the ones of then that took longer than they
    do until now, which is more than the mean.
    """

    def __init__(self) -> None:
        self._begun: deque[AnswerLength] = deque()
        self._recent: deque[tuple[float, int]] = deque(maxlen=_KEPT)
        self._inputs: deque[tuple[int, int]] = deque(maxlen=_KEPT)
        self._longest_s = 0.0
        self._new = 0
        self._sum = self._sum_reserved = self._sum_real = 0
        self._input_variance = 0.0
        self._durations: list[float] = []
        self._rests: list[Expected] = []

    # What happens

    def begin(self, at: float, input_tokens: int, reserved: int, most: int | None) -> AnswerLength:
        """Note an answer that begins at a moment: what is reserved for it, and the most that its output can be."""
        answer = AnswerLength(at, input_tokens, reserved, math.inf if most is None else most)
        self._begun.append(answer)
        return answer

    def end(self, answer: AnswerLength, now: float, tokens: int | None) -> None:
        """Note the length of an answer that came to its end; None where it did not, or nobody knows."""
        answer.is_over, answer.tokens, answer.took_s = True, tokens, max(0.0, now - answer.started_at)
        if tokens is not None:
            self._longest_s = max(_FADES * self._longest_s, answer.took_s)
        if answer.is_skipped:
            self._take(answer)
        begun = self._begun
        while begun:
            first = begun[0]
            if first.is_over:
                self._take(begun.popleft())
            elif now - first.started_at > self._patience_s():
                begun.popleft().is_skipped = True  # it counts when it ends; the others do not wait for it
            else:
                break

    def _patience_s(self) -> float:
        """Return how long one answer may hold up that the later ones count."""
        if len(self._durations) < _MANY:
            return max(_STRAGGLES_S, 2 * self._longest_s)
        return max(_STRAGGLES_S, _STRAGGLES * self._durations[int(_USUAL * len(self._durations))])

    def _take(self, answer: AnswerLength) -> None:
        if answer.tokens is not None:
            if len(self._recent) == _KEPT:
                self._sum -= self._recent[0][1]
            self._recent.append((answer.took_s, answer.tokens))
            self._sum += answer.tokens
            self._new += 1

    def note_input(self, reserved: int, real: int) -> None:
        """Note what an input came to."""
        if reserved > 0:
            if len(self._inputs) == _KEPT:
                oldest = self._inputs[0]
                self._sum_reserved -= oldest[0]
                self._sum_real -= oldest[1]
            self._inputs.append((reserved, real))
            self._sum_reserved += reserved
            self._sum_real += real

    # What to expect

    @property
    def is_known(self) -> bool:
        """Whether enough answers have ended."""
        return len(self._recent) >= _ENOUGH

    @property
    def input_share(self) -> float:
        """Which share of what is said beforehand inputs come to."""
        return self._sum_real / self._sum_reserved if len(self._inputs) >= _ENOUGH else 1.0

    def estimate(self, max_output_tokens: int | None) -> int:
        """Return what to reserve: the mean; before it is known, all that the request allows."""
        if not self.is_known:
            return _UNKNOWN if max_output_tokens is None else max_output_tokens
        expected = math.ceil(self._sum / len(self._recent))
        return expected if max_output_tokens is None else min(expected, max_output_tokens)

    def under_way(self, now: float, since: float) -> tuple[Expected, float]:
        """Return by how much what began since then and is under way may exceed what is reserved for it.

        Behind the output stands the variance of the input.
        """
        if not self.is_known:
            return Expected(0.0, 0.0), 0.0
        self._sum_up()
        exceeds = expected = variance = third = inputs = 0.0
        for answer in self._begun:
            if answer.is_over or answer.started_at <= since:
                continue
            rest = self._rest_after(now - answer.started_at)
            mean = min(rest.mean, answer.most)
            expected += mean
            exceeds += mean - answer.reserved
            variance += rest.variance
            third += rest.third
            inputs += answer.input_tokens * answer.input_tokens
        # Mean and variance themselves are known from so many answers only.
        whole, known = self._rests[0], len(self._recent)
        error = whole.variance / max(whole.mean, 1.0) ** 2 / known
        variance = (variance + expected * expected * error) * (1 + _DOUBT / known)
        return Expected(exceeds, variance, third), inputs * self._input_variance

    def _rest_after(self, age_s: float) -> Expected:
        """Return what is to be expected of an answer that has taken so long and is not over."""
        place = bisect_right(self._durations, age_s)
        last = len(self._durations) - _TAIL
        if place <= last:
            return self._rests[place]
        tail = self._rests[last]
        stretch = max(1.0, age_s / max(self._durations[last], 1e-3))
        return Expected(tail.mean * stretch, tail.variance * stretch**2, tail.third * stretch**3)

    def _sum_up(self) -> None:
        if self._durations and self._new <= _SUMMED_UP_AGAIN * len(self._recent):
            return
        self._new = 0
        ordered = sorted(self._recent)
        self._durations = [took_s for took_s, _ in ordered]
        self._rests = []
        total = squares = cubes = 0.0
        for count, (_, tokens) in enumerate(reversed(ordered), 1):
            total += tokens
            squares += tokens * tokens
            cubes += tokens**3
            mean = total / count
            variance = max(0.0, squares / count - mean * mean)
            self._rests.append(Expected(mean, variance, cubes / count - 3 * mean * variance - mean**3))
        self._rests.reverse()
        if len(self._inputs) >= _ENOUGH:
            share, count = self.input_share, len(self._inputs)
            self._input_variance = sum((real / reserved - share) ** 2 for reserved, real in self._inputs) / count
