"""The tests that need Ray: `make ray` runs them on a local cluster, against a provider in a process of its own."""

import asyncio
import bisect
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import ray
from batch_provider import answer_of, tokens_of
from cli.driver import clean_environment
from cli.test_batch_kill import ProviderProcess, provider
from lm_deluge import LLMClient
from lm_deluge.cli.batch.batch_ray import RayJob, run_ray
from lm_deluge.errors import ConfigurationError
from lm_deluge.ray import AskModel, ask, unanswered
from lm_deluge.ray.columns import ANSWER_COLUMNS
from lm_deluge.ray.datasets import read_ids
from pages import ROOT

pytestmark = pytest.mark.filterwarnings("default")  # Ray and pyarrow have deprecations of their own

OPTIONS: dict[str, Any] = {"api_key": "any-text", "max_concurrent_requests": 64}
COMMAND = ("--engine", "ray", "--api-key", "any-text", "--model", "gpt-4o", "--progress", "none", "--report")
ROWS, PER_MINUTE, BATCH = (20_000, 6_000, 256) if os.environ.get("DELUGE_SOAK") else (900, 3_600, 25)
"""Of the run in which an actor is killed twice: it takes as long as the limit demands."""
METRICS_S = 60.0  # Ray's processes report their metrics every second here, and every ten otherwise
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
    rows = rows_of(ask(dataset_of(40), "gpt-4o", prompt="text", actors=1, base_url=server.url, **OPTIONS))
    assert [row["id"] for row in rows] == [f"r{number}" for number in range(40)]
    for row in rows:
        assert (row["completion"], row["error"], row["finish_reason"]) == (answer_of(row["id"]), None, "stop")
        assert (row["input_tokens"], row["output_tokens"]) == tokens_of(row["id"])
        assert row["cost"] > 0
        assert row["asked_before"] == 0


def answered_here(table: Any, **options: Any) -> pa.Table:
    """Return a batch with its answers, as an actor does it."""

    async def first() -> Any:
        model = AskModel("gpt-4o", share_limits=False, **options, **OPTIONS)
        return [batch async for batch in model(table)]

    (answered,) = asyncio.run(first())
    return answered


def test_errors_are_columns_and_templates_fill_in_columns(server) -> None:
    table = pa.table({"name": ["a", "b", "c"], "kind": ["please", "fail", None]})
    rows = answered_here(table, template="{name} {kind}", base_url=server.url).to_pylist()
    assert [row["error_type"] for row in rows] == [None, "BadRequestError", "InvalidPromptError"]
    assert [row["completion"] for row in rows] == [answer_of("a"), None, None]
    assert "no such thing" in rows[1]["error"]
    assert rows[2]["error"] == "the column 'kind' of the row is empty."


def test_messages_are_prompts_and_names_of_columns_are_kept_apart(server) -> None:
    messages = [[{"role": "user", "content": f"m{number} please"}] for number in range(4)]
    table = pa.table({"messages": messages, "cost": ["own"] * 4, "input_cost": ["other"] * 4})
    rows = answered_here(table, system="Be brief.", base_url=server.url).to_pylist()
    assert [row["completion"] for row in rows] == [answer_of(f"m{number}") for number in range(4)]
    assert {(row["input_input_cost"], row["input_cost"]) for row in rows} == {("own", "other")}


def test_the_ids_of_files_are_found_under_the_name_that_they_have_there(server, tmp_path: Path) -> None:
    table = pa.table({"prompt": ["a please", "b please"], "model": ["m1", "m2"], "input_model": ["x", "y"]})
    pq.write_table(answered_here(table, base_url=server.url), tmp_path / "1.parquet")
    assert read_ids(tmp_path, "model").to_pylist() == ["m1", "m2"]
    assert read_ids(tmp_path, "input_model").to_pylist() == ["x", "y"]
    with pytest.raises(ConfigurationError, match=r"1\.parquet has no column 'nothing'"):
        read_ids(tmp_path, "nothing")


