"""`deluge batch`: input, output, and interruptions of every kind."""

import json
import re
import signal
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from cli.driver import COMMAND, PATIENCE_S, clean_environment, run, start, terminal, wait_until
from lm_deluge.errors import BadRequestError, ServerError
from lm_deluge.simulator import Pace, Script

KEY = "sk-test-0123456789abcdef"
SLOW = Pace(tokens_per_second=4)
PLAIN = ("--progress", "none")


def echo(request) -> Script:
    asked = request.conversation[-1].completion
    if asked == "bad":
        raise BadRequestError("This is not valid.", status_code=400, code="bad_thing")
    return Script(text=f"answer to {asked}")


def reach(simulator) -> dict[str, str]:
    return {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": simulator.base_url}


def write(home: Path, *lines: object, name: str = "in.jsonl") -> None:
    (home / name).write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines))


def batch(home: Path, *more: str, **env: str) -> subprocess.CompletedProcess[bytes]:
    return run("batch", "in.jsonl", "out.jsonl", *PLAIN, *more, home=home, **env)


def lines_of(home: Path, name: str = "out.jsonl") -> list[dict]:
    return [json.loads(line) for line in (home / name).read_text().splitlines()]


def texts_of(home: Path) -> list[str]:
    return [line["response"]["content"]["parts"][0]["text"] for line in lines_of(home)]


def test_every_line_has_its_line_in_order(serve, home):
    simulator = serve(echo)
    write(home, '"one"\n', {"id": "b", "prompt": "bad"}, "no JSON\n", {"id": "x", "prompt": "two", "model": "y"})
    done = batch(home, "--report", "report.json", "--skip-bad", **reach(simulator))
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(b"out.jsonl: 4 lines, 1 answered, 1 failed (BadRequestError 1), 2 skipped\n")
    assert b"2 lines were skipped; no request was sent:\n  line 3: not JSON: " in done.stderr
    assert b"\n  line 4: an unknown field 'model'." in done.stderr
    assert done.stderr.endswith(b"To send the failed lines again, start the same command with --retry-failed.\n")
    first, refused, broken, odd = lines_of(home)
    assert [line["id"] for line in (first, refused, broken, odd)] == ["0", "b", "2", "x"]
    assert first["response"]["content"]["parts"][0]["text"] == "answer to one"
    assert (first["error"], first["usage"]["estimated"]) == (None, False)
    assert first["cost"] > 0
    assert refused["response"] is None
    shown = {
        name: refused["error"][name] for name in ("type", "status_code", "code", "retryable", "attempts", "partial")
    }
    assert shown == {
        "type": "BadRequestError",
        "status_code": 400,
        "code": "bad_thing",
        "retryable": False,
        "attempts": 1,
        "partial": None,
    }
    assert "This is not valid." in refused["error"]["message"]
    assert (broken["error"]["type"], odd["error"]["type"]) == ("InvalidPromptError", "InvalidPromptError")
    assert broken["error"]["message"] == "the line is not JSON: expecting value, at column 1"
    report = json.loads((home / "report.json").read_text())
    assert {name: report[name] for name in ("lines", "answered", "failed", "open", "duplicates")} == {
        "lines": 4,
        "answered": 1,
        "failed": 1,
        "open": 0,
        "duplicates": 0,
    }
    assert report["skipped"] == 2
    assert report["failed_by_error"] == {"BadRequestError": 1}
    assert report["answers"]["usage"]["input_tokens"] == first["usage"]["input_tokens"]
    assert report["cost"] == report["answers"]["cost"] == first["cost"]
    again = batch(home, "--skip-bad", **reach(simulator))
    assert (again.returncode, again.stderr[:14]) == (1, b"Nothing to do:")
    assert simulator.stats.requests == 2
    assert KEY not in (home / "out.jsonl.journal").read_text() + (home / "out.jsonl").read_text()


def test_what_came_before_a_break_is_on_the_line(serve, home):
    from lm_deluge.simulator import Fault

    simulator = serve(Script(text="one two three four"), faults=Fault("reset", after=2))
    write(home, '"q"\n')
    assert batch(home, "--max-attempts", "1", **reach(simulator)).returncode == 1
    (line,) = lines_of(home)
    assert line["error"]["type"] == "StreamInterruptedError"
    assert line["error"]["retryable"] is True
    assert line["error"]["partial"]["content"]["parts"][0]["text"].startswith("one")
    assert line["usage"]["estimated"] is True


