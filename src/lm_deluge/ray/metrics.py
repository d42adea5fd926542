"""Counts of an actor as metrics of Ray, which its dashboard and Prometheus show."""

from __future__ import annotations

import importlib
from typing import Any

from lm_deluge.response import APIResponse

__all__ = ["ActorMetrics"]


class ActorMetrics:
    """Rows, tokens, cost and requests in flight, by model. Without a running Ray it counts nothing."""

    def __init__(self, *, is_on: bool) -> None:
        self._rows = self._tokens = self._cost = self._in_flight = self._again = None
        if is_on:
            metrics: Any = importlib.import_module("ray.util.metrics")
            self._rows = metrics.Counter("lm_deluge_rows", "Rows that have ended.", ("model", "outcome"))
            self._tokens = metrics.Counter("lm_deluge_tokens", "Tokens of the answers.", ("model", "direction"))
            self._cost = metrics.Counter("lm_deluge_cost_dollars", "Cost of the answers in US dollars.", ("model",))
            self._again = metrics.Counter("lm_deluge_requests_again", "Requests that may have been billed twice.")
            self._in_flight = metrics.Gauge("lm_deluge_requests_in_flight", "Requests without an outcome yet.")

    def count(self, response: APIResponse) -> None:
        """Add a response that this actor asked for."""
        if self._rows is None or self._tokens is None or self._cost is None:
            return
        model = response.model_internal or "none"
        self._rows.inc(1, {"model": model, "outcome": "answered" if response.error is None else "failed"})
        usage = response.usage
        for direction, tokens in () if usage is None else (("in", usage.input_tokens), ("out", usage.output_tokens)):
            if tokens > 0:  # Ray refuses an increment of 0
                self._tokens.inc(tokens, {"model": model, "direction": direction})
        if response.cost:
            self._cost.inc(response.cost, {"model": model})

    def note_again(self, count: int) -> None:
        """Add requests that are sent again, because it is not known whether an earlier one was billed."""
        if self._again is not None and count:
            self._again.inc(count)

    def set_in_flight(self, count: int) -> None:
        """Set the number of requests in flight."""
        if self._in_flight is not None:
            self._in_flight.set(count)
