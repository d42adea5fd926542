"""The answers of a batch as a file: complete, or not written."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from lm_deluge.dispatch.batch.output import Answer, check_output, line_of, write_answers, write_whole
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