def test_the_same_command_again_does_nothing_and_reports_that(serve, home):
    simulator = serve(echo)
    write(home, '"one"\n', '"two"\n')
    assert batch(home, **reach(simulator)).returncode == 0
    before = (home / "out.jsonl").stat()
    again = batch(home, **reach(simulator))
    assert again.returncode == 0
    assert again.stderr.startswith(b"Nothing to do: out.jsonl has 2 lines, 2 answered\n")
    assert (home / "out.jsonl").stat().st_ino == before.st_ino
    assert simulator.stats.requests == 2
    (home / "out.jsonl").unlink()
    assert batch(home, **reach(simulator)).returncode == 0  # it is written again from the journal
    assert texts_of(home) == ["answer to one", "answer to two"]
    assert simulator.stats.requests == 2


def test_failed_lines_are_sent_again_with_retry_failed(serve, home):
    broken = [True]

    def script(request) -> Script:
        if broken and request.conversation[-1].completion == "two":
            raise ServerError("down", status_code=501)
        return echo(request)

    simulator = serve(script)
    write(home, '"one"\n', '"two"\n')
    assert batch(home, **reach(simulator)).returncode == 1
    broken.clear()
    assert batch(home, **reach(simulator)).returncode == 1
    assert simulator.stats.requests == 2
    assert batch(home, "--retry-failed", **reach(simulator)).returncode == 0
    assert simulator.stats.requests == 3
    assert texts_of(home) == ["answer to one", "answer to two"]


def test_lines_may_have_their_own_options(serve, home):
    simulator = serve(echo)
    body = {"model": "gpt-5.4-mini", "messages": [{"role": "user", "content": "own"}], "max_tokens": 5, "store": True}
    system = {"messages": [{"role": "system", "content": "of the line"}, {"role": "user", "content": "q"}]}
    other = {"custom_id": "c", "method": "POST", "url": "/v1/chat/completions", "body": {**body, "model": "o3"}}
    write(home, {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}, system, other)
    models = ("--model", "gpt-5.4", "--model", "gpt-5.4-mini")
    options = ("--system", "Be brief", "--temperature", "0.5", "--max-tokens", "9")
    assert batch(home, *models, *options, **reach(simulator)).returncode == 1
    asked = {request.json["messages"][-1]["content"]: request.json for request in simulator.requests}
    assert sorted(asked) == ["own", "q"]
    assert {name: asked["own"][name] for name in ("model", "max_completion_tokens", "temperature", "store")} == {
        "model": "gpt-5.4-mini",
        "max_completion_tokens": 5,
        "temperature": 0.5,
        "store": True,
    }
    assert asked["own"]["messages"][0] == {"role": "system", "content": "Be brief"}
    assert asked["q"]["messages"][0]["content"] == "of the line"
    assert asked["q"]["max_completion_tokens"] == 9
    error = lines_of(home)[2]["error"]
    assert error["message"] == "the line names the model 'o3', and the batch has gpt-5.4, gpt-5.4-mini"


def test_duplicates_are_sent_once(serve, home):
    simulator = serve(echo)
    write(home, '"one"\n', '"two"\n', '"one"\n', {"id": "x", "prompt": "one"}, '"bad"\n', '"bad"\n')
    done = batch(home, "--ask-duplicates-once", "--report", "report.json", **reach(simulator))
    assert b"6 lines, 4 answered, 2 failed (BadRequestError 1), 3 of them duplicates" in done.stderr
    lines = lines_of(home)
    assert [line.get("duplicate_of") for line in lines] == [None, None, "0", "0", None, "4"]
    assert [line["response"]["content"]["parts"][0]["text"] for line in lines[:4]] == [
        *("answer to one", "answer to two", "answer to one", "answer to one"),
    ]
    assert [line["response"]["id"] for line in lines[:4]] == [0, 1, 2, 3]
    assert (lines[2]["usage"], lines[2]["cost"], lines[5]["error"]["type"]) == (None, 0, "BadRequestError")
    asked = Counter(request.json["messages"][-1]["content"] for request in simulator.requests)
    assert asked == {"one": 1, "two": 1, "bad": 1}
    report = json.loads((home / "report.json").read_text())
    assert report["usage"]["input_tokens"] == sum(line["usage"]["input_tokens"] for line in lines[:2])


