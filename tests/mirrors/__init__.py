"""What each wire API carries without loss: one file an API, named like it, with the strategy of such answers."""

from __future__ import annotations

import importlib
import pkgutil

from hypothesis import strategies as st

from lm_deluge.events import Event

Answers = st.SearchStrategy[list[Event]]


def find_mirrors() -> dict[str, Answers]:
    """Return, for each API, answers that are read again event by event as they were written."""
    modules = [importlib.import_module(f"mirrors.{found.name}") for found in pkgutil.iter_modules(__path__)]
    return {module.API: module.ANSWERS for module in modules}
