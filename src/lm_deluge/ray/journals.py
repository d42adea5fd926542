"""The journals of a dataset: one file for each batch that an actor is given, in one folder.

Ray runs a task again whose actor died, with the same rows. The name of a journal is a hash of the ids and prompts of
its rows, so the second run finds it, takes the answers that it has, and lists the requests that were in flight.

Another run of the program may cut the dataset into other batches. Then the rows are looked up in the journals that are
there, whichever batch they belonged to: an actor reads them once, before its first batch.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from lm_deluge.dispatch.journal.journal import Journal
from lm_deluge.dispatch.journal.records import (
    Done,
    Failed,
    JournalEntry,
    JournalState,
    decode_record,
    payload_of,
    scan,
)
from lm_deluge.errors import ConfigurationError, JournalError
from lm_deluge.response import APIResponse

__all__ = ["DatasetJournals", "Earlier"]

_NAME_BYTES = 12  # of the hash in a file name: no two batches have the same
_FINGERPRINT_DIGITS = 12  # of the options' hash, as a prefix of the names
_LOCK_TRIES, _LOCK_PAUSE_S = 60, 0.5
"""How long to wait for the journal of an actor that Ray took for dead: its kernel frees the lock when it has ended."""


class Earlier(msgspec.Struct, frozen=True):
    """What the journals of other batches have about a row.

    Attributes:
        response: Its answer; None without one.
        ambiguous: How many requests of the row have no outcome, and may have been billed.
    """

    response: APIResponse | None
    ambiguous: int


class DatasetJournals:
    """The journals in a folder, for one set of options.

    Args:
        folder: The folder, which all actors must see.
        fingerprint: Of the options that shape the answers: answers of other options are not used.

    Raises:
        ConfigurationError: The folder cannot be created.
    """

    def __init__(self, folder: str | Path, fingerprint: str) -> None:
        self._folder = Path(folder)
        self._fingerprint = fingerprint
        self._index: dict[str, tuple[Path, int | None, int]] | None = None  # file, offset of the answer, ambiguous
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f"cannot create the folder of the journals: {error.strerror}") from error

    def path_of(self, calls: Iterable[str]) -> Path:
        """Return the path of the journal of a batch of calls."""
        digest = hashlib.blake2b(digest_size=_NAME_BYTES)
        for call in calls:
            data = call.encode("utf-8", "replace")
            digest.update(len(data).to_bytes(8, "big") + data)
        return self._folder / f"{self._fingerprint[:_FINGERPRINT_DIGITS]}-{digest.hexdigest()}.journal"

    async def open(self, calls: Sequence[str]) -> tuple[Journal, dict[str, Earlier]]:
        """Open the journal of a batch; return it with what other journals have about its calls.

        Raises:
            JournalError: It cannot be opened, or another process uses it.
        """
        path = self.path_of(calls)
        journal = await self._opened(path)
        unknown = [call for call in calls if journal.state.status(call) is None]
        return journal, await asyncio.to_thread(self._earlier, path, unknown) if unknown else {}

    async def _opened(self, path: Path) -> Journal:
        for _ in range(_LOCK_TRIES):
            try:
                return await Journal.open(path, fingerprint=self._fingerprint)
            except JournalError as error:
                if "works on the journal" not in error.message:
                    raise
            await asyncio.sleep(_LOCK_PAUSE_S)
        return await Journal.open(path, fingerprint=self._fingerprint)

    def _earlier(self, own: Path, calls: Sequence[str]) -> dict[str, Earlier]:
        if self._index is None:
            self._index = self._read(own)
        found = {}
        for call in calls:
            if call in self._index:
                path, offset, ambiguous = self._index[call]
                response = None if offset is None else _response_at(path, offset)
                found[call] = Earlier(response, ambiguous)
        return found

    def _read(self, own: Path) -> dict[str, tuple[Path, int | None, int]]:
        index: dict[str, tuple[Path, int | None, int]] = {}
        for path in sorted(self._folder.glob(f"{self._fingerprint[:_FINGERPRINT_DIGITS]}-*.journal")):
            if path != own:
                self._add(index, path)
        return index

    def _add(self, index: dict[str, tuple[Path, int | None, int]], path: Path) -> None:
        state = JournalState()
        try:
            with path.open("rb") as file:
                for offset, found in scan(file):
                    if isinstance(found, JournalEntry):
                        state.add(found, offset)
        except (OSError, JournalError):  # removed, or of another version: its rows are asked again
            return
        for call, offset in state.done.items():
            _, known, ambiguous = index.get(call, (path, None, 0))
            index[call] = (path, offset, ambiguous) if known is None else index[call]
        for call, _ in state.ambiguous:
            where, known, ambiguous = index.get(call, (path, None, 0))
            index[call] = (where, known, ambiguous + 1)

    def files(self) -> list[Path]:
        """Return the journals in the folder, of whatever options."""
        return sorted(self._folder.glob("*.journal"))


def _response_at(path: Path, offset: int) -> APIResponse | None:
    """Read an answer; return None if it cannot be read: its row is asked again."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            payload = payload_of(file.readline())
        record = None if payload is None else decode_record(payload)
        if isinstance(record, Done | Failed) and record.response is not None:
            return APIResponse.from_dict(record.response)
    except (OSError, LookupError, TypeError, ValueError, AttributeError, RecursionError):
        return None
    return None
