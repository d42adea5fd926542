"""Parquet in, Parquet out: the input is cut into parts by row numbers, and each part becomes one file of the output.

A file is written under another name and renamed when it is on the disk, so a file that exists is complete. A run that
is started again skips the parts that have a file. A part without one finds the answers of its rows in its journal.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from lm_deluge.errors import BudgetError, ConfigurationError, MissingAPIKeyError
from lm_deluge.ray.ask_model import AskModel
from lm_deluge.ray.datasets import pool_options
from lm_deluge.ray.packages import import_arrow, import_ray
from lm_deluge.ray.part_report import PartReport
from lm_deluge.ray.progress import PartProgress

__all__ = ["JOURNALS", "AskParts", "InputPart", "ask_parts", "cut", "read_metadata", "rows_per_part"]

ROW = "__row"
"""The column that identifies the rows of the input while they are asked: their number, counted from 0."""
JOURNALS = ".journals"
"""The folder in the output that has the journals of the parts that are not written yet."""
_DIGEST = b"lm_deluge.rows"
_LEAST_ROWS, _MOST_ROWS = 100, 10_000
"""Of a part. Fewer rows cost more files than answers; more than 10,000 make a retried task long."""
_PARTS = 64  # wanted, so that a few actors have similar shares
_PARTS_PER_TASK = 8  # an actor asks four parts at once; a task that runs again skips those that have a file


class RowRange(msgspec.Struct, frozen=True):
    """Rows of one row group of a file."""

    path: str
    group: int
    offset: int
    rows: int


class InputPart(msgspec.Struct, frozen=True):
    """The rows of the input from `first` on that become one file of the output."""

    number: int
    first: int
    pieces: tuple[RowRange, ...]

    @property
    def rows(self) -> int:
        """The number of rows."""
        return sum(piece.rows for piece in self.pieces)

    def path_in(self, folder: Path) -> Path:
        """Return the path of its file in the output; the files sort in the order of the input."""
        return folder / f"part-{self.number:06}.parquet"

    def read(self) -> Any:
        """Return its rows as an Arrow table, with the column of their numbers."""
        pa = import_arrow()
        tables = []
        for piece in self.pieces:
            with pa.parquet.ParquetFile(piece.path) as file:
                tables.append(file.read_row_group(piece.group).slice(piece.offset, piece.rows))
        table = pa.concat_tables(tables)
        return table.append_column(ROW, pa.array(range(self.first, self.first + len(table)), pa.int64()))


def rows_per_part(total: int) -> int:
    """Return a number of rows in a part for an input of so many rows."""
    return min(max(-(-total // _PARTS), _LEAST_ROWS), _MOST_ROWS)


def cut(files: Sequence[Path], rows: int) -> list[InputPart]:
    """Cut Parquet files into parts of so many rows; only the ends of the files are read.

    Raises:
        ConfigurationError: A file is not a Parquet file, or its columns are not those of the first one.
    """
    parts: list[InputPart] = []
    pieces: list[RowRange] = []
    first = missing = 0
    for path, group, count in _groups(files):
        offset = 0
        while offset < count:
            taken = min(count - offset, rows - missing)
            pieces.append(RowRange(str(path), group, offset, taken))
            offset, missing = offset + taken, missing + taken
            if missing == rows:
                parts.append(InputPart(len(parts), first, tuple(pieces)))
                first, missing, pieces = first + rows, 0, []
    if pieces:
        parts.append(InputPart(len(parts), first, tuple(pieces)))
    return parts


def _groups(files: Sequence[Path]) -> Iterator[tuple[Path, int, int]]:
    first = None
    for path in files:
        found = read_metadata(path)
        schema = found.schema.to_arrow_schema()
        first = schema if first is None else first
        if not schema.equals(first):
            raise ConfigurationError(
                f"the columns of {path.name} are not those of {files[0].name}", hint="All files need the same columns."
            )
        for group in range(found.num_row_groups):
            yield path, group, found.row_group(group).num_rows


def read_metadata(path: Path) -> Any:
    """Return the metadata of a Parquet file.

    Raises:
        ConfigurationError: It is not a Parquet file, or has a column with a name that is needed here.
    """
    pa = import_arrow()
    try:
        found = pa.parquet.read_metadata(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise ConfigurationError(f"cannot read {path.name}: it is not a Parquet table") from error
    if ROW in found.schema.names:
        raise ConfigurationError(f"{path.name} has a column {ROW}", hint="Rename it: the command needs this name.")
    return found


class AskParts:
    """A class for `map_batches`: asks the rows of parts, and writes the file of each.

    Args:
        parts: All parts, by number.
        target: The folder of the output.
        ask: The arguments of `AskModel`, except `id` and `journal`.
        retry_failed: Whether the failed rows of parts that have a file are sent again.
        board: The handle of a `ProgressBoard`, for a display; None without one.
    """

    def __init__(
        self,
        parts: Sequence[InputPart],
        target: str,
        ask: Mapping[str, Any],
        *,
        retry_failed: bool = False,
        board: Any = None,
    ) -> None:
        self._parts = parts
        self._target = Path(target)
        self._retry_failed = retry_failed
        self._progress = PartProgress(board)
        self._model = AskModel(**ask, id=ROW, journal=self._target / JOURNALS, retry_failed=retry_failed)

    async def __call__(self, batch: Any) -> AsyncIterator[Any]:
        """Yield the report of each part of the batch."""
        reports = [await self._ask(self._parts[number]) for number in batch.column("part").to_pylist()]
        for report in reports:
            self._progress.end(report)
        yield import_arrow().table({"report": [msgspec.json.encode(report) for report in reports]})

    async def _ask(self, part: InputPart) -> PartReport:
        table = await asyncio.to_thread(part.read)
        path = part.path_in(self._target)
        digest = self._model.digest(table)
        known = await asyncio.to_thread(_read_file, path)
        if known is None:
            kept, asked = None, table
        elif (known.schema.metadata or {}).get(_DIGEST) != digest:
            return PartReport(part=part.number, rows=part.rows, problem=_CHANGED.format(name=path.name))
        else:
            asked = table.filter(known.column("error").is_valid()) if self._retry_failed else table.slice(0, 0)
            if not len(asked):
                return _report(part, known, table, is_new=False)
            kept = known
        self._progress.begin(part.number, part.rows)
        answers = await self._model.ask(asked, partial(self._progress.note, part.number))
        left = sum(isinstance(each.response.error, BudgetError | MissingAPIKeyError) for each in answers)
        if left:
            errors = {type(each.response.error).__name__ for each in answers if each.response.error is not None}
            return PartReport(part=part.number, rows=part.rows, open=left, errors=dict.fromkeys(sorted(errors), 1))
        answered = self._model.extended(asked, answers)
        answered = answered.drop_columns([ROW]) if kept is None else _merged(kept, answered)
        answered = answered.replace_schema_metadata({**(answered.schema.metadata or {}), _DIGEST: digest})
        await asyncio.to_thread(_write_file, path, answered)
        self._model.remove_journal(asked)
        return _report(part, answered, table, is_new=True)


_CHANGED = "the rows of {name} are not those of the input any more, or were asked with other options"


def _read_file(path: Path) -> Any:
    return import_arrow().parquet.read_table(path) if path.exists() else None


def _merged(known: Any, answered: Any) -> Any:
    """Return the rows of a file with the failed ones replaced, in order."""
    pa = import_arrow()
    numbers = iter(range(len(answered)))
    is_kept = known.column("error").is_null().to_pylist()
    kept = known.filter(pa.array(is_kept))
    new = answered.select(known.column_names).replace_schema_metadata(None)
    both = pa.concat_tables([kept.replace_schema_metadata(None), new])
    own = iter(range(len(kept)))
    return both.take(pa.array([next(own) if each else len(kept) + next(numbers) for each in is_kept], pa.int64()))


def _write_file(path: Path, table: Any) -> None:
    """Write a file that is either complete or not there."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        import_arrow().parquet.write_table(table, temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _report(part: InputPart, answered: Any, table: Any, *, is_new: bool) -> PartReport:
    columns = {name: answered.column(name).to_pylist() for name in ("error_type", "input_tokens", "output_tokens")}
    costs = [cost for cost in answered.column("cost").to_pylist() if cost is not None]
    names = table.column("id" if "id" in table.column_names else ROW).to_pylist()
    failures = [kind for kind in columns["error_type"] if kind is not None]
    again = answered.column("asked_before").to_pylist()
    return PartReport(
        part=part.number,
        rows=part.rows,
        answered=part.rows - len(failures),
        failed=len(failures),
        is_new=is_new,
        input_tokens=sum(filter(None, columns["input_tokens"])),
        output_tokens=sum(filter(None, columns["output_tokens"])),
        cost=sum(costs) if costs else None,
        again=[str(name) for name, count in zip(names, again, strict=True) for _ in range(count)],
        errors={kind: failures.count(kind) for kind in sorted(set(failures))},
    )


