"""Metrics for Prometheus, with its official client library."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from lm_deluge.errors import MissingExtraError
from lm_deluge.extras import install_hint
from lm_deluge.models.registry import list_models
from lm_deluge.response import APIResponse
from lm_deluge.telemetry.observer import CallObserver, ObservedAttempt, ObservedCall, Observer, outcome_of

if TYPE_CHECKING:  # an optional package, imported when the first observer is made
    from prometheus_client import CollectorRegistry

__all__ = ["PrometheusObserver", "import_prometheus"]

# From a fast small model to one that reasons for minutes; the same steps as the client library's default, continued.
_WAITS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0, 120.0, 300.0, 600.0)
# Models send 10 to 1,000 tokens a second; a second without a token is a stall.
_GAPS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
# Names outside the registry that become labels: far more than one program has, and a bound for a mistake.
_MOST_NAMES = 200
_OTHER = "other"


def import_prometheus() -> Any:
    """Return Prometheus' client library.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        import prometheus_client
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "metrics for Prometheus need prometheus-client", hint=install_hint("prometheus-client")
        ) from error
    return prometheus_client


class PrometheusObserver(Observer):
    """Counts calls, tokens, costs, waits and retries in metrics named `deluge_...`.

    Labels are names of models, of kinds and of classes of errors: never a key, and nothing of a prompt. One observer
    may watch many clients.

    Args:
        registry: Where the metrics are registered; None: the client library's default registry.
        models: Names of models beside those of the registry that may be labels, all others are `other`; None: up to 200
            names. Name them where users choose the names of models.

    Raises:
        MissingExtraError: `prometheus-client` is not installed.

    Example:
        >>> client = LLMClient("gpt-5.4", observers=[PrometheusObserver()])
        >>> prometheus_client.start_http_server(9464)
    """

    def __init__(self, registry: CollectorRegistry | None = None, *, models: Collection[str] | None = None) -> None:
        prometheus_client = import_prometheus()
        self._labels = {name: name for name in models or ()}
        self._is_open = models is None
        self._registered: frozenset[str] | None = None
        self.metrics = _Metrics(prometheus_client, prometheus_client.REGISTRY if registry is None else registry)

    def call_started(self, call: ObservedCall) -> CallObserver:
        """Count a call."""
        return _CallMetrics(self, call.model)

    def allow(self, models: Collection[str]) -> None:
        """Let further names of models be labels."""
        self._labels.update({name: name for name in models})

    def label_of(self, model: str) -> str:
        """Return the label of a model: its id, or `other` where the number of labels would have no bound."""
        label = self._labels.get(model)
        if label is None:
            if self._registered is None:
                self._registered = frozenset(row.id for row in list_models())
            is_known = model in self._registered or (self._is_open and len(self._labels) < _MOST_NAMES)
            label = model if is_known else _OTHER
            if is_known:
                self._labels[model] = label
        return label


class _Metrics:
    def __init__(self, library: Any, registry: CollectorRegistry) -> None:
        counter, histogram = library.Counter, library.Histogram

        def of(kind: Any, name: str, text: str, labels: tuple[str, ...] = ("model",), **options: Any) -> Any:
            return kind(f"deluge_{name}", text, labels, registry=registry, **options)

        self.requests = of(counter, "requests", "Calls that have ended, by model and outcome.", ("model", "status"))
        self.in_flight = of(
            library.Gauge, "in_flight", "Calls that run or wait at present.", (), multiprocess_mode="livesum"
        )
        self.duration = of(histogram, "request_seconds", "From the start of a call to its end.", buckets=_WAITS)
        self.first_token = of(
            histogram, "time_to_first_token_seconds", "From the first request to the first token.", buckets=_WAITS
        )
        self.gaps = of(
            histogram, "inter_token_seconds", "Between two reads, for each event of the later one.", buckets=_GAPS
        )
        self.tokens = of(counter, "tokens", "Tokens by kind; cached and reasoning ones are parts.", ("model", "kind"))
        self.cost = of(counter, "cost_dollars", "Cost in US dollars, of models with a price.")
        self.waits = of(
            histogram, "limiter_wait_seconds", "Waits for the limits of the client, for each request.", buckets=_WAITS
        )
        self.retries = of(counter, "retries", "Further attempts, by what they follow.", ("model", "reason"))


_KINDS = {
    "input": "input_tokens",
    "output": "output_tokens",
    "cache_read": "cache_read_tokens",
    "cache_write": "cache_write_tokens",
    "reasoning": "reasoning_tokens",
}


class _CallMetrics(CallObserver):
    def __init__(self, observer: PrometheusObserver, model: str) -> None:
        self._observer = observer
        self._metrics = observer.metrics
        self._model = observer.label_of(model)
        self._started_at = time.monotonic()
        self._gaps: Any = None
        self._metrics.in_flight.inc()

    def waited(self, seconds: float) -> None:
        """Record the wait."""
        self._metrics.waits.labels(self._model).observe(seconds)

    def attempt_started(self, attempt: ObservedAttempt) -> None:
        """Count a retry, and note which model answers."""
        self._model = self._observer.label_of(attempt.model)
        if attempt.reason is not None:
            self._metrics.retries.labels(self._model, attempt.reason).inc()

    def first_token(self, seconds: float) -> None:
        """Record the time to the first token."""
        self._metrics.first_token.labels(self._model).observe(seconds)
        self._gaps = self._metrics.gaps.labels(self._model)

    def read(self, events: int, seconds: float) -> None:
        """Record the mean time between the events of a read, once."""
        if self._gaps is not None:
            self._gaps.observe(seconds / events)

    def ended(self, response: APIResponse) -> None:
        """Count the call, its tokens and its cost."""
        metrics, outcome = self._metrics, outcome_of(response)
        model = self._observer.label_of(response.model_internal) if response.model_internal else self._model
        status = type(response.error).__name__ if response.error is not None else outcome
        metrics.in_flight.dec()
        metrics.requests.labels(model, status).inc()
        metrics.duration.labels(model).observe(time.monotonic() - self._started_at)
        if outcome == "cached":
            return
        if response.usage is not None:
            for kind, name in _KINDS.items():
                if tokens := getattr(response.usage, name):
                    metrics.tokens.labels(model, kind).inc(tokens)
        if response.cost:
            metrics.cost.labels(model).inc(response.cost)