def test_typed_answers_are_columns_of_their_types(server) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "size": {"type": "integer"}},
        "required": ["name", "size"],
        "additionalProperties": False,
    }
    options = {"prompt": "text", "output": schema, "base_url": server.url}
    answered = answered_here(pa.table({"text": [f"r{number} json" for number in range(10)]}), **options)
    assert answered.schema.field("output_size").type == pa.int64()
    rows = answered.to_pylist()
    assert [(row["output_name"], row["output_size"]) for row in rows] == [(f"r{each}", 2) for each in range(10)]
    failing = answered_here(pa.table({"text": ["r1 please", "r2 please"]}), **options)
    assert set(failing.column("error_type").to_pylist()) <= {"OutputError", "InvalidJSONError"}
    assert failing.column("output_size").type == pa.int64()
    assert failing.column("output_name").null_count == 2


@pytest.mark.parametrize("batch_format", ["numpy", "pandas", "pyarrow"])
def test_batches_of_any_format_keep_their_columns(cluster, server, batch_format: str) -> None:
    records = [
        {"text": f"r{at} please" if at != 2 else None, "at": at, "pixels": np.full((2, 3), at), "tags": ["a"] * at}
        for at in range(4)
    ]
    batch = ray.data.from_items(records).take_batch(4, batch_format=batch_format)
    answered = answered_here(batch, prompt="text", id="at", base_url=server.url)
    assert answered.column("at").to_pylist() == [0, 1, 2, 3]
    assert answered.column("completion").to_pylist() == [answer_of("r0"), answer_of("r1"), None, answer_of("r3")]
    assert answered.column("error_type").to_pylist() == [None, None, "InvalidPromptError", None]
    assert [list(each) for each in answered.column("tags").to_pylist()] == [["a"] * at for at in range(4)]
    pixels = ray.data.from_arrow(answered).take_batch(4, batch_format="numpy")["pixels"]
    assert pixels.shape == (4, 2, 3)


@pytest.mark.parametrize("batch_format", ["numpy", "pandas", "pyarrow"])
def test_messages_in_batches_of_any_format(cluster, server, batch_format: str) -> None:
    own = [{"role": "user", "content": [{"type": "text", "text": "m0 please"}]}]
    records = [{"messages": own}, {"messages": [{"role": "system", "content": [{"type": "text", "text": "x"}]}, *own]}]
    batch = ray.data.from_items(records).take_batch(2, batch_format=batch_format)
    answered = answered_here(batch, base_url=server.url)
    assert answered.column("completion").to_pylist() == [answer_of("m0")] * 2


def test_empty_datasets_and_blocks_have_the_columns(cluster, server) -> None:
    few = dataset_of(8, blocks=4).filter(lambda row: row["kept"] in (0, 7))
    rows = rows_of(ask(few, "gpt-4o", prompt="text", actors=1, base_url=server.url, **OPTIONS))
    assert [row["completion"] for row in rows] == [answer_of("r0"), answer_of("r7")]
    answered = answered_here(pa.table({"text": pa.array([], pa.string())}), prompt="text", base_url=server.url)
    assert answered.column_names == ["text", *ANSWER_COLUMNS]
    assert not len(answered)


def metrics_of_cluster() -> dict[str, float]:
    """Return the samples of the library on the page that Prometheus reads, without the labels of Ray."""
    (node,) = ray.nodes()
    with urllib.request.urlopen(f"http://127.0.0.1:{node['MetricsExportPort']}/metrics") as page:
        lines = page.read().decode().splitlines()
    found: Counter[str] = Counter()
    for line in lines:
        if match := re.fullmatch(r"ray_lm_deluge_(\w+)\{(.*)\} (\S+)", line):
            labels = re.findall(r'(model|outcome|direction)="([^"]*)"', match[2])
            found[" ".join([match[1], *(value for _, value in sorted(labels))])] += float(match[3])
    return dict(found)


def test_rows_tokens_and_cost_are_metrics_that_prometheus_can_read(cluster, server) -> None:
    before = Counter(metrics_of_cluster())
    texts = [f"r{number} {'fail' if number < 3 else 'please'}" for number in range(15)]
    dataset = ray.data.from_items([{"text": text, "kept": number} for number, text in enumerate(texts)])
    rows = rows_of(ask(dataset, "gpt-4.1", prompt="text", actors=1, base_url=server.url, **OPTIONS))[3:]
    wanted = {
        "rows_total gpt-4.1 answered": 12,
        "rows_total gpt-4.1 failed": 3,
        "tokens_total in gpt-4.1": sum(row["input_tokens"] for row in rows),
        "tokens_total out gpt-4.1": sum(row["output_tokens"] for row in rows),
        "cost_dollars_total gpt-4.1": pytest.approx(sum(row["cost"] for row in rows)),
    }
    deadline = time.monotonic() + METRICS_S
    while True:
        new = Counter(metrics_of_cluster())
        new.subtract(before)
        found = {name: new[name] for name in wanted}
        if found == wanted or time.monotonic() > deadline:
            break
        time.sleep(0.5)
    assert found == wanted


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


