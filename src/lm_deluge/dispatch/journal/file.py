"""The file of a journal: open, check, append. Blocking; `Journal` calls it in a thread.

After a failed `append` the file is truncated to its previous length, so that it stays readable and the next record
starts on a new line.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from lm_deluge.dispatch.journal.lock import JournalLock
from lm_deluge.dispatch.journal.options import describe_differences
from lm_deluge.dispatch.journal.records import (
    FRAME,
    MOST_BYTES,
    VERSION,
    Damage,
    Header,
    JournalEntry,
    JournalState,
    encode_record,
    payload_of,
    scan,
)
from lm_deluge.errors import JournalError

__all__ = ["DiskFile", "JournalFile"]

_BUFFER = 1 << 20  # 1 MiB: large enough for sequential reads, small enough to keep in memory


class DiskFile(io.FileIO):
    """An unbuffered file in append mode, readable by its owner only. It is created if it does not exist."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "a+", opener=lambda name, flags: os.open(name, flags, 0o600))
        self._path = path

    def read_at(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes from `offset` on, while another thread may append."""
        if hasattr(os, "pread"):
            return os.pread(self.fileno(), size, offset)
        with self._path.open("rb", buffering=0) as reader:  # Windows: a file position of its own instead
            reader.seek(offset)
            return reader.read(size)

    def sync(self) -> None:
        """Return after everything written is on the disk."""
        if sys.platform == "darwin":
            import fcntl

            fcntl.fcntl(self.fileno(), fcntl.F_FULLFSYNC)  # macOS: fsync leaves data in the drive's cache (man 2 fsync)
        else:
            os.fsync(self.fileno())


class JournalFile:
    """The file of an open, locked journal.

    Args:
        path: The file; it is created if it does not exist.
        fingerprint: Of the batch. The journal of another batch is refused.
        options: The options of the batch as short texts, so that a refusal names those that differ.
        salvage: Move damaged lines to a file beside the journal (`.damaged`) instead of refusing the journal.
        replace: Start again: a journal that exists, of any batch, is renamed (`.old`).
        opener: Opens the file.

    Attributes:
        state: The state that the records describe, at the time of opening.
        size: Bytes of complete records that are on the disk.
        is_broken: No more records can be written: the end of the file is in an unknown state.
        salvaged: How many bytes of damage were moved to the other file.

    Raises:
        JournalError: The file is damaged, in use, of another batch, no journal, or cannot be read or written.
    """

    def __init__(
        self,
        path: Path,
        *,
        fingerprint: str,
        options: Mapping[str, str] | None = None,
        salvage: bool = False,
        replace: bool = False,
        opener: Callable[[Path], DiskFile] = DiskFile,
    ) -> None:
        self.path = path
        self.state = JournalState()
        self.size = 0
        self.is_broken = False
        self.salvaged = 0
        self._fingerprint = fingerprint
        self._options = dict(options or {})
        self._opener = opener
        self._lock = JournalLock(path)
        try:
            if replace and path.is_file():
                path.replace(path.with_name(path.name + ".old"))
            self._file = self._open(salvage=salvage)
        except BaseException as error:
            self._lock.release()
            if isinstance(error, OSError):
                raise JournalError(f"cannot open the journal {path}: {error.strerror}", path=str(path)) from error
            raise

    def _open(self, *, salvage: bool) -> DiskFile:
        if self.path.exists() and not stat.S_ISREG(self.path.stat().st_mode):
            raise JournalError(f"the journal {self.path} is not a regular file", path=str(self.path))
        file = self._opener(self.path)
        try:
            header = encode_record(Header(VERSION, self._fingerprint, self._options))
            start = file.read_at(0, len(header))
            if len(start) < len(header) and header.startswith(
                start
            ):  # new, or the process died while it wrote the first line
                self._write_header(file, header)
            elif self._load(file, salvage=salvage):
                file.close()
                self._rewrite()
                file = self._opener(self.path)
                self.state = JournalState()
                self._load(file, salvage=False)
        except BaseException:
            file.close()
            raise
        return file

    def _write_header(self, file: DiskFile, header: bytes) -> None:
        file.truncate(0)
        _write_all(file, header)
        file.sync()
        _sync_folder(self.path.parent)
        self.size = len(header)

    def _load(self, file: DiskFile, *, salvage: bool) -> bool:
        """Add all records to the state and repair a torn end. Return whether there is damage to salvage."""
        last = 0
        has_damage = False
        for offset, found in self._scan():
            if isinstance(found, JournalEntry):
                if offset == 0 or found.kind == "journal":
                    self._check_header(found, offset)
                self.state.add(found, offset)
                last = offset
                continue
            if offset == 0:
                raise self._foreign("is not a journal, or its first line is damaged")
            if found.is_tail:
                break
            if not salvage:
                raise self._damaged(offset)
            has_damage = True
        if not has_damage:
            self._repair_end(file, last)
        return has_damage

    def _scan(self) -> Iterator[tuple[int, JournalEntry | Damage]]:
        with self.path.open("rb", buffering=_BUFFER) as reader:
            yield from scan(iter(lambda: reader.readline(MOST_BYTES), b""))

    def _check_header(self, header: JournalEntry, offset: int) -> None:
        if offset or header.kind != "journal":
            raise self._foreign("has its header in the wrong place", offset)
        if header.version != VERSION:
            raise self._foreign(f"has version {header.version}, but this program reads version {VERSION}")
        if header.fingerprint != self._fingerprint:
            differences = describe_differences(header.options, self._options) if header.options else ""
            raise self._foreign(f"belongs to another batch: {differences or 'its inputs or options are different'}")

    def _foreign(self, problem: str, offset: int | None = None) -> JournalError:
        return JournalError(
            f"the journal {self.path} {problem}",
            path=str(self.path),
            offset=offset,
            hint="Name another file, or move this one away to start again.",
        )

    def _damaged(self, offset: int) -> JournalError:
        return JournalError(
            f"the journal {self.path} is damaged at byte {offset}",
            path=str(self.path),
            offset=offset,
            hint=f"Salvage moves the damaged lines to {self.path.name}.damaged and keeps the rest.",
        )

    def _repair_end(self, file: DiskFile, last: int) -> None:
        """Make the file end with the line end of the record at offset `last`: a torn write may follow it."""
        size = self.path.stat().st_size
        end = last + FRAME + len(self._payload_at(file, last))
        if size > end and file.read_at(end, 1) == b"\n":
            end += 1
            if size == end:
                self.size = size
                return
        file.truncate(end)
        if file.read_at(end - 1, 1) != b"\n":
            end += _write_all(file, b"\n")
        file.sync()
        self.size = end

    def _rewrite(self) -> None:
        """Replace the journal by its undamaged lines; copy the damaged ones to a file beside it."""
        good_path = self.path.with_name(self.path.name + ".salvage")
        bad_path = self.path.with_name(self.path.name + ".damaged")
        with contextlib.suppress(FileNotFoundError):
            good_path.unlink()
        good, bad = self._opener(good_path), self._opener(bad_path)
        try:
            with self.path.open("rb", buffering=_BUFFER) as reader:
                for offset, found in self._scan():
                    reader.seek(offset)
                    if isinstance(found, JournalEntry):
                        line = reader.readline(MOST_BYTES)
                        _write_all(good, line if line.endswith(b"\n") else line + b"\n")
                    else:
                        _copy(reader, bad, found.length)
                        self.salvaged += found.length
            bad.sync()
            good.sync()
        finally:
            good.close()
            bad.close()
        good_path.replace(self.path)
        _sync_folder(self.path.parent)

    def append(self, data: bytes) -> int:
        """Write complete lines; return their offset after they are on the disk.

        Raises:
            OSError: The disk refused. The journal contains none of the lines, unless `is_broken` is true.
        """
        if self.is_broken:
            raise OSError(0, "an earlier write failed and left the end of the file in an unknown state")
        start = self.size
        try:
            _write_all(self._file, data)
        except OSError:
            self._roll_back()
            raise
        try:
            self._file.sync()
        except OSError:
            # The kernel may have dropped the pages, and the next fsync succeeds all the same
            # (lwn.net/Articles/752063, 2018).
            self._roll_back()
            self.is_broken = True
            raise
        self.size = start + len(data)
        return start

    def _roll_back(self) -> None:
        try:
            self._file.truncate(self.size)
            self._file.sync()
        except OSError:
            self.is_broken = True

    def payload_at(self, offset: int) -> bytes:
        """Return the payload of the record at an offset.

        Raises:
            JournalError: The record cannot be read, or is damaged.
        """
        try:
            return self._payload_at(self._file, offset)
        except OSError as error:
            raise JournalError(f"cannot read the journal {self.path}: {error.strerror}", path=str(self.path)) from error

    def _payload_at(self, file: DiskFile, offset: int) -> bytes:
        frame = file.read_at(offset, FRAME)
        try:
            length = int(frame[:8], 16)
        except ValueError:
            raise self._damaged(offset) from None
        payload = payload_of(frame + file.read_at(offset + FRAME, length))
        if payload is None:
            raise self._damaged(offset)
        return payload

    def close(self) -> None:
        """Close the file and release the lock."""
        try:
            self._file.close()
        finally:
            self._lock.release()


def _write_all(file: DiskFile, data: bytes) -> int:
    rest = memoryview(data)
    while rest:
        written = file.write(rest)
        rest = rest[written or 0 :]
    return len(data)


def _copy(reader: BinaryIO, target: DiskFile, length: int) -> None:
    while length > 0 and (piece := reader.read(min(length, _BUFFER))):
        _write_all(target, piece)
        length -= len(piece)


def _sync_folder(folder: Path) -> None:
    """Make a new file name durable, except on Windows, where a folder cannot be opened."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
