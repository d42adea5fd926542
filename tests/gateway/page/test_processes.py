"""`deluge web` and `deluge serve` as processes: what is stored after `kill -9` and SIGTERM, and the command itself."""

import contextlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.test_serve import environment
from lm_deluge.simulator import Pace, Simulator

TEXT = "One two three, and four; that is the whole answer of the model. " * 4


@contextlib.contextmanager
def running(
    folder: Path, simulator: Simulator | None, *arguments: str, **variables: str
) -> Iterator[tuple[subprocess.Popen[str], httpx.Client]]:
    """Run a command until the page is there; yield the process and a client."""
    words = [sys.executable, "-m", "lm_deluge", *arguments, "--port", "0"]
    own = {**environment(folder, simulator), **variables}
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, cwd=folder, env=own) as process:  # noqa: S603
        try:
            assert process.stderr is not None
            lines = []
            while not (match := re.search(r"the chat page is at (http://[\d.]+:\d+)/", lines[-1] if lines else "")):
                lines.append(process.stderr.readline())
                assert lines[-1], lines
            with httpx.Client(base_url=match[1], timeout=30) as client:
                yield process, client
        finally:
            process.kill()


def ask(client: httpx.Client) -> tuple[str, str]:
    """Start an answer; return the ids of the conversation and of the answer."""
    conversation = client.post("/page/api/conversations", json={}).json()["id"]
    message = {"parts": [{"type": "text", "text": "Hello"}]}
    body = {"parent": None, "message": message, "models": ["gpt-4o"]}
    answer = client.post(f"/page/api/conversations/{conversation}/answers", json=body)
    assert answer.status_code == 201, answer.text
    return conversation, answer.json()["answers"][0]["id"]


def stored(client: httpx.Client, conversation: str) -> dict[str, Any]:
    messages = client.get(f"/page/api/conversations/{conversation}").json()["messages"]
    return dict(messages[-1])


def test_the_text_of_an_answer_survives_kill_9(tmp_path: Path) -> None:
    with Simulator(TEXT, pace=Pace(tokens_per_second=20)).start_in_thread() as simulator:
        with running(tmp_path, simulator, "web", "--no-open") as (process, client):
            conversation, answer = ask(client)
            end = time.monotonic() + 20
            while not (kept := stored(client, conversation)["parts"]):
                assert time.monotonic() < end
                time.sleep(0.05)
            process.kill()
        with running(tmp_path, simulator, "serve") as (_, client):
            found = stored(client, conversation)
            assert client.get(f"/page/api/answers/{answer}/events").status_code == 204
    assert (found["status"], found["error"]["retryable"]) == ("failed", True)
    assert found["parts"][0]["text"].startswith(kept[0]["text"])
    assert TEXT.startswith(found["parts"][0]["text"])
    database = next((tmp_path / "lm-deluge").glob("gateway-page.db"))
    assert database.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(("drain_s", "status"), [(30, "complete"), (0.1, "failed")])
def test_sigterm_lets_an_answer_end_or_keeps_what_is_there(tmp_path: Path, drain_s: float, status: str) -> None:
    (tmp_path / "deluge.toml").write_text(f"[server]\ndrain_s = {drain_s}\n")
    with Simulator(TEXT, pace=Pace(tokens_per_second=40)).start_in_thread() as simulator:
        with running(tmp_path, simulator, "web", "--no-open", "--config", "deluge.toml") as (process, client):
            conversation, answer = ask(client)
            with client.stream("GET", f"/page/api/answers/{answer}/events") as events:
                frames = events.iter_text()
                next(frames)
                process.send_signal(signal.SIGTERM)
                received = "".join(frames) if status == "complete" else ""
            assert process.wait(30) == 0
        with running(tmp_path, simulator, "web", "--no-open", "--config", "deluge.toml") as (_, client):
            found = stored(client, conversation)
    assert found["status"] == status
    text = "".join(part["text"] for part in found["parts"])
    if status == "complete":
        assert text == TEXT
        assert received.endswith("data: [DONE]\n\n")
    else:
        assert 0 < len(text) < len(TEXT)
        assert "stopped" in found["error"]["message"]


def test_the_browser_opens_at_the_page(tmp_path: Path) -> None:
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {tmp_path / "opened"}\n')
    browser.chmod(0o755)
    variables = {"BROWSER": f"{browser} %s", "DISPLAY": ":99"}
    opened = tmp_path / "opened"
    with running(tmp_path, None, "web", **variables) as (_, client):
        end = time.monotonic() + 20
        while not opened.exists() or not opened.read_text():
            assert time.monotonic() < end
            time.sleep(0.02)
        assert opened.read_text().strip() == f"{client.base_url}/"
        assert client.get("/page/api/session").json()["simulated"]
        opened.unlink()
    with running(tmp_path, None, "web", "--no-open", **variables) as (_, client):
        client.get("/page/api/session")
    assert not opened.exists()


def test_serve_without_the_page(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "lm_deluge", "serve", "--port", "0", "--no-page"]
    with subprocess.Popen(  # noqa: S603
        words, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=environment(tmp_path)
    ) as process:
        try:
            assert process.stderr is not None
            match = re.search(r"http://[\d.]+:\d+", process.stderr.readline())
            assert match is not None
            assert httpx.get(f"{match[0]}/page/api/session").status_code == 404
        finally:
            process.kill()
    assert not [*tmp_path.rglob("*page.db")]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--model", "no-such-model"], "no-such-model"),
        (["--model", "claude-sonnet-5-5"], "there is no key for anthropic"),
        (["--mcp", "'"], "MCP server cannot be read"),
    ],
)
def test_mistakes_end_the_command_before_it_listens(tmp_path: Path, arguments: list[str], text: str) -> None:
    words = [sys.executable, "-m", "lm_deluge", "web", "--no-open", *arguments]
    own = {**environment(tmp_path), "OPENAI_API_KEY": "sk-openai"}
    own.pop("ANTHROPIC_API_KEY", None)
    done = subprocess.run(  # noqa: S603
        words, capture_output=True, text=True, timeout=60, check=False, env=own
    )
    assert done.returncode != 0
    assert text in done.stderr


def test_the_port_is_any_other_if_the_usual_one_is_taken(tmp_path: Path) -> None:
    import socket

    from lm_deluge.cli.commands.web import _port_of

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert _port_of(port, None) == 0
        assert _port_of(port, port) == port
    assert _port_of(port, None) == port
