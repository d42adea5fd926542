"""The answers of a batch as a file: complete, or not written."""

import csv
import json
import os
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import msgspec
import pytest

from lm_deluge.dispatch.batch.output import (
    Answer,
    check_output,
    encode_answers,
    line_of,
    write_answers,
    write_whole,
)
from lm_deluge.errors import ConfigurationError, JournalError, RateLimitError
from lm_deluge.prompt.message import Message
from lm_deluge.response import APIResponse
from lm_deluge.usage import Usage


def answer(name: str, **fields) -> Answer:
    usage = Usage(input_tokens=3, output_tokens=2)
    return Answer(name, APIResponse(content=Message.assistant(f"answer {name}"), usage=usage, cost=0.5, **fields))


def test_a_line_has_an_answer_or_an_error() -> None:
    line = line_of(answer("a"))
    assert (line["id"], line["error"], line["cost"], line["usage"]["input_tokens"]) == ("a", None, 0.5, 3)
    assert "error" not in line["response"]
    error = RateLimitError("slow down", status_code=429, body="THE PROMPT", request_id="r1")
    line = line_of(answer("b", error=error))
    assert line["response"] is None
    assert (line["error"]["type"], line["error"]["status_code"], line["error"]["retryable"]) == (
        "RateLimitError",
        429,
        True,
    )
    assert line["error"]["request_id"] == "r1"
    assert line["error"]["partial"]["content"]["parts"][0]["text"] == "answer b"
    assert "THE PROMPT" not in json.dumps(line)
    bare = line_of(Answer("c", APIResponse(error=ConfigurationError("cannot")), "b"))
    assert (bare["error"]["partial"], bare["error"]["status_code"], bare["duplicate_of"]) == (None, None, "b")


def test_a_file_is_replaced_when_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("old")

    def broken() -> Iterator[Answer]:
        yield answer("a")
        assert path.read_text() == "old"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_answers(path, broken())
    assert [each.name for each in tmp_path.iterdir()] == ["out.jsonl"]
    assert path.read_text() == "old"
    write_answers(path, [answer("a"), answer("b")])
    assert [json.loads(line)["id"] for line in path.read_text().splitlines()] == ["a", "b"]


def test_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    path = tmp_path / "out.jsonl"
    path.symlink_to(tmp_path / "real" / "file")
    write_answers(path, [answer("a")])
    assert path.is_symlink()
    assert (tmp_path / "real" / "file").read_text().startswith('{"id":"a"')


def test_a_disk_that_refuses_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("old")
    (tmp_path / "out.jsonl.part").symlink_to("/dev/full")
    with pytest.raises(JournalError, match=r"cannot write .*out\.jsonl: No space left on device"):
        write_whole(path, [b"new"])
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["out.jsonl"]


def test_what_cannot_be_written_is_told_before(tmp_path: Path) -> None:
    check_output(tmp_path / "new.jsonl")
    with pytest.raises(ConfigurationError, match="there is no folder"):
        check_output(tmp_path / "no" / "out.jsonl")
    with pytest.raises(ConfigurationError, match="null is no file"):
        check_output(Path("/dev/null"))


def test_further_columns_keep_their_names_unless_the_output_has_them() -> None:
    columns = {"label": [1], "cost": 2, "input_cost": 3, "response": None, "when": date(2026, 1, 2)}
    line = line_of(Answer("a", APIResponse(cost=0.5), None, columns))
    assert {name: line[name] for name in ("cost", "label", "input_cost", "input_input_cost", "input_response")} == {
        "cost": 0.5,
        "label": [1],
        "input_cost": 3,
        "input_input_cost": 2,
        "input_response": None,
    }
    (data,) = encode_answers(".jsonl", [Answer("a", APIResponse(), None, columns)])
    assert json.loads(data)["when"] == "2026-01-02"
    assert json.loads(data)["input_cost"] in (2, 3)


def test_a_csv_has_all_columns_of_all_rows() -> None:
    answers = [
        answer("a"),
        msgspec.structs.replace(answer("b"), columns={"label": "x, y", "list": [1], "error": 5}),
        msgspec.structs.replace(answer("c"), columns={"other": None, "label": "NA"}),
    ]
    rows = list(csv.DictReader(b"".join(encode_answers(".CSV", answers)).decode().splitlines()))
    assert list(rows[0])[-4:] == ["label", "list", "input_error", "other"]
    assert [row["label"] for row in rows] == ["", "x, y", "NA"]
    assert (rows[1]["list"], rows[1]["input_error"], rows[1]["cost"]) == ("[1]", "5", "0.5")


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
@pytest.mark.parametrize("text", ["\ud800", "fine"])
def test_an_answer_that_cannot_be_written_is_an_error_of_its_row(suffix: str, text: str) -> None:
    spoilt = Answer("b", APIResponse(content=Message.assistant(text), usage=Usage(raw={"x": "\ud800"})))
    written = b"".join(encode_answers(suffix, [answer("a"), spoilt, answer("c")])).decode()
    assert "the answer cannot be written (UnicodeEncodeError)" in written
    assert "answer a" in written
    assert "answer c" in written


@pytest.mark.parametrize("library", ["polars", "pyarrow"])
def test_parquet_has_columns_of_any_kind(library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet = pytest.importorskip("pyarrow.parquet" if library == "pyarrow" else "polars")
    if library == "pyarrow":
        monkeypatch.setitem(sys.modules, "polars", None)
    columns = [
        {"n": 1, "mixed": 1, "list": [1], "large": 2**70, "when": date(2026, 1, 2), "none": None},
        {"n": 2.5, "mixed": "a", "list": None, "large": 1, "when": None, "none": None},
    ]
    answers = [msgspec.structs.replace(answer(str(number)), columns=each) for number, each in enumerate(columns)]
    spoilt = APIResponse(usage=Usage(input_tokens=10**400))
    write_answers(tmp_path / "out.parquet", [*answers, Answer("x", spoilt)])
    if library == "polars":
        rows = parquet.read_parquet(tmp_path / "out.parquet").to_dicts()
    else:
        rows = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["n"] for row in rows] == [1.0, 2.5, None]
    assert [row["mixed"] for row in rows] == ["1", "a", None]
    assert [row["list"] for row in rows] == ["[1]", None, None]
    assert rows[0]["large"] == str(2**70)
    assert rows[0]["when"] == date(2026, 1, 2)
    assert [row["input_tokens"] for row in rows] == [3, 3, None]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no modes")
def test_only_the_owner_may_read_a_new_file_and_an_old_one_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.with_name("out.jsonl.part").write_bytes(b"of a run that was killed")
    path.with_name("out.jsonl.part").chmod(0o644)
    before = os.umask(0o022)
    try:
        write_answers(path, [answer("a")])
        assert path.stat().st_mode & 0o777 == 0o600
        path.chmod(0o640)
        write_answers(path, [answer("b")])
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640
    assert b"answer b" in path.read_bytes()
