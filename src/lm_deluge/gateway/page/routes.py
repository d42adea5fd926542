"""The routes of the page: static files, session, models, conversations and files."""

from __future__ import annotations

import re
from collections import deque
from typing import Any
from urllib.parse import unquote

import msgspec
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from lm_deluge.errors import AuthenticationError, BadRequestError
from lm_deluge.gateway.http_body import header_map
from lm_deluge.gateway.page.answers import Answers
from lm_deluge.gateway.page.bodies import (
    ConversationChange,
    NewConversation,
    SignIn,
    check_settings,
    check_title,
    parse_body,
)
from lm_deluge.gateway.page.conversations import ConversationStore
from lm_deluge.gateway.page.export import attachment, to_json, to_markdown
from lm_deluge.gateway.page.guard import FILE_HEADERS, REPORTS_PATH, check_type
from lm_deluge.gateway.page.handlers import Handlers, json_response
from lm_deluge.gateway.page.model_list import list_models_for
from lm_deluge.gateway.page.sessions import SESSION_S, Attempts, Visitor
from lm_deluge.gateway.page.static_files import StaticFiles
from lm_deluge.gateway.services import GatewayServices

__all__ = ["conversation_routes", "file_routes", "session_routes", "static_routes"]

JSON = dict[str, Any]

_MOST_LISTED = 200  # conversations of one request
_LISTED = 50  # by default
_MOST_FILE = 32 * 2**20  # bytes; the largest PDF that providers take
_MOST_REPORTS = 100  # of violated policies that are kept for whoever looks
_MOST_REPORT = 64 * 2**10  # bytes


def static_routes(handlers: Handlers, static: StaticFiles) -> list[Route]:
    """Return the routes of the page itself. Programs that look whether there is a server get a line of text."""

    async def index(request: Request) -> Response:
        if "text/html" not in request.headers.get("accept", ""):
            return PlainTextResponse("LM Deluge is running")
        return static.index(request)

    async def asset(request: Request) -> Response:
        return static.asset(request, request.path_params["path"])

    return [
        Route("/", handlers.open(index), methods=["GET"]),
        Route("/page/assets/{path:path}", handlers.open(asset), methods=["GET"]),
    ]


def session_routes(services: GatewayServices, handlers: Handlers) -> list[Route]:
    """Return the routes of sessions, models and reports."""
    own = _SessionRoutes(services, handlers)
    return [
        Route("/page/api/session", handlers.open(own.show), methods=["GET"]),
        Route("/page/api/session", handlers.open(own.sign_in), methods=["POST"]),
        Route("/page/api/session", handlers.open(own.sign_out), methods=["DELETE"]),
        Route("/page/api/models", handlers.signed_in(own.models), methods=["GET"]),
        Route(REPORTS_PATH, handlers.open(own.report), methods=["POST"]),
        Route(REPORTS_PATH, handlers.signed_in(own.reports), methods=["GET"]),
    ]


class _SessionRoutes:
    def __init__(self, services: GatewayServices, handlers: Handlers) -> None:
        self._services = services
        self._handlers = handlers
        self._attempts = Attempts()
        self._reports: deque[Any] = deque(maxlen=_MOST_REPORTS)

    async def show(self, request: Request) -> Response:
        """Answer who uses the page."""
        needs_key = await self._services.access.needs_key()
        try:
            visitor = await self._handlers.sessions.visitor(self._handlers.cookie(request))
        except AuthenticationError:
            return json_response(self._fields(None, needs_key=needs_key))
        return json_response(self._fields(visitor.owner, needs_key=needs_key))

    def _fields(self, name: str | None, *, needs_key: bool) -> JSON:
        return {
            "needs_key": needs_key,
            "signed_in": name is not None,
            "name": name or None,
            "simulated": self._services.catalog.is_simulated,
        }

    async def sign_in(self, request: Request) -> Response:
        """Start a session, if the key is valid."""
        address = request.client.host if request.client is not None else ""
        self._attempts.check(address)
        key = parse_body(await self._handlers.json_body(request), SignIn).key.strip()
        try:
            cookie, name = await self._handlers.sessions.sign_in(key)
        except AuthenticationError:
            self._attempts.note_failure(address)
            raise
        response = json_response(self._fields(name, needs_key=True))
        response.set_cookie(
            self._handlers.cookie_name(request),
            cookie,
            max_age=int(SESSION_S),
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return response

    async def sign_out(self, request: Request) -> Response:
        """End the session."""
        check_type(header_map(request.scope))
        cookie = self._handlers.cookie(request)
        if cookie is not None:
            await self._handlers.sessions.sign_out(cookie)
        response = Response(status_code=204)
        response.delete_cookie(self._handlers.cookie_name(request), httponly=True, samesite="strict")
        return response

    async def models(self, request: Request, visitor: Visitor) -> Response:
        """Answer with the models that the user may choose."""
        return json_response(await list_models_for(self._services, visitor))

    async def report(self, request: Request) -> Response:
        """Keep a browser's report that the page has violated its policy."""
        body = await self._handlers.body(request, _MOST_REPORT)
        self._reports.append(parse_body(body, msgspec.Raw))
        return Response(status_code=204)

    async def reports(self, request: Request, visitor: Visitor) -> Response:
        """Answer with the reports."""
        return json_response({"reports": [*self._reports]})


def conversation_routes(handlers: Handlers, conversations: ConversationStore, answers: Answers) -> list[Route]:
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
    def __init__(self, handlers: Handlers, conversations: ConversationStore, answers: Answers) -> None:
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


def file_routes(handlers: Handlers, answers: Answers) -> list[Route]:
    """Return the routes of files."""

    async def add(request: Request, visitor: Visitor) -> Response:
        headers = request.headers
        name = headers.get("x-file-name")
        if name is None:  # a header that a form of another site cannot send
            raise BadRequestError("the header x-file-name is missing", status_code=400)
        data = await handlers.body(request, _MOST_FILE)
        found = await answers.files.add(
            visitor.owner, name=_decoded(name), media_type=headers.get("content-type", ""), data=data
        )
        return json_response(found, 201)

    async def show(request: Request, visitor: Visitor) -> Response:
        name = request.path_params["id"]
        found = (await answers.files.read(visitor.owner, [name]))[name]
        headers = {**FILE_HEADERS, "cache-control": "private, max-age=86400, immutable"}
        if found.record.media_type.startswith("image/"):
            headers |= {"content-type": found.record.media_type, "content-disposition": "inline"}
        else:
            headers |= {
                "content-type": "application/octet-stream",
                "content-disposition": attachment(found.record.name),
            }
        return Response(found.data, headers=headers)

    return [
        Route("/page/api/files", handlers.signed_in(add), methods=["POST"]),
        Route("/page/api/files/{id}", handlers.signed_in(show), methods=["GET"]),
    ]


def _decoded(name: str) -> str:
    """Return the name of a file from its header, in which other characters than those of ASCII are percent-encoded."""
    return unquote(name)
