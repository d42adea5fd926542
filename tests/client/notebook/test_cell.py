"""Updates of an output: at most ten a second, the last one complete, and none of their failures reaches the answer."""

from __future__ import annotations

import itertools
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from client.hooks.exceptions import EVERY_EXCEPTION
from client.notebook.stub import FakeLoop, Notebook
from lm_deluge.client.notebook.cell import CellText, PacedCell


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.text(max_size=3), st.floats(0, 1)), max_size=60))
def test_ten_updates_a_second_and_the_last_one_is_complete(
    monkeypatch: pytest.MonkeyPatch, writes: list[tuple[str, float]]
) -> None:
    notebook, loop = Notebook(monkeypatch), FakeLoop()
    shown_at: list[float] = []
    notebook.on_update = lambda: shown_at.append(loop.now)
    text = ""

    def content() -> dict[str, str]:
        return {"text/plain": text}

    cell = PacedCell(content, loop)
    for piece, seconds in writes:
        text += piece
        cell.refresh()
        loop.advance(seconds)
        if seconds > 0.1001:  # whatever was written is shown although nothing follows
            assert notebook.outputs[-1][-1] == {"text/plain": text}
    regular = len(shown_at)
    cell.close()
    gaps = [late - early for early, late in itertools.pairwise(shown_at[:regular])]
    assert all(gap > 0.0999 for gap in gaps)
    assert len(notebook.outputs) == 1
    assert notebook.outputs[0][-1] == {"text/plain": text}
    loop.advance(10)
    assert len(shown_at) == regular + 1  # no update after the last one


def test_slow_updates_become_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    notebook, loop = Notebook(monkeypatch), FakeLoop()
    notebook.on_update = lambda: loop.advance(0.2)
    cell = PacedCell(lambda: {"text/plain": ""}, loop)
    while loop.now < 20.0:
        cell.refresh()
        loop.advance(0.01)
    assert 9 <= notebook.calls <= 11


def test_printed_text_is_one_output(monkeypatch: pytest.MonkeyPatch) -> None:
    notebook, loop = Notebook(monkeypatch), FakeLoop()
    text = CellText(loop)
    for number in range(100):
        text.write(f"{number} ")
        text.flush()
        loop.advance(0.01)
    text.close()
    (updates,) = notebook.outputs
    assert 10 <= len(updates) <= 12
    assert updates[-1] == {"text/plain": " ".join(map(str, range(100))) + " "}


def test_no_text_is_no_output(monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = Notebook(monkeypatch)
    CellText(FakeLoop()).close()
    assert notebook.outputs == []


@pytest.mark.parametrize("name", EVERY_EXCEPTION)
def test_a_failing_display_raises_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook, loop = Notebook(monkeypatch), FakeLoop()
    notebook.error = EVERY_EXCEPTION[name]
    cell = PacedCell(lambda: {"text/plain": "all"}, loop)
    cell.refresh()
    cell.refresh()
    loop.advance(1)
    assert notebook.calls == 2
    notebook.error = None
    cell.close()
    assert notebook.outputs[-1] == [{"text/plain": "all"}]


def test_without_ipython_nothing_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    Notebook(monkeypatch)
    monkeypatch.delattr(sys.modules["IPython.display"], "display")
    cell = PacedCell(lambda: {"text/plain": "all"}, FakeLoop())
    cell.refresh()
    cell.close()


def test_ctrl_c_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = Notebook(monkeypatch)
    notebook.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        PacedCell(lambda: {"text/plain": ""}, FakeLoop()).refresh()
