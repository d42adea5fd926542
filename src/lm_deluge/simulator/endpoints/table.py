"""The table of all routes: it finds the route of a request, and the API that a path belongs to."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import unquote

from lm_deluge.encoders.encoder import Encoder
from lm_deluge.simulator.endpoints.anthropic import ANTHROPIC
from lm_deluge.simulator.endpoints.bedrock import BEDROCK
from lm_deluge.simulator.endpoints.cohere import COHERE
from lm_deluge.simulator.endpoints.gemini import GEMINI, INTERACTIONS
from lm_deluge.simulator.endpoints.mistral import MISTRAL
from lm_deluge.simulator.endpoints.ollama import OLLAMA
from lm_deluge.simulator.endpoints.openai import OPENAI
from lm_deluge.simulator.endpoints.route import SimulatedApi, SimulatedRoute
from lm_deluge.simulator.http import Request

__all__ = ["RouteMatch", "find_route"]

# OpenAI comes first: on a path that two APIs share, a request without the mark of another API belongs to OpenAI.
_APIS = (OPENAI, ANTHROPIC, GEMINI, INTERACTIONS, BEDROCK, MISTRAL, COHERE, OLLAMA)
# The owners of unknown paths. Interactions come before the other paths of Google; OpenAI's `/v1beta/openai` and
# `/api/v1` come before the paths of Google and Ollama.
_OWNERS = [(re.compile(api.paths), api) for api in (INTERACTIONS, *_APIS)]


class RouteMatch(NamedTuple):
    """What the table has for a request.

    Attributes:
        encoder: The encoder of the API that the path belongs to.
        route: The route, or None if the path has none for the method of the request.
        path_params: The percent-decoded values of the named groups of the route's pattern.
        methods: The methods that the path has routes for; empty for an unknown path.
    """

    encoder: Encoder
    route: SimulatedRoute | None
    path_params: dict[str, str]
    methods: tuple[str, ...]


def find_route(request: Request) -> RouteMatch:
    """Return what the table has for the method and the path of a request."""
    methods = []
    encoder = None
    for api in _in_order(request):
        for route in api.routes:
            found = route.pattern.fullmatch(request.path)
            if found is None:
                continue
            if route.method == request.method:
                params = {name: unquote(value) for name, value in found.groupdict().items() if value is not None}
                return RouteMatch(route.encoder, route, params, (route.method,))
            methods.append(route.method)
            encoder = encoder or route.encoder
    return RouteMatch(encoder or _owner(request).encoder, None, {}, tuple(dict.fromkeys(methods)))


def _in_order(request: Request) -> list[SimulatedApi]:
    return sorted(_APIS, key=lambda api: not _is_marked(request, api))


def _is_marked(request: Request, api: SimulatedApi) -> bool:
    return any(mark in request.headers or mark in request.query for mark in api.marks)


def _owner(request: Request) -> SimulatedApi:
    """Return the API that an unknown path belongs to: by its beginning, or else by the marks of the request."""
    owners = (api for pattern, api in _OWNERS if pattern.fullmatch(request.path))
    return next(owners, next((api for api in _APIS if _is_marked(request, api)), OPENAI))
