"""The requests of one batch on their way to the provider: encoded, on the disk, never all in memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import IO

from lm_deluge.errors import DispatchError

__all__ = ["ItemFile"]

_PIECE = 1 << 18


class ItemFile:
    """Items in a file without a name, which is gone with this object or with the process: it holds prompts.

    Attributes:
        count: How many there are.
        size: Bytes of all of them, separators included.
    """

    def __init__(self, separator: bytes) -> None:
        self.count = 0
        self.size = 0
        self._separator = separator
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`

    def add(self, item: bytes) -> None:
        """Append an item.

        Raises:
            DispatchError: The disk refuses.
        """
        data = self._separator + item if self.count else item
        try:
            self._file.write(data)
        except OSError as error:
            raise DispatchError(
                f"cannot keep the requests of a batch in {tempfile.gettempdir()}: {error.strerror}",
                hint="Make room there, or set TMPDIR.",
            ) from error
        self.count += 1
        self.size += len(data)

    def framed(self, prefix: bytes, suffix: bytes) -> FramedItems:
        """Return a body: the items, and something around them."""
        return FramedItems(self._file, prefix, self.size, suffix)

    def close(self) -> None:
        """Delete the file."""
        self._file.close()


class FramedItems:
    """A body that is read from the disk as it is sent."""

    def __init__(self, file: IO[bytes], prefix: bytes, size: int, suffix: bytes) -> None:
        self._file = file
        self._prefix = prefix
        self._size = size
        self._suffix = suffix

    def __len__(self) -> int:
        return len(self._prefix) + self._size + len(self._suffix)

    def __iter__(self) -> Iterator[bytes]:
        if self._prefix:
            yield self._prefix
        offset = 0
        while offset < self._size:
            self._file.seek(offset)
            piece = self._file.read(min(_PIECE, self._size - offset))
            offset += len(piece)
            yield piece
        self._file.seek(self._size)  # where the next item goes
        if self._suffix:
            yield self._suffix
