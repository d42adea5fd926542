"""Programs that some tests need beside the Python packages, and what happens where they are missing.

The tests of a missing program are skipped, with a line that names it. `DELUGE_REQUIRE=node,postgres` lists what may not
be missing: its tests fail instead. `.ci/run` lists everything that it could install.
"""

import os

import pytest

__all__ = ["need"]


def need(name: str, *, found: bool, how: str) -> None:
    """Skip the test if something is missing; fail if DELUGE_REQUIRE, a list separated by commas, has its name."""
    if found:
        return
    reason = f"{name} is not installed: {how}"
    required = {each.strip() for each in os.environ.get("DELUGE_REQUIRE", "").split(",")}
    if name in required:
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
