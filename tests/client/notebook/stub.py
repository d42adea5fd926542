"""A stub of IPython in the kernel of a notebook, and a clock without waiting."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any

import pytest


class Notebook:
    """`outputs` has each output with its updates; `error` is raised by each of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.outputs: list[list[dict[str, str]]] = []
        self.calls = 0
        self.error: BaseException | None = None
        self.on_update: Callable[[], object] = lambda: None
        module: Any = types.ModuleType("IPython")
        module.get_ipython = lambda: types.SimpleNamespace(kernel=object())
        display: Any = types.ModuleType("IPython.display")
        display.display = self._display
        monkeypatch.setitem(sys.modules, "IPython", module)
        monkeypatch.setitem(sys.modules, "IPython.display", display)

    def _display(self, content: dict[str, str], *, raw: bool, display_id: bool) -> Any:
        assert raw
        assert display_id
        output: list[dict[str, str]] = []
        self.outputs.append(output)
        self._add(output, content)

        def update(content: dict[str, str], *, raw: bool) -> None:
            assert raw
            self._add(output, content)

        return types.SimpleNamespace(update=update)

    def _add(self, output: list[dict[str, str]], content: dict[str, str]) -> None:
        self.calls += 1
        if self.error is not None:
            raise self.error
        output.append(content)
        self.on_update()


class FakeLoop:
    """The clock and the timers of an event loop; `advance` lets time pass."""

    def __init__(self) -> None:
        self.now = 0.0
        self._timers: list[tuple[float, Callable[[], Any]]] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[[], Any], /) -> Any:
        timer = (self.now + delay, callback)
        self._timers.append(timer)
        return types.SimpleNamespace(cancel=lambda: self._timers.remove(timer))

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while due := sorted((timer for timer in self._timers if timer[0] <= end), key=lambda timer: timer[0]):
            self._timers.remove(due[0])
            self.now = max(self.now, due[0][0])
            due[0][1]()
        self.now = max(self.now, end)
