"""Simulated disk failures: a real file with a limited size, and the kernel's full device."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lm_deluge.dispatch.journal.file import DiskFile


class FailingDisk:
    """Accepts `room` bytes; after that writes fail, the first of them after a partial write, as on real disks.

    `fails` contains the names of other operations that fail: "sync", "truncate".

    Args:
        code: The errno of the failures.
        room: Bytes until the disk is full; None for a disk without faults.
        on_write: Called before every write with its number, from 1; returns whether the write fails.
    """

    def __init__(self, code: int, room: int | None = None, on_write: Callable[[int], bool] | None = None) -> None:
        self.code = code
        self.room = room
        self.fails: set[str] = set()
        self.writes = 0
        self.syncs = 0
        self.on_write = on_write

    def mend(self) -> None:
        self.room = None
        self.fails = set()

    def error(self) -> OSError:
        return OSError(self.code, os.strerror(self.code))

    def open(self, path: Path) -> DiskFile:
        disk = self

        class File(DiskFile):
            def write(self, data: Any) -> int:
                disk.writes += 1
                if disk.on_write is not None and disk.on_write(disk.writes):
                    super().write(bytes(data)[: len(data) // 2])
                    raise disk.error()
                if disk.room is not None and "sync" not in disk.fails:
                    if disk.room == 0:
                        raise disk.error()
                    data = bytes(data)[: disk.room]
                    disk.room -= len(data)
                return super().write(data)

            def sync(self) -> None:
                disk.syncs += 1
                if "sync" in disk.fails:
                    raise disk.error()
                super().sync()

            def truncate(self, size: int | None = None) -> int:
                if "truncate" in disk.fails:
                    raise disk.error()
                return super().truncate(size)

        return File(path)


class FullOpener:
    """Opens real files; while `is_full`, their writes go to /dev/full."""

    def __init__(self, device: int) -> None:
        self.is_full = False
        self._device = device

    def __call__(self, path: Path) -> DiskFile:
        opener = self

        class File(DiskFile):
            def write(self, data: Any) -> int:
                return os.write(opener._device, data) if opener.is_full else super().write(data)

        return File(path)


@contextmanager
def full() -> Iterator[FullOpener]:
    device = os.open("/dev/full", os.O_WRONLY)
    try:
        yield FullOpener(device)
    finally:
        os.close(device)
