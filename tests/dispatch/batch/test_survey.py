"""Ids, keys, duplicates and bad rows of a batch file."""

import json
from pathlib import Path

import pytest

from lm_deluge.dispatch.batch.input_file import InputFile
from lm_deluge.dispatch.batch.survey import look_through
from lm_deluge.errors import ConfigurationError


def write(path: Path, *lines: object) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_ids_and_duplicates(tmp_path: Path) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "one"}]}
    path = write(
        tmp_path / "in.jsonl",
        "one",
        {"id": "b", "prompt": "one"},
        {"id": "c", "messages": [{"role": "user", "content": "one"}]},
        {"id": "other model", "body": body},
        {"id": "hot", "body": {**body, "temperature": 1}},
        {"id": "hot too", "body": {**body, "temperature": 1}},
        5,
        6,
    )
    found = look_through(path, {}, find_duplicates=True)
    assert found.ids == ["0", "b", "c", "other model", "hot", "hot too", "6", "7"]
    assert found.duplicates == {"b": "0", "c": "0", "hot too": "hot"}
    assert look_through(path, {}).duplicates == {}


def test_a_fingerprint_is_of_options_and_a_key_of_a_request(tmp_path: Path) -> None:
    one, other = write(tmp_path / "one", "a", "b", "a"), write(tmp_path / "other", "b", {"id": "x", "prompt": "a"})
    assert look_through(one, {}).fingerprint == look_through(other, {}).fingerprint
    assert look_through(one, {}).fingerprint != look_through(one, {"model": "m"}).fingerprint
    first, second, again = look_through(one, {}).keys.values()
    assert list(look_through(other, {}).keys.values()) == [second, first]
    assert again not in (first, second)


def test_a_bad_row_is_found_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('"a"\n\nnot JSON\n"b"\n')
    found = look_through(path, {}, find_duplicates=True)
    assert found.ids == ["0", "1", "2"]
    assert {row_id: row.place for row_id, row in found.bad.items()} == {"1": "line 3"}


def test_a_change_shows(tmp_path: Path) -> None:
    path = write(tmp_path / "in.jsonl", "a")
    file = InputFile(path)
    found = look_through(file, {})
    assert file.stamp() == found.stamp
    write(path, "a", "b")
    assert file.stamp() != found.stamp
    path.unlink()
    with pytest.raises(ConfigurationError, match=r"cannot read in\.jsonl: No such file"):
        file.stamp()
