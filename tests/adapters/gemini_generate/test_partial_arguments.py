"""A tree flattened into values with paths is restored as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_deluge.adapters.gemini_generate.partial_arguments import ArgumentsWriter, PartialArgument
from lm_deluge.errors import ProtocolError

_names = st.from_regex(r"[a-z_]{1,4}", fullmatch=True) | st.text(min_size=1, max_size=4)
_leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
# Empty objects and lists have no leaves, so Vertex never sends them.
_trees = st.recursive(
    _leaves,
    lambda inner: st.lists(inner, min_size=1, max_size=3) | st.dictionaries(_names, inner, min_size=1, max_size=3),
    max_leaves=8,
)


def step_of(name: str) -> str:
    if name.isidentifier():
        return f".{name}"
    escaped = name.replace("\\", "\\\\").replace("'", "\\'")
    return f"['{escaped}']"


def pieces_of(value: Any, path: str = "$") -> Iterator[PartialArgument]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from pieces_of(inner, path + step_of(name))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from pieces_of(inner, f"{path}[{index}]")
    elif isinstance(value, str):
        half = len(value) // 2
        yield PartialArgument(json_path=path, string_value=value[:half], will_continue=True)
        yield PartialArgument(json_path=path, string_value=value[half:])
    elif isinstance(value, bool):
        yield PartialArgument(json_path=path, bool_value=value)
    else:
        yield PartialArgument(json_path=path, number_value=value)


def written(pieces: Iterator[PartialArgument] | list[PartialArgument]) -> str:
    writer = ArgumentsWriter()
    return "".join([*(writer.add(piece) for piece in pieces), writer.close()])


@given(st.dictionaries(_names, _trees, min_size=1, max_size=4))
def test_a_tree_is_written_as_it_was(arguments: dict[str, Any]) -> None:
    assert json.loads(written(pieces_of(arguments))) == arguments


def test_no_values_are_no_arguments() -> None:
    assert written([]) == ""
    assert written([PartialArgument(json_path="$"), PartialArgument(json_path="$.a", will_continue=True)]) == ""


def test_items_that_did_not_come_are_null() -> None:
    assert json.loads(written([PartialArgument(json_path="$.a[2]", number_value=1)])) == {"a": [None, None, 1]}


@pytest.mark.parametrize("paths", [["$.a", "$.a"], ["$.a.b", "$.c", "$.a.d"], ["$.a[0].b", "$.a[1]", "$.a[0].c"]])
def test_what_was_written_is_not_taken_back(paths: list[str]) -> None:
    with pytest.raises(ProtocolError, match="arrive out of order"):
        written([PartialArgument(json_path=path, number_value=1) for path in paths])


def test_a_path_that_is_too_deep_is_refused() -> None:
    """The prefixes of each path are kept: a path of 100,000 steps would take gigabytes."""
    with pytest.raises(ProtocolError, match="nested too deeply"):
        ArgumentsWriter().add(PartialArgument(json_path="$" + ".a" * 100_000, string_value="x"))
