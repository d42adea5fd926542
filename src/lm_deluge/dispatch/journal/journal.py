"""The journal of a batch: it records each request before it is sent, and each answer before the caller sees it.

    async with await Journal.open(path, fingerprint=fingerprint_of(options, inputs)) as journal:
        for call in calls:
            if journal.state.status(call) == "done":
                response = journal.response(call)       # from an earlier run
                continue
            await journal.before_attempt(call, attempt=1)  # on the disk before the first byte of the request is sent
            response = ...
            await journal.finish(call, 1, response)     # on the disk before the caller sees it

So a batch survives `kill -9`: after it each call is done, failed, not started, or in flight. The attempts in flight are
`ambiguous`: they may have been billed. `lm_deluge.dispatch.journal.records` describes the format of the file.

Records of all tasks that wait at the same time share one write and one `fsync` (group commit). After a write error
every new intent is refused, so no new request is sent. Outcomes of requests in flight are still tried, and kept in
memory (`unsaved`) if they cannot be written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from lm_deluge.dispatch.journal.file import DiskFile, JournalFile
from lm_deluge.dispatch.journal.records import (
    Done,
    Failed,
    Handle,
    Intent,
    JournalEntry,
    JournalState,
    Submit,
    Written,
    decode_record,
    encode_record,
)
from lm_deluge.errors import JournalError
from lm_deluge.response import APIResponse

__all__ = ["Journal"]

GATHER_S = 0.003
"""Seconds that the first record waits for others to share its write.

