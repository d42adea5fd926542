"""Which path is one of a batch API, and in whose words it is answered."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import unquote

from lm_deluge.errors import BadRequestError
from lm_deluge.simulator.anthropic_batches import ANTHROPIC_BATCH_ROUTES
from lm_deluge.simulator.batch_jobs import BatchHandler
from lm_deluge.simulator.gemini_batches import GEMINI_BATCH_ROUTES
from lm_deluge.simulator.http import Request
from lm_deluge.simulator.openai_batches import OPENAI_BATCH_ROUTES

__all__ = ["FoundRoute", "batch_encoder", "find_batch_route"]

_ROUTES = tuple(
    (re.compile(pattern), method, handler, encoder)
    for routes, encoder in (
        (OPENAI_BATCH_ROUTES, "openai-chat"),
        (ANTHROPIC_BATCH_ROUTES, "anthropic-messages"),
        (GEMINI_BATCH_ROUTES, "gemini-generate"),
    )
    for method, pattern, handler in routes
)


class FoundRoute(NamedTuple):
    """Who answers a request, and what its path says."""

    handler: BatchHandler
    named: dict[str, str]


def batch_encoder(path: str) -> str | None:
    """Return the wire API in whose words errors under a path are told; None where it is of no batch API."""
    return next((encoder for pattern, _, _, encoder in _ROUTES if pattern.fullmatch(path)), None)


def find_batch_route(request: Request) -> FoundRoute | None:
    """Return who answers a request; None where its path is of no batch API.

    Raises:
        BadRequestError: The path is, the method is not.
    """
    methods = []
    for pattern, method, handler, _ in _ROUTES:
        found = pattern.fullmatch(request.path)
        if found and method == request.method:
            return FoundRoute(handler, {name: unquote(value) for name, value in found.groupdict().items()})
        if found:
            methods.append(method)
    if methods:
        raise BadRequestError(
            f"Not allowed to {request.method} on {request.path} (HINT: use {' or '.join(methods)})",
            status_code=405,
            type="invalid_request_error",
        )
    return None
