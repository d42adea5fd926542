"""What the first call of a process would wait for, done ahead of time: imports, credentials, connections."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from lm_deluge.adapters.adapter import Call
from lm_deluge.api_requests.authorize import authorize
from lm_deluge.api_requests.credentials import Access
from lm_deluge.config import Secret, Timeouts
from lm_deluge.dispatch.hooks import unexpected_error
from lm_deluge.errors import DelugeError
from lm_deluge.telemetry.logs import logger
from lm_deluge.transport.base import Connecting, Transport
from lm_deluge.wire.http import HttpRequest, origin_of

__all__ = ["warm_up"]


class Settled(Protocol):
    """Finds what the calls to a model have in common."""

    def settled(self, model: str) -> tuple[Call, Access, Timeouts]:
        """Return parameters, address and key, and timeouts; raises a `ConfigurationError` if one is missing."""
        ...


async def warm_up(planner: Settled, models: Sequence[str], transport: Transport) -> dict[str, DelugeError | None]:
    """Prepare the calls to models in the running event loop; no request is sent to a model.

    Args:
        planner: Plans the calls.
        models: Ids of the models.
        transport: Sends their requests.

    Returns:
        What stands in the way of each model, by its id; None: nothing.
    """
    await asyncio.to_thread(_import_ahead)
    hosts = _Hosts(planner, transport)
    errors = await asyncio.gather(*map(hosts.prepare, models))
    for model, error in zip(models, errors, strict=True):
        if error is not None:
            logger.warning("%s is not ready: %s", model, type(error).__name__)
    return dict(zip(models, errors, strict=True))


def _import_ahead() -> None:
    """Import what calls import on first use."""
    import email.utils  # noqa: F401 - stands in for a missing `Date` header
    import urllib.request  # noqa: F401 - knows the proxies of the environment


class _Hosts:
    """The hosts of the models, each connected to once."""

    def __init__(self, planner: Settled, transport: Transport) -> None:
        self._planner = planner
        self._transport = transport
        self._connecting: dict[tuple[object, Secret | None], asyncio.Task[None]] = {}

    async def prepare(self, model: str) -> DelugeError | None:
        """Get the credentials of a model, and connect to its host; return what failed."""
        try:
            call, access, timeouts = self._planner.settled(model)
            await asyncio.gather(self._connect(access, timeouts), _authorize(call, access))
        except Exception as error:  # noqa: BLE001 - nothing that fails here fails a program
            return unexpected_error(error)
        return None

    async def _connect(self, access: Access, timeouts: Timeouts) -> None:
        if not isinstance(self._transport, Connecting):
            return
        key = (origin_of(access.base_url), access.proxy)
        if key not in self._connecting:
            connecting = self._transport.connect(
                access.base_url, connect_timeout_s=timeouts.connect, proxy=access.proxy
            )
            self._connecting[key] = asyncio.ensure_future(connecting)
        await self._connecting[key]


async def _authorize(call: Call, access: Access) -> None:
    """Fetch a token where the provider takes one in place of a key; it is kept for the calls."""
    if access.key is None:
        await authorize(HttpRequest(access.base_url, {}, b""), call)
