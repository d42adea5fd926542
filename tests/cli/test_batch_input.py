"""`deluge batch`: what IN and OUT may be, lines that cannot be read, and files that change between two runs."""

import csv
import json
import subprocess
import zlib
from pathlib import Path

import pytest

from cli.driver import COMMAND, PATIENCE_S, clean_environment, run, start, terminal, wait_until
from cli.test_batch import KEY, PLAIN, batch, echo, lines_of, pace_after, reach, texts_of, write
from lm_deluge.dispatch.batch.input import read_rows
from lm_deluge.simulator import Pace, Script

KNOWN = (
    "Known fields: id, custom_id, prompt, messages, body, method, url, metadata. "
    "With --column NAME, the others are carried to the output."
)
RESULT = ("id", "completion", "finish_reason", "error", "input_tokens", "output_tokens", "cost", "response")


def asked(simulator) -> list[str]:
    return [request.json["messages"][-1]["content"] for request in simulator.requests]


def table_of(home: Path, name: str = "out.csv") -> list[dict[str, str]]:
    with (home / name).open(newline="") as file:
        return list(csv.DictReader(file))


# Lines that cannot be read


def test_bad_lines_are_named_before_anything_is_sent(serve, home):
    simulator = serve(echo)
    good = [f'"q{number}"\n' for number in range(30)]
    write(home, *good[:2], "\n", '{"prompt": NaN}\n', *good[2:], '{"promt": "x"}\n')
    refused = batch(home, **reach(simulator))
    assert refused.returncode == 2
    assert refused.stderr.decode().splitlines() == [
        "deluge: in.jsonl has 2 bad lines, and nothing was sent:",
        "  line 4: not JSON: it contains NaN, which JSON does not have; write null.",
        f"  line 33: an unknown field 'promt'. {KNOWN}",
        "Mend them, or leave them out with --skip-bad.",
    ]
    assert simulator.requests == []
    assert not list(home.glob("out*"))
    skipped = batch(home, "--skip-bad", **reach(simulator))
    assert skipped.returncode == 0, skipped.stderr
    assert b"out.jsonl: 32 lines, 30 answered, 2 skipped\n" in skipped.stderr
    assert b"2 lines were skipped; no request was sent:\n  line 4: not JSON" in skipped.stderr
    assert len(asked(simulator)) == 30
    write(home, *good[:2], '{"prompt": "mended"}\n', *good[2:], '{"prompt": "y"}\n')
    mended = batch(home, **reach(simulator))
    assert mended.returncode == 0, mended.stderr
    assert b"Continuing: 30 of 32 lines are done." in mended.stderr
    assert asked(simulator)[30:] == ["mended", "y"]
    assert texts_of(home)[2:4] == ["answer to mended", "answer to q2"]


def test_many_bad_lines_are_counted(serve, home):
    write(home, '"one"\n', *(f"{number}\n" for number in range(1_500)))
    refused = batch(home, **reach(serve(echo)))
    assert refused.returncode == 2
    assert b"has 1,500 bad lines" in refused.stderr
    assert b"\n  and 1,480 more.\n" in refused.stderr
    assert refused.stderr.count(b"\n") == 23


FORMATS = {
    "text": (
        "Name a colour.\nName a city.\n",
        "in.txt has no JSON lines. If each of its lines is a prompt, add --lines.",
    ),
    "text with quotes": ('Say "hi".\nName a city.\n', "If each of its lines is a prompt, add --lines."),
    "a list": ('[\n  {"prompt": "a"},\n  {"prompt": "b"}\n]\n', "jq -c '.[]' IN > NEW"),
    "an object": ('{\n  "prompt": "a"\n}\n', "has one JSON document over several lines"),
}