def test_without_a_key_nothing_is_made_up(home):
    write(home, '"one"\n')
    done = batch(home)
    assert done.returncode == 2
    assert b"OPENAI_API_KEY is not set" in done.stderr
    assert [path.name for path in home.iterdir()] == ["in.jsonl"]


def test_the_simulator_answers_if_it_is_named(home):
    body = {"model": "gpt-5.4-mini", "messages": [{"role": "user", "content": "own"}]}
    write(home, '"one"\n', {"custom_id": "a", "body": body})
    done = batch(home, "-m", "simulator")
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith(b"Simulator: the answers are generated")
    assert {line["response"]["model_internal"] for line in lines_of(home)} == {"simulator"}
    refused = batch(home, OPENAI_API_KEY=KEY)  # answers of the simulator and of a model do not mix
    assert refused.returncode == 2
    assert b"another batch" in refused.stderr


WRONG = {
    "no input": (["no.jsonl", "out.jsonl"], b"cannot read no.jsonl: No such file"),
    "one file": (["in.jsonl", "in.jsonl"], b"IN and OUT are the same file"),
    "no folder": (["in.jsonl", "no/out.jsonl"], b"there is no folder no for out.jsonl"),
    "a folder": (["in.jsonl", "."], b"is no file that could be written"),
    "there already": (["in.jsonl", "there.jsonl"], b"there.jsonl exists already and has no journal"),
    "same ids": (["twice.jsonl", "out.jsonl"], b"line 2 has the id 'a', which an earlier line has"),
    "one key": (
        ["in.jsonl", "out.jsonl", "--api-key", "k", "-m", "gpt-5.4", "-m", "claude-haiku-4-5"],
        b"one --api-key cannot serve models of several providers",
    ),
    "no key for one": (
        ["in.jsonl", "out.jsonl", "-m", "gpt-5.4", "-m", "claude-haiku-4-5"],
        b"some models have a key, but there is none for claude-haiku-4-5",
    ),
    "no folder for the report": (
        ["in.jsonl", "out.jsonl", "--report", "no/r"],
        b"there is no folder no for the report",
    ),
    "no such limit": (["in.jsonl", "out.jsonl", "--limit-requests", "0"], b"max_requests_per_minute"),
}


@pytest.mark.parametrize(("arguments", "words"), WRONG.values(), ids=WRONG)
def test_wrong_use_ends_before_anything_is_sent(serve, home, arguments, words):
    simulator = serve(echo)
    write(home, '"one"\n')
    write(home, {"id": "a", "prompt": "x"}, {"id": "a", "prompt": "y"}, name="twice.jsonl")
    (home / "there.jsonl").write_text("mine")
    done = run("batch", *arguments, *PLAIN, home=home, **reach(simulator))
    assert done.returncode == 2
    assert words in done.stderr
    assert simulator.stats.requests == 0
    assert (home / "there.jsonl").read_text() == "mine"
    assert not list(home.glob("*.journal"))


def test_an_existing_file_is_replaced_with_overwrite(serve, home):
    write(home, '"one"\n')
    (home / "out.jsonl").write_text("mine")
    assert batch(home, "--overwrite", **reach(serve(echo))).returncode == 0
    assert texts_of(home) == ["answer to one"]


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        (("--temperature", "0.5"), "temperature was not set and is 0.5"),
        (("--system", "Be brief"), "system was not set and is set"),
        (("-m", "gpt-5.4-mini"), "models were gpt-5.4 and are gpt-5.4-mini"),
    ],
)
def test_a_journal_is_of_one_set_of_options(serve, home, options, difference):
    simulator = serve(echo)
    write(home, '"one"\n')
    assert batch(home, **reach(simulator)).returncode == 0
    done = batch(home, *options, **reach(simulator))
    assert done.returncode == 2
    assert f"the journal out.jsonl.journal belongs to another batch: {difference}. Name another OUT" in str(done.stderr)
    assert simulator.stats.requests == 1
    replaced = batch(home, *options, "--overwrite", **reach(simulator))
    assert replaced.returncode == 0, replaced.stderr
    assert b"Starting again: the answers until now are in out.jsonl.journal.old.\n" in replaced.stderr
    assert simulator.stats.requests == 2
    assert batch(home, *options, **reach(simulator)).stderr.startswith(b"Nothing to do")
    assert b"answer to one" in (home / "out.jsonl.journal.old").read_bytes()


