"""The journals of a dataset, and the rows of an actor, without Ray and without Arrow."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from lm_deluge.dispatch.journal.journal import Journal
from lm_deluge.errors import JournalError
from lm_deluge.ray import journals
from lm_deluge.ray.ask_model import AskedRow, AskModel
from lm_deluge.ray.journals import DatasetJournals
from lm_deluge.response import APIResponse
from lm_deluge.simulator import Simulator


class Table:
    """What `AskModel.ask` uses of an Arrow table."""

    def __init__(self, *records: dict[str, Any]) -> None:
        self.column_names = list(records[0])
        self._records = records

    def __len__(self) -> int:
        return len(self._records)

    def select(self, names: list[str]) -> "Table":
        return Table(*({name: record[name] for name in names} for record in self._records))

    def to_pylist(self) -> list[dict[str, Any]]:
        return list(self._records)


def table(*numbers: int) -> Table:
    return Table(*({"id": number, "text": f"line {number}"} for number in numbers))


def model_at(sim: Simulator, folder: Path, **options: Any) -> AskModel:
    return AskModel("gpt-5.4", prompt="text", id="id", journal=folder, base_url=sim.base_url, api_key="any", **options)


def asked(sim: Simulator) -> Counter[str]:
    return Counter(request.json["messages"][-1]["content"] for request in sim.requests)


def completions(rows: list[AskedRow]) -> list[str]:
    return [row.response.completion for row in rows]


def journals_in(folder: Path) -> list[Path]:
    return list(folder.glob("*.journal"))


def echo(request: Any) -> str:
    return request.conversation[-1].completion.upper()


async def test_a_task_that_runs_again_pays_for_nothing_twice(tmp_path: Path) -> None:
    async with Simulator(echo) as sim:
        first = await model_at(sim, tmp_path).ask(table(1, 2, 3))
        again = await model_at(sim, tmp_path).ask(table(1, 2, 3))
        assert completions(first) == completions(again) == ["LINE 1", "LINE 2", "LINE 3"]
        assert asked(sim) == Counter(["line 1", "line 2", "line 3"])
        assert {row.asked_before for row in (*first, *again)} == {0}


async def test_other_batches_find_the_answers_too(tmp_path: Path) -> None:
    async with Simulator(echo) as sim:
        await model_at(sim, tmp_path).ask(table(1, 2, 3))
        other = model_at(sim, tmp_path)
        assert completions(await other.ask(table(3, 4))) == ["LINE 3", "LINE 4"]
        assert completions(await other.ask(table(2, 1))) == ["LINE 2", "LINE 1"]
        assert set(asked(sim).values()) == {1}
        changed = Table({"id": 1, "text": "line one"})
        assert completions(await other.ask(changed)) == ["LINE ONE"]


async def test_answers_of_other_options_are_not_used(tmp_path: Path) -> None:
    async with Simulator(echo) as sim:
        await model_at(sim, tmp_path).ask(table(1))
        await model_at(sim, tmp_path, temperature=0.5).ask(table(1))
        assert asked(sim) == Counter({"line 1": 2})


@pytest.mark.parametrize("numbers", [(1, 2), (2, 1)], ids=["the same batch", "another batch"])
async def test_requests_that_were_in_flight_are_sent_again_and_listed(tmp_path: Path, numbers: tuple[int, ...]) -> None:
    async with Simulator(echo) as sim:
        model = model_at(sim, tmp_path)
        calls = [row.call for row in model._prompts.rows(table(1, 2).to_pylist())]
        journal, _ = await model._journals.open(calls)
        await journal.before_attempt(calls[0], 1)
        await journal.close()  # as if the actor had died now
        rows = await model_at(sim, tmp_path).ask(table(*numbers))
        assert {row.response.completion: row.asked_before for row in rows} == {"LINE 1": 1, "LINE 2": 0}
        rows = await model_at(sim, tmp_path).ask(table(*numbers))
        assert {row.response.completion: row.asked_before for row in rows} == {"LINE 1": 1, "LINE 2": 0}
        assert set(asked(sim).values()) == {1}


async def test_a_row_that_failed_for_good_is_sent_again_on_request(tmp_path: Path) -> None:
    async with Simulator(echo, faults=["status_400"]) as sim:
        first = await model_at(sim, tmp_path).ask(table(1))
        assert first[0].response.error is not None
        assert (await model_at(sim, tmp_path).ask(table(1)))[0].response.error is not None
        assert sim.stats.requests == 1
        again = await model_at(sim, tmp_path, retry_failed=True).ask(table(1))
        assert completions(again) == ["LINE 1"]


async def test_a_journal_in_use_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray may start a task again before the process of the actor that it took for dead has ended."""
    monkeypatch.setattr(journals, "_LOCK_PAUSE_S", 0.01)
    own = DatasetJournals(tmp_path, "f" * 64)
    held = await Journal.open(own.path_of(["1"]), fingerprint="f" * 64)
    waiting = asyncio.create_task(own.open(["1"]))
    await asyncio.sleep(0.02)
    assert not waiting.done()
    await held.settle("1", 1, APIResponse())
    await held.close()
    journal, _ = await waiting
    assert journal.state.status("1") == "done"
    monkeypatch.setattr(journals, "_LOCK_TRIES", 1)
    with pytest.raises(JournalError, match="works on the journal"):
        await own.open(["1"])
    await journal.close()


async def test_a_damaged_answer_of_another_batch_is_asked_again(tmp_path: Path) -> None:
    async with Simulator(echo) as sim:
        await model_at(sim, tmp_path).ask(table(1, 2))
        (path,) = journals_in(tmp_path)
        path.write_bytes(path.read_bytes().replace(b"LINE 1", b"LIME 1"))
        assert completions(await model_at(sim, tmp_path).ask(table(1, 2, 3))) == ["LINE 1", "LINE 2", "LINE 3"]
        assert asked(sim) == Counter({"line 1": 2, "line 2": 1, "line 3": 1})


async def test_a_journal_is_removed_when_its_answers_are_elsewhere(tmp_path: Path) -> None:
    async with Simulator(echo) as sim:
        model = model_at(sim, tmp_path)
        await model.ask(table(1))
        assert len(journals_in(tmp_path)) == 1
        model.remove_journal(table(1))
        assert not journals_in(tmp_path)
