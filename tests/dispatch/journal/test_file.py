"""A journal on a real disk: torn, damaged, of another batch; and a disk that fails at every byte."""

import errno
import os
import resource
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from failing_disk import FailingDisk, full
from lm_deluge.dispatch.journal.file import JournalFile
from lm_deluge.dispatch.journal.records import Done, Header, Intent, decode_record, encode_record
from lm_deluge.errors import JournalError

BATCH = "f" * 64
LINES = [
    encode_record(record) for record in (Intent("1", 1), Intent("2", 1), Done("1", 1, {"a": "\n"}), Intent("3", 1))
]
HEADER = encode_record(Header(1, BATCH))
BODY = HEADER + b"".join(LINES)


def make(path: Path, body: bytes = BODY, *, salvage: bool = False) -> JournalFile:
    path.write_bytes(body)
    return JournalFile(path, fingerprint=BATCH, salvage=salvage)


def refusal(path: Path, body: bytes, *, salvage: bool = False) -> JournalError:
    with pytest.raises(JournalError) as caught:
        make(path, body, salvage=salvage)
    assert path.read_bytes() == body
    assert caught.value.path == str(path)
    assert not path.with_name("j.lock").exists()
    return caught.value


def test_a_new_journal_is_written_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "j"
    file = JournalFile(path, fingerprint=BATCH)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for line in LINES:
        assert file.append(line) == file.size - len(line)
    file.close()
    assert path.read_bytes() == BODY
    again = JournalFile(path, fingerprint=BATCH)
    assert again.size == len(BODY)
    assert (again.state.status("1"), again.state.ambiguous) == ("done", (("2", 1), ("3", 1)))
    assert decode_record(again.payload_at(again.state.done["1"])) == Done("1", 1, {"a": "\n"})
    again.close()
    assert [each.name for each in tmp_path.iterdir()] == ["j"]


def test_a_journal_cut_at_any_byte_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "j"
    for cut in range(len(BODY) + 1):
        file = make(path, BODY[:cut])
        assert file.size == path.stat().st_size
        kept = path.read_bytes()
        assert BODY.startswith(kept)
        assert len(kept) - cut <= 1 or cut < len(HEADER)  # at most a line end came back
        file.append(LINES[0])
        file.close()
        again = JournalFile(path, fingerprint=BATCH)
        assert path.read_bytes() == kept + LINES[0]
        again.close()


