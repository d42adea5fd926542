"""kill -9 at random moments of a batch, resumed each time: no reported answer is lost or requested again."""

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from lm_deluge.dispatch.journal.journal import Journal
from lm_deluge.dispatch.journal.records import fingerprint_of

KILLS = 200 if os.environ.get("DELUGE_SOAK") else 20
CALLS, TASKS = 400, 16
BATCH = fingerprint_of({"model": "m"}, (b"%d" % number for number in range(CALLS)))

BATCH_RUN = """
import asyncio, os, sys
from lm_deluge.dispatch.journal.journal import Journal
from lm_deluge.prompt.message import Message
from lm_deluge.response import APIResponse

def report(words):
    os.write(1, words.encode())

async def main(path, fingerprint, calls, tasks):
    async with await Journal.open(path, fingerprint=fingerprint) as journal:
        waiting = iter([str(each) for each in range(calls) if journal.state.status(str(each)) != "done"])
        async def work():
            for call in waiting:
                attempt = journal.state.attempts(call) + 1
                await journal.before_attempt(call, attempt)
                report(f"sent {call}\\n")
                await asyncio.sleep(0)
                text = f"answer {call} " + "x" * (int(call) % 700)
                await journal.finish(call, attempt, APIResponse(content=Message.assistant(text)))
                report(f"done {call}\\n")
        await asyncio.gather(*(work() for _ in range(tasks)))
    report("end\\n")

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
"""


def run_and_kill(path: Path, after: int | None) -> tuple[list[list[str]], bool]:
    """Run the batch; kill it after `after` lines of output, if given. Return the lines, and whether it was killed."""
    command = [sys.executable, "-c", BATCH_RUN, str(path), BATCH, str(CALLS), str(TASKS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        lines: list[str] = []
        for line in process.stdout:
            lines.append(line)
            if len(lines) == after:
                process.kill()
        code = process.wait()
    assert code in (0, -signal.SIGKILL)
    # Lines written between the decision to kill and the kill count too: a pipe takes short lines whole.
    return [line.split() for line in lines if line.endswith("\n")], code != 0


async def states_of(path: Path, reported: set[str]) -> tuple[set[str], set[tuple[str, int]]]:
    """Return the done calls and the ambiguous attempts, and check that every reported answer is in the journal."""
    async with await Journal.open(path, fingerprint=BATCH) as journal:
        for call in reported:
            assert journal.response(call).completion == f"answer {call} " + "x" * (int(call) % 700)
        return set(journal.state.done), set(journal.state.ambiguous)


def kill_one_batch(path: Path, chance: random.Random, kills: int) -> int:
    """Run a batch to its end, killing it at most `kills` times; return how often it was killed."""
    reported: set[str] = set()
    sent: Counter[str] = Counter()
    killed = 0
    while True:
        lines, is_killed = run_and_kill(path, chance.randrange(1, 60) if killed < kills else None)
        killed += is_killed
        new = {words[1] for words in lines if words[0] == "done"}
        assert not new & reported, "a call that was done was sent again"
        reported |= new
        sent.update(words[1] for words in lines if words[0] == "sent")
        done, ambiguous = asyncio.run(states_of(path, reported))
        calls = {call for call, _ in ambiguous}
        assert set(sent) <= done | calls, "a request was sent before its intent was on the disk"
        assert {call for call, times in sent.items() if times > 1} <= calls
        assert len(ambiguous) <= TASKS * killed
        if not is_killed:
            assert done == {str(number) for number in range(CALLS)}
            return killed


@pytest.mark.timeout(1_800)
def test_a_batch_that_is_killed_again_and_again_ends_whole(tmp_path: Path) -> None:
    chance = random.Random(KILLS)
    kills = 0
    for number in range(KILLS):
        kills += kill_one_batch(tmp_path / f"{number}", chance, KILLS - kills)
        if kills >= KILLS:
            break
    assert kills >= KILLS / 4  # on a slow machine a batch may end before the kill arrives
