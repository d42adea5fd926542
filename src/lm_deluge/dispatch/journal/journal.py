"""What makes a batch survive `kill -9`: it is written down before it is done, and again before anybody is told.

    async with await Journal.open(path, fingerprint=fingerprint_of(options, inputs)) as journal:
        for call in calls:
            if journal.state.status(call) == "done":
                response = journal.response(call)       # from an earlier run
                continue
            await journal.before_attempt(call, attempt=1)  # on the disk before the first byte of the request leaves
            response = ...
            await journal.finish(call, 1, response)     # on the disk before the caller sees it

So after any end a call is done, failed, not begun, or in flight: those are the `ambiguous` ones, whose requests may
have been billed. The format of the file is told in `journal_records.py`.

Records of all tasks that wait at the same time share one write and one `fsync` (group commit). When the disk refuses,
**intents are refused first** and for good: no new request leaves. Outcomes of what is in flight are still tried, and
kept in memory (`unsaved`) where they cannot be written; nothing is dropped in silence.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
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
"""How long the first record that waits is held back so that others join it."""


class _Waiting:
    """A record on its way to the disk."""

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
        if self.future is None or self.future.done():  # nobody waits, or not any more
            return
        if error is None:
            self.future.set_result(None)
        elif isinstance(error, asyncio.CancelledError):
            self.future.cancel()
        else:
            self.future.set_exception(error)


class Journal:
    """A journal that one event loop writes. Made by `open`; `close` it, or use it in `async with`.

    Attributes:
        path: Its file.
        state: What it says: kept up to date with what is on the disk.
        failure: Why nothing new may begin any more, None as long as all is well.
        salvaged: How many bytes of damage were moved to a file beside it when it was opened.
    """

    def __init__(self, file: JournalFile, thread: ThreadPoolExecutor, gather_s: float) -> None:
        self.path = file.path
        self.state: JournalState = file.state
        self.failure: JournalError | None = None
        self.salvaged = file.salvaged
        self._file = file
        self._thread = thread
        self._gather_s = gather_s
        self._waiting: list[_Waiting] = []
        self._unsaved: list[_Waiting] = []
        self._flusher: asyncio.Task[None] | None = None
        self._is_closed = False

    @classmethod
    async def open(
        cls,
        path: str | Path,
        *,
        fingerprint: str,
        salvage: bool = False,
        gather_s: float = GATHER_S,
        opener: Callable[[Path], DiskFile] = DiskFile,
    ) -> Journal:
        """Open a journal, or begin one.

        Args:
            path: Its file.
            fingerprint: Of the batch, from `fingerprint_of`.
            salvage: Move damage to a file beside it rather than refusing the journal.
            gather_s: How long a record waits for others to share its `fsync`.
            opener: What opens the file.

        Raises:
            JournalError: It is damaged, in use, of another batch, no journal, or the disk refuses.
        """
        thread = ThreadPoolExecutor(1, thread_name_prefix="lm-deluge-journal")
        opening = partial(JournalFile, Path(path), fingerprint=fingerprint, salvage=salvage, opener=opener)
        try:
            file = await asyncio.get_running_loop().run_in_executor(thread, opening)
        except BaseException:
            thread.shutdown(wait=False)
            raise
        return cls(file, thread, gather_s)

    async def before_attempt(self, call: str, attempt: int) -> None:
        """Return once it is on the disk that a request is about to leave; before that none may.

        A caller that is cancelled here has sent nothing, and the journal comes to know it.

        Raises:
            JournalError: It cannot be written down. Send nothing.
        """
        await self._begin(Intent(call, attempt), Failed(call, attempt))

    async def submit(self, batch: str, ids: Sequence[str], attempt: int, *, at: float) -> None:
        """Return once it is on the disk that calls are about to be handed over as one batch of the provider.

        A caller that is cancelled here has sent nothing, as with `before_attempt`.

        Args:
            batch: Our name for it, of which there is no other.
            ids: The calls, in the order in which they stand in it.
            attempt: The number of the attempt that it is, for each of them.
            at: Now, in seconds since 1970.

        Raises:
            JournalError: It cannot be written down. Send nothing.
        """
        await self._begin(Submit(batch, tuple(ids), attempt, at), Handle(batch, "", ""))

    async def hand_over(self, batch: str, provider: str, handle: str) -> None:
        """Return once it is on the disk by which name the provider knows a batch; before that nobody may poll.

        An empty handle says that the provider does not have the batch.

        Raises:
            JournalError: It cannot be written.
        """
        await self._write(Handle(batch, provider, handle))

    async def _begin(self, record: Intent | Submit, undo: Failed | Handle) -> None:
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
        """Return once the answer is on the disk; before that nobody may see it.

        Raises:
            JournalError: It cannot be written; it is in `unsaved`.
        """
        await self._write(Done(call, attempt, _told(response)))

    async def fail(self, call: str, attempt: int, response: APIResponse, *, is_final: bool) -> None:
        """Return once it is on the disk how an attempt ended; `response.error` says it.

        Raises:
            JournalError: It cannot be written; it is in `unsaved`.
        """
        await self._write(Failed(call, attempt, is_final, _told(response)))

    async def _write(self, record: Done | Failed | Handle) -> None:
        waiting = self._add(record)
        assert waiting.future is not None  # noqa: S101 - for the type checkers
        await waiting.future

    def _add(self, record: Written, *, must_wait: bool = True) -> _Waiting:
        if self._is_closed:
            raise self._closed()
        if isinstance(record, Intent | Submit) and self.failure is not None:
            raise self._refusal()
        loop = asyncio.get_running_loop()
        waiting = _Waiting(record, loop.create_future() if must_wait else None)
        self._waiting.append(waiting)
        if self._flusher is None:
            self._flusher = loop.create_task(self._flush())
        return waiting

    async def _flush(self) -> None:
        """Write until nobody waits."""
        batch: list[_Waiting] = []
        try:
            while self._waiting:
                await asyncio.sleep(self._gather_s)
                batch, self._waiting = self._waiting, []
                if batch:  # nobody was cancelled in the meantime
                    await self._commit(batch)
        except BaseException as error:  # the loop ends; the records may be on the disk or not
            for waiting in (*batch, *self._waiting):
                waiting.settle(error)
            raise
        finally:
            self._flusher = None

    async def _commit(self, batch: list[_Waiting]) -> None:
        was_healthy = self.failure is None
        if was_healthy and await self._append(batch):
            return
        outcomes = [waiting for waiting in batch if not waiting.is_intent]
        for waiting in batch:
            if waiting.is_intent:
                waiting.settle(self._refusal())
        # Without the intents it is less to write, and later the disk may have room again.
        is_other_try = not was_healthy or len(outcomes) < len(batch)
        if outcomes and is_other_try and await self._append([*self._unsaved, *outcomes]):
            self._unsaved = []
            return
        self._unsaved += outcomes
        for waiting in outcomes:
            waiting.settle(self._refusal())

    async def _append(self, batch: list[_Waiting]) -> bool:
        """Write lines; return whether they are on the disk."""
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
            hint=f"What is in it is safe ({len(self.state.done)} calls are done). Make room, then resume.",
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
        """Answers, by call, that the disk did not take. They are tried again with the next outcome, and by `close`."""
        return {
            waiting.record.id: APIResponse.from_dict(waiting.record.response)
            for waiting in self._unsaved
            if isinstance(waiting.record, Done | Failed) and waiting.record.response is not None
        }

    @property
    def unsaved_lines(self) -> bytes:
        """The records of these as lines, which can be appended to the file once nobody works on it."""
        return b"".join(waiting.data for waiting in self._unsaved)

    def response(self, call: str) -> APIResponse | None:
        """Return the answer to a call that is done or failed for good, from whichever run; else None.

        Raises:
            JournalError: It is not readable any more.
        """
        offset = self.state.done.get(call, self.state.failed.get(call))
        if offset is None:
            return self.unsaved.get(call)
        if self._is_closed:
            raise self._closed()
        record: Any = decode_record(self._file.payload_at(offset))
        return None if record.response is None else APIResponse.from_dict(record.response)

    async def close(self) -> None:
        """Write what still waits; close the file.

        Raises:
            JournalError: There are outcomes that the disk did not take. They stay in `unsaved`.
        """
        if self._is_closed:
            return
        self._is_closed = True
        try:
            if self._flusher is not None:
                await self._flusher
            if self._unsaved and await self._append(self._unsaved):
                self._unsaved = []
        finally:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._file.close)
            self._thread.shutdown(wait=False)
        if lost := len(self.unsaved) + sum(isinstance(each.record, Handle) for each in self._unsaved):
            message = f"{lost} outcomes are not in the journal {self.path}, only in memory"
            raise JournalError(message, path=str(self.path)) from self.failure

    async def __aenter__(self) -> Journal:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()


def _told(response: APIResponse) -> dict[str, Any]:
    """Return the response as data, without what a provider may have quoted of the prompt in an error's body."""
    data = response.to_dict()
    if data["error"] is not None:
        data["error"] = {name: value for name, value in data["error"].items() if name != "body"}
    return data
