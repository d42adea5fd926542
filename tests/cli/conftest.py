from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from lm_deluge.simulator import Simulator


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An empty folder: the working folder and home folder of the command."""
    return tmp_path


@pytest.fixture
def serve() -> Iterator[Callable[..., Simulator]]:
    """Start simulators. The function `reach` of a test file returns the environment that leads to them."""
    with ExitStack() as stack:
        yield lambda *args, **options: stack.enter_context(Simulator(*args, **options).start_in_thread())