def test_remove_journal_removes_it_after_all_lines_are_answered(serve, home):
    simulator = serve(echo)
    write(home, '"bad"\n')
    assert batch(home, "--remove-journal", **reach(simulator)).returncode == 1
    assert (home / "out.jsonl.journal").exists()
    (home / "out.jsonl").unlink()
    (home / "out.jsonl.journal").unlink()
    write(home, '"good"\n')
    assert batch(home, "--remove-journal", **reach(simulator)).returncode == 0
    assert sorted(path.name for path in home.glob("out*")) == ["out.jsonl"]


def test_a_damaged_journal_is_reported_and_salvaged(serve, home):
    simulator = serve(echo)
    write(home, '"one"\n', '"two"\n', '"three"\n')
    assert batch(home, "--limit-concurrency", "1", **reach(simulator)).returncode == 0
    journal = home / "out.jsonl.journal"
    data = bytearray(journal.read_bytes())
    data[data.index(b"answer to two")] ^= 1
    journal.write_bytes(data)
    refused = batch(home, **reach(simulator))
    assert refused.returncode == 2
    assert re.search(
        rb"is damaged at byte \d+\. With --salvage the damaged part is moved to a file beside it", refused.stderr
    )
    salvaged = batch(home, "--salvage", **reach(simulator))
    assert salvaged.returncode == 0, salvaged.stderr
    assert b"Salvaged: " in salvaged.stderr
    assert texts_of(home) == ["answer to one", "answer to two", "answer to three"]
    assert simulator.stats.requests == 4
    assert b"1 more request may have been billed (" in salvaged.stderr


def start_batch(home: Path, simulator, count: int, *more: str) -> subprocess.Popen[bytes]:
    """Start a batch; return after it has made `count` requests."""
    write(home, *(f'"q{number}"\n' for number in range(60)))
    process = start("batch", "in.jsonl", "out.jsonl", *PLAIN, *more, home=home, **reach(simulator))
    wait_until(lambda: simulator.stats.requests >= count, "the first requests")
    return process


def pace_after(count: int):
    """Answer the first `count` requests at once and the others over minutes."""
    asked = []

    def script(request) -> Script:
        asked.append(request)
        return Script(text="quick" if len(asked) <= count else "slow " * 2_000)

    return script


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_a_batch_in_order(serve, home, number, code):
    simulator = serve(Script(text="one two three four five"), pace=SLOW)
    process = start_batch(home, simulator, 5, "--limit-concurrency", "5")
    process.send_signal(number)
    _, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == code
    assert b"Stopping: 5 requests in flight have 10 s to end. Ctrl-C again stops them at once.\n" in stderr
    assert (
        b"Stopped: 5 of 60 lines are done and safe in out.jsonl.journal. "
        b"To continue, start the same command again.\n" in stderr
    )
    assert simulator.stats.requests == 5
    assert not (home / "out.jsonl").exists()


def test_a_second_ctrl_c_ends_at_once_and_what_was_in_flight_is_named(serve, home):
    simulator = serve(pace_after(2), pace=Pace(tokens_per_second=20))
    process = start_batch(home, simulator, 6, "--limit-concurrency", "4")
    process.send_signal(signal.SIGINT)
    assert process.stderr.readline().startswith(b"Stopping: ")
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert b"Stopped: 2 of 60 lines" in stderr
    named = re.search(rb"4 requests without an answer may have been billed: ([\d, ]+)\n", stderr)
    unseen = {each.decode() for each in named[1].split(b", ")}
    write(home, *(f'"q{number}"\n' for number in range(60)))
    quick = serve(echo)
    done = batch(home, "--report", "report.json", **reach(quick))
    assert done.returncode == 0
    assert b"Continuing: 2 of 60 lines are done.\n" in done.stderr
    assert b"4 requests were in flight when an earlier run ended" in done.stderr
    assert quick.stats.requests == 58
    assert set(json.loads((home / "report.json").read_text())["ambiguous"]["ids"]) == unseen


def test_on_a_terminal_ctrl_c_leaves_the_screen_in_order(serve, home):
    simulator = serve(Script(text="one two three four five six"), pace=SLOW)
    write(home, *(f'"q{number}"\n' for number in range(60)))
    with terminal("batch", "in.jsonl", "out.jsonl", "--limit-concurrency", "4", home=home, **reach(simulator)) as tty:
        tty.expect(r"\d+/60 \(\d+%\), 4 in flight")
        wait_until(lambda: simulator.stats.requests >= 4, "the first requests")
        tty.interrupt()
        shown = tty.expect(r"start\s+the same command again\.")
        assert tty.end() == 130
    bars = [row for row in shown.splitlines() if "\u2501" in row]
    assert len(bars) == 1, shown


