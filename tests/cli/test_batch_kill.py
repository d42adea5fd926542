"""kill -9 at random moments of a batch: after each restart nothing is lost, and no line that is done is sent again."""

import json
import math
import os
import random
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from batch_provider import PROGRAM, answer_of, tokens_of
from cli.driver import PATIENCE_S, run, start, wait_until
from lm_deluge.dispatch.batch.survey import look_through
from lm_deluge.dispatch.journal.records import JournalEntry, JournalState, scan

IS_SOAK = bool(os.environ.get("DELUGE_SOAK"))
LINES, KILLS, AT_ONCE = (5_000, 50, 32) if IS_SOAK else (300, 4, 16)


class ProviderProcess:
    """A provider in its own process. After `kill`, `start` starts it again at the same port."""

    def __init__(self, delay_s: float, limit: float = math.inf) -> None:
        self.delay_s = delay_s
        self.limit = limit
        self.port = 0
        self.start()

    def start(self) -> None:
        command = [sys.executable, PROGRAM, str(self.port), str(self.delay_s), str(self.limit)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE)  # noqa: S603
        self.port = int(self.process.stdout.readline())

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def read(self, page: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{page}") as answer:
            return json.load(answer)

    def bill(self) -> Counter[str]:
        return Counter(self.read("bill"))

    def times(self) -> list[float]:
        times: list[float] = self.read("times")
        return times


@contextmanager
def provider(delay_s: float, limit: float = math.inf) -> Iterator[ProviderProcess]:
    process = ProviderProcess(delay_s, limit)
    try:
        yield process
    finally:
        process.kill()


def write_lines(home: Path, count: int) -> list[str]:
    ids = [f"line-{number}" for number in range(count)]
    (home / "in.jsonl").write_text("".join(json.dumps({"id": each, "prompt": f"{each} please"}) + "\n" for each in ids))
    return ids


def batch_command(url: str, *more: str) -> list[str]:
    return ["batch", "in.jsonl", "out.jsonl", "--base-url", url, "--api-key", "any-text", "--progress", "none", *more]


def state_of(journal: Path) -> JournalState:
    """Read the state of a journal without opening it as a journal."""
    state = JournalState()
    with journal.open("rb") as file:
        for offset, found in scan(file):
            if isinstance(found, JournalEntry):
                state.add(found, offset)
    return state


def check_output(home: Path, ids: list[str]) -> None:
    lines = [json.loads(line) for line in (home / "out.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == ids
    for line in lines:
        assert line["error"] is None
        assert line["response"]["content"]["parts"][0]["text"] == answer_of(line["id"])
        assert (line["usage"]["input_tokens"], line["usage"]["output_tokens"]) == tokens_of(line["id"])


@pytest.mark.timeout(1_200)
def test_a_batch_that_is_killed_repeatedly_is_complete_and_billed_once(home: Path) -> None:
    chance = random.Random(KILLS)
    ids = write_lines(home, LINES)
    journal = home / "out.jsonl.journal"
    id_of = {key: row_id for row_id, key in look_through(home / "in.jsonl", {}).keys.items()}
    kills, seen_done = 0, Counter[str]()
    with provider(0.08) as server:
        command = batch_command(server.url, "--limit-concurrency", str(AT_ONCE), "--report", "report.json")
        while True:
            size = journal.stat().st_size if journal.exists() else 0
            process = start(*command, home=home)
            if kills < KILLS:
                wait_until(
                    lambda size=size, process=process: (
                        (journal.exists() and journal.stat().st_size > size + 100) or process.poll() is not None
                    ),
                    "the first records",
                )
                time.sleep(chance.uniform(0, 0.5 if IS_SOAK else 0.15))
                process.kill()
            _, stderr = process.communicate(timeout=PATIENCE_S * 10)
            assert process.returncode in (0, -signal.SIGKILL), stderr
            bill = server.bill()
            assert not {each: count for each, count in seen_done.items() if bill[each] != count}, "sent again"
            if process.returncode == 0:
                break
            kills += 1
            state = state_of(journal)
            assert len(state.ambiguous) <= AT_ONCE * kills
            done = {id_of[each] for each in state.done}
            assert set(bill) <= done | {id_of[each] for each, _ in state.ambiguous}, "sent before the intent"
            seen_done.update({each: bill[each] for each in done if each not in seen_done})
        again = run(*command, home=home)
        assert (again.returncode, server.bill()) == (0, bill)
        assert again.stderr.startswith(b"Nothing to do: ")
    check_output(home, ids)
    report = json.loads((home / "report.json").read_text())
    ambiguous = Counter(report["ambiguous"]["ids"])
    twice = {each: count - 1 for each, count in bill.items() if count > 1}
    assert sorted(bill) == sorted(ids)
    assert all(count <= ambiguous[each] for each, count in twice.items())
    assert (report["lines"], report["answered"], report["failed"]) == (LINES, LINES, 0)
    for index, name in enumerate(("input_tokens", "output_tokens")):
        billed = sum(count * tokens_of(each)[index] for each, count in bill.items())
        extra = sum(count * tokens_of(each)[index] for each, count in twice.items())
        assert report["usage"][name] == billed - extra
        most = sum(count * tokens_of(each)[index] for each, count in ambiguous.items())
        assert report["ambiguous"]["usage"][name] == most >= extra
    assert kills >= KILLS * 3 / 4  # on a slow machine the batch may end before the last kills
    if IS_SOAK:
        print(f"kills {kills}, lines sent twice {sum(twice.values())}, ambiguous {sum(ambiguous.values())}")


@pytest.mark.timeout(300)
def test_a_batch_waits_for_a_provider_that_restarts(home: Path) -> None:
    """With default settings, and an outage that lasts longer than the attempts of one call."""
    ids = write_lines(home, 400)
    with provider(0.05) as server:
        process = start(*batch_command(server.url, "--limit-concurrency", "20"), home=home)
        wait_until(lambda: len(server.bill()) > 100, "a quarter of the batch")
        server.kill()
        time.sleep(60 if IS_SOAK else 3)
        server.start()
        _, stderr = process.communicate(timeout=200)
    assert process.returncode == 0, stderr
    check_output(home, ids)
    with (home / "out.jsonl.journal").open("rb") as file:
        attempts = Counter(found.id for _, found in scan(file) if found.kind == "intent")
    assert max(attempts.values()) <= 5
