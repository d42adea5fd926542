"""The chat page as a part of a gateway."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
from collections.abc import AsyncIterator, Sequence
from importlib.resources.abc import Traversable

from starlette.routing import Route

from lm_deluge.errors import ConfigurationError, DelugeError
from lm_deluge.gateway.page.answers.answer_runner import AnswerRunner
from lm_deluge.gateway.page.routes.answer_routes import answer_routes
from lm_deluge.gateway.page.routes.conversation_routes import conversation_routes
from lm_deluge.gateway.page.routes.file_routes import file_routes, static_routes
from lm_deluge.gateway.page.routes.handlers import Handlers
from lm_deluge.gateway.page.routes.session_routes import session_routes
from lm_deluge.gateway.page.routes.static_files import StaticFiles, packaged_assets
from lm_deluge.gateway.page.store.conversations import ConversationStore
from lm_deluge.gateway.page.store.database import PageDatabase
from lm_deluge.gateway.page.store.sessions import Sessions
from lm_deluge.gateway.services import GatewayServices
from lm_deluge.prompt.tool import ToolSource
from lm_deluge.tools.mcp.server import MCPServer

__all__ = ["ChatPage", "open_page"]

_LOOKED_EACH_S = 20.0  # for answers of other processes that ended without a last word


class ChatPage:
    """The page.

    Args:
        database: The database with the conversations, which is open.
        tools: MCP servers whose tools the models may call.
        assets: The folder with the static files; None: those of this package.
    """

    def __init__(
        self, database: PageDatabase, tools: Sequence[ToolSource] = (), *, assets: Traversable | None = None
    ) -> None:
        self._database = database
        self._tools = tuple(tools)
        self._answers: list[AnswerRunner] = []  # of each gateway that has the page
        self._static = StaticFiles(packaged_assets() if assets is None else assets)

    def routes(self, services: GatewayServices) -> list[Route]:
        """Return the routes of the page in a gateway."""
        handlers = Handlers(services, Sessions(self._database, services.access))
        answers = AnswerRunner(services, self._database, self._tools)
        self._answers.append(answers)
        return [
            *static_routes(handlers, self._static),
            *session_routes(services, handlers),
            *conversation_routes(handlers, ConversationStore(self._database), answers),
            *answer_routes(services, handlers, answers),
            *file_routes(handlers, answers),
        ]

    async def close(self) -> None:
        """End the answers that are still running."""
        for answers in self._answers:
            await answers.close()


@contextlib.asynccontextmanager
async def open_page(
    database: str,
    mcp: Sequence[str] = (),
    *,
    tools: Sequence[MCPServer] = (),
    assets: Traversable | None = None,
) -> AsyncIterator[ChatPage]:
    """Open the database, connect to the MCP servers, and close them at the end of the block.

    Args:
        database: URL of the database with the conversations.
        mcp: MCP servers whose tools the models may call: the command that starts one, or its URL.
        tools: Further MCP servers.
        assets: The folder with the static files; None: those of this package.

    Raises:
        ConfigurationError: The database cannot be opened, or an MCP server is wrong.
        DelugeError: An MCP server does not start.
    """
    servers = [*_servers_of(mcp), *tools]
    async with contextlib.AsyncExitStack() as stack:
        store = PageDatabase(database)
        await store.open()
        stack.push_async_callback(store.close)
        for server in servers:
            await stack.enter_async_context(server)
        task = asyncio.get_running_loop().create_task(_watch(store))
        stack.callback(task.cancel)
        page = ChatPage(store, servers, assets=assets)
        stack.push_async_callback(page.close)
        yield page


async def _watch(store: PageDatabase) -> None:
    while True:
        await asyncio.sleep(_LOOKED_EACH_S)
        with contextlib.suppress(DelugeError):  # the database may come back
            await store.fail_lost()


def _servers_of(mcp: Sequence[str]) -> list[MCPServer]:
    """Return MCP servers. Of several, the names of the tools begin with that of their server.

    Raises:
        ConfigurationError: A command cannot be read.
    """
    found: list[MCPServer] = []
    names: list[str] = []
    for each in mcp:
        server = _server_of(each)
        names.append(server.name if server.name not in names else f"{server.name}{len(names) + 1}")
        found.append(server if len(mcp) == 1 else _server_of(each, prefix=f"{names[-1]}_"))
    return found


def _server_of(text: str, prefix: str = "") -> MCPServer:
    if text.startswith(("http://", "https://")):
        return MCPServer(url=text, prefix=prefix)
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ConfigurationError(f"the command of an MCP server cannot be read: {error}") from None
    if not words:
        raise ConfigurationError("the command of an MCP server is empty")
    return MCPServer(*words, prefix=prefix)
