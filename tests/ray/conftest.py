"""The Ray cluster of the tests in this folder: it is started once, and once more if the first start fails."""

import logging
import os
import socket
from collections.abc import Iterator

import pytest

os.environ["RAY_AUTH_MODE"] = "disabled"  # the cluster listens on this machine only, for the time of the tests
os.environ["RAY_DATA_DISABLE_PROGRESS_BARS"] = "1"

STARTS = 2


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
        return port


METRICS_PORT = free_port()
"""Where Prometheus would read the metrics of the cluster."""


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    import ray.data  # it sets the level of its logger

    failed = 0
    for number in range(STARTS):
        try:
            ray.init(
                num_cpus=2,
                include_dashboard=False,
                object_store_memory=200 << 20,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _metrics_export_port=METRICS_PORT,
                _system_config={"metrics_report_interval_ms": 1_000},
            )
            break
        except Exception:
            ray.shutdown()
            failed += 1
            if number == STARTS - 1:
                raise
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # tests read its errors as exceptions
    print(f"\nstarts of the Ray cluster that failed: {failed}")
    yield
    ray.shutdown()