Longer than a turn of a busy event loop, so that many join; short against any request.
"""


class _Pending:
    """A record that is not on the disk yet."""

    __slots__ = ("data", "entry", "future", "record")

    def __init__(self, record: Written, future: asyncio.Future[None] | None) -> None:
        self.record = record
        self.data = encode_record(record)
        self.entry = JournalEntry.of(record)
        self.future = future

    @property
    def is_intent(self) -> bool:
        return isinstance(self.record, Intent | Submit)

    def settle(self, error: BaseException | None = None) -> None:
        if self.future is None or self.future.done():  # no task waits, or its task was cancelled
            return
        if error is None:
            self.future.set_result(None)
        elif isinstance(error, asyncio.CancelledError):
            self.future.cancel()
        else:
            self.future.set_exception(error)


class Journal:
    """A journal that one event loop writes. Create it with `open`; `close` it, or use it in `async with`.

    Attributes:
        path: Its file.
        state: The state of all calls, kept up to date with the records on the disk.
        failure: The write error after which no new request may be sent; None while there is none.
        salvaged: How many bytes of damage were moved to another file when the journal was opened.
        unreadable: The calls whose recorded outcome could not be read; they count as not done.
    """

    def __init__(self, file: JournalFile, thread: ThreadPoolExecutor, gather_s: float) -> None:
        self.path = file.path
        self.state: JournalState = file.state
        self.failure: JournalError | None = None
        self.salvaged = file.salvaged
        self.unreadable: list[str] = []
        self._file = file
        self._thread = thread
        self._gather_s = gather_s
        self._waiting: list[_Pending] = []
        self._unsaved: list[_Pending] = []
        self._flusher: asyncio.Task[None] | None = None
        self._is_closed = False
        self._closing: asyncio.Future[None] | None = None

    @classmethod
    async def open(
        cls,
        path: str | Path,
        *,
        fingerprint: str,
        options: Mapping[str, str] | None = None,
        salvage: bool = False,
        replace: bool = False,
        gather_s: float = GATHER_S,
        opener: Callable[[Path], DiskFile] = DiskFile,
    ) -> Journal:
        """Open a journal, or create it.

        Args:
            path: Its file.
            fingerprint: Of the batch, from `fingerprint_of`.
            options: The options of the batch, from `shown_options`: a refusal names those that differ.
            salvage: Move damaged lines to a file beside the journal (`.damaged`) instead of refusing the journal.
            replace: Start again: a journal that exists, of any batch, is renamed (`.old`).
            gather_s: Seconds that a record waits for others to share its `fsync`.
            opener: Opens the file.

        Raises:
            JournalError: The file is damaged, in use, of another batch, no journal, or cannot be read or written.

        Example:
            >>> async with await Journal.open("batch.journal", fingerprint=fingerprint_of({}, inputs)) as journal:
            ...     print(len(journal.state.done))
        """
        thread = ThreadPoolExecutor(1, thread_name_prefix="lm-deluge-journal")
        named: dict[str, Any] = {"fingerprint": fingerprint, "options": options, "salvage": salvage, "replace": replace}
        opening = partial(JournalFile, Path(path), **named, opener=opener)
        try:
            file = await asyncio.get_running_loop().run_in_executor(thread, opening)
        except BaseException:
            thread.shutdown(wait=False)
            raise
        return cls(file, thread, gather_s)

    async def before_attempt(self, call: str, attempt: int) -> None:
        """Write the intent of a request; the request may be sent after the return.

        If the caller is cancelled here, the journal also records that the request was not sent.

        Raises:
            JournalError: The intent cannot be written. The request must not be sent.
        """
        await self._write_intent(Intent(call, attempt), Failed(call, attempt))

    async def submit(self, batch: str, ids: Sequence[str], attempt: int, *, at: float) -> None:
        """Write the intent to submit calls as one batch of the provider; it may be submitted after the return.

        If the caller is cancelled here, the journal also records that the batch was not submitted.

        Args:
            batch: Our name of the batch, which is unique.
            ids: The calls, in their order in the batch.
            attempt: The number of the attempt that the batch is, for each of its calls.
            at: The present time, in seconds since 1970.

        Raises:
            JournalError: The intent cannot be written. The batch must not be submitted.
        """
        await self._write_intent(Submit(batch, tuple(ids), attempt, at), Handle(batch, "", ""))

    async def record_handle(self, batch: str, provider: str, handle: str) -> None:
        """Write the provider's name of a batch; the batch may be polled after the return.

        Args:
            batch: Our name of the batch.
            provider: The provider's id.
            handle: The provider's name of the batch; empty if the provider does not have the batch.

        Raises:
            JournalError: The record cannot be written.
        """
        await self._write(Handle(batch, provider, handle))

    async def _write_intent(self, record: Intent | Submit, undo: Failed | Handle) -> None:
        waiting = self._add(record)
        assert waiting.future is not None  # noqa: S101 - for the type checkers
        try:
            await waiting.future
        except asyncio.CancelledError:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
            elif not self._is_closed:
                self._add(undo, must_wait=False)
            raise

    async def finish(self, call: str, attempt: int, response: APIResponse) -> None:
        """Write the answer of a call; the caller may see it after the return.

        Raises:
            JournalError: The answer cannot be written; `unsaved` has it.
        """
        await self._write(Done(call, attempt, _without_error_body(response)))

    async def fail(self, call: str, attempt: int, response: APIResponse, *, is_final: bool) -> None:
        """Write that an attempt failed with `response.error`; the caller may see the error after the return.

        Args:
            call: The call.
            attempt: Its number; 0 if nothing was sent.
            response: The failed response.
            is_final: Whether the call failed for good.

        Raises:
            JournalError: The failure cannot be written; `unsaved` has the response.
        """
        await self._write(Failed(call, attempt, is_final, _without_error_body(response)))

    async def settle(self, call: str, attempt: int, response: APIResponse, *, is_final: bool = True) -> APIResponse:
        """Write the outcome of an attempt, an answer or a failure; return the response that the journal has.

        An outcome that does not fit into JSON, because of a lone surrogate for example, becomes an error with its usage
        and cost, or without them if they are the reason.

        Args:
            call: The call.
            attempt: Its number; 0 if nothing was sent.
            response: The outcome.
            is_final: Whether a call that failed has failed for good.

        Raises:
            JournalError: The disk refused the outcome; `unsaved` has it.
        """
        reductions = [_without_content, _without_usage]
        while True:
            try:
                if response.error is None:
                    await self.finish(call, attempt, response)
                else:
                    await self.fail(call, attempt, response, is_final=is_final)
            except JournalError as error:
                if self.failure is not None or self._is_closed or not reductions:
                    raise
                response = reductions.pop(0)(response, error)
            else:
                return response

    async def _write(self, record: Done | Failed | Handle) -> None:
        waiting = self._add(record)
        assert waiting.future is not None  # noqa: S101 - for the type checkers
        await waiting.future

    def _add(self, record: Written, *, must_wait: bool = True) -> _Pending:
        if self._is_closed:
            raise self._closed()
        if isinstance(record, Intent | Submit) and self.failure is not None:
            raise self._refusal()
        loop = asyncio.get_running_loop()
        waiting = _Pending(record, loop.create_future() if must_wait else None)
        self._waiting.append(waiting)
        if self._flusher is None:
            self._flusher = loop.create_task(self._flush())
        return waiting

    async def _flush(self) -> None:
        """Write records until none is pending."""
        batch: list[_Pending] = []
        try:
            while self._waiting:
                await asyncio.sleep(self._gather_s)
                batch, self._waiting = self._waiting, []
                if batch:  # empty if all waiting tasks were cancelled in the meantime
                    await self._commit(batch)
        except BaseException as error:  # the event loop ends; it is unknown whether the records are on the disk
            for waiting in (*batch, *self._waiting):
                waiting.settle(error)
            raise
        finally:
            self._flusher = None

    async def _commit(self, batch: list[_Pending]) -> None:
        was_healthy = self.failure is None
        if was_healthy and await self._append(batch):
            return
        outcomes = [waiting for waiting in batch if not waiting.is_intent]
        for waiting in batch:
            if waiting.is_intent:
                waiting.settle(self._refusal())
        # Without the intents there is less to write, and the disk may have room again by now.
        is_worth_retrying = not was_healthy or len(outcomes) < len(batch)
        if outcomes and is_worth_retrying and await self._append([*self._unsaved, *outcomes]):
            self._unsaved = []
            return
        self._unsaved += outcomes
        for waiting in outcomes:
            waiting.settle(self._refusal())

    async def _append(self, batch: list[_Pending]) -> bool:
        """Write records; return whether they are on the disk."""
        data = b"".join([waiting.data for waiting in batch])
        try:
            offset = await asyncio.get_running_loop().run_in_executor(self._thread, self._file.append, data)
        except OSError as error:
            if self.failure is None:
                self.failure = self._failed(error)
            return False
        for waiting in batch:
            self.state.add(waiting.entry, offset)
            offset += len(waiting.data)
            waiting.settle()
        return True

    def _failed(self, error: OSError) -> JournalError:
        failure = JournalError(
            f"cannot write the journal {self.path}: {error.strerror}",
            path=str(self.path),
            hint=f"Its answers are safe ({len(self.state.done)} calls are done). Free some disk space, then resume.",
        )
        failure.__cause__ = error
        return failure

    def _closed(self) -> JournalError:
        return JournalError(f"the journal {self.path} is closed", path=str(self.path))

    def _refusal(self) -> JournalError:
        assert self.failure is not None  # noqa: S101 - for the type checkers
        return self.failure.again()

    @property
    def unsaved(self) -> dict[str, APIResponse]:
        """Answers by call that could not be written. Each later outcome, and `close`, tries to write them again."""
        return {
            waiting.record.id: APIResponse.from_dict(waiting.record.response)
            for waiting in self._unsaved
            if isinstance(waiting.record, Done | Failed) and waiting.record.response is not None
        }

    @property
    def unsaved_lines(self) -> bytes:
        """The lines of all unsaved records, which can be appended to the file after the journal is closed."""
        return b"".join(waiting.data for waiting in self._unsaved)

    def response(self, call: str) -> APIResponse | None:
        """Return the response of a call that is done or failed for good, in this run or an earlier one; else None.

        A record that is undamaged but not a response counts as none, and its call as not done: `unreadable` names it.

        Raises:
            JournalError: The record is damaged or cannot be read, or the journal is closed.
        """
        while (offset := self.state.done.get(call, self.state.failed.get(call))) is not None:
            if self._is_closed:
                raise self._closed()
            payload = self._file.payload_at(offset)
            try:
                record: Any = decode_record(payload)
                return None if record.response is None else APIResponse.from_dict(record.response)
            except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError, RecursionError):
                self.state.forget(call)
                self.unreadable.append(call)
        return self.unsaved.get(call)

    def check(self, calls: Iterable[str]) -> None:
        """Read the recorded outcomes of these calls; `unreadable` then names those that cannot be read.

        Raises:
            JournalError: A record is damaged.
        """
        for call in calls:
            self.response(call)

    async def close(self) -> None:
        """Write all pending records and close the file. If the caller is cancelled, that happens before it returns.

        Raises:
            JournalError: Outcomes could not be written. `unsaved` still has them.
        """
        if self._closing is None:
            self._is_closed = True
            self._closing = asyncio.ensure_future(self._close())
        elif self._closing.done():
            return
        try:
            await asyncio.shield(self._closing)
        except asyncio.CancelledError:
            # The lock is released in any case, even if this wait is cancelled, too.
            await asyncio.wait((self._closing,))
            if not self._closing.cancelled():
                self._closing.exception()
            raise

    async def _close(self) -> None:
        try:
            if self._flusher is not None:
                await self._flusher
            if self._unsaved and await self._append(self._unsaved):
                self._unsaved = []
        finally:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._file.close)
            self._thread.shutdown(wait=False)
        if lost := len(self.unsaved) + sum(isinstance(each.record, Handle) for each in self._unsaved):
            message = f"{lost} outcomes could not be written to the journal {self.path}"
            raise JournalError(message, path=str(self.path)) from self.failure

    async def __aenter__(self) -> Journal:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()


def _without_content(response: APIResponse, error: JournalError) -> APIResponse:
    return APIResponse(id=response.id, error=error, usage=response.usage, cost=response.cost)


def _without_usage(response: APIResponse, error: JournalError) -> APIResponse:
    return APIResponse(id=response.id, error=error)


def _without_error_body(response: APIResponse) -> dict[str, Any]:
    """Return the response as data, without the body of its error, in which a provider may have quoted the prompt."""
    data = response.to_dict()
    if data["error"] is not None:
        data["error"] = {name: value for name, value in data["error"].items() if name != "body"}
    return data
