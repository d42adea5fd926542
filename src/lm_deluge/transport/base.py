"""The interface between the library and its HTTP client, implemented in `http.py`."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from lm_deluge.config import Secret
from lm_deluge.errors import ConnectError
from lm_deluge.wire.http import HttpHead, HttpRequest

__all__ = ["Connecting", "ConnectionSlot", "DescriptorsUsedUpError", "Exchange", "Transport"]


class DescriptorsUsedUpError(ConnectError):
    """The system has no free file descriptor. The caller releases its `ConnectionSlot` and waits with `wait_again`."""


class ConnectionSlot(Protocol):
    """Permission to open one connection."""

    async def wait_again(self) -> None:
        """Release the slot after a `DescriptorsUsedUpError`, and wait until it is available again.

        Raises:
            ConnectError: No descriptor became available, and closing connections of this library cannot free one.
        """
        ...

    def give_back(self) -> None:
        """Release the slot. A second call has no effect."""
        ...


class Read(Protocol):
    """A coroutine function that reads."""

    async def __call__(self) -> bytes:
        """Return the next bytes; empty at the end."""
        ...


class Exchange(Protocol):
    """One request and its response, whose body is still being received.

    The caller must end it: with `release` after the end of the body, with `abort` in all other cases.
    """

    head: HttpHead

    @property
    def bytes_received(self) -> int:
        """Bytes of the body that have arrived, before decompression."""
        ...

    @property
    def is_at_end(self) -> bool:
        """Whether the end of the body is known to have arrived, and all of it was read."""
        ...

    def keep(self, slot: ConnectionSlot) -> None:
        """Store the connection slot; it is released when the exchange ends."""
        ...

    @property
    def read(self) -> Read:
        """The function that returns the next bytes of the body, decompressed; empty at its end.

        Raises:
            TransportError: The connection broke.
            ProtocolError: The bytes are not valid HTTP, or cannot be decompressed.
        """
        ...

    async def release(self, wait_s: float) -> int:
        """Wait at most `wait_s` seconds for the end of the body, so that the connection can be reused; else close it.

        Returns the number of surplus bytes received instead of the end; then the connection is closed too.
        """
        ...

    def abort(self) -> None:
        """Close the connection at once. May be called twice, and from a finalizer."""
        ...


class Transport(Protocol):
    """Sends HTTP requests."""

    async def connection_slot(self) -> ConnectionSlot:
        """Wait until the process may open one more connection. Each request needs a slot."""
        ...

    async def open(self, request: HttpRequest, *, connect_timeout_s: float | None, proxy: Secret | None) -> Exchange:
        """Send the request; return when status and headers have arrived. Redirects are not followed.

        Raises:
            DescriptorsUsedUpError: There is no free file descriptor for the connection.
            TransportError: No response arrived.
            ProtocolError: The response is not valid HTTP.
        """
        ...

    async def close(self) -> None:
        """Close the connections that belong to the running event loop."""
        ...


@runtime_checkable
class Connecting(Protocol):
    """Additional method of a transport that keeps idle connections."""

    async def connect(self, url: str, *, connect_timeout_s: float | None, proxy: Secret | None) -> None:
        """Open a connection to the host of a URL, for a later request.

        Raises:
            TransportError: There is no connection.
            ConfigurationError: The URL is invalid.
        """
        ...
