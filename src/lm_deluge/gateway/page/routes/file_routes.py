"""The routes of files, and those of the page itself."""

from __future__ import annotations

from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from lm_deluge.errors import BadRequestError
from lm_deluge.gateway.page.answers.answer_runner import AnswerRunner
from lm_deluge.gateway.page.export import attachment
from lm_deluge.gateway.page.routes.guard import FILE_HEADERS
from lm_deluge.gateway.page.routes.handlers import Handlers, json_response
from lm_deluge.gateway.page.routes.static_files import StaticFiles
from lm_deluge.gateway.page.store.sessions import Visitor

__all__ = ["file_routes", "static_routes"]

_MOST_FILE = 32 * 2**20  # bytes; the largest PDF that providers take


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


def file_routes(handlers: Handlers, answers: AnswerRunner) -> list[Route]:
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
