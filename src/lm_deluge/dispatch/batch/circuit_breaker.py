"""Holds requests back while nobody listens at the provider's: an outage is not to use up the attempts of every call.

After a connection that was not to be had, one request is let through now and then to see whether there is somebody
again; the others wait for what comes of it.
"""

from __future__ import annotations

import asyncio
import contextlib

from lm_deluge.errors import APIError, CertificateError, ConnectError, DelugeError

__all__ = ["CircuitBreaker"]

PAUSES_S = (2.0, 8.0, 30.0)
"""Before each probe; the last one is repeated. A single call with five attempts lasts 70 seconds by them."""
_HOPELESS_PROBES = 4


class CircuitBreaker:
    """Whether there is one, for the calls of one event loop."""

    def __init__(self, pauses_s: tuple[float, ...] = PAUSES_S) -> None:
        self._pauses_s = pauses_s
        self._probes = 0
        self._next_probe_at: float | None = None
        self._was_reached = False
        self._is_over = asyncio.Event()

    @property
    def is_on(self) -> bool:
        """Whether requests are held back."""
        return self._next_probe_at is not None

    @property
    def is_hopeless(self) -> bool:
        """Whether nobody was ever reached, for more than a minute: the address is wrong, rather."""
        return self.is_on and not self._was_reached and self._probes >= _HOPELESS_PROBES

    async def wait(self) -> None:
        """Return when a request may leave: at once as long as all is well."""
        loop = asyncio.get_running_loop()
        while self._next_probe_at is not None:
            left = self._next_probe_at - loop.time()
            if left <= 0:
                self._probes += 1
                self._next_probe_at = loop.time() + self._pause()
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._is_over.wait()

    def _pause(self) -> float:
        return self._pauses_s[min(self._probes, len(self._pauses_s) - 1)]

    def note(self, error: DelugeError | None) -> None:
        """Learn from the end of an attempt; None: it was answered."""
        if isinstance(error, ConnectError) and not isinstance(error, CertificateError):
            if self._next_probe_at is None:
                self._next_probe_at = asyncio.get_running_loop().time() + self._pause()
        elif error is None or isinstance(error, APIError):
            self._was_reached = True
            self._next_probe_at = None
            self._probes = 0
            self._is_over.set()
            self._is_over = asyncio.Event()
