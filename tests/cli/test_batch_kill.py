"""kill -9 at random moments of a batch, the same command again each time: nothing is lost, nothing asked again."""

import json
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

import pytest

from batch_provider import PROGRAM, answer_of, tokens_of
from cli.driver import PATIENCE_S, run, start, wait_until
from lm_deluge.dispatch.journal.records import JournalEntry, JournalState, scan

IS_SOAK = bool(os.environ.get("DELUGE_SOAK"))
LINES, KILLS, AT_ONCE = (5_000, 50, 32) if IS_SOAK else (300, 4, 16)


class ProviderProcess:
    """The provider in its own process; `kill` it and `start` it again at the same port."""

    def __init__(self, delay_s: float) -> None:
        self.delay_s = delay_s
        self.port = 0
        self.start()

    def start(self) -> None:
        command = [sys.executable, PROGRAM, str(self.port), str(self.delay_s)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE)  # noqa: S603
        self.port = int(self.process.stdout.readline())

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def bill(self) -> Counter[str]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/bill") as answer:
            return Counter(json.load(answer))


@contextmanager
def provider(delay_s: float) -> Iterator[ProviderProcess]:
    one = ProviderProcess(delay_s)
    try:
        yield one
    finally:
        one.kill()


def write_lines(home: Path, count: int) -> list[str]:
    ids = [f"line-{number}" for number in range(count)]
    (home / "in.jsonl").write_text("".join(json.dumps({"id": each, "prompt": f"{each} please"}) + "\n" for each in ids))
    return ids


def batch_command(url: str, *more: str) -> list[str]:
    return ["batch", "in.jsonl", "out.jsonl", "--base-url", url, "--api-key", "any-text", "--progress", "none", *more]


def state_of(journal: Path) -> JournalState:
    """What the journal says to somebody who reads it without opening it."""
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
def test_a_batch_that_is_killed_again_and_again_ends_whole_and_paid_once(home: Path) -> None:
    chance = random.Random(KILLS)
    ids = write_lines(home, LINES)
    journal = home / "out.jsonl.journal"
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
            _, said = process.communicate(timeout=PATIENCE_S * 10)
            assert process.returncode in (0, -signal.SIGKILL), said
            bill = server.bill()
            assert not {each: count for each, count in seen_done.items() if bill[each] != count}, "asked again"
            if process.returncode == 0:
                break
            kills += 1
            state = state_of(journal)
            assert len(state.ambiguous) <= AT_ONCE * kills
            assert set(bill) <= set(state.done) | {each for each, _ in state.ambiguous}, "asked before the intent"
            seen_done.update({each: bill[each] for each in state.done if each not in seen_done})
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
    for place, name in enumerate(("input_tokens", "output_tokens")):
        billed = sum(count * tokens_of(each)[place] for each, count in bill.items())
        beside = sum(count * tokens_of(each)[place] for each, count in twice.items())
        assert report["usage"][name] == billed - beside
        most = sum(count * tokens_of(each)[place] for each, count in ambiguous.items())
        assert report["ambiguous"]["usage"][name] == most >= beside
    assert kills >= KILLS * 3 / 4  # on a slow machine the batch may be through before the last ones
    if IS_SOAK:
        print(f"kills {kills}, lines asked twice {sum(twice.values())}, ambiguous {sum(ambiguous.values())}")


@pytest.mark.timeout(300)
def test_a_provider_that_dies_and_comes_back_is_waited_for(home: Path) -> None:
    """With default settings; an outage that is longer than the attempts of one call would last."""
    ids = write_lines(home, 400)
    with provider(0.05) as server:
        process = start(*batch_command(server.url, "--limit-concurrency", "20"), home=home)
        wait_until(lambda: len(server.bill()) > 100, "a quarter of the batch")
        server.kill()
        time.sleep(60 if IS_SOAK else 3)
        server.start()
        _, said = process.communicate(timeout=200)
    assert process.returncode == 0, said
    check_output(home, ids)
    with (home / "out.jsonl.journal").open("rb") as file:
        attempts = Counter(found.id for _, found in scan(file) if found.kind == "intent")
    assert max(attempts.values()) <= 5
