"""Progress of a batch: counts, speed and cost. Pure: `now` is an argument, in seconds of a monotonic clock."""

from __future__ import annotations

from collections import Counter, deque

import msgspec

from lm_deluge.response import APIResponse

__all__ = ["BatchProgress", "ProgressTracker"]

_WINDOW_S = 30.0  # of the rates: long enough for several answers, short enough to show a change


class BatchProgress(msgspec.Struct, frozen=True, kw_only=True):
    """The progress of a batch at one moment.

    Attributes:
        total: Number of calls; None while it is unknown.
        done: Number of calls that have ended, failed calls included.
        failed: Number of calls that ended with an error.
        in_flight: Number of calls that have started and not ended.
        input_tokens, output_tokens: Tokens of the calls that have ended.
        input_rate, output_rate: Tokens per second over the last 30 seconds.
        cost: Cost so far, in US dollars; None if no answer has a price.
        projected_cost: Cost of the whole batch if the remaining calls are like the ended ones.
        remaining_s: Seconds until the end if the remaining calls are like the ended ones.
        elapsed_s: Seconds since the first call started.
        limited_by: The limit that delays calls at this moment, or None.
        errors: Number of failed calls by class of error.
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
    """Counts the calls of a batch. `total` is their number, None while it is unknown."""

    def __init__(self, total: int | None = None) -> None:
        self.total = total
        self._started_at: float | None = None
        self._started = 0
        self._done = 0
        self._input = 0
        self._output = 0
        self._cost: float | None = None
        self._errors: Counter[str] = Counter()
        self._recent: deque[tuple[float, int, int]] = deque()
        self._recent_input = 0
        self._recent_output = 0

    @property
    def done(self) -> int:
        """Number of calls that have ended."""
        return self._done

    def start(self, now: float) -> None:
        """Count a call that starts."""
        if self._started_at is None:
            self._started_at = now
        self._started += 1

    def finish(self, response: APIResponse, now: float) -> None:
        """Count a call that has ended, with an answer or an error."""
        self._done += 1
        if response.error is not None:
            self._errors[type(response.error).__name__] += 1
        if response.cost is not None:
            self._cost = (self._cost or 0.0) + response.cost
        usage = response.usage
        if usage is not None:
            self._forget(now - _WINDOW_S)  # also where no display does
            self._input += usage.input_tokens
            self._output += usage.output_tokens
            self._recent.append((now, usage.input_tokens, usage.output_tokens))
            self._recent_input += usage.input_tokens
            self._recent_output += usage.output_tokens

    def progress(self, now: float, *, waiting: int = 0, limited_by: str | None = None) -> BatchProgress:
        """Return the progress of the batch.

        Args:
            now: The present time.
            waiting: How many of the started calls wait for the limits.
            limited_by: The limit that delays calls at this moment, or None.
        """
        elapsed = 0.0 if self._started_at is None else max(now - self._started_at, 0.0)
        self._forget(now - _WINDOW_S)
        window = min(elapsed, _WINDOW_S)
        remaining = None if self.total is None or not self._done else self.total - self._done
        scale = None if remaining is None or self.total is None else self.total / self._done
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
            projected_cost=None if self._cost is None or scale is None else self._cost * scale,
            remaining_s=None if remaining is None else remaining * elapsed / self._done,
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
