"""The paths of the gateway that call no model: health, and the list of models."""

from __future__ import annotations

import time
from itertools import chain
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from lm_deluge.errors import AuthenticationError, BadRequestError, DelugeError, NotFoundError
from lm_deluge.gateway.answers.incoming import token_of
from lm_deluge.gateway.dialects import DIALECTS, Dialect, status_of
from lm_deluge.gateway.http_body import header_map
from lm_deluge.gateway.routes.google_models import google_list, google_model
from lm_deluge.gateway.services import GatewayServices
from lm_deluge.models.rows import ModelRow
from lm_deluge.ui.failures import as_api_error

__all__ = ["ServerState", "error_response", "info_routes", "not_allowed", "not_found"]

JSON = dict[str, Any]


class ServerState:
    """What the server knows about itself.

    Args:
        services: What the endpoints share.

    Attributes:
        is_ready: Whether new requests are welcome; false while the server stops.
    """

    def __init__(self, services: GatewayServices) -> None:
        self.services = services
        self.is_ready = True

    async def greet(self, request: Request) -> Response:
        """Answer clients that look whether there is a server at all: Claude Code and Ollama's command line."""
        return PlainTextResponse("LM Deluge is running")

    async def live(self, request: Request) -> Response:
        """Answer that the process runs."""
        return JSONResponse({"status": "alive"})

    async def ready(self, request: Request) -> Response:
        """Answer whether new requests are welcome."""
        if self.is_ready:
            return JSONResponse({"status": "ready"})
        return JSONResponse({"status": "stopping"}, status_code=503)

    async def models(self, request: Request) -> Response:
        """Answer with the list of models."""
        refused = await self._refusal(request)
        rows = self.services.catalog.rows()
        return refused or JSONResponse(google_list(rows) if _is_of_google(request) else _list_fields(rows))

    async def model(self, request: Request) -> Response:
        """Answer with one model."""
        refused = await self._refusal(request)
        if refused is not None:
            return refused
        name = request.path_params["name"]
        found = next((row for known, row in self.services.catalog.rows() if known == name), None)
        if found is None:
            return error_response(request, NotFoundError(f"the model {name!r} is not served here", status_code=404))
        fields = google_model if _is_of_google(request) else _model_fields
        return JSONResponse(fields(name, found))

    async def _refusal(self, request: Request) -> Response | None:
        try:
            await self.services.access.check(token_of(header_map(request.scope)))
        except AuthenticationError as error:
            return error_response(request, error)
        return None


def info_routes(state: ServerState) -> list[Route]:
    """Return the routes."""
    return [
        Route("/", state.greet),
        Route("/health/live", state.live),
        Route("/health/ready", state.ready),
        Route("/v1/models", state.models),
        Route("/models", state.models),
        Route("/v1beta/models", state.models),
        Route("/v1/models/{name:path}", state.model),
        Route("/models/{name:path}", state.model),
        Route("/v1beta/models/{name:path}", state.model),
        Route("/v1/responses/compact", _no_compaction, methods=["POST"]),
    ]


async def not_found(request: Request, error: Exception) -> Response:
    """Answer a request for a path that does not exist."""
    return error_response(request, NotFoundError(f"there is nothing at {request.url.path}", status_code=404))


async def not_allowed(request: Request, error: Exception) -> Response:
    """Answer a request for a path that has other methods."""
    text = f"{request.url.path} does not take {request.method}"
    return error_response(request, BadRequestError(text, status_code=405))


async def _no_compaction(request: Request) -> Response:
    """Refuse to compact a conversation: its result is opaque data that only OpenAI can read."""
    text = "this gateway compacts no conversations: let the client do it"
    return error_response(request, NotFoundError(text, status_code=404, code="not_supported"))


# The beginnings of the paths of the APIs, and the header that marks a path which several of them share.
_PATHS = (
    ("/api/", "ollama-chat"),
    ("/v1beta/", "gemini-generate"),
    ("/v1/messages", "anthropic-messages"),
    ("/messages", "anthropic-messages"),
)
_MARKS = (("anthropic-version", "anthropic-messages"), ("x-goog-api-key", "gemini-generate"))


def _is_of_google(request: Request) -> bool:
    return _dialect_of(request).name == "gemini-generate"


def _dialect_of(request: Request) -> Dialect:
    by_path = (name for beginning, name in _PATHS if request.url.path.startswith(beginning))
    by_header = (name for header, name in _MARKS if header in request.headers)
    return DIALECTS[next(chain(by_path, by_header), "openai-chat")]


def error_response(request: Request, error: DelugeError) -> Response:
    """Return an error in the dialect of a request."""
    dialect, shown = _dialect_of(request), as_api_error(error)
    body = dialect.encoder.encode_error(shown)
    return Response(body, status_code=status_of(dialect, shown), media_type="application/json")


def _list_fields(rows: list[tuple[str, ModelRow]]) -> JSON:
    """Return the list of models, with the fields of OpenAI's and of Anthropic's lists."""
    data = [_model_fields(name, row) for name, row in rows]
    first, last = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    return {"object": "list", "data": data, "has_more": False, "first_id": first, "last_id": last}


def _model_fields(name: str, row: ModelRow) -> JSON:
    created = int(time.time())
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": row.provider,
        "type": "model",
        "display_name": name,
        "created_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(created)),
        "context_window": row.context_window,
        "max_output_tokens": row.max_output_tokens,
    }
