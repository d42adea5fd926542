"""What is sent and what comes back first, as plain values."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

__all__ = ["HttpHead", "HttpRequest"]


class HttpRequest(msgspec.Struct, frozen=True):
    """A request to be sent. Headers and body never print: they hold keys and prompts."""

    url: str
    headers: Mapping[str, str]
    body: bytes
    method: str = "POST"

    def __repr__(self) -> str:
        return f"HttpRequest({self.method} {self.url}, {len(self.body)} bytes)"


class HttpHead(msgspec.Struct, frozen=True):
    """Status and headers of an answer; the names of headers are in lower case.

    `delay_s` is how long the request was on its way, there and back, without the time that the server took: what it
    waited for its connection, and a bound of the round trip of packets; None where nobody measured it.
    """

    status: int
    headers: Mapping[str, str]
    delay_s: float | None = None
