"""What the endpoints of a gateway share, and what they know of a request before they have read it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from lm_deluge.gateway.access import AccessControl
from lm_deluge.gateway.access_log import AccessLog
from lm_deluge.gateway.catalog import ModelCatalog
from lm_deluge.gateway.cluster.peers import StreamPeers
from lm_deluge.gateway.configuration.settings import GatewaySettings
from lm_deluge.gateway.http_body import Receive
from lm_deluge.ui.stream_log import StreamLogs

__all__ = ["GatewayServices", "IncomingRequest"]


class GatewayServices(msgspec.Struct, frozen=True):
    """What the endpoints of a gateway share.

    Attributes:
        running: The calls whose client waits for an answer.
        peers: Finds the streams of other processes; None: there are no others.
    """

    settings: GatewaySettings
    catalog: ModelCatalog
    access: AccessControl
    log: AccessLog
    streams: StreamLogs
    running: set[Any]
    peers: StreamPeers | None = None


class IncomingRequest(NamedTuple):
    """A request whose body is not read yet.

    Attributes:
        headers: The headers, names in lower case.
        receive: Receives the body.
        model: The model in the path; None: the body has it.
        is_streamed: Whether requests to the path are streamed; None: the body has that.
    """

    headers: Mapping[str, str]
    receive: Receive
    model: str | None
    is_streamed: bool | None