def test_a_second_process_ends_with_the_id_of_the_first(serve, home):
    simulator = serve(pace_after(0), pace=SLOW)
    process = start_batch(home, simulator, 1)
    try:
        second = batch(home, **reach(simulator))
        assert second.returncode == 2
        words = f"process {process.pid} works on the journal out.jsonl.journal. Wait until it is done, or stop it."
        assert words.encode() in second.stderr
    finally:
        process.kill()
        process.communicate()


def batch_with_room(home: Path, room: int, *more: str, **env: str) -> subprocess.CompletedProcess[bytes]:
    """Run a batch with a limit on the size of files, in place of a full disk."""
    program = (
        "import resource, signal, sys\n"
        "from lm_deluge.cli.main import main\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))\n"
        "main(sys.argv[2:])\n"
    )
    return subprocess.run(  # noqa: S603
        [COMMAND[0], "-c", program, str(room), "batch", "in.jsonl", "out.jsonl", *PLAIN, *more],
        capture_output=True,
        cwd=home,
        env=clean_environment(home, **env),
        timeout=PATIENCE_S,
        check=False,
    )


def test_an_output_that_does_not_fit_is_written_by_the_next_run(serve, home):
    simulator = serve(echo)
    write(home, *(f'"q{number}"\n' for number in range(40)))
    assert batch(home, **reach(simulator)).returncode == 0
    (home / "out.jsonl").unlink()
    done = batch_with_room(home, 1_000, **reach(simulator))
    assert done.returncode == 1
    words = "cannot write out.jsonl: File too large. All answers are safe in out.jsonl.journal. Start the same command"
    assert words.encode() in done.stderr
    assert sorted(path.name for path in home.glob("out*")) == ["out.jsonl.journal"]
    assert batch(home, **reach(simulator)).returncode == 0
    assert texts_of(home) == [f"answer to q{number}" for number in range(40)]
    assert simulator.stats.requests == 40


def test_a_full_disk_stops_new_requests_and_saves_what_it_can(serve, home):
    """The answers that do not fit go to another file."""
    simulator = serve(echo)
    write(home, *(f'"q{number}"\n' for number in range(200)))
    (home / "tmp").mkdir()
    done = batch_with_room(home, 20_000, "--limit-concurrency", "4", TMPDIR=str(home / "tmp"), **reach(simulator))
    stderr = done.stderr.decode()
    assert done.returncode == 1, stderr
    assert stderr.startswith("deluge: cannot write the journal out.jsonl.journal: File too large. Its answers are safe")
    assert re.search(r"Stopped: \d+ of 200 lines are done and safe in out\.jsonl\.journal", stderr)
    sent = simulator.stats.requests
    assert sent < 60
    copying = re.search(r"^  (cat .*)$", stderr, re.MULTILINE)
    if copying:  # there is none if all answers fit without the intents
        subprocess.run(["sh", "-c", copying[1]], cwd=home, check=True)  # noqa: S603, S607
    rest = batch(home, "--report", "report.json", **reach(simulator))
    assert rest.returncode == 0, rest.stderr
    assert simulator.stats.requests == 200
    assert texts_of(home) == [f"answer to q{number}" for number in range(200)]
    assert json.loads((home / "report.json").read_text())["ambiguous"]["ids"] == []


def test_a_closed_stderr_does_not_end_the_batch(serve, home):
    simulator = serve(echo)
    write(home, *(f'"q{number}"\n' for number in range(20)))
    process = start("batch", "in.jsonl", "out.jsonl", "--progress", "plain", home=home, **reach(simulator))
    process.stderr.close()
    assert process.wait(PATIENCE_S) == 0
    process.stdout.close()
    assert texts_of(home) == [f"answer to q{number}" for number in range(20)]


def test_a_file_that_changes_under_a_batch_is_noticed(serve, home):
    simulator = serve(echo, pace=Pace(first_token_s=0.05))
    process = start_batch(home, simulator, 1, "--limit-concurrency", "1")
    write(home, '"other"\n')
    _, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert b"in.jsonl was changed while the batch ran" in stderr
    assert not (home / "out.jsonl").exists()


