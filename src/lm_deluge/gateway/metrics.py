"""The metrics of the gateway: those of its calls to providers, and those of its own requests."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from lm_deluge.gateway.access_log import AccessLog, LoggedCall
from lm_deluge.telemetry.prometheus import PrometheusObserver, import_prometheus

__all__ = ["GatewayMetrics", "MeasuredLog", "SummedMetrics"]

# Plain calls of small models take half a second, and streams of agents minutes.
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0, 120.0, 300.0, 600.0)


class GatewayMetrics:
    """The metrics of one gateway, in a registry of their own.

    Args:
        models: Names of models that may be labels beside those of the registry of models.
        by_key: Whether requests are counted by the names of keys.

    Attributes:
        observer: Counts the calls to providers.

    Raises:
        MissingExtraError: `prometheus-client` is not installed.
    """

    def __init__(self, models: Iterable[str] = (), *, by_key: bool = False) -> None:
        prometheus_client = self._library = import_prometheus()
        registry = prometheus_client.CollectorRegistry()
        self.observer = PrometheusObserver(registry, models=[*models])
        self._registry = registry
        self._by_key = by_key
        labels = ("dialect", "status", *(["key"] if by_key else []))
        self._requests = prometheus_client.Counter(
            "deluge_gateway_requests",
            "Requests of clients, by status; 499: the client left.",
            labels,
            registry=self._registry,
        )
        self._seconds = prometheus_client.Histogram(
            "deluge_gateway_request_seconds",
            "From the arrival of a request to the end of its response.",
            ("dialect",),
            registry=self._registry,
            buckets=_SECONDS,
        )
        self._running = prometheus_client.Gauge(
            "deluge_gateway_in_progress",
            "Requests that are answered at present.",
            registry=self._registry,
            multiprocess_mode="livesum",
        )
        self._count: Callable[[], int] = lambda: 0
        prometheus_client.ProcessCollector(registry=self._registry)

    def count_running(self, running: Callable[[], int]) -> None:
        """Have the number of requests under way read from a function."""
        self._count = running
        self._running.set_function(lambda: float(running()))

    def sample_running(self) -> None:
        """Write down the number of requests under way, for the process that sums the metrics of several workers."""
        self._running.set(self._count())

    def note(self, call: LoggedCall) -> None:
        """Count a request that was answered."""
        labels = [call.dialect, str(call.status), *([call.key_name] if self._by_key else [])]
        self._requests.labels(*labels).inc()
        if call.duration_s is not None:
            self._seconds.labels(call.dialect).observe(call.duration_s)

    def exposition(self) -> tuple[bytes, str]:
        """Return all metrics in the text format of Prometheus, and its content type."""
        return self._library.generate_latest(self._registry), self._library.CONTENT_TYPE_LATEST


class SummedMetrics:
    """The metrics of all workers, which each of them writes into files of a folder (`PROMETHEUS_MULTIPROC_DIR`).

    Args:
        folder: The folder.

    Raises:
        MissingExtraError: `prometheus-client` is not installed.
    """

    def __init__(self, folder: str) -> None:
        self._library = import_prometheus()
        from prometheus_client import multiprocess

        self._multiprocess = multiprocess
        self._folder = folder

    def forget_worker(self, process: int) -> None:
        """Leave out what a process that has ended was doing; what it counted stays."""
        self._multiprocess.mark_process_dead(process, path=self._folder)  # type: ignore[no-untyped-call]

    def exposition(self) -> tuple[bytes, str]:
        """Return all metrics in the text format of Prometheus, and its content type."""
        registry = self._library.CollectorRegistry()
        self._multiprocess.MultiProcessCollector(registry, path=self._folder)  # type: ignore[no-untyped-call]
        return self._library.generate_latest(registry), self._library.CONTENT_TYPE_LATEST


class MeasuredLog(AccessLog):
    """A log whose lines are counted, too.

    Args:
        log: Where the lines are written.
        metrics: Counts them.
    """

    def __init__(self, log: AccessLog, metrics: GatewayMetrics) -> None:
        super().__init__(None)
        self._log = log
        self._metrics = metrics

    def write(self, call: LoggedCall) -> None:
        """Count and write the line of a call."""
        self._metrics.note(call)
        self._log.write(call)
