"""How fast the simulator sends an answer."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Pace"]


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast the tokens of a stream are sent. The default is as fast as possible.

    Attributes:
        tokens_per_second: One token is one delta; None means no pauses.
        first_token_s: Seconds before the first token.
        jitter: The largest random deviation of a pause, as a share of the pause: 0.5 is up to 50 % more or less.

    Raises:
        ValueError: A value is out of its range.
    """

    tokens_per_second: float | None = None
    first_token_s: float = 0.0
    jitter: float = 0.0

    def __post_init__(self) -> None:
        if self.tokens_per_second is not None and not self.tokens_per_second > 0:
            raise ValueError("tokens_per_second must be above 0, or None")
        if not self.first_token_s >= 0 or not 0 <= self.jitter <= 1:
            raise ValueError("first_token_s must be 0 or more, and jitter between 0 and 1")

    def pauses(self, rng: random.Random) -> Iterator[float]:
        """Yield the seconds to wait before each token, without end."""
        yield self._jittered(self.first_token_s, rng)
        gap = 1 / self.tokens_per_second if self.tokens_per_second else 0.0
        while True:
            yield self._jittered(gap, rng)

    def _jittered(self, seconds: float, rng: random.Random) -> float:
        return seconds * (1 + self.jitter * rng.uniform(-1, 1)) if seconds else 0.0