def test_an_empty_file_is_a_batch_too(serve, home):
    write(home)
    done = batch(home, **reach(serve(echo)))
    assert (done.returncode, (home / "out.jsonl").read_bytes()) == (0, b"")


@pytest.mark.parametrize("library", ["polars", "pandas"])
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_tables_in_and_out(serve, home, library, suffix):
    pytest.importorskip(library)
    (home / "in.csv").write_text("id,prompt\na,one\nb,bad\n")
    done = run("batch", "in.csv", f"out.{suffix}", *PLAIN, home=home, **reach(serve(echo)))
    assert done.returncode == 1, done.stderr
    frame = __import__(library)
    read = frame.read_csv if suffix == "csv" else frame.read_parquet
    table = read(home / f"out.{suffix}")
    rows = table.to_dicts() if library == "polars" else table.to_dict("records")
    assert list(rows[0]) == [
        *("id", "completion", "finish_reason", "error", "input_tokens", "output_tokens", "cost", "response"),
    ]
    assert (rows[0]["id"], rows[0]["completion"], rows[0]["finish_reason"]) == ("a", "answer to one", "stop")
    assert json.loads(rows[0]["response"])["content"]["parts"][0]["text"] == "answer to one"
    assert "This is not valid." in rows[1]["error"]


def test_parquet_needs_a_package_and_csv_needs_none(serve, home):
    for name in ("polars", "pandas", "pyarrow"):
        (home / f"{name}.py").write_text("raise ImportError")
    write(home, '"one"\n')
    env = {**reach(serve(echo)), "PYTHONPATH": f"{home}:{clean_environment(home)['PYTHONPATH']}"}
    done = run("batch", "in.jsonl", "out.parquet", home=home, **env)
    assert done.returncode == 2
    assert b"writing .parquet files needs polars or pyarrow. Run pip install polars" in done.stderr
    assert run("batch", "in.jsonl", "out.csv", *PLAIN, home=home, **env).returncode == 0
    assert "answer to one" in (home / "out.csv").read_text()


SCHEMA = {"type": "object", "properties": {"total": {"type": "integer"}}, "required": ["total"]}


def totals(request) -> Script:
    asked = request.conversation[0].completion
    is_bad = asked == "never" or (asked == "bad" and len(request.conversation) == 1)
    return Script(text='{"total": "much"}' if is_bad else '{"total": 3}')


def test_answers_that_do_not_follow_the_schema_are_asked_for_again_and_else_failed_lines(serve, home):
    simulator = serve(totals)
    write(home, '"good"\n', '"bad"\n', '"never"\n')
    (home / "schema.json").write_text(json.dumps(SCHEMA))
    done = batch(home, "--schema", "schema.json", "--max-output-retries", "1", **reach(simulator))
    assert done.returncode == 1
    good, bad, never = lines_of(home)
    assert (good["response"]["output"], bad["response"]["output"]) == ({"total": 3}, {"total": 3})
    assert (never["error"]["type"], never["error"]["path"]) == ("OutputError", ["total"])
    assert simulator.stats.requests == 5
    assert simulator.requests[0].json["response_format"]["json_schema"]["strict"] is True
    assert batch(home, "--schema", "schema.json", **reach(simulator)).returncode == 1
    assert simulator.stats.requests == 5
    (home / "schema.json").write_text(json.dumps({**SCHEMA, "title": "Other"}))
    done = batch(home, "--schema", "schema.json", **reach(simulator))
    assert done.returncode == 2
    assert b"schema is another one" in done.stderr


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        (None, (), b"Cannot read the schema schema.json"),
        ("{", (), b"is not JSON"),
        ("[]", (), b"is not a JSON object"),
        ('{"type": "strin"}', (), b"no provider accepts"),
        (json.dumps(SCHEMA), ("--max-output-retries", "1", "--provider-batch"), b"--provider-batch"),
    ],
)
def test_a_bad_schema_ends_before_anything_is_sent(serve, home, text, options, words):
    simulator = serve(totals)
    write(home, '"good"\n')
    if text is not None:
        (home / "schema.json").write_text(text)
    done = batch(home, "--schema", "schema.json", *options, **reach(simulator))
    assert done.returncode == 2
    assert words in done.stderr
    assert simulator.stats.requests == 0
