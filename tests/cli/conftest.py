from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from lm_deluge.simulator import Simulator


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An empty folder, to work in and to be at home in."""
    return tmp_path


@pytest.fixture
def serve() -> Iterator[Callable[..., Simulator]]:
    """Start simulators; their clients find them with `reach`."""
    with ExitStack() as stack:
        yield lambda *args, **options: stack.enter_context(Simulator(*args, **options).start_in_thread())
