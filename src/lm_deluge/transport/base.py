"""The port between the library and the network: another HTTP library is one more file beside `http.py`."""

from __future__ import annotations

from typing import Protocol

from lm_deluge.config import Secret
from lm_deluge.errors import ConnectError
from lm_deluge.wire.http import HttpHead, HttpRequest

__all__ = ["ConnectionSlot", "DescriptorsUsedUpError", "Exchange", "Transport"]


class DescriptorsUsedUpError(ConnectError):
    """The system has no file descriptor left; the holder of a `ConnectionSlot` waits for another one with `again`."""


class ConnectionSlot(Protocol):
    """Room for one connection."""

    async def again(self) -> None:
        """Wait for another place, after a `DescriptorsUsedUpError`.

        Raises:
            ConnectError: That took too long, and was nothing that this library could wait for.
        """
        ...

    def give_back(self) -> None:
        """Let another connection have it. May be called twice."""
        ...


class Exchange(Protocol):
    """One request and its answer, while the body is still coming.

    Whoever holds it must end it: `release` after the body's end, `abort` on every other way out.
    """

    head: HttpHead
    bytes_received: int

    def keep(self, place: ConnectionSlot) -> None:
        """Hold a place; give it back when the exchange ends."""
        ...

    async def read(self) -> bytes:
        """Return the next bytes of the body, decompressed; empty at its end.

        Raises:
            TransportError: The connection died.
            ProtocolError: The bytes are no HTTP, or cannot be decompressed.
        """
        ...

    async def release(self, wait_s: float) -> int:
        """Wait at most so long for the body's end, so that the connection can be used again; else close it.

        Returns the number of bytes that came instead; with them the connection is closed.
        """
        ...

    def abort(self) -> None:
        """Close the connection now. May be called twice, and from within a finaliser."""
        ...


class Transport(Protocol):
    """Sends requests."""

    async def place(self) -> ConnectionSlot:
        """Wait until the process has room for one more connection. Each request needs a place."""
        ...

    async def open(self, request: HttpRequest, *, connect_timeout_s: float | None, proxy: Secret | None) -> Exchange:
        """Send the request; return once status and headers are here. Redirects are not followed.

        Raises:
            DescriptorsUsedUpError: No connection could be made for want of file descriptors.
            TransportError: No answer came.
            ProtocolError: What came is no HTTP.
        """
        ...

    async def close(self) -> None:
        """Close the connections that belong to the running event loop."""
        ...