@given(where=st.integers(len(HEADER), len(BODY) - 1), bit=st.integers(0, 7))
def test_a_flipped_bit_is_refused_with_its_place_or_changes_nothing(
    where: int, bit: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("flip") / "j"
    body = bytearray(BODY)
    body[where] ^= 1 << bit
    starts = [len(HEADER) + sum(map(len, LINES[:count])) for count in range(len(LINES))]
    start = max(start for start in starts if start <= where)
    if changes_nothing(bytes(body), start, where):
        file = make(path, bytes(body))
        assert file.state.status("1") == "done"
        assert file.state.ambiguous == (("2", 1), ("3", 1))
        file.close()
    else:
        error = refusal(path, bytes(body))
        assert error.offset == start
        assert f"damaged at byte {start}" in str(error)
        assert "Salvage" in str(error)


def changes_nothing(body: bytes, start: int, where: int) -> bool:
    """Whether a flipped bit leaves the numbers of a frame unchanged, or is in the last line end of the file."""
    if where == len(BODY) - 1:
        return True
    numbers = [
        (body[start : start + 8], BODY[start : start + 8]),
        (body[start + 9 : start + 17], BODY[start + 9 :][:8]),
    ]
    try:
        return where - start < 17 and all(int(one, 16) == int(two, 16) for one, two in numbers) and where - start != 8
    except ValueError:
        return False


def test_a_lost_last_line_end_loses_nothing(tmp_path: Path) -> None:
    body = HEADER + LINES[0] + LINES[2]
    file = make(tmp_path / "j", body[:-1] + b"\x8a")
    assert file.state.status("1") == "done"
    assert (tmp_path / "j").read_bytes() == body
    file.close()


def test_salvage_moves_damage_away_and_keeps_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "j"
    bad = LINES[1][:30] + b"#" + LINES[1][31:]
    body = HEADER + LINES[0] + bad + b"\n" + LINES[2] + b"torn"
    error = refusal(path, body)
    assert error.offset == len(HEADER + LINES[0])
    file = make(path, body, salvage=True)
    assert file.salvaged == len(bad) + 1 + 4
    assert (file.state.status("1"), file.state.status("2")) == ("done", None)
    file.append(LINES[3])
    file.close()
    assert path.read_bytes() == HEADER + LINES[0] + LINES[2] + LINES[3]
    assert (tmp_path / "j.damaged").read_bytes() == bad + b"\n" + b"torn"
    JournalFile(path, fingerprint=BATCH).close()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["j", "j.damaged"]


FOREIGN = {
    "other inputs": (encode_record(Header(1, "0" * 64)) + LINES[0], "belongs to another batch"),
    "a newer version": (encode_record(Header(2, BATCH)), "version 2"),
    "two headers": (HEADER + LINES[0] + HEADER, "wrong place"),
    "no header": (LINES[0], "wrong place"),
    "a text": (b"Dear diary\n", "not a journal"),
    "a text without an end": (b"Dear diary", "not a journal"),
    "a damaged header": (HEADER[:40] + b"#" + HEADER[41:], "not a journal"),
}


@pytest.mark.parametrize("salvage", [False, True])
@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_not_ours_is_refused_and_left_alone(name: str, salvage: bool, tmp_path: Path) -> None:
    body, words = FOREIGN[name]
    error = refusal(tmp_path / "j", body, salvage=salvage)
    assert words in str(error)
    assert "move this one away" in str(error)


def test_no_file_and_no_folder_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, words in [
        (tmp_path, "not a regular file"),
        (tmp_path / "pipe", "not a regular file"),
        (tmp_path / "none" / "j", "No such file"),
    ]:
        with pytest.raises(JournalError, match=words):
            JournalFile(path, fingerprint=BATCH).close()


@pytest.mark.parametrize("fails", ["write", "sync", "truncate"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_write_that_fails_leaves_no_trace(fails: str, code: int, tmp_path: Path) -> None:
    """With room on the disk for every number of bytes up to the whole record."""
    for room in range(len(LINES[2]) + (fails == "sync")):
        path = tmp_path / f"{room}"
        disk = FailingDisk(code)
        file = JournalFile(path, fingerprint=BATCH, opener=disk.open)
        file.append(LINES[0])
        disk.room, disk.fails = room, {fails} - {"write"}
        with pytest.raises(OSError, match=os.strerror(code)):
            file.append(LINES[2])
        assert decode_record(file.payload_at(len(HEADER))) == Intent("1", 1)
        disk.mend()
        assert file.is_broken == (fails != "write")
        if file.is_broken:
            with pytest.raises(OSError, match="earlier write"):
                file.append(LINES[2])
        else:
            assert path.read_bytes() == HEADER + LINES[0]
            file.append(LINES[2])
        file.close()
        # The file is readable. A record that could not be cut off may be complete except for its line end.
        again = JournalFile(path, fingerprint=BATCH)
        is_whole = fails == "truncate" and room == len(LINES[2]) - 1
        assert (again.state.status("1") == "done") == (not file.is_broken or is_whole)
        again.close()


def test_a_disk_without_room_for_the_header(tmp_path: Path) -> None:
    for room in range(len(HEADER)):
        disk = FailingDisk(errno.ENOSPC, room=room)
        with pytest.raises(JournalError, match="No space left"):
            JournalFile(tmp_path / "j", fingerprint=BATCH, opener=disk.open)
        JournalFile(tmp_path / "j", fingerprint=BATCH).close()
        (tmp_path / "j").unlink()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_the_kernel_s_own_full_device(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with full() as opener:
        file = JournalFile(path, fingerprint=BATCH, opener=opener)
        file.append(LINES[0])
        opener.is_full = True
        with pytest.raises(OSError, match="No space left"):
            file.append(LINES[2])
        opener.is_full = False
        file.append(LINES[1])
        file.close()
    assert path.read_bytes() == HEADER + LINES[0] + LINES[1]


AT_THE_LIMIT = """
import resource, sys
from pathlib import Path
from lm_deluge.dispatch.journal.file import JournalFile
file = JournalFile(Path(sys.argv[1]), fingerprint="f" * 64)
size, hard = file.size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, hard))
for number in range(3):
    try:
        file.append(b"x" * 60 + b"\\n")
    except OSError as error:
        print(number, error.strerror, file.size - size, file.is_broken)
"""


def test_a_write_that_the_kernel_takes_in_part(tmp_path: Path) -> None:
    """A limit of the file size causes a short write first, then an error for the rest."""
    assert resource.RLIMIT_FSIZE
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", AT_THE_LIMIT, str(tmp_path / "j")], capture_output=True, text=True, check=True
    )
    assert done.stdout == "1 File too large 61 False\n2 File too large 61 False\n"
    assert (tmp_path / "j").stat().st_size == len(HEADER) + 61


def test_rot_under_an_open_journal_is_seen(tmp_path: Path) -> None:
    file = make(tmp_path / "j")
    offset = file.state.done["1"]
    with (tmp_path / "j").open("r+b") as other:
        other.seek(offset + 25)
        other.write(b"#")
    with pytest.raises(JournalError, match="damaged at byte"):
        file.payload_at(offset)
    with (tmp_path / "j").open("r+b") as other:
        other.seek(offset)
        other.write(b"#")
    with pytest.raises(JournalError, match="damaged at byte"):
        file.payload_at(offset)
    file.close()


def test_a_journal_needs_nothing_that_windows_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pread", "O_DIRECTORY"):
        monkeypatch.delattr(os, name)
    path = tmp_path / "j"
    file = JournalFile(path, fingerprint=BATCH)
    for line in LINES:
        file.append(line)
        assert decode_record(file.payload_at(len(HEADER))) == Intent("1", 1)
    file.close()
    assert path.read_bytes() == BODY
    make(path, HEADER + b"#" + LINES[0] + LINES[2] + b"torn", salvage=True).close()
    again = JournalFile(path, fingerprint=BATCH)
    assert path.read_bytes() == HEADER + LINES[2]
    assert decode_record(again.payload_at(again.state.done["1"])) == Done("1", 1, {"a": "\n"})
    again.close()
