"""Values for an HTTP request and for the status and headers of a response."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol
from urllib.parse import urlsplit

import msgspec

from lm_deluge.hidden import HidingStruct, shown_url

__all__ = ["HttpHead", "HttpRequest", "Pieces", "origin_of"]


class Pieces(Protocol):
    """A request body that is too large for memory. Each iteration reads it again from its beginning."""

    def __len__(self) -> int:
        """Return the size in bytes."""
        ...

    def __iter__(self) -> Iterator[bytes]: ...


class HttpRequest(HidingStruct, frozen=True, gc=False):
    """A request to be sent. `repr` hides headers and body, which contain keys and prompts.

    Attributes:
        pieces: If not None, sent instead of `body`.
    """

    url: str
    headers: Mapping[str, str]
    body: bytes
    method: str = "POST"
    pieces: Pieces | None = None

    @property
    def size(self) -> int:
        """Size of the body in bytes."""
        return len(self.body if self.pieces is None else self.pieces)

    def __repr__(self) -> str:
        return f"HttpRequest({self.method} {shown_url(self.url)}, {self.size} bytes)"


class HttpHead(msgspec.Struct, frozen=True, gc=False):
    """Status and headers of a response; header names are in lower case.

    `delay_s` is an upper bound of the network's share of the response time, in seconds: the wait for a connection plus
    one round trip. None where it was not measured.
    """

    status: int
    headers: Mapping[str, str]
    delay_s: float | None = None


def origin_of(url: str) -> tuple[str, str | None, int | None]:
    """Return scheme, host and port of a URL."""
    parts = urlsplit(url)
    try:
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        port = None
    return parts.scheme, parts.hostname, port
