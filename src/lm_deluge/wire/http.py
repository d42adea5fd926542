"""What is sent and what comes back first, as plain values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol
from urllib.parse import urlsplit

import msgspec

__all__ = ["HttpHead", "HttpRequest", "Pieces", "origin_of"]


class Pieces(Protocol):
    """A body that is too large to be held. Each iteration reads it anew from its begin."""

    def __len__(self) -> int:
        """Return how many bytes it has."""
        ...

    def __iter__(self) -> Iterator[bytes]: ...


class HttpRequest(msgspec.Struct, frozen=True, gc=False):
    """A request to be sent. Headers and body never print: they hold keys and prompts.

    Attributes:
        pieces: Sent in place of `body`, where it is not None.
    """

    url: str
    headers: Mapping[str, str]
    body: bytes
    method: str = "POST"
    pieces: Pieces | None = None

    @property
    def size(self) -> int:
        """How many bytes its body has."""
        return len(self.body if self.pieces is None else self.pieces)

    def __repr__(self) -> str:
        return f"HttpRequest({self.method} {self.url}, {self.size} bytes)"


class HttpHead(msgspec.Struct, frozen=True, gc=False):
    """Status and headers of an answer; the names of headers are in lower case.

    `delay_s` is how long the request was on its way, there and back, without the time that the server took: what it
    waited for its connection, and a bound of the round trip of packets; None where nobody measured it.
    """

    status: int
    headers: Mapping[str, str]
    delay_s: float | None = None


def origin_of(url: str) -> tuple[str, str | None, int | None]:
    """Return scheme, host and port of a URL: where its server is."""
    parts = urlsplit(url)
    try:
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        port = None
    return parts.scheme, parts.hostname, port
