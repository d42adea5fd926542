"""Answers of the page that run in other processes of the gateway: followed and stopped through this one."""

from __future__ import annotations

import secrets
from typing import Any

import msgspec
from starlette.responses import Response

from lm_deluge.gateway.cluster.peers import StreamHolder
from lm_deluge.gateway.routes.stream_routes import PeerResponse
from lm_deluge.gateway.services import GatewayServices

__all__ = ["OtherAnswers"]

_OK = 200  # the status of a receipt; any other one has an error


class OtherAnswers:
    """The answers of other workers and machines. A process registers its answers like other streams that are kept.

    Args:
        services: What the endpoints of the gateway share; without `peers` there are no other processes.
    """

    def __init__(self, services: GatewayServices) -> None:
        self._services = services

    async def announce(self, name: str, owner: str) -> None:
        """Let the others know that this process runs an answer."""
        if self._services.peers is not None:
            await self._services.peers.announce(name, owner=owner)

    async def events(self, owner: str, name: str) -> Response | None:
        """Return a response with the frames of an answer; None if no other process has it.

        Raises:
            OverloadedError: The server of the limiter cannot be reached.
        """
        holder, peers = await self._holder(owner, name), self._services.peers
        if holder is None or peers is None:
            return None
        return PeerResponse(peers, holder, self._services, path=f"/v1/streams/{name}")

    async def stop(self, owner: str, name: str) -> dict[str, Any] | None:
        """Stop an answer; return its receipt, or None if no other process has it.

        Raises:
            DelugeError: The process, or the server of the limiter, cannot be reached.
        """
        holder, peers = await self._holder(owner, name), self._services.peers
        if holder is None or peers is None:
            return None
        exchange = await peers.send(holder, f"/v1/streams/{name}/stop", method="POST")
        try:
            body = b""
            while data := await exchange.read():
                body += data
        finally:
            exchange.abort()
        if exchange.head.status != _OK:
            return None
        receipt = msgspec.json.decode(body)
        return {field: receipt.get(field) for field in ("text", "usage", "cost")}

    async def _holder(self, owner: str, name: str) -> StreamHolder | None:
        if self._services.peers is None:
            return None
        holder = await self._services.peers.find(name)
        if holder is None or not secrets.compare_digest(holder.owner.encode(), owner.encode()):
            return None
        return holder
