"""The admin port: keys and spend for the administrator, and metrics."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from lm_deluge.errors import ConfigurationError
from lm_deluge.extras import install_hint
from lm_deluge.gateway.answers.incoming import token_of
from lm_deluge.gateway.http_body import header_map
from lm_deluge.gateway.key_access import KeyAccess
from lm_deluge.gateway.ledger.keys import GatewayKey, KeyRules, parse_rules
from lm_deluge.gateway.ledger.ledger import Ledger
from lm_deluge.gateway.metrics import GatewayMetrics, SummedMetrics
from lm_deluge.gateway.origin import foreign_page

__all__ = ["admin_app"]

JSON = dict[str, Any]

_MOST_BODY = 64 * 2**10  # bytes; a key with a thousand model names has less
_MOST_CONCURRENT = 2**31 - 1  # fits every database, and is no limit
_GROUPS = ("day", "key", "model")


def admin_app(ledger: Ledger, access: KeyAccess, metrics: GatewayMetrics | SummedMetrics | None = None) -> Starlette:
    """Return the admin API. Every request needs the master key, but for `/metrics`: it has numbers only.

    Args:
        ledger: Keys and spend.
        access: Knows the master key.
        metrics: The metrics; None: there are none, as their package is not installed.
    """
    admin = _Admin(ledger, access)

    async def read_metrics(request: Request) -> Response:
        if (reason := foreign_page(header_map(request.scope))) is not None:
            return _error(403, reason)
        if metrics is None:
            return Response(install_hint("prometheus-client") + "\n", 501, media_type="text/plain")
        body, content_type = metrics.exposition()
        return Response(body, headers={"content-type": content_type})

    return Starlette(
        routes=[
            Route("/keys", admin.list_keys, methods=["GET"]),
            Route("/keys", admin.create_key, methods=["POST"]),
            Route("/keys/{name:path}", admin.revoke_key, methods=["DELETE"]),
            Route("/metrics", read_metrics, methods=["GET"]),
            Route("/spend", admin.spend, methods=["GET"]),
        ]
    )


class _NewKey(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a request for a key; amounts are text as `deluge keys create` takes it, or bare numbers."""

    name: str
    models: list[str] | str = ""
    budget: str | int | float | None = None
    requests: str | int | None = None
    tokens: str | int | None = None
    concurrent: Annotated[int, msgspec.Meta(ge=1, le=_MOST_CONCURRENT)] | None = None
    expires: str | None = None

    def rules(self) -> KeyRules:
        """Return the rules.

        Raises:
            ConfigurationError: A value cannot be read.
        """
        amounts = {"budget": self.budget, "requests": self.requests, "tokens": self.tokens}
        texts = {name: None if amount is None else str(amount) for name, amount in amounts.items()}
        models = self.models if isinstance(self.models, str) else ",".join(self.models)
        return parse_rules(models=models, **texts, concurrent=self.concurrent, expires=self.expires)


_FIELDS = _NewKey.__struct_fields__


class _Admin:
    def __init__(self, ledger: Ledger, access: KeyAccess) -> None:
        self._ledger = ledger
        self._access = access

    async def list_keys(self, request: Request) -> Response:
        if (refused := self._refusal(request)) is not None:
            return refused
        return JSONResponse({"keys": [key_fields(key) for key in await self._ledger.keys()]})

    async def create_key(self, request: Request) -> Response:
        if (refused := self._refusal(request)) is not None:
            return refused
        try:
            asked = await _asked_in(request)
            new = await self._ledger.create_key(asked.name, asked.rules())
        except ConfigurationError as error:
            return _error(400, str(error))
        return JSONResponse({**key_fields(new.key), "key": new.token}, status_code=201)

    async def revoke_key(self, request: Request) -> Response:
        if (refused := self._refusal(request)) is not None:
            return refused
        name = request.path_params["name"]
        if not await self._ledger.revoke(name):
            return _error(404, f"there is no valid key {name!r}")
        return JSONResponse({"revoked": name})

    async def spend(self, request: Request) -> Response:
        if (refused := self._refusal(request)) is not None:
            return refused
        by = [name for name in request.query_params.get("by", "day").split(",") if name]
        if not set(by) <= set(_GROUPS):
            return _error(400, f"by takes {', '.join(_GROUPS)}")
        try:
            rows = await self._ledger.sums(by, since=request.query_params.get("since", ""))
        except ConfigurationError as error:
            return _error(400, str(error))
        return JSONResponse({"spend": [{**dict(zip(by, row.group, strict=True)), **_amounts(row)} for row in rows]})

    def _refusal(self, request: Request) -> Response | None:
        if self._access.is_master(token_of(header_map(request.scope))):
            return None
        return _error(401, "the admin API needs the master key")


async def _asked_in(request: Request) -> _NewKey:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > _MOST_BODY:
            raise ConfigurationError(f"the body has more than {_MOST_BODY:,} bytes")
    try:
        return msgspec.json.decode(bytes(body), type=_NewKey)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"the body is wrong: {error}", hint=f"Known are {', '.join(_FIELDS)}.") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError("the body is not JSON") from error


def key_fields(key: GatewayKey) -> JSON:
    """Return a key as JSON, without the key itself."""
    return {
        "name": key.name,
        "id": key.id,
        **msgspec.to_builtins(key.rules),
        "created_at": key.created_at,
        "revoked_at": key.revoked_at,
    }


def _amounts(row: Any) -> JSON:
    return {name: getattr(row, name) for name in ("calls", "errors", "input_tokens", "output_tokens", "cost")}


def _error(status: int, message: str) -> Response:
    return JSONResponse({"error": {"message": message}}, status_code=status)
