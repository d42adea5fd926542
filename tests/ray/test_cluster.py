"""Runs the tests that need Ray in processes of their own, with the packages of `make ray`."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from installed import need

ROOT = Path(__file__).resolve().parents[2]
PYTHON = Path(sys.prefix) / "ray" / "bin" / "python"
MOST_S = 1_800.0 if os.environ.get("DELUGE_SOAK") else 300.0
COMMAND = (*("-m", "pytest", "-x", "-s", "-p", "no:cacheprovider"), "tests/ray/on_cluster.py")


@pytest.mark.timeout(MOST_S + 30)
def test_ray(tmp_path: Path) -> None:
    need("ray", found=(PYTHON.parents[1] / ".installed").exists(), how="run `make ray` (it downloads 300 MB)")
    output = tmp_path / "output"
    with output.open("wb") as file:
        # Its own process: Ray starts threads, changes signal handlers, and warns about files that it leaves open.
        process = subprocess.Popen(  # noqa: S603
            [PYTHON, *COMMAND, f"--basetemp={tmp_path}/own"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT / "src", ROOT / "tests")))},
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code: int | str = process.wait(MOST_S)
        except subprocess.TimeoutExpired:
            code = f"not ended after {MOST_S:.0f} s"
        finally:
            # The cluster has the session of the process, and ends with it, whatever became of the process.
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    printed = output.read_text("utf-8", "replace")
    print(printed)  # the starts of the cluster that failed, and figures
    assert code == 0, printed
