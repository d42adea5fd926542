"""One process works on a journal. The second one is told so, and a lock whose holder died stops nobody.

The lock is one of the kernel's (`flock`) on a file beside the journal: it goes with the process, however that ends.
What stands in the file (process id, and the id of the machine's boot) is for the message, and for file systems that
have no such locks.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from lm_deluge.errors import JournalError

__all__ = ["Holder", "JournalLock"]

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_HELD = (errno.EWOULDBLOCK, errno.EACCES)
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


class Holder(msgspec.Struct, frozen=True):
    """Who works on a journal. `boot` is empty where the system does not tell it."""

    pid: int = 0
    boot: str = ""

    @classmethod
    def this_process(cls) -> Holder:
        """Return the holder that this process is."""
        try:
            boot = _BOOT_ID.read_text("ascii").strip()
        except OSError:
            boot = ""
        return cls(os.getpid(), boot)

    def is_alive(self) -> bool:
        """Whether a process of this number runs, on this machine and since this boot."""
        if self.pid <= 0 or self.boot != Holder.this_process().boot:
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except OSError:
            pass  # it runs, and is somebody else's
        return True


class JournalLock:
    """Held from its making until `release`.

    Args:
        journal: The file that is worked on; the lock lies beside it.
        flock: Locks a file by its descriptor, or raises `OSError`.

    Raises:
        JournalError: Another process works on the journal, or the lock cannot be made.
    """

    def __init__(self, journal: Path, flock: Callable[[int], object] | None = None) -> None:
        self.path = journal.with_name(journal.name + ".lock")
        self._journal = journal
        if sys.platform == "win32":
            raise JournalError("journals need the file locks of POSIX systems", path=str(journal))
        self._flock = flock or _flock
        try:
            self._descriptor = self._acquire()
        except OSError as error:
            raise JournalError(f"cannot lock {journal}: {error.strerror}", path=str(journal)) from error

    def _acquire(self) -> int:
        while True:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                self._take(descriptor)
                if self._is_in_place(descriptor):
                    os.ftruncate(descriptor, 0)
                    os.pwrite(descriptor, msgspec.json.encode(Holder.this_process()), 0)
                    return descriptor
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)  # its last holder removed it in the meantime: it locks nothing any more

    def _take(self, descriptor: int) -> None:
        """Lock, or find out that somebody else has."""
        try:
            self._flock(descriptor)
        except OSError as error:
            if error.errno in _HELD:
                raise self._held_by(_holder(descriptor)) from None
            if error.errno not in _NO_LOCKS:
                raise
            holder = _holder(descriptor)
            if holder.is_alive():
                raise self._held_by(holder) from None

    def _held_by(self, holder: Holder) -> JournalError:
        who = f"process {holder.pid}" if holder.pid else "another process"
        is_here = not holder.pid or holder.boot == Holder.this_process().boot
        return JournalError(
            f"{who}{'' if is_here else ' on another machine'} works on the journal {self._journal}",
            path=str(self._journal),
            hint="Wait until it is done, or stop it.",
        )

    def _is_in_place(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), self.path.stat())
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Let the next one in."""
        with contextlib.suppress(OSError):
            self.path.unlink()
        os.close(self._descriptor)


def _flock(descriptor: int) -> None:
    import fcntl

    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _holder(descriptor: int) -> Holder:
    try:
        return msgspec.json.decode(os.pread(descriptor, 4_096, 0), type=Holder)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Holder()  # its maker died, or is just writing
