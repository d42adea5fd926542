"""Tables in and out: CSV with the standard library, Parquet with polars or pyarrow.

Cells of CSV are texts: "NA", "null" and "None" are words like any other, and numbers keep their digits.
"""

from __future__ import annotations

import contextlib
import csv
import importlib
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from typing import Any, BinaryIO, TypeAlias

import msgspec

from lm_deluge.dispatch.batch.input_file import InputFile
from lm_deluge.dispatch.batch.json_lines import not_utf8
from lm_deluge.errors import ConfigurationError, DelugeError, InvalidPromptError, MissingExtraError
from lm_deluge.extras import install_hint

__all__ = ["LARGEST_INTEGER", "TABLES", "check_table_writer", "encode_table", "open_table"]

TABLES = (".csv", ".parquet")
"""Suffixes of files that are read and written as tables; other files have lines."""
_SEPARATORS = ",;\t"  # Excel writes semicolons where the comma separates decimals
LARGEST_INTEGER = 2**63 - 1  # of a column: 64 bits with a sign

Record: TypeAlias = Mapping[str, Any]
Row: TypeAlias = tuple[str, Record | DelugeError]


@contextlib.contextmanager
def open_table(source: InputFile) -> Iterator[tuple[list[str], Iterator[Row]]]:
    """Yield the columns of a table, and its rows: the place of each, and its cells or the reason why it has none.

    Raises:
        ConfigurationError: The file cannot be read, or is not a table.
        MissingExtraError: No package that reads Parquet is installed.
    """
    if source.suffix != ".csv":
        yield _read_parquet(source)
        return
    # The limit belongs to the whole process; its default of 128 KiB is smaller than many prompts.
    csv.field_size_limit(max(csv.field_size_limit(), 2**31 - 1))
    file = source.open_text()
    # Bytes that are not UTF-8 become lone surrogates, so that only their row is wrong.
    with io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
        first = next((line for line in text if line.strip()), "")
        text.seek(0)
        reader = csv.reader(text, delimiter=max(_SEPARATORS, key=first.count), strict=True)
        try:
            header = next((cells for cells in reader if any(cells)), [])
        except csv.Error as error:
            raise ConfigurationError(f"the first line of {source.name} is not CSV: {error}") from None
        names = _distinct(header)
        yield names, _csv_rows(reader, names)


def _csv_rows(reader: Any, names: list[str]) -> Iterator[Row]:
    while True:
        place = f"line {reader.line_num + 1}"
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield place, InvalidPromptError(f"the line is not CSV: {error}")
            continue
        if any(cells):
            yield place, _record_of(cells, names)


def _record_of(cells: list[str], names: list[str]) -> Record | DelugeError:
    if len(cells) > len(names) and any(cells[len(names) :]):
        return InvalidPromptError(
            f"the line has {len(cells)} cells, and the table has {len(names)} columns",
            hint='Put cells that contain the separator into quotes: "a, b".',
        )
    for cell in cells:
        data = cell.encode("utf-8", "surrogateescape")
        try:
            data.decode()
        except UnicodeDecodeError as error:
            return not_utf8(data, error.start, "a cell of the line")
    return dict(zip(names, [*cells, *[""] * (len(names) - len(cells))], strict=False))


def _distinct(header: Sequence[str]) -> list[str]:
    """Return names for all columns, also for those without a name or with the name of another one."""
    names: list[str] = []
    for number, each in enumerate(header, start=1):
        name = each.strip() or f"column_{number}"
        while name in names:
            name += "_2"
        names.append(name)
    return names


def _read_parquet(source: InputFile) -> tuple[list[str], Iterator[Row]]:
    read = next(_usable(((_polars_rows, "polars"), (_pyarrow_rows, "pyarrow"))), None)
    if read is None:
        raise MissingExtraError(
            "reading .parquet files needs polars or pyarrow",
            hint=install_hint("polars", otherwise="use a file of CSV or of JSON lines"),
        )
    with source.open() as file:
        try:
            names, rows = read(file)
        except Exception as error:
            raise ConfigurationError(f"cannot read {source.name}: it is not a Parquet table") from error
    return names, ((f"row {number}", row) for number, row in enumerate(rows, start=1))


