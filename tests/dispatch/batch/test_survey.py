"""Ids, duplicates and fingerprint of a batch file."""

import json
from pathlib import Path

import pytest

from lm_deluge.dispatch.batch.survey import look_through, stamp_of
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


def test_a_fingerprint_is_of_lines_and_options(tmp_path: Path) -> None:
    one, other = write(tmp_path / "one", "a", "b"), write(tmp_path / "other", "b", "a")
    prints = {look_through(path, options).fingerprint for path in (one, other) for options in ({}, {"model": "m"})}
    assert len(prints) == 4
    assert look_through(one, {}, find_duplicates=True).fingerprint == look_through(one, {}).fingerprint


def test_a_change_shows(tmp_path: Path) -> None:
    path = write(tmp_path / "in.jsonl", "a")
    found = look_through(path, {})
    assert stamp_of(path) == found.stamp
    write(path, "a", "b")
    assert stamp_of(path) != found.stamp
    path.unlink()
    with pytest.raises(ConfigurationError, match=r"cannot read in\.jsonl: No such file"):
        stamp_of(path)
