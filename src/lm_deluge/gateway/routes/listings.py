"""The models for clients of Ollama: https://github.com/ollama/ollama/blob/main/docs/api.md."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from lm_deluge.errors import BadRequestError, DelugeError, NotFoundError
from lm_deluge.gateway.answers.incoming import token_of
from lm_deluge.gateway.http_body import ClientLeftError, header_map, read_body
from lm_deluge.gateway.routes.info_routes import error_response
from lm_deluge.gateway.services import GatewayServices
from lm_deluge.models.rows import ModelRow

__all__ = ["listing_routes"]

JSON = dict[str, Any]

_OLLAMA_VERSION = "0.12.0"
"""The version of Ollama that has every field of our answers (2025-09); clients compare it with the one they need."""
_UNCHANGED = "1970-01-01T00:00:00Z"
_DEFAULT_TAG = ":latest"  # Ollama's tag of a name without a tag


def listing_routes(services: GatewayServices) -> list[Route]:
    """Return the routes."""
    lists = _Lists(services)
    return [
        Route("/api/version", lists.version),
        Route("/api/tags", lists.tags),
        Route("/api/ps", lists.running),
        Route("/api/show", lists.show, methods=["POST"]),
    ]


class _Lists:
    def __init__(self, services: GatewayServices) -> None:
        self._services = services

    async def version(self, request: Request) -> Response:
        """Answer with a version of Ollama."""
        return JSONResponse({"version": _OLLAMA_VERSION})

    async def running(self, request: Request) -> Response:
        """Answer that no model is loaded: there is nothing to load or to unload."""
        return await self._refusal(request) or JSONResponse({"models": []})

    async def tags(self, request: Request) -> Response:
        """Answer with the list of models as Ollama has it."""
        refused = await self._refusal(request)
        return refused or JSONResponse({"models": [_tag(name, row) for name, row in self._services.catalog.rows()]})

    async def show(self, request: Request) -> Response:
        """Answer with one model as Ollama has it."""
        refused = await self._refusal(request)
        if refused is not None:
            return refused
        try:
            name = await self._name_in_body(request)
            row = self._find(name)
        except ClientLeftError:
            return Response(status_code=400)  # the client has left: there is no reader
        except DelugeError as error:
            return error_response(request, error)
        return JSONResponse(_shown(row))

    async def _name_in_body(self, request: Request) -> str:
        settings = self._services.settings
        body = await read_body(
            request.receive,
            header_map(request.scope),
            most_bytes=settings.max_body_bytes,
            timeout_s=settings.body_timeout_s,
        )
        try:
            raw = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raw = None
        name = (raw.get("model") or raw.get("name")) if isinstance(raw, dict) else None  # older clients send `name`
        if not isinstance(name, str):
            raise BadRequestError("model is required", status_code=400)
        return name

    def _find(self, name: str) -> ModelRow:
        rows = dict(self._services.catalog.rows())
        row = rows.get(name) or rows.get(name.removesuffix(_DEFAULT_TAG))
        if row is None:
            raise NotFoundError(f"model {name[:100]!r} not found", status_code=404)
        return row

    async def _refusal(self, request: Request) -> Response | None:
        try:
            await self._services.access.check(token_of(header_map(request.scope)))
        except DelugeError as error:
            return error_response(request, error)
        return None


def _details(row: ModelRow) -> JSON:
    return {
        "parent_model": "",
        "format": "",
        "family": row.provider,
        "families": [row.provider],
        "parameter_size": "",
        "quantization_level": "",
    }


def _tag(name: str, row: ModelRow) -> JSON:
    empty = {"modified_at": _UNCHANGED, "size": 0, "digest": "0" * 64}
    return {"name": name, "model": name, **empty, "details": _details(row)}


def _shown(row: ModelRow) -> JSON:
    own = row.capabilities
    kinds = {"tools": own.tools, "thinking": own.reasoning, "vision": own.image_input}
    window = {} if row.context_window is None else {f"{row.provider}.context_length": row.context_window}
    return {
        "modelfile": "",
        "parameters": "",
        "template": "",
        "license": "",
        "details": _details(row),
        "model_info": {"general.architecture": row.provider, **window},
        "capabilities": ["completion", *(kind for kind, has in kinds.items() if has)],
        "modified_at": _UNCHANGED,
    }
