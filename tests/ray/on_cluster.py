"""The tests that need Ray: `make ray` runs them on a local cluster, against a provider in a process of its own."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import ray
from batch_provider import answer_of, tokens_of
from cli.driver import clean_environment
from cli.test_batch_kill import ProviderProcess, provider
from lm_deluge.errors import ConfigurationError
from lm_deluge.ray import AskModel, ask, unanswered

pytestmark = pytest.mark.filterwarnings("default")  # Ray and pyarrow have deprecations of their own

OPTIONS: dict[str, Any] = {"api_key": "any-text", "max_concurrent_requests": 64}
COMMAND = ("--engine", "ray", "--api-key", "any-text", "--model", "gpt-4o", "--progress", "none", "--report")
COMMAND_S = 120.0  # a start of a cluster takes 4 seconds, and 40 on a busy machine


def dataset_of(count: int, blocks: int = 4, text: str = "please") -> Any:
    rows = [{"id": f"r{number}", "text": f"r{number} {text}", "kept": number} for number in range(count)]
    return ray.data.from_items(rows, override_num_blocks=blocks)


def rows_of(dataset: Any) -> list[dict[str, Any]]:
    return sorted(dataset.take_all(), key=lambda row: row["kept"])


@pytest.fixture(scope="module")
def server() -> Iterator[ProviderProcess]:
    with provider(0.02) as process:
        yield process


def test_each_row_has_its_answer_as_columns(cluster, server) -> None:
    rows = rows_of(ask(dataset_of(40), "gpt-4o", prompt="text", base_url=server.url, **OPTIONS))
    assert [row["id"] for row in rows] == [f"r{number}" for number in range(40)]
    for row in rows:
        assert (row["completion"], row["error"], row["finish_reason"]) == (answer_of(row["id"]), None, "stop")
        assert (row["input_tokens"], row["output_tokens"]) == tokens_of(row["id"])
        assert row["cost"] > 0
        assert row["asked_before"] == 0


def test_errors_are_columns_and_templates_fill_in_columns(cluster, server) -> None:
    dataset = ray.data.from_items(
        [
            {"name": "a", "kind": "please", "kept": 0},
            {"name": "b", "kind": "fail", "kept": 1},
            {"name": "c", "kind": None, "kept": 2},
        ]
    )
    rows = rows_of(ask(dataset, "gpt-4o", template="{name} {kind}", base_url=server.url, **OPTIONS))
    assert [row["error_type"] for row in rows] == [None, "BadRequestError", "InvalidPromptError"]
    assert [row["completion"] for row in rows] == [answer_of("a"), None, None]
    assert "no such thing" in rows[1]["error"]
    assert rows[2]["error"] == "the column 'kind' of the row is empty."


def test_messages_are_prompts_and_names_of_columns_are_kept_apart(cluster, server) -> None:
    messages = [[{"role": "user", "content": f"m{number} please"}] for number in range(4)]
    dataset = ray.data.from_items([{"messages": each, "cost": "own", "kept": at} for at, each in enumerate(messages)])
    rows = rows_of(ask(dataset, "gpt-4o", system="Be brief.", base_url=server.url, **OPTIONS))
    assert [row["completion"] for row in rows] == [answer_of(f"m{number}") for number in range(4)]
    assert {row["input_cost"] for row in rows} == {"own"}


def test_typed_answers_are_columns_of_their_types(cluster, server) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "size": {"type": "integer"}},
        "required": ["name", "size"],
        "additionalProperties": False,
    }
    answered = ask(dataset_of(10, text="json"), "gpt-4o", prompt="text", output=schema, base_url=server.url, **OPTIONS)
    rows = rows_of(answered)
    assert [(row["output_name"], row["output_size"]) for row in rows] == [(f"r{each}", 2) for each in range(10)]
    failing = rows_of(
        ask(dataset_of(2, text="please"), "gpt-4o", prompt="text", output=schema, base_url=server.url, **OPTIONS)
    )
    assert {row["error_type"] for row in failing} <= {"OutputError", "InvalidJSONError"}
    assert {row["output_name"] for row in failing} == {None}


def test_the_limit_holds_over_all_actors(cluster) -> None:
    """600 a minute are ten a second; each of two actors alone would send ten."""
    with provider(0.0) as own:
        answered = ask(
            dataset_of(40, blocks=8),
            "gpt-4o",
            prompt="text",
            base_url=own.url,
            batch_size=5,
            max_requests_per_minute=600,
            **OPTIONS,
        )
        assert len(answered.take_all()) == 40
        times = own.times()
    for first, later in zip(times, times[20:], strict=False):
        assert later - first > 1.7, "more than 20 requests in 1.7 s"


def actors(name: str = "MapWorker") -> list[int]:
    found = subprocess.run(["/bin/ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
    return [int(line.split()[0]) for line in found.splitlines() if f"ray::{name}" in line]


def test_an_actor_that_is_killed_twice_loses_nothing(cluster, tmp_path: Path) -> None:
    count = 300
    kills = 0
    with provider(0.1) as own:
        answered = ask(
            dataset_of(count, blocks=8),
            "gpt-4o",
            prompt="text",
            id="id",
            journal=tmp_path / "journal",
            batch_size=25,
            base_url=own.url,
            **OPTIONS,
        )
        rows = []
        seen = set(actors())
        for batch in answered.iter_batches(batch_size=25, prefetch_batches=0):
            rows += batch["id"].tolist(), batch["asked_before"].tolist()
            running = set(actors()) - seen
            if kills < 2 and running:
                os.kill(running.pop(), signal.SIGKILL)
                kills += 1
        bill = own.bill()
    ids = [each for group in rows[::2] for each in group]
    again = Counter(dict(zip(ids, (each for group in rows[1::2] for each in group), strict=True)))
    assert kills == 2
    assert sorted(ids) == sorted(f"r{number}" for number in range(count)), "each row once"
    twice = {each: asked - 1 for each, asked in bill.items() if asked > 1}
    assert all(more <= again[each] for each, more in twice.items()), "sent again without being listed"
    assert sum(again.values()) <= 64 * kills, "more than were in flight"


def test_the_actor_with_the_limits_is_killed_and_the_rows_are_answered(cluster) -> None:
    before = set(actors("LimitsActor"))
    with provider(0.05) as own:
        options = {**OPTIONS, "max_concurrent_requests": 16}
        answered = ask(dataset_of(100), "gpt-4o", prompt="text", base_url=own.url, batch_size=25, **options)
        ids = []
        for batch in answered.iter_batches(batch_size=25, prefetch_batches=0):
            ids += batch["id"].tolist()
            running = set(actors("LimitsActor")) - before
            if len(ids) == 25:
                assert running
                os.kill(running.pop(), signal.SIGKILL)
        assert sorted(ids) == sorted(f"r{number}" for number in range(100))
        assert set(own.bill().values()) == {1}


def test_another_run_takes_the_answers_of_files_and_journals(cluster, tmp_path: Path) -> None:
    options = {"prompt": "text", "id": "id", "journal": tmp_path / "journal", **OPTIONS}
    with provider(0.0) as own:
        first = ask(dataset_of(60), "gpt-4o", base_url=own.url, batch_size=20, **options)
        first.write_parquet(str(tmp_path / "out"))
        files = sorted((tmp_path / "out").glob("*.parquet"))
        lost = pq.read_table(files[0]).num_rows
        files[0].write_bytes(files[0].read_bytes()[:-20])  # as after the death of the process that wrote it
        rest = unanswered(dataset_of(60), tmp_path / "out", "id")
        again = ask(rest, "gpt-4o", base_url=own.url, batch_size=7, **options).take_all()  # other batches than before
        assert len(again) == lost
        assert all(row["completion"] == answer_of(row["id"]) for row in again)
        assert set(own.bill().values()) == {1}
    assert [path.name for path in (tmp_path / "out").glob("*.damaged")] == [files[0].name + ".damaged"]


def test_wrong_options_are_refused_before_anything_runs(cluster) -> None:
    with pytest.raises(ConfigurationError, match="a journal needs the column that identifies the rows"):
        AskModel("gpt-4o", journal="j")
    with pytest.raises(ConfigurationError, match="prompt and template are both given"):
        ask(dataset_of(1), "gpt-4o", prompt="text", template="{text}")
    with pytest.raises(ConfigurationError, match=r"actors=\(3, 1\) is not a number of actors"):
        ask(dataset_of(1), "gpt-4o", actors=(3, 1))
    with pytest.raises(Exception, match="the dataset has no column 'nothing'"):
        ask(dataset_of(1), "gpt-4o", prompt="nothing", **OPTIONS).take_all()


# `deluge batch --engine ray`


def start_command(home: Path, *arguments: str, **more: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "lm_deluge", "batch", *arguments],
        cwd=home,
        env=clean_environment(home, RAY_AUTH_MODE="disabled", PYTHONWARNINGS="default", **more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def run_command(home: Path, *arguments: str) -> tuple[int, str]:
    """Run a command on the cluster of the tests, which starts no other one."""
    process = start_command(home, *arguments, RAY_ADDRESS=ray.get_runtime_context().gcs_address)
    try:
        _, stderr = process.communicate(timeout=COMMAND_S)
    finally:
        process.kill()
    return process.returncode, re.sub(r"\s+", " ", stderr.decode())


def write_input(home: Path, count: int, kind: str = "please") -> list[str]:
    ids = [f"r{number}" for number in range(count)]
    pq.write_table(
        pa.table({"id": ids, "prompt": [f"{each} {kind}" for each in ids]}), home / "in.parquet", row_group_size=90
    )
    return ids


def output_of(home: Path) -> pa.Table:
    return pa.concat_tables([pq.read_table(path) for path in sorted((home / "out").glob("part-*.parquet"))])


def test_the_command_is_killed_and_continues(cluster, tmp_path: Path) -> None:
    ids = write_input(tmp_path, 400)
    with provider(0.1) as own:
        command = ("in.parquet", "out", "--base-url", own.url, *COMMAND, "report.json", "--limit-concurrency", "20")
        process = start_command(tmp_path, *command)
        wait_until_asked(own, 60)
        os.killpg(process.pid, signal.SIGKILL)  # the cluster, too
        process.communicate()
        before = own.bill()
        code, stderr = run_command(tmp_path, *command)
        assert code == 0, stderr
        assert "out: 400 rows in 4 parts, 400 answered" in stderr
        table, bill = output_of(tmp_path), own.bill()
        assert table.column("id").to_pylist() == ids
        assert table.column("completion").to_pylist() == [answer_of(each) for each in ids]
        report = json.loads((tmp_path / "report.json").read_text())
        again = Counter(report["sent_again"]["ids"])
        assert all(asked - 1 <= again[each] for each, asked in bill.items()), "sent again without being listed"
        assert 0 < sum(before.values()) < 400
        code, stderr = run_command(tmp_path, *command)
        assert (code, own.bill()) == (0, bill)
        assert "Nothing to do: out has 400 rows" in stderr
    assert not (tmp_path / "out" / ".journals").exists()


def wait_until_asked(own: ProviderProcess, count: int) -> None:
    deadline = time.monotonic() + COMMAND_S
    while sum(own.bill().values()) < count:
        assert time.monotonic() < deadline, "the command sends nothing"
        time.sleep(0.05)


def test_failed_rows_are_sent_again_on_request_and_other_options_are_refused(cluster, tmp_path: Path) -> None:
    write_input(tmp_path, 10, "fail")
    with provider(0.0) as own:
        command = ("in.parquet", "out", "--base-url", own.url, *COMMAND, "report.json")
        code, stderr = run_command(tmp_path, *command)
        assert code == 1, stderr
        assert "10 failed (BadRequestError 10)" in stderr
        code, stderr = run_command(tmp_path, *command, "--retry-failed")
        assert code == 1, stderr
        assert set(own.bill().values()) == {2}
        code, stderr = run_command(tmp_path, *command, "--temperature", "1")
        assert code == 2
        assert "out belongs to another batch" in stderr
        code, stderr = run_command(tmp_path, *command, "--provider-batch")
        assert (code, set(own.bill().values())) == (2, {2})
        assert "--provider-batch cannot be used together with --engine ray" in stderr
