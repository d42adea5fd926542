"""Who works on a journal: one process, told to the second one; locks that outlived their holder stop nobody."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lm_deluge.dispatch.journal.lock import Holder, JournalLock
from lm_deluge.errors import JournalError

HOLD = """
import sys
from pathlib import Path
from lm_deluge.dispatch.journal.lock import JournalLock
lock = JournalLock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
lock.release()
"""


def holding(path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    return process


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
    assert json.loads(lock.path.read_text())["pid"] == os.getpid()
    lock.release()
    assert list(tmp_path.iterdir()) == []


def test_a_killed_holder_stops_nobody(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with holding(path) as process:
        process.send_signal(signal.SIGKILL)
        process.communicate()
        lock = JournalLock(path)
        assert json.loads(lock.path.read_text()) == {"pid": os.getpid(), "boot": Holder.this_process().boot}
        lock.release()


def test_one_process_has_one_lock_too(tmp_path: Path) -> None:
    lock = JournalLock(tmp_path / "j")
    with pytest.raises(JournalError, match=f"process {os.getpid()} works on"):
        JournalLock(tmp_path / "j")
    other = JournalLock(tmp_path / "other")
    other.release()
    lock.release()


@pytest.mark.parametrize("left", [b"", b"{", b"\xff", b'{"pid":"x"}', b'{"pid":1,"boot":"long ago"}'])
def test_whatever_a_lock_file_says_only_the_kernel_s_lock_counts(left: bytes, tmp_path: Path) -> None:
    (tmp_path / "j.lock").write_bytes(left)
    JournalLock(tmp_path / "j").release()


def test_a_holder_elsewhere_is_named_so(tmp_path: Path) -> None:
    def held(descriptor: int) -> None:
        raise OSError(errno.EWOULDBLOCK, "held")

    (tmp_path / "j.lock").write_bytes(b'{"pid":7,"boot":"of another machine"}')
    with pytest.raises(JournalError, match="process 7 on another machine works on"):
        JournalLock(tmp_path / "j", held)
    (tmp_path / "j.lock").write_bytes(b"")
    with pytest.raises(JournalError, match="another process works on"):
        JournalLock(tmp_path / "j", held)


def no_locks(descriptor: int) -> None:
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


def ended_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_without_locks_of_the_kernel_the_process_id_decides(tmp_path: Path) -> None:
    path, file, here = tmp_path / "j", tmp_path / "j.lock", Holder.this_process()
    file.write_text(json.dumps({"pid": os.getppid(), "boot": here.boot}))
    with pytest.raises(JournalError, match=f"process {os.getppid()} works on"):
        JournalLock(path, no_locks)
    for stale in ({"pid": ended_process(), "boot": here.boot}, {"pid": os.getppid(), "boot": "before"}, {"pid": 0}):
        file.write_text(json.dumps(stale))
        JournalLock(path, no_locks).release()


def test_a_process_of_somebody_else_is_alive() -> None:
    assert Holder(1, Holder.this_process().boot).is_alive()


def test_a_lock_that_was_removed_in_the_meantime_is_made_anew(tmp_path: Path) -> None:
    removed = []

    def flock(descriptor: int) -> None:
        if not removed:
            removed.append(True)
            (tmp_path / "j.lock").unlink()

    lock = JournalLock(tmp_path / "j", flock)
    assert lock.path.exists()
    lock.release()


def test_a_folder_that_cannot_be_locked_in_says_why(tmp_path: Path) -> None:
    def broken(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with pytest.raises(JournalError, match=r"cannot lock .*: Input/output error"):
        JournalLock(tmp_path / "j", broken)
    with pytest.raises(JournalError, match=r"cannot lock .*: No such file"):
        JournalLock(tmp_path / "none" / "j")
