"""Finds the handler of a request to a batch API, and the wire API of its errors."""

from __future__ import annotations

import re
from typing import NamedTuple, TypeAlias
from urllib.parse import unquote

from lm_deluge.errors import BadRequestError
from lm_deluge.simulator.batches.anthropic import ANTHROPIC_BATCH_ROUTES
from lm_deluge.simulator.batches.gemini import GEMINI_BATCH_ROUTES
from lm_deluge.simulator.batches.jobs import BatchHandler
from lm_deluge.simulator.batches.openai import OPENAI_BATCH_ROUTES
from lm_deluge.simulator.http import Request

__all__ = ["BatchRouteMatch", "encoder_of_batch_path", "find_batch_route"]

_Route: TypeAlias = tuple[re.Pattern[str], str, BatchHandler, str]


def _compiled(routes: tuple[tuple[str, str, BatchHandler], ...], encoder: str) -> list[_Route]:
    return [(re.compile(pattern), method, handler, encoder) for method, pattern, handler in routes]


_GOOGLE = _compiled(GEMINI_BATCH_ROUTES, "gemini-generate")
_OTHERS = [
    *_compiled(OPENAI_BATCH_ROUTES, "openai-chat"),
    *_compiled(ANTHROPIC_BATCH_ROUTES, "anthropic-messages"),
]
_GOOGLE_HEADER = "x-goog-api-key"


class BatchRouteMatch(NamedTuple):
    """The handler of a request, and the parameters in its path."""

    handler: BatchHandler
    path_params: dict[str, str]


def _routes(request: Request) -> list[_Route]:
    """Return the routes in the order to try: OpenAI and Google share paths such as `/v1/files`."""
    return [*_GOOGLE, *_OTHERS] if _GOOGLE_HEADER in request.headers else [*_OTHERS, *_GOOGLE]


def encoder_of_batch_path(request: Request) -> str | None:
    """Return the wire API that encodes errors for this path, or None if the path belongs to no batch API."""
    return next((encoder for pattern, _, _, encoder in _routes(request) if pattern.fullmatch(request.path)), None)


def find_batch_route(request: Request) -> BatchRouteMatch | None:
    """Return the handler of a request, or None if its path belongs to no batch API.

    Raises:
        BadRequestError: The path belongs to a batch API, but does not take the method of the request.
    """
    methods = []
    for pattern, method, handler, _ in _routes(request):
        found = pattern.fullmatch(request.path)
        if found and method == request.method:
            return BatchRouteMatch(handler, {name: unquote(value) for name, value in found.groupdict().items()})
        if found:
            methods.append(method)
    if methods:
        raise BadRequestError(
            f"Not allowed to {request.method} on {request.path} (HINT: use {' or '.join(dict.fromkeys(methods))})",
            status_code=405,
            type="invalid_request_error",
        )
    return None
