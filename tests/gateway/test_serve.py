"""`deluge serve` as a process: the commands of its page, a stop that lets streams end, and `kill -9`."""

import contextlib
import json
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from lm_deluge.simulator import Pace, Simulator
from pages import ROOT, blocks

TEXT = "One two three, and four; that is the whole answer of the model. "
BODY = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}], "stream": True}
PAGE = ROOT / "docs" / "gateway" / "gateway.md"


def environment(folder: Path, simulator: Simulator | None = None) -> dict[str, str]:
    own = {"XDG_STATE_HOME": str(folder), "PYTHONPATH": str(ROOT / "src")}
    if simulator is not None:
        own |= {"OPENAI_API_KEY": "sk-openai", "OPENAI_BASE_URL": simulator.base_url}
    return {**os.environ, **own}


def command(folder: Path, *arguments: str) -> str:
    """Run a command that ends."""
    words = [sys.executable, "-m", "lm_deluge", *arguments]
    done = subprocess.run(  # noqa: S603
        words, capture_output=True, text=True, timeout=60, check=True, env=environment(folder)
    )
    return done.stdout.strip()


@contextlib.contextmanager
def serving(
    folder: Path, simulator: Simulator | None = None, *arguments: str
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run `deluge serve` on a free port; yield the process and its URL."""
    words = [sys.executable, "-m", "lm_deluge", "serve", "--port", "0", *arguments]
    with subprocess.Popen(  # noqa: S603
        words, stderr=subprocess.PIPE, text=True, cwd=folder, env=environment(folder, simulator)
    ) as process:
        try:
            assert process.stderr is not None
            first = process.stderr.readline()
            match = re.search(r"https?://[\d.]+:\d+", first)
            assert match is not None, first + process.stderr.read()
            process.stderr.readline()
            process.stderr.readline()
            yield process, match[0]
        finally:
            process.kill()


def test_the_commands_of_the_page(tmp_path: Path) -> None:
    start, ask, *_ = [block.text.strip() for block in blocks(PAGE, "sh")]
    assert start == "deluge serve"
    words = shlex.split(ask)
    assert words[:3] == ["curl", "-N", "http://127.0.0.1:8000/v1/chat/completions"]
    with serving(tmp_path) as (_, url):
        answer = httpx.post(f"{url}/v1/chat/completions", content=words[words.index("-d") + 1], timeout=30)
    assert answer.status_code == 200
    assert answer.text.rstrip().endswith("data: [DONE]")
    assert "simulator" in answer.text


def test_the_configuration_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = [block.text for block in blocks(PAGE, "toml")]
    (tmp_path / "deluge.toml").write_text(example)
    with (
        Simulator(TEXT).start_in_thread() as simulator,
        serving(tmp_path, simulator, "--config", "deluge.toml") as (_, url),
    ):
        assert [each["id"] for each in httpx.get(f"{url}/v1/models").json()["data"]] == ["fast"]
    assert (tmp_path / "deluge.db").exists()


def test_a_stop_lets_running_streams_end(tmp_path: Path) -> None:
    with (
        Simulator(TEXT * 3, pace=Pace(tokens_per_second=40)).start_in_thread() as simulator,
        serving(tmp_path, simulator) as (process, url),
        httpx.Client(base_url=url, timeout=30) as client,
        client.stream("POST", "/v1/chat/completions", json=BODY) as answer,
    ):
        pieces = answer.iter_text()
        received = next(pieces)
        process.send_signal(signal.SIGTERM)
        received += "".join(pieces)
        assert received.rstrip().endswith("data: [DONE]")
        assert process.wait(20) == 0


def test_budgets_hold_and_calls_are_booked_after_kill_9(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the ledger has after each kill is the provider's bill: of whole answers exactly, of broken ones nearly."""
    monkeypatch.setenv("DELUGE_DATABASE", database_url)
    key = command(tmp_path, "keys", "create", "team", "--budget", "1/day").split()[-1]
    moments = 30 if os.environ.get("DELUGE_SOAK") else 1
    chance = random.Random(7)
    whole = broken = 0
    each = 0.0  # US dollars for a whole answer
    with Simulator(TEXT, pace=Pace(tokens_per_second=400)).start_in_thread() as simulator:
        for _ in range(moments):
            with serving(tmp_path, simulator) as (process, url):
                end = time.monotonic() + chance.uniform(0.05, 0.8)
                with httpx.Client(base_url=url, timeout=5, headers={"x-api-key": key}) as client:
                    plain = client.post("/v1/chat/completions", json={**BODY, "stream": False})
                    each = float(plain.headers["x-deluge-cost"])
                    whole += 1
                    while time.monotonic() < end:
                        assert client.post("/v1/chat/completions", json=BODY).text.rstrip().endswith("[DONE]")
                        whole += 1
                    with client.stream("POST", "/v1/chat/completions", json=BODY) as answer:
                        next(answer.iter_text())
                        process.kill()
                        broken += 1
        with serving(tmp_path, simulator):
            pass  # settles what the killed processes left
    rows = [json.loads(line) for line in command(tmp_path, "spend", "--by", "key", "--json").splitlines()]
    (listed,) = [json.loads(line) for line in command(tmp_path, "keys", "list", "--json").splitlines()]
    assert rows[0]["calls"] == whole + broken
    assert listed["reserved"] == 0
    assert whole * each - 1e-9 <= rows[0]["cost"] <= (whole + broken) * each + 1e-9
    assert rows[0]["cost"] == pytest.approx(listed["spent"])
