"""`AskModel`: a class for `dataset.map_batches` that asks a model for each row."""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from lm_deluge.client.batch.journaled import RowCalls, RowHistory, RowJournal, ambiguous_counts, is_due
from lm_deluge.client.batch.row_planner import RowPlanner
from lm_deluge.client.call_options import CallOptions
from lm_deluge.client.client import LLMClient
from lm_deluge.dispatch.batch.input import BatchRow
from lm_deluge.dispatch.journal.journal import Journal
from lm_deluge.dispatch.journal.records import fingerprint_of
from lm_deluge.dispatch.scheduling.runner import Runner
from lm_deluge.errors import ConfigurationError, DispatchError
from lm_deluge.outputs.answer_type import schema_sent
from lm_deluge.ray.columns import AnswerColumns
from lm_deluge.ray.journals import DatasetJournals, Earlier
from lm_deluge.ray.limits import ClusterLimits
from lm_deluge.ray.metrics import ActorMetrics
from lm_deluge.ray.packages import import_arrow, import_ray
from lm_deluge.ray.prompts import PromptColumns
from lm_deluge.response import APIResponse

__all__ = ["AskModel", "AskedRow"]


Note: TypeAlias = Callable[[APIResponse], None] | None


class AskedRow(msgspec.Struct, frozen=True):
    """The response of a row, and how many earlier requests of the row have no outcome and may have been billed."""

    response: APIResponse
    asked_before: int = 0


