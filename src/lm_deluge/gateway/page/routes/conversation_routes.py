"""The routes of conversations: listed, created, shown, changed, removed and exported."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lm_deluge.errors import BadRequestError
from lm_deluge.gateway.http_body import header_map
from lm_deluge.gateway.page.answers.answer_runner import AnswerRunner
from lm_deluge.gateway.page.bodies import ConversationChange, NewConversation, check_settings, check_title, parse_body
from lm_deluge.gateway.page.export import attachment, to_json, to_markdown
from lm_deluge.gateway.page.routes.guard import FILE_HEADERS, check_type
from lm_deluge.gateway.page.routes.handlers import Handlers, json_response
from lm_deluge.gateway.page.store.conversations import ConversationStore
from lm_deluge.gateway.page.store.sessions import Visitor

__all__ = ["conversation_routes"]

JSON = dict[str, Any]

_MOST_LISTED = 200  # conversations of one request: more than a list shows before it is scrolled
_LISTED = 50  # by default, a page or two of a list


def conversation_routes(handlers: Handlers, conversations: ConversationStore, answers: AnswerRunner) -> list[Route]:
    """Return the routes of conversations."""
    own = _ConversationRoutes(handlers, conversations, answers)
    one = "/page/api/conversations/{id}"
    return [
        Route("/page/api/conversations", handlers.signed_in(own.list), methods=["GET"]),
        Route("/page/api/conversations", handlers.signed_in(own.create), methods=["POST"]),
        Route(one, handlers.signed_in(own.show), methods=["GET"]),
        Route(one, handlers.signed_in(own.change), methods=["PATCH"]),
        Route(one, handlers.signed_in(own.remove), methods=["DELETE"]),
        Route(f"{one}/export", handlers.signed_in(own.export), methods=["GET"]),
    ]


class _ConversationRoutes:
    def __init__(self, handlers: Handlers, conversations: ConversationStore, answers: AnswerRunner) -> None:
        self._handlers = handlers
        self._conversations = conversations
        self._answers = answers

    async def list(self, request: Request, visitor: Visitor) -> Response:
        """Answer with the conversations of the user, the latest first."""
        params = request.query_params
        limit = params.get("limit", str(_LISTED))
        if re.fullmatch(r"\d{1,6}", limit) is None or int(limit) < 1:
            raise BadRequestError("limit is not a number above 0", status_code=400)
        found, has_more = await self._conversations.list(
            visitor.owner,
            query=params.get("query", ""),
            before=_moment(params.get("before")),
            limit=min(int(limit), _MOST_LISTED),
        )
        return json_response({"conversations": found, "more": has_more})

    async def create(self, request: Request, visitor: Visitor) -> Response:
        """Create a conversation."""
        body = parse_body(await self._handlers.json_body(request), NewConversation)
        check_settings(body.settings)
        found = await self._conversations.create(
            visitor.owner, title=check_title(body.title), system=body.system, settings=body.settings
        )
        return json_response({**found, "messages": []}, 201)

    async def show(self, request: Request, visitor: Visitor) -> Response:
        """Answer with a conversation and all of its messages."""
        return json_response(await self._answers.messages.open(visitor.owner, request.path_params["id"]))

    async def change(self, request: Request, visitor: Visitor) -> Response:
        """Change a conversation."""
        body = parse_body(await self._handlers.json_body(request), ConversationChange)
        values: JSON = {
            name: value for name, value in msgspec.structs.asdict(body).items() if value is not msgspec.UNSET
        }
        if isinstance(body.title, str):
            values["title"] = check_title(body.title)
        if not isinstance(body.settings, msgspec.UnsetType):
            check_settings(body.settings)
            values["settings"] = msgspec.json.encode(body.settings).decode()
        return json_response(await self._conversations.change(visitor.owner, request.path_params["id"], values))

    async def remove(self, request: Request, visitor: Visitor) -> Response:
        """Remove a conversation; its answers are stopped."""
        check_type(header_map(request.scope))
        await self._conversations.find(visitor.owner, request.path_params["id"])
        await self._answers.stop_all(visitor.owner, request.path_params["id"])
        await self._conversations.remove(visitor.owner, request.path_params["id"])
        return Response(status_code=204)

    async def export(self, request: Request, visitor: Visitor) -> Response:
        """Answer with a conversation as a file."""
        form = request.query_params.get("format", "json")
        known = {"json": (to_json, "application/json", "json"), "markdown": (to_markdown, "text/markdown", "md")}
        if form not in known:
            raise BadRequestError("format is json or markdown", status_code=400)
        write, media_type, ending = known[form]
        found = await self._answers.messages.open(visitor.owner, request.path_params["id"])
        headers = {
            **FILE_HEADERS,
            "content-type": f"{media_type}; charset=utf-8",
            "content-disposition": attachment(f"{found['title'] or 'conversation'}.{ending}"),
            "cache-control": "no-store",
        }
        return Response(write(found), headers=headers)


def _moment(text: str | None) -> float | None:
    if not text:
        return None
    if re.fullmatch(r"\d{1,12}(\.\d{1,9})?", text) is None:
        raise BadRequestError("before is no time: pass `updated` of the last conversation", status_code=400)
    return float(text)
