"""Hypothesis strategies of events that each wire API can encode and decode without loss; one module per API."""

from __future__ import annotations

import importlib
import pkgutil

from hypothesis import strategies as st

from lm_deluge.events import Event

Answers = st.SearchStrategy[list[Event]]


def find_mirrors() -> dict[str, Answers]:
    """Return for each API a strategy of responses whose decoded events equal the encoded events."""
    modules = [importlib.import_module(f"mirrors.{found.name}") for found in pkgutil.iter_modules(__path__)]
    return {module.API: module.ANSWERS for module in modules}