class AskModel:
    """Asks a model for each row of a Ray dataset, and adds the answers as columns.

    All actors of the cluster share the limits: those of `options`, and those that the provider's responses name. A row
    that fails has the reason in the columns `error` and `error_type`, and ends nothing else.

    With `journal` and `id`, each request and each answer is recorded on the disk first. A task that Ray runs again, and
    a program that is started again, takes the answers from there. Only requests that were in flight are sent again,
    and their rows have `asked_before` above 0, because both requests may be billed.

    The columns: `completion`, `finish_reason`, `error`, `error_type`, `model`, `input_tokens`, `output_tokens`, `cost`,
    `asked_before`; and those of a typed `output`, `output_NAME` for each property, or `output`.

    Args:
        model: A model, or several that share the rows.
        prompt: The column with the prompts: texts, or lists of messages. Default: the column `prompt` or `messages`.
        template: A text with the names of columns in braces, in place of `prompt`.
        system: A system message for the rows that have none.
        id: The column that identifies the rows.
        journal: A folder that all actors see. It contains the answers, and no prompts and no keys.
        output: The type of the answers: a Pydantic model, dataclass, TypedDict, `list[...]`, or a JSON schema.
        max_output_retries: How often a row is asked again, with the error, after an answer that is not a valid output.
        retry_failed: Whether rows are sent again that failed for good in an earlier run.
        share_limits: Whether the limits are those of all actors together. If false, each actor has them for itself.
            With the option `limiter`, the Redis server that it names has them in any case.
        options: Further options of `LLMClient`: limits, timeouts, retries, sampling parameters.

    Raises:
        ConfigurationError: An option is unknown or out of range, or `journal` is given without `id`.
        UnknownModelError: There is no such model.

    Example:
        >>> answered = dataset.map_batches(
        ...     AskModel,
        ...     fn_constructor_kwargs={"model": "gpt-5.4", "template": "Translate into French: {text}"},
        ...     compute=ray.data.ActorPoolStrategy(size=2), num_cpus=0.25, batch_size=256, batch_format="pyarrow",
        ... )
    """

    def __init__(  # noqa: PLR0913 - the options of a dataset, all keyword-only
        self,
        model: str | Sequence[str],
        *,
        prompt: str | None = None,
        template: str | None = None,
        system: str | None = None,
        id: str | None = None,
        journal: str | Path | None = None,
        output: Any = None,
        max_output_retries: int = 0,
        retry_failed: bool = False,
        share_limits: bool = True,
        **options: Any,
    ) -> None:
        check_journal(journal, id)
        self.client = LLMClient(model, **options)
        self._prompts = PromptColumns(prompt, template, system, id)
        self._columns = AnswerColumns(output)
        self._call = CallOptions(output=output, max_output_retries=max_output_retries).checked()
        self._retry_failed = retry_failed
        self._shares_limits = share_limits and self.client.options.limiter is None and _has_ray()
        self._fingerprint = fingerprint_of(
            {
                "models": [each.id for each in self.client.models],
                "sampling": msgspec.to_builtins(self.client.options.sampling_params),
                "schema": schema_sent(output),
            },
            (),
        )
        self._journals = None if journal is None else DatasetJournals(journal, self._fingerprint)
        self._metrics = ActorMetrics(is_on=_has_ray())
        self._running: set[RowCalls] = set()
        self._limits: ClusterLimits | None = None

    async def __call__(self, batch: Any) -> AsyncIterator[Any]:
        """Yield the batch with the columns of the answers, as an Arrow table.

        Args:
            batch: An Arrow table, a pandas DataFrame, or a mapping of columns.

        Raises:
            ConfigurationError: A column that is needed is missing, or two rows have the same id.
            JournalError: The journal cannot be opened or written. Ray runs the task again.
            ConnectError: The provider was never reached.
        """
        table = to_table(batch)
        yield self.extended(table, await self.ask(table))

    def check(self, columns: Sequence[str]) -> None:
        """Check that a table with these columns has those that are needed.

        Raises:
            ConfigurationError: It lacks one.
        """
        self._prompts.check(columns)

    def extended(self, table: Any, answers: Sequence[AskedRow]) -> Any:
        """Return an Arrow table with the columns of the answers to its rows."""
        return self._columns.extended(table, [(each.response, each.asked_before) for each in answers])

    def digest(self, table: Any) -> bytes:
        """Return a hash of the requests of a table's rows, with their ids and the options that shape the answers."""
        digest = hashlib.sha256(self._fingerprint.encode())
        for row in self._rows(table):
            digest.update(row.call.encode("utf-8", "replace") + b"\0")
        return digest.hexdigest().encode()

    def remove_journal(self, table: Any) -> None:
        """Remove the journal of a table, whose answers are in another file now."""
        if self._journals is not None:
            self._journals.path_of(row.call for row in self._rows(table)).unlink(missing_ok=True)

    async def ask(self, table: Any, note: Note = None) -> list[AskedRow]:
        """Ask for the rows of an Arrow table; return their responses, in order.

        Args:
            table: The table.
            note: Called with each response as soon as it is known.

        Raises:
            DelugeError: As `__call__` raises it.
        """
        if not len(table):
            return []  # Ray has no columns for an empty block
        self.check(table.column_names)
        rows = self._rows(table)
        if self._journals is None:
            return await self._answered(rows, {}, {}, _NoJournal(), note)
        journal, earlier = await self._journals.open([row.call for row in rows])
        try:
            return await self._recorded(rows, journal, earlier, note)
        finally:
            await journal.close()

    def _rows(self, table: Any) -> list[BatchRow]:
        return self._prompts.rows(table.select(self._prompts.needed(table.column_names)).to_pylist())

    async def _recorded(
        self, rows: Sequence[BatchRow], journal: Journal, earlier: dict[str, Earlier], note: Note
    ) -> list[AskedRow]:
        await asyncio.gather(*(_carry_over(journal, call, before) for call, before in earlier.items()))
        ambiguous = ambiguous_counts(journal.state)
        known: dict[str, AskedRow] = {}
        histories: dict[str, RowHistory] = {}
        for row in rows:
            is_known = not is_due(journal, row.call, retry_failed=self._retry_failed)
            response = journal.response(row.call) if is_known else None
            if response is None:
                histories[row.call] = RowHistory.of(row.call, journal.state, ambiguous)
                self._metrics.note_again(ambiguous[row.call])
            else:
                known[row.call] = AskedRow(response, ambiguous[row.call])
                if note is not None:
                    note(response)
        return await self._answered(rows, known, histories, journal, note)

    async def _answered(
        self,
        rows: Sequence[BatchRow],
        known: Mapping[str, AskedRow],
        histories: Mapping[str, RowHistory],
        journal: RowJournal,
        note: Note,
    ) -> list[AskedRow]:
        """Send the rows that are not known; return the responses of all rows."""
        most = self.client.options.max_attempts + self._call.max_output_retries
        calls = RowCalls(
            lambda: (self._runner(), RowPlanner(self.client.dispatcher, self._call).spec), journal, max_attempts=most
        )
        answers = dict(known)
        self._running.add(calls)
        try:
            for row in rows:
                if row.call not in known:
                    calls.start_row(row, histories.get(row.call, RowHistory()))
            while len(calls):
                row, response = await calls.next_end()
                self._metrics.set_in_flight(sum(each.in_flight for each in self._running))
                if response is None:
                    raise calls.failure or calls.gave_up or DispatchError("the batch was stopped")
                self._metrics.count(response)
                if note is not None:
                    note(response)
                answers[row.call] = AskedRow(response, histories.get(row.call, RowHistory()).ambiguous)
        finally:
            self._running.discard(calls)
            await calls.close()
            self._metrics.set_in_flight(sum(each.in_flight for each in self._running))
        return [answers[row.call] for row in rows]

    def _runner(self) -> Runner:
        """Return the runner of the running event loop; it shares its limits with the other actors."""
        if not self._shares_limits:
            return self.client.dispatcher.runner()
        if self._limits is None:
            self._limits = ClusterLimits(self.client)
        return self._limits.runner


