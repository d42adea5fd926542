"""Processes of `deluge serve` that share a Redis server and a database."""

import contextlib
import dataclasses
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx

from lm_deluge.simulator import Simulator
from pages import ROOT

BODY = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}], "stream": True}
_START_S = 60.0  # a gateway starts within a second or two; the machine of the tests may be busy


@dataclasses.dataclass
class Shared:
    """What the gateways share."""

    folder: Path
    database: str
    limiter: str
    simulator: Simulator

    def environment(self) -> dict[str, str]:
        own = {
            "XDG_STATE_HOME": str(self.folder),
            "PYTHONPATH": str(ROOT / "src"),
            "OPENAI_API_KEY": "sk-openai",
            "OPENAI_BASE_URL": self.simulator.base_url,
            "DELUGE_DATABASE": self.database,
            "DELUGE_LIMITER": self.limiter,
        }
        return {**os.environ, **own}

    def command(self, *arguments: str) -> str:
        """Run a command that ends."""
        words = [sys.executable, "-m", "lm_deluge", *arguments]
        done = subprocess.run(  # noqa: S603
            words, capture_output=True, text=True, timeout=60, check=True, env=self.environment()
        )
        return done.stdout.strip()

    def new_key(self, *rules: str) -> str:
        return self.command("keys", "create", "team", *rules).split()[-1]


class Process:
    """A running `deluge serve`."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log
        self.url = ""

    @property
    def log(self) -> str:
        return self._log.read_text()

    def wait_for_start(self) -> None:
        wait_until(lambda: "ANTHROPIC_BASE_URL" in self.log or self.process.poll() is not None)
        match = re.search(r"https?://[\d.]+:\d+", self.log)
        assert match is not None, self.log
        self.url = match[0]

    def children(self) -> set[int]:
        """Return the numbers of the worker processes; multiprocessing's tracker of resources is none."""
        found = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return {int(each) for each in found if b"spawn_main" in Path(f"/proc/{each}/cmdline").read_bytes()}


def wait_until(condition: Callable[[], Any]) -> None:
    give_up_at = time.monotonic() + _START_S
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.02)


@contextlib.contextmanager
def serving(shared: Shared, *arguments: str, settings: str = "") -> Iterator[Process]:
    """Run `deluge serve` on a free port."""
    folder = shared.folder / f"gateway-{len(list(shared.folder.iterdir()))}"
    folder.mkdir()
    (folder / "deluge.toml").write_text(f"[server]\n{settings or 'admin_port = 0'}\n")
    words = [sys.executable, "-m", "lm_deluge", "serve", "--port", "0", "--config", "deluge.toml", *arguments]
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(words, stderr=log, cwd=folder, env=shared.environment()) as process,  # noqa: S603
    ):
        found = Process(process, folder / "log")
        try:
            found.wait_for_start()
            yield found
        finally:
            process.kill()


def client_of(url: str, key: str) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=None)
    return httpx.AsyncClient(base_url=url, timeout=60, headers={"x-api-key": key}, limits=limits)
