"""`deluge batch --workers`: several processes, one journal and one set of limits, and kill -9 of any of them."""

import json
import os
import random
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from cli.driver import PATIENCE_S, run, start, wait_until
from cli.test_batch_kill import batch_command, check_output, provider, state_of, write_lines
from lm_deluge.dispatch.batch.survey import look_through

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="the workers are found through /proc")


def workers_of(process: subprocess.Popen[bytes]) -> list[int]:
    """Return the ids of the worker processes of a command."""
    try:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        return [int(child) for child in children if b"workers.worker" in Path(f"/proc/{child}/cmdline").read_bytes()]
    except OSError:  # it has ended
        return []


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def grown(journal: Path, size: int) -> bool:
    return journal.exists() and journal.stat().st_size > size + 2_000


def test_the_output_is_that_of_one_process(home: Path) -> None:
    ids = write_lines(home, 60)
    with provider(0.0) as server:
        done = run(*batch_command(server.url, "--workers", "2", "--report", "report.json"), home=home)
        assert done.returncode == 0, done.stderr
        assert server.bill() == Counter(ids)
        check_output(home, ids)
        several = (home / "out.jsonl").read_bytes(), json.loads((home / "report.json").read_text())
        run(*batch_command(server.url, "--overwrite", "--report", "report.json"), home=home)
    one = [json.loads(line) for line in (home / "out.jsonl").read_text().splitlines()]
    for line, own in zip(one, map(json.loads, several[0].splitlines()), strict=True):
        assert own["response"].pop("stats") is not None  # times
        del line["response"]["stats"]
        assert own == line
    report = json.loads((home / "report.json").read_text())
    for own in (several[1], report):  # a sum of floats depends on the order in which the answers came
        own["cost"] = round(own["cost"], 9)
        own["answers"]["cost"] = round(own["answers"]["cost"], 9)
    assert several[1] == report


def test_workers_that_are_killed_lose_nothing_and_are_replaced(home: Path) -> None:
    ids = write_lines(home, 400)
    journal = home / "out.jsonl.journal"
    kills = 0
    with provider(0.05) as server:
        command = batch_command(server.url, "--workers", "2", "--limit-concurrency", "16", "--report", "report.json")
        process = start(*command, home=home)
        for _ in range(3):
            size = journal.stat().st_size if journal.exists() else 0
            wait_until(lambda size=size: grown(journal, size) or process.poll() is not None, "records")
            found = workers_of(process)
            if process.poll() is None and found:
                os.kill(random.Random(kills).choice(found), signal.SIGKILL)
                kills += 1
        _, stderr = process.communicate(timeout=PATIENCE_S * 2)
        assert process.returncode == 0, stderr
        bill = server.bill()
    check_output(home, ids)
    ambiguous = Counter(json.loads((home / "report.json").read_text())["ambiguous"]["ids"])
    twice = {each: count - 1 for each, count in bill.items() if count > 1}
    assert sorted(bill) == sorted(ids)
    assert all(count <= ambiguous[each] for each, count in twice.items()), "sent again without being listed"
    assert sum(ambiguous.values()) <= 16 * kills
    assert kills == 3
    assert stderr.count(b"ended by signal 9") == kills


def test_workers_end_with_the_command_and_a_rerun_continues(home: Path) -> None:
    ids = write_lines(home, 200)
    journal = home / "out.jsonl.journal"
    id_of = {key: row_id for row_id, key in look_through(home / "in.jsonl", {}).keys.items()}
    with provider(0.05) as server:
        command = batch_command(server.url, "--workers", "2", "--limit-concurrency", "16", "--report", "report.json")
        process = start(*command, home=home)
        wait_until(lambda: grown(journal, 2_000), "records")
        found = workers_of(process)
        process.kill()
        process.communicate()
        assert len(found) == 2
        wait_until(lambda: not any(map(is_running, found)), "the end of the workers")
        done = {id_of[each] for each in state_of(journal).done}
        before = server.bill()
        again = run(*command, home=home)
        assert again.returncode == 0, again.stderr
        bill = server.bill()
    check_output(home, ids)
    assert done
    assert all(bill[each] == before[each] for each in done), "a line that is done was sent again"
    ambiguous = Counter(json.loads((home / "report.json").read_text())["ambiguous"]["ids"])
    assert all(count - 1 <= ambiguous[each] for each, count in bill.items())


