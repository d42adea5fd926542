"""A journal on the disk: opened, checked, appended to. Blocking; `journal.py` runs it in a thread.

`append` is all or nothing as far as the disk allows: what did not get through is cut off again, so that the file stays
readable whatever happened, and the next writer finds a line's begin where it expects one.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from lm_deluge.dispatch.journal.lock import JournalLock
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

_BUFFER = 1 << 20


class DiskFile(io.FileIO):
    """A file that is appended to, unbuffered, readable by its owner only. It is made where it does not exist."""

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
        """Return once what was written is on the disk."""
        if sys.platform == "darwin":
            import fcntl

            fcntl.fcntl(self.fileno(), fcntl.F_FULLFSYNC)  # fsync leaves it in the drive's cache there (man 2 fsync)
        else:
            os.fsync(self.fileno())


class JournalFile:
    """The one open journal at a path.

    Args:
        path: Where it is; made if it does not exist.
        fingerprint: Of the batch. A journal of another one is refused.
        salvage: Move damaged lines into a file beside the journal (`.damaged`), rather than refusing them.
        opener: What opens the file.

    Attributes:
        state: What it said when it was opened.
        size: Bytes that are safe on the disk.
        is_broken: Nothing more can be written: what is on the disk is not known any more, or cannot be corrected.
        salvaged: How many bytes of damage were moved away.

    Raises:
        JournalError: It is damaged, in use, of another batch, no journal, or the disk refuses.
    """

    def __init__(
        self,
        path: Path,
        *,
        fingerprint: str,
        salvage: bool = False,
        opener: Callable[[Path], DiskFile] = DiskFile,
    ) -> None:
        self.path = path
        self.state = JournalState()
        self.size = 0
        self.is_broken = False
        self.salvaged = 0
        self._fingerprint = fingerprint
        self._opener = opener
        self._lock = JournalLock(path)
        try:
            self._file = self._open(salvage=salvage)
        except BaseException as error:
            self._lock.release()
            if isinstance(error, OSError):
                raise JournalError(f"cannot open the journal {path}: {error.strerror}", path=str(path)) from error
            raise

    def _open(self, *, salvage: bool) -> DiskFile:
        if self.path.exists() and not stat.S_ISREG(self.path.stat().st_mode):
            raise JournalError(f"the journal {self.path} is no file", path=str(self.path))
        file = self._opener(self.path)
        try:
            header = encode_record(Header(VERSION, self._fingerprint))
            begin = file.read_at(0, len(header))
            if len(begin) < len(header) and header.startswith(begin):  # new, or its maker died over the first line
                self._begin(file, header)
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

    def _begin(self, file: DiskFile, header: bytes) -> None:
        file.truncate(0)
        _write_all(file, header)
        file.sync()
        _sync_folder(self.path.parent)
        self.size = len(header)

    def _load(self, file: DiskFile, *, salvage: bool) -> bool:
        """Fold the file into the state; cut off a torn end. Return whether there is damage to be moved away."""
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
                raise self._foreign("is no journal, or its first line is damaged")
            if found.is_tail:
                break
            if not salvage:
                raise self._damaged(offset)
            has_damage = True
        if not has_damage:
            self._mend_end(file, last)
        return has_damage

    def _scan(self) -> Iterator[tuple[int, JournalEntry | Damage]]:
        with self.path.open("rb", buffering=_BUFFER) as reader:
            yield from scan(iter(lambda: reader.readline(MOST_BYTES), b""))

    def _check_header(self, header: JournalEntry, offset: int) -> None:
        if offset or header.kind != "journal":
            raise self._foreign("has its header in the wrong place", offset)
        if header.version != VERSION:
            raise self._foreign(f"has version {header.version}, and this program reads version {VERSION}")
        if header.fingerprint != self._fingerprint:
            raise self._foreign("belongs to another batch: its inputs or options are not the same")

    def _foreign(self, what: str, offset: int | None = None) -> JournalError:
        return JournalError(
            f"the journal {self.path} {what}",
            path=str(self.path),
            offset=offset,
            hint="Name another file, or move this one away to begin anew.",
        )

    def _damaged(self, offset: int) -> JournalError:
        return JournalError(
            f"the journal {self.path} is damaged at byte {offset}",
            path=str(self.path),
            offset=offset,
            hint=f"Salvage moves the damage to {self.path.name}.damaged and keeps the rest.",
        )

    def _mend_end(self, file: DiskFile, last: int) -> None:
        """Make the file end behind the record at `last`, with its line end: a write may have been torn there."""
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
        """Replace the journal by its good lines; the others go to a file beside it."""
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
        """Write whole lines; return where they begin, once they are on the disk.

        Raises:
            OSError: Nothing of them is in the journal, unless `is_broken`.
        """
        if self.is_broken:
            raise OSError(0, "an earlier write failed in a way that leaves the file unknown")
        start = self.size
        try:
            _write_all(self._file, data)
        except OSError:
            self._roll_back()
            raise
        try:
            self._file.sync()
        except OSError:
            # The kernel may have dropped the pages and call the next fsync a success (lwn.net/Articles/752063, 2018).
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
            JournalError: It is not readable any more.
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
        """Close the file and let go of the lock."""
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
    """Make a new name in a folder durable; on Windows, which cannot open a folder, that is up to its file system."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
