"""A gateway with the chat page in front of a simulated provider, and a client that does what the page's script does."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from gateway.conftest import point_providers_at
from gateway.serving import Serving, serve
from lm_deluge.gateway.access import AccessControl
from lm_deluge.gateway.configuration.settings import GatewaySettings, PageSettings
from lm_deluge.gateway.page.page import open_page
from lm_deluge.simulator import Simulator
from lm_deluge.tools.mcp.server import MCPServer

TEXT = "One two three, and four; that is the whole answer of the model. "
DELETES = {"content-type": "application/json"}


def assets(folder: Path) -> Path:
    """Make a small page."""
    (folder / "scripts").mkdir(parents=True, exist_ok=True)
    (folder / "index.html").write_text(
        '<!doctype html><script type="module" src="/page/assets/scripts/app.js"></script>'
    )
    (folder / "scripts" / "app.js").write_text('import "./part.js";')
    (folder / "scripts" / "part.js").write_text("export {};")
    (folder / "style.css").write_text("body { margin: 0 }")
    return folder


@dataclass
class PageClient:
    """A browser at the page."""

    http: httpx.AsyncClient
    serving: Serving

    @property
    def simulator(self) -> Simulator:
        return self.serving.simulator

    async def json(self, method: str, path: str, body: object = None, *, status: int = 200) -> Any:
        headers = {} if method == "GET" else DELETES
        content = None if body is None else msgspec.json.encode(body)
        answer = await self.http.request(method, f"/page/api/{path}", content=content, headers=headers)
        assert answer.status_code == status, answer.text
        return answer.json() if answer.content else None

    async def conversation(self, **fields: object) -> str:
        return str((await self.json("POST", "conversations", fields, status=201))["id"])

    async def ask(
        self,
        conversation: str,
        text: str | None = "Hello",
        *,
        parent: str | None = None,
        models: tuple[str, ...] = ("gpt-4o",),
        files: tuple[dict[str, Any], ...] = (),
        settings: object = None,
        status: int = 201,
    ) -> Any:
        """Send a message, or ask for another answer."""
        parts = [{"type": "text", "text": text}, *({"type": "file", **file} for file in files)]
        message = None if text is None else {"parts": parts}
        body = {"parent": parent, "message": message, "models": models, "settings": settings}
        return await self.json("POST", f"conversations/{conversation}/answers", body, status=status)

    async def events(self, answer: str, *, after: int | None = None) -> str:
        """Read the frames of an answer to its end."""
        query = "" if after is None else f"?after={after}"
        found = await self.http.get(f"/page/api/answers/{answer}/events{query}")
        assert found.status_code == 200
        return found.text

    async def answered(self, conversation: str, text: str = "Hello", **options: Any) -> dict[str, Any]:
        """Send a message; return the stored answer after its end."""
        started = await self.ask(conversation, text, **options)
        (answer,) = started["answers"]
        await self.events(answer["id"])
        return await self.message(conversation, answer["id"])

    async def message(self, conversation: str, message: str) -> dict[str, Any]:
        found = await self.json("GET", f"conversations/{conversation}")
        return next(each for each in found["messages"] if each["id"] == message)


def chunks(frames: str) -> list[dict[str, Any]]:
    """Return the chunks in frames, without the end mark."""
    lines = [line.removeprefix("data: ") for line in frames.splitlines() if line.startswith("data: {")]
    return [msgspec.json.decode(line) for line in lines]


def text_of(frames: str) -> str:
    return "".join(chunk["delta"] for chunk in chunks(frames) if chunk["type"] == "text-delta")


def numbers(frames: str) -> list[int]:
    return [int(line.removeprefix("id: ")) for line in frames.splitlines() if line.startswith("id: ")]


@contextlib.asynccontextmanager
async def open_chat_page(
    folder: Path,
    simulator: Simulator,
    *,
    access: AccessControl | None = None,
    tools: tuple[MCPServer, ...] = (),
    **settings: Any,
) -> AsyncIterator[PageClient]:
    """Run a gateway with the page, whose files are in a folder."""
    own = GatewaySettings(page=PageSettings(model="gpt-4o"), **settings)
    database = f"sqlite:///{folder / 'page.db'}"
    async with (
        open_page(database, tools=tools, assets=assets(folder / "assets")) as page,
        serve(own, simulator, access=access, page=page) as serving,
        httpx.AsyncClient(base_url=serving.url, timeout=30) as client,
    ):
        yield PageClient(client, serving)


@contextlib.asynccontextmanager
async def chat_page(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    script: Any = TEXT,
    *,
    pace: Any = None,
    faults: Any = None,
    **options: Any,
) -> AsyncIterator[PageClient]:
    """Run a gateway with the page in front of a simulator."""
    async with Simulator(script, pace=pace, faults=faults) as simulator:
        point_providers_at(simulator, monkeypatch)
        async with open_chat_page(folder, simulator, **options) as client:
            yield client