def actors(name: str = "MapWorker") -> set[int]:
    found = subprocess.run(["/bin/ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
    return {int(line.split()[0]) for line in found.splitlines() if f"ray::{name}" in line}


def asks(pid: int, port: int) -> bool:
    """Whether a process has a connection to a port of this machine."""
    with contextlib.suppress(OSError):
        own = {str(each.readlink()) for each in Path(f"/proc/{pid}/fd").iterdir()}
        lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        return any(f"socket:[{line[9]}]" in own and line[2].endswith(f":{port:04X}") for line in lines)
    return False


class Killer(threading.Thread):
    """Kills one of two actors at two moments of a run; the second time after Ray has started it again and it asks.

    Args:
        provider: Of the answers.
        earlier: Processes of actors that belong to other tests.
        moments: Numbers of requests.
    """

    def __init__(self, provider: ProviderProcess, earlier: set[int], moments: tuple[int, int]) -> None:
        super().__init__(daemon=True)
        self.provider = provider
        self.earlier = earlier
        self.moments = moments
        self.kills: list[float] = []
        self.is_over = False
        self.other: int | None = None
        self.other_survived = False

    def run(self) -> None:
        while not self.is_over and len(self.kills) < len(self.moments):
            time.sleep(0.05)
            busy = {pid for pid in actors() - self.earlier if asks(pid, self.provider.port)}
            if len(busy) < 2 or self.provider.read("count") < self.moments[len(self.kills)]:
                continue
            self.other = self.other or min(busy)
            os.kill((busy - {self.other}).pop(), signal.SIGKILL)
            self.kills.append(time.monotonic())
        # Later Ray may end an actor that has no block left, while the other one still asks.
        while not self.is_over and self.provider.read("count") < ROWS * 5 // 8:
            self.other_survived = self.other in actors()
            time.sleep(0.05)


def most_within(times: list[float], seconds: float) -> int:
    return max(at + 1 - bisect.bisect(times, moment - seconds) for at, moment in enumerate(times))


@pytest.mark.timeout(1_200)
def test_an_actor_that_is_killed_twice_loses_nothing(cluster, tmp_path: Path) -> None:
    earlier = actors()
    with provider(0.1, PER_MINUTE) as own:
        answered = ask(
            dataset_of(ROWS, blocks=8),
            "gpt-4o",
            prompt="text",
            id="id",
            journal=tmp_path / "journal",
            batch_size=BATCH,
            base_url=own.url,
            max_requests_per_minute=PER_MINUTE,
            **OPTIONS,
        )
        killer = Killer(own, earlier, (ROWS // 5, ROWS // 2))
        killer.start()
        again: list[tuple[str, int]] = []
        for batch in answered.iter_batches(batch_size=BATCH, prefetch_batches=0):
            again += zip(batch["id"].tolist(), batch["asked_before"].tolist(), strict=True)
        killer.is_over = True
        killer.join()
        bill, times = own.bill(), own.times()
    refused, listed = bill.pop("refused", 0), dict(again)
    twice = {each: asked - 1 for each, asked in bill.items() if asked > 1}
    print(
        f"\n{ROWS:,} rows in {times[-1] - times[0]:.1f} s, {len(times):,} requests, {refused} refused; "
        f"{most_within(times, 60.0):,} in the busiest minute of {PER_MINUTE:,} allowed, "
        f"{len(times) / (times[-1] - times[0]) * 60 / PER_MINUTE:.1%} of the limit used; "
        f"asked twice {sum(twice.values())}, listed {sum(listed.values())}"
    )
    assert len(killer.kills) == 2
    assert killer.other_survived
    assert sorted(each for each, _ in again) == sorted(f"r{number}" for number in range(ROWS)), "each row once"
    assert all(more <= listed[each] for each, more in twice.items()), "sent again without being listed"
    assert sum(listed.values()) <= OPTIONS["max_concurrent_requests"] * 2, "more than were in flight"
    assert refused == 0
    assert (times[-1] - times[0]) * PER_MINUTE / 60 > 0.95 * len(times), "the limit does not hold over all actors"


def test_the_actor_with_the_limits_is_killed_and_the_rows_are_answered(cluster) -> None:
    before = actors("LimitsActor")
    with provider(0.05) as own:
        options = {**OPTIONS, "max_concurrent_requests": 16}
        answered = ask(dataset_of(100), "gpt-4o", prompt="text", base_url=own.url, batch_size=25, **options)
        ids = []
        for batch in answered.iter_batches(batch_size=25, prefetch_batches=0):
            ids += batch["id"].tolist()
            running = actors("LimitsActor") - before
            if len(ids) == 25:
                assert running
                os.kill(running.pop(), signal.SIGKILL)
        assert sorted(ids) == sorted(f"r{number}" for number in range(100))
        assert set(own.bill().values()) == {1}


def test_another_run_takes_the_answers_of_files_and_journals(cluster, tmp_path: Path) -> None:
    options = {"prompt": "text", "id": "id", "journal": tmp_path / "journal", "actors": 1, **OPTIONS}
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
    with pytest.raises(ConfigurationError, match="a journal needs the column that identifies the rows"):
        ask(dataset_of(1), "gpt-4o", prompt="text", journal="j", share_limits=False)
    with pytest.raises(ConfigurationError, match="the dataset has no column 'nothing'"):
        answered_here(pa.table({"text": ["r1 please"]}), prompt="nothing")


def test_the_examples_of_the_documentation_run(cluster, tmp_path: Path) -> None:
    """In the words of the page, but for the folders and the model, which is the simulator."""
    reviews = [f"A phone, number {number}" for number in range(6)]
    pq.write_table(
        pa.table({"review": reviews, "review_id": range(6)}), make_folder(tmp_path / "reviews") / "1.parquet"
    )
    page = (ROOT / "docs" / "scale.md").read_text("utf-8")
    found = [
        each for each in re.findall(r"^```py\n(.*?)^```$", page, re.DOTALL | re.MULTILINE) if "lm_deluge.ray" in each
    ]
    assert len(found) == 3
    namespace: dict[str, Any] = {}
    for block in found:
        words = block.replace('"gpt-5.4-mini"', '"simulator"').replace("/shared/", f"{tmp_path}/")
        words = words.replace("actors=(2, 16)", "actors=1")
        words = re.sub('"(reviews|translated)/"', lambda match: repr(f"{tmp_path}/{match[1]}"), words)
        exec(compile(words, "docs/scale.md", "exec"), namespace)  # noqa: S102 - the text of a page of ours
    written = pq.read_table(tmp_path / "translated")
    assert sorted(written.column("review_id").to_pylist()) == list(range(6))
    assert written.column("error").null_count == 6
    assert [row["error"] for row in namespace["answered"].take(1)] == [None]


def make_folder(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


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


@pytest.mark.parametrize(
    ("columns", "prompt", "message"),
    [
        ({"text": ["a"]}, "nothing", "the dataset has no column 'nothing'"),
        ({"text": ["a"], "__row": [1]}, "text", "b.parquet has a column __row"),
        ({"text": ["a"], "more": [1]}, "text", "the columns of b.parquet are not those of a.parquet"),
    ],
)
def test_wrong_input_is_refused_before_anything_is_removed(tmp_path: Path, columns: Any, prompt: str, message: str):
    folder = make_folder(tmp_path / "in")
    pq.write_table(pa.table({"text": ["a"]}), folder / "a.parquet")
    pq.write_table(pa.table(columns), folder / "b.parquet")
    earlier = make_folder(tmp_path / "out") / "part-000000.parquet"
    earlier.touch()
    client = LLMClient("gpt-4o", **OPTIONS)
    job = RayJob(
        source=folder, target=tmp_path / "out", client=client, ask={"prompt": prompt}, actors=1, overwrite=True
    )
    with pytest.raises(ConfigurationError, match=message):
        run_ray(job)
    assert earlier.exists()


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
