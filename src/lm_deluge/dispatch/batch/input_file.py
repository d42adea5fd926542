"""The input of a batch as a file that can be read several times, whatever it comes from."""

from __future__ import annotations

import io
import shutil
import stat
import tempfile
import weakref
from pathlib import Path
from typing import IO, BinaryIO

from lm_deluge.errors import ConfigurationError

__all__ = ["InputFile"]

_BUFFER = 1 << 18  # 256 KiB: few reads for a file of megabytes, little memory

# First bytes of files that are not UTF-8 text, with the name of the format and what to do about it.
_TO_UTF8 = (
    "Convert it: iconv -f UTF-16 -t UTF-8 IN > NEW (PowerShell: Get-Content IN | Set-Content -Encoding utf8 NEW)."
)
_OTHER_FORMATS = (
    (b"\xff\xfe\0\0", "UTF-32 text", _TO_UTF8.replace("16", "32", 1)),
    (b"\0\0\xfe\xff", "UTF-32 text", _TO_UTF8.replace("16", "32", 1)),
    (b"\xff\xfe", "UTF-16 text", _TO_UTF8),
    (b"\xfe\xff", "UTF-16 text", _TO_UTF8),
    (b"\x1f\x8b", "compressed with gzip", "Decompress it: gunzip -c IN | deluge batch - OUT."),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "Decompress it: zstd -dc IN | deluge batch - OUT."),
    (b"PK\x03\x04", "a zip file or an Excel table", "Unpack it, or save the table as CSV."),
    (b"PAR1", "a Parquet table", "Give it a name that ends in .parquet."),
)


class InputFile:
    """The input of a batch.

    A pipe can be read only once. It is copied to a temporary file without a name, which ends with the process, since it
    contains prompts. A later run needs the same lines again, in any order.

    Args:
        path: The file. A pipe, for example of `<(...)`, is read to its end.
        stream: A stream that is read in place of the file, for example stdin.

    Attributes:
        name: Its name for messages.
        path: The path of a regular file; None for a copied stream.

    Raises:
        ConfigurationError: The file cannot be read.
    """

    def __init__(self, path: Path, stream: BinaryIO | None = None) -> None:
        self.name = path.name if stream is None else "stdin"
        self.suffix = path.suffix.lower()
        self.path: Path | None = None
        self._copy: IO[bytes] | None = None
        try:
            if stream is not None:
                self._copy = self._copied(stream)
            elif stat.S_ISDIR(mode := path.stat().st_mode):
                raise ConfigurationError(f"{path} is a folder", hint="Name a file, or - for stdin.")
            elif stat.S_ISREG(mode):
                self.path = path
            else:
                with path.open("rb") as pipe:
                    self._copy = self._copied(pipe)
        except OSError as error:
            raise self._unreadable(error) from error

    def open(self) -> BinaryIO:
        """Return a new reader at the start of the file.

        Raises:
            ConfigurationError: The file cannot be read.
        """
        try:
            if self._copy is not None:
                return io.BufferedReader(_CopyReader(self, self._copy), _BUFFER)
            assert self.path is not None  # noqa: S101 - for the type checkers
            return self.path.open("rb", buffering=_BUFFER)
        except OSError as error:
            raise self._unreadable(error) from error

    def open_text(self) -> BinaryIO:
        """Return a new reader at the start of a file of text.

        Raises:
            ConfigurationError: The file cannot be read, or is of another format or encoding.
        """
        file = self.open()
        head = file.read(4)
        file.seek(0)
        # ASCII characters in UTF-16 without a byte order mark: every second byte is zero.
        is_wide = len(head) > 1 and (head[0] == 0) != (head[1] == 0)
        for start, kind, hint in (*_OTHER_FORMATS, *(((b"", "UTF-16 text", _TO_UTF8),) if is_wide else ())):
            if head.startswith(start):
                file.close()
                raise ConfigurationError(f"{self.name} is {kind}", hint=hint)
        return file

    def stamp(self) -> tuple[int, int]:
        """Return the size in bytes and the time of the last change in nanoseconds; a copied stream does not change.

        Raises:
            ConfigurationError: The file does not exist or cannot be read.
        """
        if self.path is None:
            return 0, 0
        try:
            status = self.path.stat()
        except OSError as error:
            raise self._unreadable(error) from error
        return status.st_size, status.st_mtime_ns

    def _copied(self, stream: BinaryIO) -> IO[bytes]:
        copy = tempfile.TemporaryFile()  # noqa: SIM115 - closed together with this object
        weakref.finalize(self, copy.close)
        shutil.copyfileobj(stream, copy, _BUFFER)
        return copy

    def _unreadable(self, error: OSError) -> ConfigurationError:
        return ConfigurationError(f"cannot read {self.name}: {error.strerror}")


class _CopyReader(io.RawIOBase):
    """Reads a shared file from a position of its own. All readers belong to one thread at a time."""

    def __init__(self, owner: InputFile, file: IO[bytes]) -> None:
        self._owner = owner  # which closes the file when it is deleted
        self._file = file
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset if whence == io.SEEK_SET else self._at + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # any writable buffer
        self._file.seek(self._at)
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