def test_the_limit_of_requests_holds_over_all_workers(home: Path) -> None:
    """600 a minute are one each 0.1 s, whichever worker sends it; the client itself may send a burst of one second."""
    write_lines(home, 40)
    with provider(0.0) as server:
        done = run(*batch_command(server.url, "--workers", "3", "--limit-requests", "600"), home=home)
        assert done.returncode == 0, done.stderr
        times = server.times()
    assert len(times) == 40
    for first, eleventh in zip(times, times[10:], strict=False):
        assert eleventh - first > 0.8


def test_ctrl_c_stops_all_workers_in_order(home: Path) -> None:
    write_lines(home, 200)
    journal = home / "out.jsonl.journal"
    with provider(0.1) as server:
        command = batch_command(server.url, "--workers", "2", "--limit-concurrency", "8")
        process = start(*command, home=home)
        wait_until(lambda: grown(journal, 2_000), "records")
        found = workers_of(process)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 130, stderr
        assert b"Stopping: " in stderr
        assert b"To continue, start the same command again." in stderr
        wait_until(lambda: not any(map(is_running, found)), "the end of the workers")
        assert state_of(journal).ambiguous == (), "requests in flight may end"
        assert run(*command, home=home).returncode == 0
        assert set(server.bill().values()) == {1}


def test_a_second_ctrl_c_aborts_the_workers(home: Path) -> None:
    write_lines(home, 20)
    journal = home / "out.jsonl.journal"
    with provider(20.0) as server:
        process = start(*batch_command(server.url, "--workers", "2"), home=home)
        wait_until(lambda: sum(server.bill().values()) == 20, "all requests")
        started = time.monotonic()
        process.send_signal(signal.SIGINT)
        wait_until(lambda: time.monotonic() > started + 0.3, "the first signal")
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130, stderr
    assert len(state_of(journal).ambiguous) == 20


def test_the_budget_is_shared_by_all_workers(home: Path) -> None:
    """Each answer costs about $0.0001: a budget per worker would let twice as many through."""
    write_lines(home, 200)
    with provider(0.02) as server:
        options = ("-m", "gpt-4o", "--limit-concurrency", "2", "--max-cost", "0.002", "--report", "report.json")
        done = run(*batch_command(server.url, "--workers", "2", *options), home=home)
    assert done.returncode == 1, done.stderr
    report = json.loads((home / "report.json").read_text())
    assert report["failed_by_error"]["BudgetError"] > 100
    assert 0.0015 < report["cost"] < 0.0025


def test_workers_that_end_again_and_again_end_the_batch(home: Path) -> None:
    write_lines(home, 20)
    (home / "sitecustomize.py").write_text(
        "import os, sys\nif any('workers.worker' in each for each in sys.orig_argv):\n    os._exit(3)\n"
    )
    with provider(0.0) as server:
        source = os.pathsep.join([str(home), str(Path(__file__).resolve().parents[2] / "src")])
        done = run(*batch_command(server.url, "--workers", "2"), home=home, PYTHONPATH=source)
        assert server.bill() == Counter()
    assert done.returncode == 1
    assert b"4 worker processes ended without an answer between them (status 3)" in done.stderr
    assert b"Traceback" not in done.stderr


def test_workers_cannot_be_used_with_the_batch_api(home: Path) -> None:
    write_lines(home, 1)
    done = run(*batch_command("http://127.0.0.1:9/v1", "--workers", "2", "--provider-batch"), home=home)
    assert done.returncode == 2
    assert b"--workers cannot be used together with --provider-batch" in done.stderr
