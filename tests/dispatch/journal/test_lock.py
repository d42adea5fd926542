"""One process works on a journal, the second gets its process id, and the lock of a dead process is free."""

import errno
import fcntl
import os
import platform
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from lm_deluge.dispatch.journal.lock import Holder, JournalLock
from lm_deluge.errors import JournalError

HERE = platform.node()
HOLD = """
import sys
from pathlib import Path
from lm_deluge.dispatch.journal.lock import JournalLock
lock = JournalLock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
lock.release()
"""
flock = fcntl.flock


def holding(path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    return process


@pytest.fixture
def on_lock(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Run a function, which may raise the kernel's error, in place of each attempt to lock a file, and then lock it."""

    def install(before: Callable[[], None]) -> None:
        def locking(descriptor: int, operation: int) -> None:
            if operation != fcntl.LOCK_UN:
                before()
            flock(descriptor, operation)

        monkeypatch.setattr(fcntl, "flock", locking)

    return install


def failing(code: int) -> Callable[[], None]:
    def fail() -> None:
        raise OSError(code, os.strerror(code))

    return fail


def test_the_second_process_is_told_who_the_first_is(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with holding(path) as process:
        with pytest.raises(JournalError) as caught:
            JournalLock(path)
        assert str(caught.value) == (
            f"process {process.pid} works on the journal {path}. Wait until it is done, or stop it."
        )
        process.communicate()
    lock = JournalLock(path)
    assert lock.path.read_text().split() == [str(os.getpid()), HERE]
    lock.release()
    assert list(tmp_path.iterdir()) == []


def test_a_killed_holder_stops_nobody(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with holding(path) as process:
        process.send_signal(signal.SIGKILL)
        process.communicate()
        lock = JournalLock(path)
        assert Holder.of(lock.path, offset=1) == Holder.this_process()
        lock.release()


def test_one_process_has_one_lock_too(tmp_path: Path) -> None:
    lock = JournalLock(tmp_path / "j")
    with pytest.raises(JournalError, match=f"process {os.getpid()} works on"):
        JournalLock(tmp_path / "j")
    other = JournalLock(tmp_path / "other")
    other.release()
    lock.release()


def test_a_lock_may_be_released_by_another_thread(tmp_path: Path) -> None:
    lock = JournalLock(tmp_path / "j")
    thread = threading.Thread(target=lock.release)
    thread.start()
    thread.join()
    JournalLock(tmp_path / "j").release()
    assert list(tmp_path.iterdir()) == []


def test_only_its_owner_reads_a_lock_file(tmp_path: Path) -> None:
    lock = JournalLock(tmp_path / "j")
    assert lock.path.stat().st_mode & 0o777 == 0o600
    lock.release()


@pytest.mark.parametrize("left", [b"", b"\n", b"\xff\xff", b"\nx\nelsewhere\n", b"\n1\nelsewhere\n"])
def test_whatever_a_lock_file_says_only_the_kernel_s_lock_counts(left: bytes, tmp_path: Path) -> None:
    (tmp_path / "j.lock").write_bytes(left)
    JournalLock(tmp_path / "j").release()


@pytest.mark.parametrize("code", [errno.EWOULDBLOCK, errno.EACCES])
def test_a_holder_elsewhere_is_named_so(
    code: int, tmp_path: Path, on_lock: Callable[[Callable[[], None]], None]
) -> None:
    on_lock(failing(code))
    (tmp_path / "j.lock").write_bytes(b"\n7\nanother machine\n")
    with pytest.raises(JournalError, match="process 7 on another machine works on"):
        JournalLock(tmp_path / "j")
    (tmp_path / "j.lock").write_bytes(b"")
    with pytest.raises(JournalError, match="another process works on"):
        JournalLock(tmp_path / "j")


def ended_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL])
def test_without_locks_of_the_kernel_the_process_id_decides(
    code: int, tmp_path: Path, on_lock: Callable[[Callable[[], None]], None]
) -> None:
    on_lock(failing(code))
    path, marker = tmp_path / "j", tmp_path / "j.softlock"
    first = JournalLock(path)
    with pytest.raises(JournalError) as caught:
        JournalLock(path)
    assert str(caught.value) == (
        f"process {os.getpid()} works on the journal {path}. Wait until it is done, or stop it. "
        "If it no longer runs, delete j.softlock."
    )
    first.release()
    assert list(tmp_path.iterdir()) == []
    marker.write_text(f"{os.getppid()}\n{HERE}\n")
    with pytest.raises(JournalError, match=f"process {os.getppid()} works on"):
        JournalLock(path)
    marker.write_text("7\nanother-machine\n")
    with pytest.raises(JournalError, match=r"process 7 on another machine works on .* delete j\.softlock"):
        JournalLock(path)
    # Its process is gone; or the process id belongs to a process that was started at another time, as after a reboot.
    for stale in (f"{ended_process()}\n{HERE}\n", f"{os.getppid()}\n{HERE}\n1\n"):
        marker.write_text(stale)
        JournalLock(path).release()
    assert list(tmp_path.iterdir()) == []


def test_without_locks_of_the_kernel_a_process_of_somebody_else_is_alive(
    tmp_path: Path, on_lock: Callable[[Callable[[], None]], None]
) -> None:
    on_lock(failing(errno.ENOLCK))
    (tmp_path / "j.softlock").write_text(f"1\n{HERE}\n")
    with pytest.raises(JournalError, match="process 1 works on"):
        JournalLock(tmp_path / "j")


@pytest.mark.parametrize("is_renamed", [False, True])
def test_a_lock_that_was_removed_in_the_meantime_is_made_anew(
    is_renamed: bool, tmp_path: Path, on_lock: Callable[[Callable[[], None]], None]
) -> None:
    """NFS renames a file that is removed while it is open."""
    path = tmp_path / "j.lock"
    removed = []

    def remove() -> None:
        if not removed:
            removed.append(True)
            _ = path.rename(tmp_path / ".nfs1") if is_renamed else path.unlink()

    on_lock(remove)
    lock = JournalLock(tmp_path / "j")
    assert Holder.of(path, offset=1) == Holder.this_process()
    lock.release()
    assert not path.exists()


def test_a_folder_that_cannot_be_locked_in_says_why(
    tmp_path: Path, on_lock: Callable[[Callable[[], None]], None]
) -> None:
    with pytest.raises(JournalError, match=r"cannot lock .*: No such file"):
        JournalLock(tmp_path / "none" / "j")
    assert list(tmp_path.iterdir()) == []
    on_lock(failing(errno.EIO))
    with pytest.raises(JournalError, match=r"cannot lock .*: Input/output error"):
        JournalLock(tmp_path / "j")
