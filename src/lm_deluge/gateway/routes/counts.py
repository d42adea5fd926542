"""The paths that count the tokens of a prompt, in the forms of Anthropic, OpenAI and Google.

https://platform.claude.com/docs/en/api/messages-count-tokens
https://platform.openai.com/docs/api-reference/responses/input-tokens
https://ai.google.dev/api/tokens
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from lm_deluge.errors import BadRequestError, DelugeError
from lm_deluge.gateway.answers.incoming import token_of
from lm_deluge.gateway.dialects import DIALECTS, Dialect
from lm_deluge.gateway.http_body import ClientLeftError, header_map, read_body
from lm_deluge.gateway.routes.info_routes import error_response
from lm_deluge.gateway.services import GatewayServices
from lm_deluge.usage import TokenCount

__all__ = ["count_routes"]

JSON = dict[str, Any]


class _CountForm(NamedTuple):
    """The form of the requests and answers of one API.

    Attributes:
        complete: Returns the body of a whole request, of which the fields of a count are a part.
        answer: Returns the answer.
    """

    dialect: Dialect
    paths: tuple[str, ...]
    complete: Callable[[JSON], JSON]
    answer: Callable[[TokenCount], JSON]


def _google_request(raw: JSON) -> JSON:
    inner = raw.get("generateContentRequest") or raw.get("generate_content_request")
    return inner if isinstance(inner, dict) else raw


_FORMS = (
    _CountForm(
        DIALECTS["anthropic-messages"],
        ("/v1/messages/count_tokens", "/messages/count_tokens"),
        lambda raw: {"max_tokens": 1, **raw},  # a count has no limit, a message must have one
        lambda tokens: {"input_tokens": int(tokens)},
    ),
    _CountForm(
        DIALECTS["openai-responses"],
        ("/v1/responses/input_tokens", "/responses/input_tokens"),
        lambda raw: raw,
        lambda tokens: {"object": "response.input_tokens", "input_tokens": int(tokens)},
    ),
    _CountForm(
        DIALECTS["gemini-generate"],
        tuple(f"/{version}/models/{{model}}:countTokens" for version in ("v1beta", "v1", "v1alpha")),
        _google_request,
        lambda tokens: {"totalTokens": int(tokens)},
    ),
)


def count_routes(services: GatewayServices) -> list[Route]:
    """Return the routes."""
    return [Route(path, _Counter(services, form).count, methods=["POST"]) for form in _FORMS for path in form.paths]


class _Counter:
    def __init__(self, services: GatewayServices, form: _CountForm) -> None:
        self._services = services
        self._form = form

    async def count(self, request: Request) -> Response:
        """Answer with the number of tokens; a header marks one that is estimated."""
        try:
            tokens = await self._count(request)
        except ClientLeftError:
            return Response(status_code=400)  # the client has left: there is no reader
        except DelugeError as error:
            return error_response(request, error)
        headers = {"x-deluge-estimated": "1"} if tokens.estimated else None
        return JSONResponse(self._form.answer(tokens), headers=headers)

    async def _count(self, request: Request) -> TokenCount:
        headers, services, form = header_map(request.scope), self._services, self._form
        token = token_of(headers)
        await services.access.check(token)
        settings = services.settings
        body = await read_body(
            request.receive, headers, most_bytes=settings.max_body_bytes, timeout_s=settings.body_timeout_s
        )
        model = request.path_params.get("model")
        parsed = form.dialect.encoder.parse_request(_whole(body, form), model=model, is_streamed=False)
        await services.access.check(token, parsed.model)
        client = services.catalog.find(parsed.model)
        return await client.count_tokens(parsed.conversation, list(parsed.tools) or None)


def _whole(body: bytes, form: _CountForm) -> bytes:
    try:
        raw = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raw = None
    if not isinstance(raw, dict):
        raise BadRequestError("the body is not a JSON object", status_code=400)
    return msgspec.json.encode(form.complete(raw))