def ask_parts(
    parts: Sequence[InputPart],
    target: Path,
    ask: Mapping[str, Any],
    *,
    actors: int,
    retry_failed: bool = False,
    board: Any = None,
) -> Iterator[PartReport]:
    """Ask the rows of all parts with the Ray cluster of this process; yield the report of each part.

    Args:
        parts: The parts of the input.
        target: The folder of the output.
        ask: The arguments of `AskModel`, except `id` and `journal`.
        actors: Number of actors.
        retry_failed: Whether the failed rows of parts that have a file are sent again.
        board: The handle of a `ProgressBoard`, for a display; None without one.
    """
    ray = import_ray()
    blocks = min(len(parts), max(actors, -(-len(parts) // _PARTS_PER_TASK)))
    numbers = ray.data.from_items([{"part": part.number} for part in parts], override_num_blocks=blocks)
    reports = numbers.map_batches(
        AskParts,
        fn_constructor_kwargs={
            "parts": parts,
            "target": str(target),
            "ask": dict(ask),
            "retry_failed": retry_failed,
            "board": board,
        },
        batch_size=1,
        batch_format="pyarrow",
        **pool_options(actors),
    )
    for batch in reports.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        for data in batch.column("report").to_pylist():
            yield msgspec.json.decode(data, type=PartReport)
