"""Where a batch stands: counts, speed and money. Pure: `now` is an argument, in seconds of a monotonic clock."""

from __future__ import annotations

from collections import Counter, deque

import msgspec

from lm_deluge.response import APIResponse

__all__ = ["BatchProgress", "ProgressTracker"]

_WINDOW_S = 30.0


class BatchProgress(msgspec.Struct, frozen=True, kw_only=True):
    """A batch at one moment.

    Attributes:
        total: How many calls there are; None where nobody knows yet.
        done: How many have ended, failed ones included.
        failed: How many of these with an error.
        in_flight: How many are being answered.
        input_tokens, output_tokens: Of all that have ended.
        input_rate, output_rate: Tokens per second over the last half minute.
        cost: US dollars so far; None where no answer has a price.
        projected_cost: What the whole batch will cost if the rest is like what is done.
        remaining_s: Seconds until the end, if the rest is like what is done.
        elapsed_s: Seconds since the first call began.
        limited_by: What holds calls back right now: the name of a limit, or None.
        errors: How often each class of error ended a call.
    """

    total: int | None = None
    done: int = 0
    failed: int = 0
    in_flight: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    input_rate: float = 0.0
    output_rate: float = 0.0
    cost: float | None = None
    projected_cost: float | None = None
    remaining_s: float | None = None
    elapsed_s: float = 0.0
    limited_by: str | None = None
    errors: dict[str, int] = {}


class ProgressTracker:
    """Counts the calls of a batch."""

    def __init__(self, total: int | None = None) -> None:
        self.total = total
        self._begun: float | None = None
        self._started = 0
        self._done = 0
        self._input = 0
        self._output = 0
        self._cost: float | None = None
        self._errors: Counter[str] = Counter()
        self._recent: deque[tuple[float, int, int]] = deque()
        self._recent_input = 0
        self._recent_output = 0

    def start(self, now: float) -> None:
        """A call begins."""
        if self._begun is None:
            self._begun = now
        self._started += 1

    def finish(self, response: APIResponse, now: float) -> None:
        """A call has ended, one way or the other."""
        self._done += 1
        if response.error is not None:
            self._errors[type(response.error).__name__] += 1
        if response.cost is not None:
            self._cost = (self._cost or 0.0) + response.cost
        usage = response.usage
        if usage is not None:
            self._input += usage.input_tokens
            self._output += usage.output_tokens
            self._recent.append((now, usage.input_tokens, usage.output_tokens))
            self._recent_input += usage.input_tokens
            self._recent_output += usage.output_tokens

    def tally(self, now: float, *, waiting: int = 0, limited_by: str | None = None) -> BatchProgress:
        """Return where the batch stands. `waiting` of the calls that began wait for their turn."""
        elapsed = 0.0 if self._begun is None else max(now - self._begun, 0.0)
        self._forget(now - _WINDOW_S)
        window = min(elapsed, _WINDOW_S)
        left = None if self.total is None or not self._done else self.total - self._done
        share = None if left is None or self.total is None else self.total / self._done
        return BatchProgress(
            total=self.total,
            done=self._done,
            failed=self._errors.total(),
            in_flight=max(self._started - self._done - waiting, 0),
            input_tokens=self._input,
            output_tokens=self._output,
            input_rate=self._recent_input / window if window else 0.0,
            output_rate=self._recent_output / window if window else 0.0,
            cost=self._cost,
            projected_cost=None if self._cost is None or share is None else self._cost * share,
            remaining_s=None if left is None else left * elapsed / self._done,
            elapsed_s=elapsed,
            limited_by=limited_by,
            errors=dict(self._errors),
        )

    def _forget(self, before: float) -> None:
        recent = self._recent
        while recent and recent[0][0] < before:
            _, read, written = recent.popleft()
            self._recent_input -= read
            self._recent_output -= written
