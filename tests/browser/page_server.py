"""A gateway with the chat page in a thread, in front of a simulated provider."""

import asyncio
import contextlib
import json
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gateway.serving import serve
from lm_deluge.encoders.encoder import ParsedRequest
from lm_deluge.gateway.configuration.settings import GatewaySettings, ServedModel
from lm_deluge.gateway.key_access import KeyAccess
from lm_deluge.gateway.ledger.database import Database
from lm_deluge.gateway.ledger.keys import KeyRules
from lm_deluge.gateway.ledger.ledger import Ledger
from lm_deluge.gateway.page.page import open_page
from lm_deluge.simulator import Pace, Script, Simulator

ANSWER = "Streaming sends **each token** as it is made.\n\n```python\nprint('hello')\n```\n\nThat is all."

# The names under which the page lists models. The simulator reads the fault of an answer in the name of the model.
MODELS = {
    "gpt-5.4": "openai:gpt-5.4",
    "proxied/claude": "openai:claude-proxied",
    "claude-opus-4-8": "openai:claude-opus-4-8",
    "cut": "openai:simulator/clean_truncation;after=4",
    "holding": "openai:simulator/silence;after=4",  # without end, for tests that stop it
    "pausing": "openai:simulator/silence;after=4;seconds=1.2",  # long enough for a reload
    "pausing-later": "openai:simulator/silence;after=50;seconds=1",
    "refused": "openai:simulator/status_401",
    "broken": "openai:simulator/status_400",
}


class PageServer:
    """A running page. `answers` maps the text of a prompt to the script of its answer; other prompts get `ANSWER`."""

    def __init__(self, url: str, simulator: Simulator, loop: asyncio.AbstractEventLoop) -> None:
        self.url = url
        self.simulator = simulator
        self.key: str | None = None
        self.answers: dict[str, str | Script] = {}
        self._loop = loop

    def run(self, work: Callable[[], Any]) -> Any:
        """Run an async function in the loop of the server."""
        return asyncio.run_coroutine_threadsafe(work(), self._loop).result(timeout=20)

    def fetch(self, path: str, body: Any = None, method: str | None = None) -> Any:
        """Send a request to the API of the page."""
        data = None if body is None else json.dumps(body).encode()
        headers = {} if body is None else {"content-type": "application/json"}
        request = urllib.request.Request(f"{self.url}/page/api{path}", data, headers, method=method)  # noqa: S310
        with urllib.request.urlopen(request, timeout=20) as response:  # noqa: S310
            content = response.read()
        return json.loads(content) if content else None

    def reports(self) -> list[Any]:
        """Return the reports of the browser that the page has violated its Content-Security-Policy."""
        return self.fetch("/csp-reports")["reports"]


def served_models(simulator: Simulator, models: dict[str, str]) -> tuple[ServedModel, ...]:
    """Return models that the simulator answers."""
    common = {"base_url": simulator.base_url, "api_key": "sk-test", "max_attempts": 1, "progress": "none"}
    return tuple(ServedModel(name=name, models=(model,), options=common) for name, model in models.items())


def _last_text(request: ParsedRequest) -> str:
    return request.conversation[-1].completion or ""


@contextlib.contextmanager
def page_server(
    folder: Path,
    *,
    models: dict[str, str] | None = None,
    pace: Pace | None = None,
    key: str | None = None,
    settings: dict[str, Any] | None = None,
) -> Iterator[PageServer]:
    """Run the page until the end of the block. With `key`, it needs one, which has this name."""
    ready: threading.Event = threading.Event()
    found: dict[str, Any] = {}

    async def main() -> None:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()

        def choose(request: ParsedRequest) -> str | Script:
            return found["server"].answers.get(_last_text(request), ANSWER)

        async with contextlib.AsyncExitStack() as stack:
            simulator = await stack.enter_async_context(Simulator(choose, pace=pace or Pace()))
            served = served_models(simulator, MODELS if models is None else models)
            access = None
            if key is not None:
                store = Database(f"sqlite:///{folder / 'keys.db'}")
                await store.open()
                stack.push_async_callback(store.close)
                ledger = Ledger(store)
                found["key"] = (await ledger.create_key(key, KeyRules())).token
                access = KeyAccess(ledger)
            page = await stack.enter_async_context(open_page(f"sqlite:///{folder / 'page.db'}"))
            all_settings = GatewaySettings(models=served, **(settings or {}))
            running = await stack.enter_async_context(serve(all_settings, simulator, access=access, page=page))
            found.update(
                server=PageServer(running.url, simulator, loop), stop=lambda: loop.call_soon_threadsafe(stop.set)
            )
            ready.set()
            await stop.wait()

    def run() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:  # noqa: BLE001 - shown by the thread that waits
            found["error"] = error
            ready.set()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(timeout=30)
    if "error" in found:
        raise found["error"]
    server = found["server"]
    server.key = found.get("key")
    try:
        yield server
    finally:
        found["stop"]()
        thread.join(timeout=20)