def _usable(ways: Iterable[tuple[Any, str]]) -> Iterator[Any]:
    """Yield the functions whose package is installed."""
    for way, package in ways:
        with contextlib.suppress(ImportError):
            importlib.import_module(package)
            yield way


def _polars_rows(file: BinaryIO) -> tuple[list[str], Iterable[Record]]:
    import polars as pl  # pyright: ignore[reportMissingImports]  # installed where tables are read

    frame = pl.read_parquet(file)
    return list(frame.columns), frame.iter_rows(named=True)


def _pyarrow_rows(file: BinaryIO) -> tuple[list[str], Iterable[Record]]:
    import pyarrow.parquet as pq  # pyright: ignore[reportMissingImports]  # installed where tables are read

    table = pq.read_table(file)
    return list(table.column_names), (row for batch in table.to_batches() for row in batch.to_pylist())


def check_table_writer(suffix: str) -> None:
    """Check that tables of this kind can be written.

    Raises:
        MissingExtraError: No package that writes Parquet is installed.
    """
    if suffix != ".csv" and next(_usable(((None, "polars"), (None, "pyarrow"))), "none") == "none":
        raise MissingExtraError(
            "writing .parquet files needs polars or pyarrow",
            hint=install_hint("polars", otherwise="name a .csv or .jsonl file"),
        )


def encode_table(suffix: str, records: Sequence[Record], kinds: Mapping[str, type]) -> Iterator[bytes]:
    """Yield the bytes of a table.

    Args:
        suffix: Of its file name.
        records: Its rows; a name that a row lacks is an empty cell.
        kinds: The first columns, with the type of their cells. Columns that only records name follow.
    """
    names = list(dict.fromkeys((*kinds, *(name for record in records for name in record))))
    if suffix == ".csv":
        yield from _csv_pieces(names, records)
        return
    columns = {name: _column([record.get(name) for record in records]) for name in names}
    write = next(_usable(((_with_polars, "polars"), (_with_pyarrow, "pyarrow"))))
    yield write(columns, kinds)


def _csv_pieces(names: list[str], records: Iterable[Record]) -> Iterator[bytes]:
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    for cells in (names, *([_cell(record.get(name)) for name in names] for record in records)):
        writer.writerow(cells)
        yield buffer.getvalue().encode("utf-8", "replace")
        buffer.seek(0)
        buffer.truncate()


def _cell(value: Any) -> Any:
    """Return a value as a scalar of a table; lists and objects become JSON."""
    if isinstance(value, list | dict | tuple):
        return msgspec.json.encode(value, enc_hook=str).decode("utf-8", "replace")
    return value if value is None or isinstance(value, str | int | float | date | bytes) else str(value)


def _column(values: list[Any]) -> list[Any]:
    """Return the cells of a column with one type: if they have several, or integers are too large, all become text."""
    cells = [_cell(value) for value in values]
    kinds = {type(cell) for cell in cells if cell is not None}
    is_large = any(type(cell) is int and abs(cell) > LARGEST_INTEGER for cell in cells)
    if kinds == {int, float} and not is_large:
        return [None if cell is None else float(cell) for cell in cells]
    if len(kinds) > 1 or is_large:
        return [None if cell is None else str(cell) for cell in cells]
    return cells


def _with_polars(columns: dict[str, list[Any]], kinds: Mapping[str, type]) -> bytes:
    import polars as pl  # pyright: ignore[reportMissingImports]  # installed where tables are written

    types = {str: pl.String, int: pl.Int64, float: pl.Float64}
    series = [
        pl.Series(name, cells, types[kinds[name]] if name in kinds else None, strict=False)
        for name, cells in columns.items()
    ]
    buffer = io.BytesIO()
    pl.DataFrame(series).write_parquet(buffer)
    return buffer.getvalue()


def _with_pyarrow(columns: dict[str, list[Any]], kinds: Mapping[str, type]) -> bytes:
    import pyarrow as pa  # pyright: ignore[reportMissingImports]  # installed where tables are written
    import pyarrow.parquet as pq  # pyright: ignore[reportMissingImports]  # the same

    types = {str: pa.string(), int: pa.int64(), float: pa.float64()}
    arrays = {name: pa.array(cells, types[kinds[name]] if name in kinds else None) for name, cells in columns.items()}
    buffer = io.BytesIO()
    pq.write_table(pa.table(arrays), buffer)
    return buffer.getvalue()