async def _carry_over(journal: Journal, call: str, before: Earlier) -> None:
    """Write into the journal of a batch what the journal of another one has about a call."""
    for attempt in range(1, before.ambiguous + 1):
        await journal.before_attempt(call, attempt)
    if before.response is not None:
        await journal.settle(call, 0, before.response)


class _NoJournal:
    """Records nothing."""

    async def before_attempt(self, call: str, attempt: int) -> None:
        """Return at once."""

    async def settle(self, call: str, attempt: int, response: APIResponse, *, is_final: bool = True) -> APIResponse:
        """Return the response."""
        return response

    def response(self, call: str) -> APIResponse | None:
        """Return None."""
        return None


def check_journal(journal: str | Path | None, id: str | None) -> None:
    """Check that a journal has names for its rows.

    Raises:
        ConfigurationError: There is no column that identifies them.
    """
    if journal is not None and id is None:
        raise ConfigurationError("a journal needs the column that identifies the rows", hint='Name it: id="review_id".')


def to_table(batch: Any) -> Any:
    """Return a batch of Ray as an Arrow table.

    Args:
        batch: An Arrow table, a pandas DataFrame, or a mapping of columns.
    """
    pa = import_arrow()
    if isinstance(batch, pa.Table):
        return batch
    try:
        if not isinstance(batch, Mapping):
            return pa.Table.from_pandas(batch, preserve_index=False)
        batch = {name: _nested(pa, values) for name, values in batch.items()}
    except pa.ArrowException:  # cells of different types, which Ray pickles
        pass
    return import_ray().data.block.BlockAccessor.batch_to_arrow_block(batch)  # tensors, and other types of Ray's own


def _nested(pa: Any, values: Any) -> Any:
    """Return a column of NumPy objects (texts, lists of messages) as an Arrow array; return others as they are."""
    is_object = getattr(getattr(values, "dtype", None), "kind", None) == "O"
    return pa.array(list(values), from_pandas=True) if is_object else values


def _has_ray() -> bool:
    """Whether this process is part of a Ray cluster. A process that has not imported Ray is not."""
    return "ray" in sys.modules and bool(importlib.import_module("ray").is_initialized())
