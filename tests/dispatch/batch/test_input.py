"""Lines of a batch: every form, and every fault, which is an error of its own line only."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
import threading
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_deluge.dispatch.batch.input import BatchRow, RowFormat, read_rows
from lm_deluge.dispatch.batch.input_file import InputFile
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
    "no JSON": (
        "words without quotes\n",
        "the line is not JSON: expecting value, at column 1. Put a plain prompt in quotes",
    ),
    "half a line": ('{"prompt": "x"\n', "the line is not JSON: expecting ',' delimiter, at column 15"),
    "a tab in a text": ('{"prompt": "a\tb"}\n', "the line is not JSON: invalid control character at, at column 14"),
    "not a number": ('{"prompt": "x", "metadata": NaN}\n', "it contains NaN, which JSON does not have; write null"),
    "infinity": ('{"prompt": "x", "metadata": [-Infinity]}\n', "it contains -Infinity, which JSON does not have"),
    "too large": ('{"prompt": "x", "metadata": 1e999}\n', "the line is not JSON: a number in it is too large"),
    "too deep": ('{"prompt": ' + "[" * 100_000 + "\n", "it is nested too deeply"),
    "a first half": ('{"prompt": "ab\\ud83d"}\n', "it has a lone surrogate, half of a character, at column 15"),
    "a second half": (
        '{"prompt": "\\\\ude00 \\ude00"}\n',
        "it has a lone surrogate, half of a character, at column 21",
    ),
    "a half before a pair": ('"\\ud83d\\ud83d\\ude00"\n', "half of a character, at column 2"),
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


RAW = {
    "latin-1": (b'{"id": "x", "prompt": "caf\xe9"}', "the line is not UTF-8: byte 0xE9 at column 27"),
    "after a character of two bytes": (b'"\xc3\xa9 \xff"', "byte 0xFF at column 4. If the file is Latin-1"),
    "an encoded surrogate": (b'"\xed\xa0\xbd"', "the line has a lone surrogate, half of a character, at column 2"),
}


@pytest.mark.parametrize(("line", "words"), RAW.values(), ids=RAW)
@pytest.mark.parametrize("is_text", [False, True])
def test_bytes_that_are_not_utf8_are_named(tmp_path: Path, line: bytes, words: str, is_text: bool) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'"fine"\n\n' + line + b'\n"fine too"\n')
    first, wrong, last = read_rows(path, RowFormat(is_text=is_text))
    assert (first.error, last.error) == (None, None)
    assert words in str(wrong.error)
    assert (wrong.place, wrong.number) == ("line 3", 2)


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_byte_order_mark_is_no_part_of_a_line(tmp_path: Path, end: bytes) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'\xef\xbb\xbf"one"' + end + b'\xef\xbb\xbf{"prompt": "two"}' + end)
    assert [row.conversation.messages for row in read_rows(path)] == [[Message.user("one")], [Message.user("two")]]
    texts = [row.conversation[0].completion for row in read_rows(path, RowFormat(is_text=True))]
    assert texts == ['"one"', '{"prompt": "two"}']


OTHERS = {
    "UTF-16 text": ('"one"\n'.encode("utf-16"), '"one"\n'.encode("utf-16-le"), '"one"\n'.encode("utf-16-be")),
    "UTF-32 text": ('"one"\n'.encode("utf-32"),),
    "compressed with gzip": (b"\x1f\x8b\x08\x00",),
    "a zip file or an Excel table": (b"PK\x03\x04",),
    "a Parquet table": (b"PAR1",),
}


@pytest.mark.parametrize(("kind", "data"), [(kind, each) for kind, all_data in OTHERS.items() for each in all_data])
@pytest.mark.parametrize("name", ["in.jsonl", "in.csv"])
def test_other_formats_are_named(tmp_path: Path, kind: str, data: bytes, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(ConfigurationError, match=rf"{name} is {kind}\."):
        list(read_rows(path))


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is a folder"):
        list(read_rows(tmp_path))


@given(st.lists(st.none() | st.integers(0, 8) | st.sampled_from(["line 1", "line line 2", "7", "x"]), max_size=9))
def test_made_up_ids_never_collide(named: list[int | str | None]) -> None:
    own = dict.fromkeys(str(each) for each in named if each is not None)
    lines = [{"id": each, "prompt": "p"} for each in own]
    lines += ['"a prompt"\n', 5] * named.count(None)
    with TemporaryDirectory() as folder:
        for order in (lines, lines[::-1]):
            ids = [row.id for row in rows_of(Path(folder), *order)]
            assert len(set(ids)) == len(order)
            assert set(own) <= set(ids)


def test_a_key_is_that_of_the_request(tmp_path: Path) -> None:
    one, two, again, named, hot = rows_of(
        tmp_path,
        *(
            '"one"\n',
            '"two"\n',
            {"id": "x", "prompt": "one"},
            {"messages": [{"role": "user", "content": "two"}], "id": "y"},
        ),
        {"custom_id": "z", "body": {"messages": [{"role": "user", "content": "one"}], "temperature": 1}},
    )
    assert again.key == f"{one.key}-2"
    assert named.key == f"{two.key}-2"
    assert len({one.key, two.key, hot.key}) == 3
    reordered = rows_of(tmp_path, '"two"\n', '"three"\n', '"one"\n')
    assert [row.key for row in reordered][::2] == [two.key, one.key]


def test_a_field_may_be_named_and_the_others_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('{"question": "one", "label": 3, "id": "a"}\n{"label": 4}\n"two"\n')
    first, wrong, text = read_rows(path, RowFormat(column="question"))
    assert (first.id, first.columns, first.conversation[0].completion) == ("a", {"label": 3}, "one")
    assert "the prompt is empty" in str(wrong.error)
    assert text.conversation[0].completion == "two"


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


def table_of(tmp_path: Path, text: str | bytes, **form: Any) -> list[BatchRow]:
    path = tmp_path / "in.CSV"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return list(read_rows(path, RowFormat(**form)))


def test_columns_of_a_table(tmp_path: Path) -> None:
    text = 'id,prompt,messages\na,"hi, you",\nb,,"[{""role"": ""user"", ""content"": ""two""}]"\n'
    first, second = table_of(tmp_path, text)
    assert (first.id, first.conversation.messages) == ("a", [Message.user("hi, you")])
    assert (second.id, second.conversation.messages) == ("b", [Message.user("two")])


def test_words_for_nothing_are_words(tmp_path: Path) -> None:
    words = ["NA", "null", "None", "nan", "N/A", "-", "0123", "1e5", "true"]
    found = table_of(tmp_path, "prompt,label\n" + "".join(f"{word},{word}\n" for word in words))
    assert [row.conversation[0].completion for row in found] == words
    assert [row.columns for row in found] == [{"label": word} for word in words]


@pytest.mark.parametrize("column", ["body", "messages"])
@pytest.mark.parametrize("cell", ["Dear all", "5", "{not JSON", "[1]", "null", '{"a": 1}'])
def test_text_in_a_column_of_json_is_text_beside_a_prompt_and_else_an_error(
    tmp_path: Path, column: str, cell: str
) -> None:
    quoted = '"' + cell.replace('"', '""') + '"'
    (row,) = table_of(tmp_path, f"prompt,{column}\nhi,{quoted}\n")
    assert (row.error, row.columns, row.conversation.messages) == (None, {column: cell}, [Message.user("hi")])
    (row,) = table_of(tmp_path, f"{column},label\n{quoted},x\n")
    assert isinstance(row.error, InvalidPromptError)
    assert row.columns == {"label": "x"}
    (row,) = table_of(tmp_path, f"{column},label\n{quoted},x\n", column=column)
    assert (row.error, row.conversation.messages) == (None, [Message.user(cell)])


@given(st.dictionaries(st.sampled_from(["prompt", "messages", "body", "id", "url", "note"]), st.text(max_size=12)))
def test_no_cell_ends_the_batch(cells: dict[str, str]) -> None:
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, ["prompt", *(name for name in cells if name != "prompt")])
    writer.writeheader()
    writer.writerows([cells, {"prompt": "last"}])
    with TemporaryDirectory() as folder:
        found = table_of(Path(folder), buffer.getvalue().encode("utf-8", "replace"))
    assert found[-1].conversation.messages == [Message.user("last")]
    assert all(isinstance(row.error, InvalidPromptError | None) for row in found)


def test_a_line_that_is_no_csv_is_an_error_of_its_own(tmp_path: Path) -> None:
    found = table_of(tmp_path, b'\xef\xbb\xbfprompt,label\n"two\nlines",x\n\none,2,3\ncaf\xe9,x\n"a"b,c\nlast,y\n')
    assert [(row.place, row.error is None) for row in found] == [
        *(("line 2", True), ("line 5", False), ("line 6", False), ("line 7", False), ("line 8", True)),
    ]
    assert found[0].conversation[0].completion == "two\nlines"
    assert "the line has 3 cells, and the table has 2 columns" in str(found[1].error)
    assert "a cell of the line is not UTF-8: byte 0xE9 at column 4" in str(found[2].error)
    assert "the line is not CSV: " in str(found[3].error)


def test_a_table_needs_a_column_of_prompts(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"--column\. The columns are 'question', 'column_2', 'question_2'\."):
        table_of(tmp_path, "question,,question\nx,1,2\n")
    with pytest.raises(ConfigurationError, match=r"in\.CSV has no column 'prompts'"):
        table_of(tmp_path, "prompt\nx\n", column="prompts")
    assert table_of(tmp_path, "prompt;label\nx;1\n")[0].columns == {"label": "1"}
    long = "x" * 200_000
    assert table_of(tmp_path, f"question\n{long}\n", column="question")[0].conversation[0].completion == long
    assert table_of(tmp_path, "") == []


@pytest.mark.parametrize("library", ["polars", "pyarrow"])
def test_parquet(tmp_path: Path, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if library == "pyarrow":
        monkeypatch.setitem(sys.modules, "polars", None)
    parquet = pytest.importorskip("polars" if library == "polars" else "pyarrow.parquet")
    columns = {"id": [1, 2], "prompt": ["NA", None], "messages": [None, [{"role": "user", "content": "two"}]]}
    path = tmp_path / "in.parquet"
    if library == "polars":
        parquet.DataFrame({**columns, "n": [1.5, None]}).write_parquet(path)
    else:
        parquet.write_table(pytest.importorskip("pyarrow").table({**columns, "n": [1.5, None]}), path)
    first, second = read_rows(path)
    assert (first.id, first.place, first.conversation[0].completion) == ("1", "row 1", "NA")
    assert (first.columns, second.columns) == ({"messages": None, "n": 1.5}, {"prompt": None, "n": None})
    assert second.conversation.messages == [Message.user("two")]
    path.write_bytes(b"no table")
    with pytest.raises(ConfigurationError, match=r"cannot read in\.parquet: it is not a Parquet table"):
        list(read_rows(path))


def test_a_pipe_is_read_once_and_then_as_often_as_wanted() -> None:
    file = InputFile(Path("-"), io.BytesIO(b'"one"\n{"id": "0", "prompt": "two"}\n"three"\n'))
    for _ in range(3):
        assert [row.id for row in read_rows(file)] == ["line 1", "0", "2"]
    first, second = read_rows(file), read_rows(file)
    pairs = [(one.id, other.id) for one, other in zip(first, second, strict=True)]  # each reader has its own position
    assert pairs == [("line 1", "line 1"), ("0", "0"), ("2", "2")]
    assert file.stamp() == file.stamp()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
def test_a_named_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_text, args=('"one"\n"two"\n',))
    writer.start()
    file = InputFile(path)
    writer.join()
    assert [row.conversation[0].completion for row in read_rows(file)] == ["one", "two"]
