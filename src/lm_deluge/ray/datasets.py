"""`ask` and `unanswered`: datasets in, datasets out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lm_deluge.errors import ConfigurationError
from lm_deluge.ray.ask_model import AskModel, check_journal
from lm_deluge.ray.columns import input_column
from lm_deluge.ray.packages import import_arrow, import_ray

__all__ = ["ask", "pool_options", "read_ids", "unanswered"]

_CPUS = 0.25
"""Of one actor. A whole one, Ray's default, leaves none for the tasks that read the data where the cluster has as many
cores as actors, and then the program waits without a message."""
_ROWS = 256
"""In a batch. Ray gives an actor four batches at once: 1,024 rows keep a limit of 60,000 requests a minute busy for
answers of a second, and a task that runs again looks up at most as many."""


def ask(
    dataset: Any,
    model: str | Sequence[str],
    *,
    actors: int | tuple[int, int] = 2,
    batch_size: int = _ROWS,
    num_cpus: float = _CPUS,
    **options: Any,
) -> Any:
    """Return a dataset with the answers to the rows of another one. Nothing is sent until it is used.

    It is `dataset.map_batches(AskModel, ...)` with the settings that a class which waits for answers needs.

    Args:
        dataset: A Ray dataset.
        model: A model, or several that share the rows.
        actors: Number of actors, or the least and the greatest number. Each is a process.
        batch_size: Rows in a batch. An actor has four batches at once.
        num_cpus: Cores that Ray reserves for an actor.
        options: As `AskModel` takes them.

    Returns:
        The dataset with the columns of the answers.

    Raises:
        MissingExtraError: Ray Data is not installed.
        ConfigurationError: An option is unknown or out of range.

    Example:
        >>> answered = ask(ray.data.read_parquet("in/"), "gpt-5.4", prompt="question", max_requests_per_minute=500)
        >>> answered.write_parquet("out/")
    """
    import_ray()
    if (journal := options.get("journal")) is not None:
        check_journal(journal, options.get("id"))
        options["journal"] = str(Path(journal).absolute())  # actors may have another working folder
    # Refuses wrong options before the cluster works; it creates no folder, and joins no limits.
    AskModel(model, **{**options, "journal": None, "share_limits": False})
    return dataset.map_batches(
        AskModel,
        fn_constructor_kwargs={"model": model, **options},
        batch_size=batch_size,
        batch_format="pyarrow",
        **pool_options(actors, num_cpus),
    )


def pool_options(actors: int | tuple[int, int], num_cpus: float = _CPUS) -> dict[str, Any]:
    """Return the options of `map_batches` for a pool of actors.

    Raises:
        ConfigurationError: The number of actors is wrong.
    """
    data = import_ray().data
    least, most = (actors, actors) if isinstance(actors, int) else actors
    if not 1 <= least <= most:
        raise ConfigurationError(f"actors={actors!r} is not a number of actors", hint="Pass 2, or (1, 8).")
    pool = data.ActorPoolStrategy(size=least) if least == most else None
    return {"compute": pool or data.ActorPoolStrategy(min_size=least, max_size=most), "num_cpus": num_cpus}


def unanswered(dataset: Any, folder: str | Path, id: str) -> Any:
    """Return the rows of a dataset that are not in the Parquet files of a folder yet.

    A file that is no whole Parquet file, because the process that wrote it was killed, is renamed to `.damaged`: its
    rows count as unanswered, and a journal has their answers.

    Args:
        dataset: A Ray dataset.
        folder: The folder with the output of an earlier run; it need not exist.
        id: The column that identifies the rows, in the dataset and in the files.

    Raises:
        ConfigurationError: A file has no such column.

    Example:
        >>> rest = unanswered(ray.data.read_parquet("in/"), "out/", "review_id")
        >>> ask(rest, "gpt-5.4", id="review_id", journal="journal/").write_parquet("out/", mode="append")
    """
    ray = import_ray()
    known = read_ids(Path(folder), id)
    if known is None:
        return dataset
    shared = ray.put(known)

    def without_known(table: Any) -> Any:
        return table if not len(table) else _without(table, id, ray.get(shared))

    return dataset.map_batches(without_known, batch_size=None, batch_format="pyarrow")


def _without(table: Any, id: str, known: Any) -> Any:
    """Return the rows of a table whose id is not among the known ones."""
    pa = import_arrow()
    if id not in table.column_names:
        raise ConfigurationError(f"the dataset has no column {id[:80]!r}")
    column = table.column(id)
    try:
        known = known.cast(column.type)
    except pa.ArrowException as error:
        raise ConfigurationError(
            f"the ids are {column.type} in the dataset and {known.type} in the files",
            hint="Name another folder, or convert the column.",
        ) from error
    return table.filter(pa.compute.invert(pa.compute.is_in(column, value_set=known)))


def read_ids(folder: Path, column: str) -> Any:
    """Return the ids of the rows in the Parquet files of a folder as an Arrow array; None if it has none.

    Raises:
        ConfigurationError: A file has no such column.
    """
    pa = import_arrow()
    known: list[Any] = []
    for path in sorted(folder.rglob("*.parquet")) if folder.is_dir() else ():
        try:
            file = pa.parquet.ParquetFile(path)
        except (pa.ArrowInvalid, OSError):
            path.replace(path.with_name(path.name + ".damaged"))
            continue
        with file:
            name = input_column(column, file.schema_arrow.names)
            if name not in file.schema_arrow.names:
                raise ConfigurationError(f"{path.name} has no column {column[:80]!r}")
            known += file.read([name]).column(name).drop_null().chunks
    return pa.concat_arrays([each.cast(known[0].type) for each in known]) if known else None
