"""The encoded requests of one batch, in a temporary file: a batch may be larger than memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import IO

from lm_deluge.errors import DispatchError

__all__ = ["ItemFile"]

_PIECE = 1 << 18  # 256 KiB: few reads for an upload of megabytes, little memory


class ItemFile:
    """Items in a temporary file without a name: it contains prompts, so it must not outlive the process.

    Args:
        separator: Bytes between two items.

    Attributes:
        count: Number of items.
        size: Bytes of all items, with separators.
    """

    def __init__(self, separator: bytes) -> None:
        self.count = 0
        self.size = 0
        self._separator = separator
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`

    def add(self, item: bytes) -> None:
        """Append an item.

        Raises:
            DispatchError: The file cannot be written.
        """
        data = self._separator + item if self.count else item
        try:
            self._file.write(data)
        except OSError as error:
            raise DispatchError(
                f"cannot write the requests of a batch to {tempfile.gettempdir()}: {error.strerror}",
                hint="Free some disk space there, or set TMPDIR to another folder.",
            ) from error
        self.count += 1
        self.size += len(data)

    def framed(self, prefix: bytes, suffix: bytes) -> FramedItems:
        """Return a request body of the items between a prefix and a suffix."""
        return FramedItems(self._file, prefix, self.size, suffix)

    def close(self) -> None:
        """Delete the file."""
        self._file.close()


class FramedItems:
    """A request body that is read from the disk while it is sent."""

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
        self._file.seek(self._size)  # the position of the next item
        if self._suffix:
            yield self._suffix
