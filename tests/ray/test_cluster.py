"""Runs the tests that need Ray in a process of their own, with the packages of `make ray`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from installed import need

ROOT = Path(__file__).resolve().parents[2]
PYTHON = Path(sys.prefix) / "ray" / "bin" / "python"
MOST_S = 300.0


@pytest.mark.timeout(MOST_S + 30)
def test_ray(tmp_path: Path) -> None:
    need("ray", found=(PYTHON.parents[1] / ".installed").exists(), how="run `make ray` (it downloads 300 MB)")
    # Its own process: Ray starts threads, changes signal handlers, and warns about files that it leaves open.
    done = subprocess.run(  # noqa: S603
        [
            PYTHON,
            "-m",
            "pytest",
            "-x",
            "-s",
            "-p",
            "no:cacheprovider",
            f"--basetemp={tmp_path}/own",
            "tests/ray/on_cluster.py",
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT / "src", ROOT / "tests")))},
        capture_output=True,
        text=True,
        timeout=MOST_S,
        check=False,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
