"""The assistant of the documentation: at most 45 lines, parallel tools, Ctrl-C, and a conversation that lasts."""

import ast
import asyncio
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest

from agents.loops import assert_valid, roles
from lm_deluge import Conversation
from lm_deluge.simulator import Script, Simulator
from pages import ROOT, blocks

MOST_LINES = 45  # the same program took 116 with lm-deluge 0.0, and 39 with pydantic-ai without its features


def source() -> str:
    page = ROOT / "docs" / "agents.md"
    return next(block.text for block in blocks(page, "python") if "async def main(" in block.text)


@pytest.fixture
def _keeps_signals() -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


def program(**edits: str) -> dict[str, Any]:
    """Return the names of the program, with another model and without its last line."""
    text = source().rpartition("\n\n\n")[0].replace('"simulator"', '"gpt-5.4"')
    for before, after in edits.items():
        assert before in text
        text = text.replace(before, after)
    names: dict[str, Any] = {}
    FunctionType(compile(text, "assistant", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)()
    return names


def test_the_assistant_is_short() -> None:
    assert len(source().splitlines()) <= MOST_LINES


@pytest.mark.usefixtures("_keeps_signals")
def test_the_assistant_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("buy milk")
    parallel = [("read", {"path": "notes.txt"}), ("calculate", {"left": 2, "operator": "*", "right": 21})]
    scripts = [
        Script(text="", tool_calls=[*parallel, ("search", {"query": "milk"})]),
        "Buy 42.",
        Script(text="Searching.", tool_calls=[parallel[1], ("search", {"query": "rivers"})]),
        "Where were we?",
        "Still here.",
    ]
    with Simulator(scripts).start_in_thread() as sim:
        monkeypatch.setenv("OPENAI_BASE_URL", sim.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "k")
        names = program()
        asyncio.run(names["main"](["What do I need?"]))
        printed = capsys.readouterr().out
        assert "[read: buy milk]" in printed
        assert "[calculate: 42.0]" in printed
        assert "[search: no results for milk]" in printed
        assert printed.endswith("Buy 42.")

        async def interrupt() -> None:
            """Press Ctrl-C while the search runs, once the other tool has its result."""
            shown = ""
            while "[calculate" not in shown:
                await asyncio.sleep(0.001)
                shown += capsys.readouterr().out
            signal.raise_signal(signal.SIGINT)
            await asyncio.Event().wait()

        slow = program(**{"asyncio.sleep(0.01)": "interrupt()"})
        slow["interrupt"] = interrupt
        asyncio.run(slow["main"](["Find rivers.", "Hello?"]))
        conversation = Conversation.load("conversation.json")
        asyncio.run(names["main"](["Are you there?"]))  # loaded again
        assert len(sim.requests) == 5
        sent = json.dumps(sim.requests[-1].json)
    assert_valid(conversation)
    assert roles(conversation)[-5:] == ["user", "assistant", "tool", "user", "assistant"]
    results = conversation[-3].parts
    assert [part.is_error for part in results] == [False, True]
    assert "Buy 42." in sent
    assert "Where were we?" in sent
    assert capsys.readouterr().out.endswith("Still here.")