@pytest.mark.parametrize(("text", "words"), FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("more", [(), ("--skip-bad",)])
def test_a_file_of_another_form_is_refused_with_a_hint(serve, home, text, words, more):
    simulator = serve(echo)
    (home / "in.txt").write_text(text)
    refused = run("batch", "in.txt", "out.jsonl", *PLAIN, *more, home=home, **reach(simulator))
    assert refused.returncode == 2
    assert words in refused.stderr.decode()
    assert simulator.requests == []


def test_lines_of_plain_text(serve, home):
    simulator = serve(echo)
    (home / "in.txt").write_text('Name a colour.\n\n"quoted"\n5\n')
    done = run("batch", "in.txt", "out.jsonl", "--lines", *PLAIN, home=home, **reach(simulator))
    assert done.returncode == 0, done.stderr
    assert texts_of(home) == ["answer to Name a colour.", 'answer to "quoted"', "answer to 5"]
    both = run("batch", "in.txt", "o.jsonl", "--lines", "--column", "x", home=home, **reach(simulator))
    assert both.returncode == 2
    assert b"--column cannot be used together with --lines" in both.stderr


def test_made_up_ids_do_not_collide(serve, home):
    write(home, '"first"\n', {"id": 0, "prompt": "a"}, {"id": 1, "prompt": "b"}, {"id": 4, "prompt": "c"}, "no JSON\n")
    done = batch(home, "--skip-bad", **reach(serve(echo)))
    assert done.returncode == 0, done.stderr
    assert [line["id"] for line in lines_of(home)] == ["line 1", "0", "1", "4", "line 5"]


# Files that change


def test_a_longer_and_reordered_file_goes_on_where_it_was(serve, home):
    simulator = serve(echo)
    write(home, '"one"\n', '"two"\n', {"id": "x", "prompt": "one"})
    assert batch(home, **reach(simulator)).returncode == 0
    write(home, '"three"\n', {"id": "x", "prompt": "one"}, '"two"\n', '"one"\n', '"one"\n')
    again = batch(home, "--report", "report.json", **reach(simulator))
    assert again.returncode == 0, again.stderr
    assert b"Continuing: 3 of 5 lines are done." in again.stderr
    assert sorted(asked(simulator)[3:]) == ["one", "three"]
    assert texts_of(home) == [f"answer to {each}" for each in ("three", "one", "two", "one", "one")]
    assert [line["id"] for line in lines_of(home)] == ["0", "x", "2", "3", "4"]
    write(home, '"two"\n')
    shorter = batch(home, **reach(simulator))
    assert b"out.jsonl: 1 line, 1 answered" in shorter.stderr
    assert texts_of(home) == ["answer to two"]
    assert len(asked(simulator)) == 5


def test_overwrite_starts_again(serve, home):
    simulator = serve(echo)
    write(home, '"one"\n')
    for _ in range(2):
        assert batch(home, "--overwrite", **reach(simulator)).returncode == 0
    assert len(simulator.requests) == 2
    assert batch(home, **reach(simulator)).stderr.startswith(b"Nothing to do")


def record(payload: bytes) -> bytes:
    return b"%08x %08x %b\n" % (len(payload), zlib.crc32(payload), payload)


HUGE = b"1" + b"0" * 400
ODD = {
    "a count that is no number": (b'"input_tokens":"many"', True),
    "a huge count": (b'"input_tokens":' + HUGE, False),
    "a huge number": (b'"input_tokens":1e999', True),
    "no usage": (b'"input_tokens":[]', True),
}


@pytest.mark.parametrize(("usage", "is_asked_again"), ODD.values(), ids=ODD)
def test_an_odd_record_does_not_end_a_batch(serve, home, usage, is_asked_again):
    simulator = serve(echo)
    write(home, '"one"\n', '"two"\n')
    assert batch(home, **reach(simulator)).returncode == 0
    journal = home / "out.jsonl.journal"
    key = next(read_rows(home / "in.jsonl")).key.encode()
    payload = b'{"type":"done","id":"%b","attempt":1,"response":{"content":{"role":"assistant","parts":[' % key
    payload += b'{"type":"text","text":"odd"}]},"usage":{%b,"output_tokens":1},"finish_reason":"stop"}}' % usage
    kept = [line for line in journal.read_bytes().splitlines(keepends=True) if not (key in line and b'"done"' in line)]
    journal.write_bytes(b"".join(kept) + record(payload))
    again = batch(home, "--report", "report.json", **reach(simulator))
    assert again.returncode == 0, again.stderr
    is_named = b"1 recorded answer of out.jsonl.journal cannot be read. Sent again, the lines are billed again: 0\n"
    assert (is_named in again.stderr) == is_asked_again
    assert len(simulator.requests) == (3 if is_asked_again else 2)
    assert texts_of(home) == ["answer to one" if is_asked_again else "odd", "answer to two"]
    last = batch(home, **reach(simulator))  # the second answer counts from now on
    assert last.returncode == 0, last.stderr
    assert len(simulator.requests) == (3 if is_asked_again else 2)


# Pipes


def test_stdin_and_stdout(serve, home):
    simulator = serve(echo)
    text = b'"one"\n"two"\n'
    done = run("batch", "-", "-", *PLAIN, home=home, stdin=text, **reach(simulator))
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == ["0", "1"]
    assert b"stdout: 2 lines, 2 answered" in done.stderr
    assert [each.name for each in home.iterdir()] == ["state"]
    assert not [path for path in (home / "state").rglob("*") if path.is_file()]


def test_stdout_of_a_file(serve, home):
    simulator = serve(echo)
    write(home, '"one"\n', '"bad"\n')
    for _ in range(2):  # a line failed, so the journal is kept, and the answer is not paid twice
        done = run("batch", "in.jsonl", "-", *PLAIN, home=home, **reach(simulator))
        assert done.returncode == 1
        first, second = map(json.loads, done.stdout.splitlines())
        assert (first["response"]["content"]["parts"][0]["text"], second["response"]) == ("answer to one", None)
    assert len(simulator.requests) == 2
    assert sorted(each.name for each in home.iterdir()) == ["in.jsonl", "in.jsonl.journal"]


def test_a_batch_from_a_pipe_is_resumed(serve, home):
    simulator = serve(pace_after(3), pace=Pace(tokens_per_second=20))
    text = "".join(f'"q{number}"\n' for number in range(8)).encode()
    process = start(
        *("batch", "-", "out.jsonl", *PLAIN, "--limit-concurrency", "2"),
        home=home,
        stdin=subprocess.PIPE,
        **reach(simulator),
    )
    process.stdin.write(text)
    process.stdin.close()
    wait_until(lambda: len(simulator.requests) > 4, "some requests")
    process.kill()
    process.wait(PATIENCE_S)
    process.stdout.close()
    process.stderr.close()
    quick = serve(echo)
    done = run("batch", "-", "out.jsonl", *PLAIN, home=home, stdin=text, **reach(quick))
    assert done.returncode == 0, done.stderr
    assert b"Continuing: " in done.stderr
    assert len(lines_of(home)) == 8
    assert 0 < len(quick.requests) < 8


@pytest.mark.parametrize("source", ["<(cat in.jsonl)", "/dev/stdin < in.jsonl", "- < in.jsonl"])
def test_inputs_of_a_shell(serve, home, source):
    simulator = serve(echo)
    write(home, '"one"\n', '"two"\n')
    for _ in range(2):
        done = subprocess.run(  # noqa: S603
            ["bash", "-c", f"{' '.join(COMMAND)} batch {source} --progress none out.jsonl"],  # noqa: S607
            capture_output=True,
            cwd=home,
            env=clean_environment(home, **reach(simulator)),
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert texts_of(home) == ["answer to one", "answer to two"]
    assert len(simulator.requests) == 2


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", "2> >(exec 0<&-)", "2>&- <&-"])
@pytest.mark.parametrize("kind", ["rich", "tqdm", "plain"])
def test_a_stderr_that_cannot_be_written_loses_no_answer(serve, home, redirection, kind):
    if kind == "tqdm":
        pytest.importorskip("tqdm")
    simulator = serve(echo)
    write(home, *(f'"q{number}"\n' for number in range(20)))
    done = subprocess.run(  # noqa: S603
        ["bash", "-c", f"{' '.join(COMMAND)} batch in.jsonl out.jsonl --progress {kind} {redirection}"],  # noqa: S607
        capture_output=True,
        cwd=home,
        env=clean_environment(home, **reach(simulator)),
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0
    assert texts_of(home) == [f"answer to q{number}" for number in range(20)]
    assert (home / "out.jsonl.journal").read_bytes().count(b'"type":"done"') == 20


# Tables


def test_other_columns_are_carried_through(serve, home):
    simulator = serve(echo)
    rows = [["NA", "x", "1", "Dear all"], ["null", "", "02", "{}"], ["a, b", "None", "3.0", ""]]
    with (home / "in.csv").open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows([["question", "label", "cost", "body"], *rows])
    assert run("batch", "in.csv", "out.csv", *PLAIN, home=home, **reach(simulator)).returncode == 2
    arguments = ("batch", "in.csv", "--column", "question", *PLAIN)
    done = run(*arguments, "out.csv", home=home, **reach(simulator))
    assert done.returncode == 0, done.stderr
    found = table_of(home)
    assert list(found[0]) == [*RESULT, "label", "input_cost", "body"]
    assert [[row[name] for name in ("label", "input_cost", "body")] for row in found] == [row[1:] for row in rows]
    assert [row["completion"] for row in found] == [f"answer to {row[0]}" for row in rows]
    assert run(*arguments, "out.jsonl", home=home, **reach(simulator)).returncode == 0
    assert [line["label"] for line in lines_of(home)] == ["x", "", "None"]
    assert lines_of(home)[1]["input_cost"] == "02"


def test_text_in_a_column_of_json_does_not_end_the_batch(serve, home):
    (home / "in.csv").write_text("id,prompt,body,messages\n1,one,Dear all,hello\n2,two,,[]\n")
    done = run("batch", "in.csv", "out.csv", *PLAIN, home=home, **reach(serve(echo)))
    assert done.returncode == 0, done.stderr
    assert [(row["completion"], row["body"]) for row in table_of(home)] == [
        ("answer to one", "Dear all"),
        ("answer to two", ""),
    ]


# Progress


def test_a_log_has_the_reason_while_a_limit_holds_all_requests(serve, home):
    simulator = serve(echo, faults=["retry_after_seconds"] * 2)
    write(home, '"one"\n')
    process = start("batch", "in.jsonl", "out.jsonl", "--progress", "plain", home=home, **reach(simulator))
    lines = []
    while len(lines) < 5 and not (lines and b"limited by a refusal of gpt-5.4, for " in lines[-1]):
        lines.append(process.stderr.readline())  # on a busy machine the first line may come before the refusal
    process.kill()
    process.communicate()
    assert lines[0].startswith(b"0/1 (0%), ")
    assert b"limited by a refusal of gpt-5.4, for " in lines[-1]


def test_a_terminal_shows_the_progress_before_the_first_answer(serve, home):
    simulator = serve(Script(text="word " * 500), pace=Pace(tokens_per_second=5))
    write(home, '"one"\n')
    with terminal("batch", "in.jsonl", "out.jsonl", home=home, **reach(simulator)) as tty:
        assert "0/1 (0%), 1 in flight" in tty.expect(r"0/1 \(0%\), 1 in flight")


def test_no_key_is_in_a_journal_or_an_output(serve, home):
    write(home, '"one"\n')
    assert batch(home, "--system", "the secret", **reach(serve(echo))).returncode == 0
    written = (home / "out.jsonl.journal").read_text()
    assert KEY not in written
    assert "the secret" not in written
