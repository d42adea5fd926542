"""Fetches newer rows of models: `deluge models update`. Nothing else in the library fetches rows."""

from __future__ import annotations

import io
import os
import tempfile
import urllib.error
import urllib.request
import zipfile
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urljoin, urlsplit

import msgspec

from lm_deluge.api_requests.credentials import fetched_rows_file
from lm_deluge.errors import ConfigurationError
from lm_deluge.models.snapshots import Snapshot, read_snapshot

__all__ = ["NEWEST_RELEASE", "Fetched", "fetch_snapshot", "save_snapshot"]

NEWEST_RELEASE = "https://pypi.org/pypi/lm-deluge/json"
_ROWS = "lm_deluge/models/models.json"
_MOST_BYTES = 64 * 2**20  # a release has less than 2 MB (2026-11); a larger body is not one
_TIMEOUT_S = 30.0  # of each read; a release arrives within seconds


class Fetched(NamedTuple):
    """A snapshot, and its file as it was fetched."""

    snapshot: Snapshot
    data: bytes

    @property
    def date(self) -> str:
        """The day of the snapshot."""
        return self.snapshot.date


class _File(msgspec.Struct):
    url: str  # of a mirror, it may be relative


class _Release(msgspec.Struct):
    """PyPI's description of a release: https://docs.pypi.org/api/json/ (2026-11)."""

    urls: list[_File]


def fetch_snapshot(source: str) -> Fetched:
    """Return the snapshot at a URL: a `models.json`, a wheel that has one, or PyPI's JSON of a release.

    Raises:
        ConfigurationError: Nothing can be fetched from there, or it has no rows in the format of this version.
    """
    body = _read(source)
    if not zipfile.is_zipfile(io.BytesIO(body)):
        try:
            urls = [urljoin(source, file.url) for file in msgspec.json.decode(body, type=_Release).urls]
        except (msgspec.DecodeError, UnicodeDecodeError):
            return _decoded(body, source)
        wheels = [url for url in urls if urlsplit(url).path.endswith(".whl")]
        if not wheels:
            raise _no_rows(source)
        body = _read(wheels[0])
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as wheel:
            data = wheel.read(_ROWS)
    except zipfile.BadZipFile:
        raise _no_rows(source) from None
    except KeyError:
        raise ConfigurationError(
            f"the release at {source} is older than this one: it has no file of models",
            hint="The installed models are unchanged.",
        ) from None
    return _decoded(data, source)


def _decoded(data: bytes, source: str) -> Fetched:
    try:
        snapshot = read_snapshot(data)
        snapshot.rows()
    except (msgspec.DecodeError, KeyError, UnicodeDecodeError):
        raise _no_rows(source) from None
    return Fetched(snapshot, data)


def _no_rows(source: str) -> ConfigurationError:
    return ConfigurationError(
        f"{source} has no models in the format of this version",
        hint="Install a newer version of LM Deluge. The installed models are unchanged.",
    )


def _read(url: str) -> bytes:
    if not url.startswith(("https://", "http://127.0.0.1:")):
        raise ConfigurationError(f"models are not fetched from {url}", hint="Pass a URL that begins with https://.")
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:  # noqa: S310 - checked above
            body: bytes = answer.read(_MOST_BYTES + 1)
    except (OSError, urllib.error.URLError, ValueError) as error:
        why = getattr(error, "reason", None) or error
        raise ConfigurationError(f"{url} was not fetched: {why}", hint="The installed models are unchanged.") from error
    if len(body) > _MOST_BYTES:
        raise _no_rows(url)
    return body


def save_snapshot(fetched: Fetched) -> Path:
    """Write a snapshot into the user's configuration folder, whole or not at all, and return the file.

    Raises:
        ConfigurationError: The file cannot be written.
    """
    file = fetched_rows_file()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=".models-")
        with os.fdopen(descriptor, "wb") as written:
            written.write(fetched.data)
        Path(name).replace(file)
    except OSError as error:
        raise ConfigurationError(f"{file} was not written: {error.strerror}") from error
    return file
