"""The answers as columns of an Arrow table. All batches have the same columns, whatever their answers are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from lm_deluge.outputs.answer_type import answer_type
from lm_deluge.prompt.plain_values import to_plain
from lm_deluge.ray.packages import import_arrow
from lm_deluge.response import APIResponse
from lm_deluge.schemas.strict_form import resolved

__all__ = ["ANSWER_COLUMNS", "AnswerColumns", "input_column"]

JSON = dict[str, Any]

ANSWER_COLUMNS = (
    *("completion", "finish_reason", "error", "error_type", "model"),
    *("input_tokens", "output_tokens", "cost", "asked_before"),
)
"""The columns that each answer has, beside those of a typed output."""

_PREFIX = "input_"  # of a column of the input that has the name of another one
_MOST_DEPTH = 8  # of nested objects as nested columns; deeper ones, and recursive ones, are JSON texts
_LARGEST = 2**63 - 1  # of a column of integers

_encoder = msgspec.json.Encoder(enc_hook=str)


class AnswerColumns:
    """Makes the columns of answers.

    Args:
        output: The type of the answers, as `output=` takes it; None for texts. The properties of an object become
            columns named `output_` and the property; another type becomes the column `output`.

    Raises:
        ConfigurationError: It is no type.
    """

    def __init__(self, output: Any = None) -> None:
        self._schema: JSON | None = None
        self._is_single = False
        if output is not None:
            kind = answer_type(output)
            self._schema, self._is_single = kind.schema, kind.is_wrapped

    def extended(self, table: Any, answers: Sequence[tuple[APIResponse, int]]) -> Any:
        """Return a table with the columns of the answers, in the order of its rows.

        A column of the table that has the name of one of them gets the prefix `input_`.

        Args:
            table: An Arrow table.
            answers: For each row its response, and how many earlier requests of the row may have been billed.
        """
        own = dict(self._answers(answers))
        names: list[str] = []
        for name in table.column_names:
            new = name
            while new in own or new in names or (new != name and new in table.column_names):
                new = f"{_PREFIX}{new}"
            names.append(new)
        table = table.rename_columns(names)
        for name, column in own.items():
            table = table.append_column(name, column)
        return table

    def _answers(self, answers: Sequence[tuple[APIResponse, int]]) -> list[tuple[str, Any]]:
        pa = import_arrow()
        responses = [response for response, _ in answers]
        usages = [response.usage for response in responses]
        columns: list[tuple[str, Any, list[Any]]] = [
            ("completion", pa.string(), [_text(each.completion) if each.content.parts else None for each in responses]),
            ("finish_reason", pa.string(), [each.finish_reason for each in responses]),
            ("error", pa.string(), [_text(each.error_message) for each in responses]),
            (
                "error_type",
                pa.string(),
                [None if each.error is None else type(each.error).__name__ for each in responses],
            ),
            ("model", pa.string(), [each.model_internal or None for each in responses]),
            ("input_tokens", pa.int64(), [None if usage is None else _whole(usage.input_tokens) for usage in usages]),
            ("output_tokens", pa.int64(), [None if usage is None else _whole(usage.output_tokens) for usage in usages]),
            ("cost", pa.float64(), [each.cost for each in responses]),
            ("asked_before", pa.int64(), [count for _, count in answers]),
        ]
        made = [(name, pa.array(values, kind)) for name, kind, values in columns]
        return made if self._schema is None else [*made, *self._outputs(self._schema, responses)]

    def _outputs(self, schema: JSON, responses: Sequence[APIResponse]) -> list[tuple[str, Any]]:
        pa = import_arrow()
        values = [None if each.error is not None else to_plain(each.output) for each in responses]
        properties: Mapping[str, Any] = schema.get("properties", {})
        if self._is_single:
            (inner,) = properties.values()
            kind, convert = _arrow_type(pa, inner, schema)
            return [("output", pa.array([None if value is None else convert(value) for value in values], kind))]
        columns = []
        for name, part in properties.items():
            kind, convert = _arrow_type(pa, part, schema)
            cells = [value.get(name) if isinstance(value, dict) else None for value in values]
            columns.append((f"output_{name}", pa.array([None if c is None else convert(c) for c in cells], kind)))
        return columns


def input_column(name: str, names: Sequence[str]) -> str:
    """Return the name that a column of the input has in a table with answers, whose columns have these names."""
    is_ours = name in ANSWER_COLUMNS or name.startswith("output")
    while is_ours and f"{_PREFIX}{name}" in names:
        name = f"{_PREFIX}{name}"
    return name


def _arrow_type(pa: Any, schema: Any, root: JSON, depth: int = 0) -> tuple[Any, Callable[[Any], Any]]:
    """Return the Arrow type of the values of a schema, and the function that converts such a value."""
    schema = _one_of(resolved(schema, root) if isinstance(schema, dict) else None, root)
    kind = None if schema is None else _kind_of(schema)
    if kind in _SCALARS:
        name, convert = _SCALARS[kind]
        return getattr(pa, name)(), convert
    if schema is None or depth >= _MOST_DEPTH:
        return pa.string(), _as_json
    if kind == "array" and isinstance(schema.get("items"), dict):
        inner, convert_item = _arrow_type(pa, schema["items"], root, depth + 1)
        return pa.list_(inner), lambda value: [None if item is None else convert_item(item) for item in value]
    if kind == "object" and schema.get("properties") and not isinstance(schema.get("additionalProperties"), dict):
        parts = {name: _arrow_type(pa, part, root, depth + 1) for name, part in schema["properties"].items()}
        fields = pa.struct([(name, inner) for name, (inner, _) in parts.items()])
        converts = {name: convert_part for name, (_, convert_part) in parts.items()}
        return fields, lambda value: {
            name: None if value.get(name) is None else convert_part(value[name])
            for name, convert_part in converts.items()
        }
    return pa.string(), _as_json


def _one_of(schema: Any, root: JSON) -> JSON | None:
    """Return the only alternative of a schema beside null; None if it has several."""
    if not isinstance(schema, dict):
        return None
    for name in ("anyOf", "oneOf"):
        if name in schema:
            parts = [resolved(part, root) for part in schema[name]]
            others = [part for part in parts if isinstance(part, dict) and part.get("type") != "null"]
            return others[0] if len(others) == 1 else None
    return schema


def _kind_of(schema: JSON) -> str | None:
    kind = schema.get("type")
    if isinstance(kind, list):
        kinds = [each for each in kind if each != "null"]
        kind = kinds[0] if len(kinds) == 1 else None
    values = schema.get("enum", [schema["const"]] if "const" in schema else [])
    if kind is None and values and all(isinstance(each, str) for each in values):
        return "string"
    return kind if isinstance(kind, str) else None


def _as_json(value: Any) -> str:
    return _encoder.encode(value).decode("utf-8", "replace")


def _text(value: Any) -> str | None:
    """Return a text that fits into a column: lone surrogates become question marks."""
    return None if value is None else str(value).encode("utf-8", "replace").decode()


def _whole(value: Any) -> int | None:
    return int(value) if abs(value) <= _LARGEST else None


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except OverflowError:  # an integer above 1e308
        return None


_SCALARS: dict[str | None, tuple[str, Callable[[Any], Any]]] = {
    "string": ("string", _text),
    "integer": ("int64", _whole),
    "number": ("float64", _number),
    "boolean": ("bool_", bool),
}
