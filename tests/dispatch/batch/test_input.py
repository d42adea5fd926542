"""Lines of a batch: every form, and every fault, which is an error of its own line only."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lm_deluge.dispatch.batch.input import BatchRow, read_rows
from lm_deluge.errors import ConfigurationError, InvalidPromptError
from lm_deluge.prompt.message import Message


def rows_of(tmp_path: Path, *lines: object) -> list[BatchRow]:
    path = tmp_path / "in.jsonl"
    path.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines), "utf-8")
    return list(read_rows(path))


def test_every_form_of_a_line(tmp_path: Path) -> None:
    weather = {"type": "function", "function": {"name": "weather"}}
    body = {
        "model": "gpt-4o",
        "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}],
        "temperature": 0,
        "max_tokens": 5,
        "tools": [weather],
        "store": True,
    }
    first, second, third, fourth = rows_of(
        tmp_path,
        '"a text, with \\u2028 in it"\n\n',
        {"id": 7, "prompt": "one", "metadata": {"kept": "out"}},
        {"id": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": "two"}]}]},
        {"custom_id": "c", "method": "POST", "url": "/v1/chat/completions", "body": body},
    )
    assert (first.id, first.number, first.conversation.messages) == (
        "0",
        1,
        [Message.user("a text, with \u2028 in it")],
    )
    assert (second.id, second.conversation.messages) == ("7", [Message.user("one")])
    assert (third.id, third.conversation.messages) == ("m", [Message.user("two")])
    assert (fourth.id, fourth.model, fourth.params.temperature, fourth.params.max_new_tokens) == ("c", "gpt-4o", 0, 5)
    assert [message.role for message in fourth.conversation] == ["system", "user"]
    assert [tool.name for tool in fourth.tools] == ["weather"]
    assert fourth.extra_body == {"store": True}
    assert {row.error for row in (first, second, third, fourth)} == {None}


WRONG = {
    "no JSON": ("words without quotes\n", "the line is not JSON"),
    "a number": (5, "neither a string nor an object"),
    "an unknown field": ({"id": "x", "promt": "hi"}, "the line has an unknown field 'promt'"),
    "nothing to ask": ({"id": "x"}, "Missing required parameter: 'messages'"),
    "an empty prompt": ('"  "\n', "the prompt is empty"),
    "another address": ({"custom_id": "x", "url": "/v1/embeddings", "body": {}}, "the line is for '/v1/embeddings'"),
    "a message of no role": ({"messages": [{"content": "hi"}]}, "Missing required parameter: 'messages[0].role'"),
    "a body that is none": ({"custom_id": "x", "body": 5}, "Invalid type for 'body'"),
}


@pytest.mark.parametrize(("line", "words"), WRONG.values(), ids=WRONG)
def test_a_line_that_is_wrong_ends_no_batch(tmp_path: Path, line: object, words: str) -> None:
    wrong, right = rows_of(tmp_path, line, {"id": "right", "prompt": "hi"})
    assert isinstance(wrong.error, InvalidPromptError)
    assert words in str(wrong.error)
    assert wrong.conversation is None
    assert (right.id, right.number, right.error) == ("right", 2, None)


def test_ids_must_differ(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="line 2 has the id 'a', which an earlier line has"):
        rows_of(tmp_path, {"id": "a", "prompt": "x"}, {"id": "a", "prompt": "y"})


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot read no\.jsonl: No such file"):
        list(read_rows(tmp_path / "no.jsonl"))


def test_lines_are_read_as_they_are_wanted(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('"one"\n"two"\n', "utf-8")
    rows = read_rows(path)
    assert next(rows).id == "0"
    path.unlink()
    assert next(rows).id == "1"


@pytest.mark.parametrize("library", ["polars", "pandas"])
def test_tables(tmp_path: Path, library: str) -> None:
    pytest.importorskip(library)
    path = tmp_path / "in.csv"
    path.write_text('id,prompt,messages\na,"hi, you",\nb,,"[{""role"": ""user"", ""content"": ""two""}]"\n', "utf-8")
    first, second = read_rows(path)
    assert (first.id, first.conversation.messages) == ("a", [Message.user("hi, you")])
    assert (second.id, second.conversation.messages) == ("b", [Message.user("two")])
