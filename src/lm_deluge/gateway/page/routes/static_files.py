"""The static files of the page: read once, and served from memory, so that no path leads to any other file."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from lm_deluge.errors import NotFoundError

__all__ = ["StaticFiles", "packaged_assets"]

_TYPES = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "json": "application/json",
    "txt": "text/plain; charset=utf-8",
    "svg": "image/svg+xml",
    "png": "image/png",
    "ico": "image/x-icon",
    "woff2": "font/woff2",
}
_PREFIX = "/page/assets/"
_INDEX = "index.html"
_DIGITS = 16  # of the hash in URLs: 64 bits tell versions apart
_IMMUTABLE = "public, max-age=31536000, immutable"
_CHECKED = "no-cache"  # kept, and asked for again by its ETag


class _File(NamedTuple):
    data: bytes
    media_type: str
    etag: str


def packaged_assets() -> Traversable:
    """Return the folder with the static files of this package."""
    return files("lm_deluge.gateway.page") / "assets"


class StaticFiles:
    """The files of a folder.

    The URLs in `index.html` get the hash of the whole folder. Modules import each other by relative paths, so all files
    are kept by browsers for a year, and a new version has new URLs.

    Args:
        folder: The folder.
    """

    def __init__(self, folder: Traversable) -> None:
        found: dict[str, bytes] = {}
        _collect(folder, "", found)
        digest = hashlib.sha256()
        for name, data in sorted(found.items()):
            digest.update(name.encode() + b"\0" + hashlib.sha256(data).digest())
        self.version = digest.hexdigest()[:_DIGITS]
        if _INDEX in found:
            own = f"{_PREFIX}{self.version}/".encode()
            found[_INDEX] = found[_INDEX].replace(_PREFIX.encode(), own)
        self._files = {
            name: _File(data, _TYPES[name.rpartition(".")[2]], f'"{hashlib.sha256(data).hexdigest()[:_DIGITS]}"')
            for name, data in found.items()
        }

    def index(self, request: Request) -> Response:
        """Answer with the page."""
        return self._answer(request, _INDEX, _CHECKED)

    def asset(self, request: Request, path: str) -> Response:
        """Answer with a file, by its path with or without the hash of the version.

        Raises:
            NotFoundError: There is no such file.
        """
        version, _, name = path.partition("/")
        if version == self.version:
            return self._answer(request, name, _IMMUTABLE)
        return self._answer(request, path, _CHECKED)

    def _answer(self, request: Request, name: str, cache: str) -> Response:
        found = self._files.get(name)
        if found is None:
            raise NotFoundError("there is no such file", status_code=404)
        headers = {"etag": found.etag, "cache-control": cache}
        known = [each.strip().removeprefix("W/") for each in request.headers.get("if-none-match", "").split(",")]
        if found.etag in known:
            return Response(status_code=304, headers=headers)
        return Response(found.data, headers={**headers, "content-type": found.media_type})


def _collect(folder: Traversable, prefix: str, found: dict[str, bytes]) -> None:
    if not folder.is_dir():
        return
    for each in folder.iterdir():
        if each.is_dir():
            _collect(each, f"{prefix}{each.name}/", found)
        elif each.name.rpartition(".")[2] in _TYPES:
            found[prefix + each.name] = each.read_bytes()
