"""One process works on a journal at a time. A second process gets an error; a lock whose holder died is free.

The lock is the kernel's (`flock`, on Windows `LockFileEx`), taken through `filelock` on a file beside the journal: the
kernel frees it when the process ends, whether or not the process could clean up. The lock file contains the process id
and the host of its holder, which are only used in the error message.

Some file systems have no kernel locks, NFS without its lock daemon for example. There a marker file is created instead
(`filelock.SoftFileLock`), and it counts as long as the process that it names runs.
"""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from lm_deluge.errors import JournalError

if TYPE_CHECKING:
    from filelock import BaseFileLock

__all__ = ["Holder", "JournalLock"]

_TIMEOUT_S = 0.1
"""Long enough for a holder that is releasing the lock right now, short enough to report the others at once."""
_POLL_S = 0.02
"""A few tries within the timeout. A holder needs microseconds to release the lock."""
_MAX_RECORD_BYTES = 4_096  # a process id and a host name need far less
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


class _RemovedError(Exception):
    """The file that was locked is no longer the one at its path, so another process can lock that one."""


class Holder(msgspec.Struct, frozen=True):
    """The process that works on a journal. `pid` is 0 and `host` empty if they are not known."""

    pid: int = 0
    host: str = ""

    @classmethod
    def this_process(cls) -> Holder:
        """Return this process as a holder."""
        return cls(os.getpid(), platform.node())

    @classmethod
    def of(cls, path: Path, offset: int = 0) -> Holder:
        """Return the holder that a lock file names from `offset` on: two lines, as filelock's markers have them."""
        try:
            with path.open("rb", buffering=0) as file:
                file.seek(offset)
                pid, host = file.read(_MAX_RECORD_BYTES).decode().splitlines()[:2]
            return cls(int(pid), host)
        except (OSError, ValueError):
            return cls()  # its writer died, or is writing at this moment

    @property
    def is_here(self) -> bool:
        """Whether its process id is one of this machine; filelock appends `?` and more to the host of a container."""
        return not self.pid or self.host.partition("?")[0] == platform.node()


class JournalLock:
    """A lock on a journal, held from the constructor's return until `release`.

    Args:
        journal: The file that is worked on. The lock file is in the same folder.

    Raises:
        JournalError: Another process works on the journal, or the lock file cannot be created.
    """

    def __init__(self, journal: Path) -> None:
        self.path = journal.with_name(journal.name + ".lock")
        self._marker = journal.with_name(journal.name + ".softlock")
        self._journal = journal
        try:
            journal.parent.stat()  # filelock would create a folder that is missing
            self._lock = self._acquire()
        except OSError as error:
            raise JournalError(f"cannot lock {journal}: {error.strerror or error}", path=str(journal)) from error

    def _acquire(self) -> BaseFileLock:
        from filelock import FileLock, Timeout

        # Not thread-local: the lock may be released by another thread than the one that acquired it.
        lock = FileLock(self.path, mode=0o600, thread_local=False, fallback_to_soft=False, on_acquired=self._record)
        while True:
            try:
                lock.acquire(timeout=_TIMEOUT_S, poll_interval=_POLL_S)
            except _RemovedError:
                continue
            except Timeout:
                raise self._refusal(Holder.of(self.path, offset=1)) from None
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
                return self._acquire_marker()
            return lock

    def _acquire_marker(self) -> BaseFileLock:
        from filelock import SoftFileLock, Timeout

        # Not at `self.path`: the attempt to lock has created an empty file there, which would count as a marker.
        lock = SoftFileLock(self._marker, mode=0o600, thread_local=False)
        try:
            lock.acquire(timeout=_TIMEOUT_S, poll_interval=_POLL_S)
        except Timeout:
            # A marker of another machine is never removed: nothing here shows whether its process still runs.
            hint = f" If it no longer runs, delete {self._marker.name}."
            raise self._refusal(Holder.of(self._marker), hint) from None
        return lock

    def _record(self, descriptor: int) -> None:
        """Write this process into the lock file, from byte 1 on: Windows locks byte 0 against readers too."""
        if sys.platform != "win32" and not self._is_in_place(descriptor):
            raise _RemovedError
        holder = Holder.this_process()
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, f"\n{holder.pid}\n{holder.host}\n".encode())

    def _is_in_place(self, descriptor: int) -> bool:
        """Whether the path still leads to the locked file: NFS renames a file that is removed while it is open."""
        try:
            return os.path.samestat(os.fstat(descriptor), self.path.stat())
        except FileNotFoundError:
            return False

    def _refusal(self, holder: Holder, hint: str = "") -> JournalError:
        process = f"process {holder.pid}" if holder.pid else "another process"
        return JournalError(
            f"{process}{'' if holder.is_here else ' on another machine'} works on the journal {self._journal}",
            path=str(self._journal),
            hint=f"Wait until it is done, or stop it.{hint}",
        )

    def release(self) -> None:
        """Release the lock and remove its file."""
        # Remove first: a process that has opened the file already finds out once it has the lock (`_is_in_place`).
        # Windows refuses to remove an open file; there filelock removes it after the release.
        with contextlib.suppress(OSError):
            self.path.unlink()
        self._lock.release()
