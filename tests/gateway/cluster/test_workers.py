"""`deluge serve --workers`: several processes at one port, started again when they die, stopped in order."""

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from gateway.cluster.conftest import TEXT
from gateway.cluster.processes import BODY, Shared, client_of, serving, wait_until
from gateway.page.chat_page import text_of as page_text
from gateway.test_resume import text_of
from lm_deluge.simulator import Pace, Simulator
from pages import ROOT
from telemetry.test_prometheus import samples_of

CHAT = "/v1/chat/completions"

if sys.platform == "win32":
    pytest.skip("the tests send signals", allow_module_level=True)


def test_workers_without_a_limiter_are_refused(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "lm_deluge", "serve", "--port", "0", "--workers", "2"]
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path), "PYTHONPATH": str(ROOT / "src"), "DELUGE_LIMITER": ""}
    done = subprocess.run(  # noqa: S603
        words, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path, env=environment
    )
    assert done.returncode == 2
    assert "2 workers without a limiter would each use all of the limits" in done.stderr
    assert "DELUGE_LIMITER" in done.stderr


def test_what_a_worker_cannot_use_is_an_error_of_the_command(shared: Shared, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "deluge.toml").write_text(
        '[server]\nadmin_port = 0\n[[models]]\nname = "a"\nmodels = ["no-such-model"]\n'
    )
    words = [sys.executable, "-m", "lm_deluge", "serve", "--port", "0", "--workers", "2", "--config", "deluge.toml"]
    done = subprocess.run(  # noqa: S603
        words, capture_output=True, text=True, timeout=60, check=False, cwd=folder, env=shared.environment()
    )
    assert done.returncode == 2, done.stderr
    assert "no-such-model" in done.stderr
    assert "Traceback" not in done.stderr


async def test_workers_divide_the_limits_while_the_server_of_the_limiter_is_away(shared: Shared) -> None:
    key = shared.new_key()
    alone = dataclasses.replace(shared, limiter="redis://127.0.0.1:1/0")
    with serving(alone, "--workers", "2") as process:
        async with client_of(process.url, key) as client:
            answer = await client.post(CHAT, json=BODY)
        assert answer.text.rstrip().endswith("[DONE]")
        assert "this process uses 1/2 of the limits" in process.log


async def test_workers_answer_are_started_again_and_drain(shared: Shared) -> None:
    key = shared.new_key("--requests", "1000/minute")
    with serving(shared, "--workers", "2") as process:
        workers = process.children()
        assert len(workers) == 2
        async with client_of(process.url, key) as client:

            async def read() -> str:
                try:
                    return (await client.post(CHAT, json=BODY)).text
                except httpx.TransportError:  # of the worker that is killed
                    return ""

            texts = await asyncio.gather(*(read() for _ in range(30)))
            assert all(text.rstrip().endswith("[DONE]") for text in texts)
            killed = min(workers)
            os.kill(killed, signal.SIGKILL)
            answers = await asyncio.gather(*(read() for _ in range(10)))
            assert any(text.rstrip().endswith("[DONE]") for text in answers)  # the other one answers
            await asyncio.to_thread(wait_until, lambda: len(process.children() - {killed}) == 2)
            assert f"worker {killed} ended" in process.log
            texts = await asyncio.gather(*(read() for _ in range(10)))
            assert all(text.rstrip().endswith("[DONE]") for text in texts)
            before = shared.simulator.stats.requests
            tasks = [asyncio.create_task(read()) for _ in range(8)]
            await asyncio.to_thread(wait_until, lambda: shared.simulator.stats.requests == before + 8)
            process.process.send_signal(signal.SIGTERM)
            texts = await asyncio.gather(*tasks)
        assert all(text.rstrip().endswith("[DONE]") for text in texts)
        assert await asyncio.to_thread(process.process.wait, 30) == 0


async def test_metrics_are_summed_over_the_workers(shared: Shared) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with serving(shared, "--workers", "2", settings=f"admin_port = {port}") as process:
        for _ in range(6):  # each over a connection of its own
            await post(process.url, "", CHAT, {**BODY, "stream": False})
        workers = process.children()
        samples = samples_of(await get(f"http://127.0.0.1:{port}", "", "/metrics"))
        os.kill(min(workers), signal.SIGKILL)
        await asyncio.to_thread(wait_until, lambda: "is started again" in process.log)
        again = samples_of(await get(f"http://127.0.0.1:{port}", "", "/metrics"))
    labels = frozenset({"dialect": "openai-chat", "status": "200"}.items())
    assert samples["deluge_gateway_requests_total", labels] == 6
    assert again["deluge_gateway_requests_total", labels] == 6
    assert samples["deluge_gateway_in_progress", frozenset()] == 0
    assert samples["deluge_tokens_total", frozenset({"model": "gpt-4o", "kind": "output"}.items())] > 0


async def test_a_second_signal_does_not_wait_for_streams(shared: Shared) -> None:
    long = Simulator(TEXT * 100, pace=Pace(tokens_per_second=20))
    with long.start_in_thread() as simulator:
        slow = dataclasses.replace(shared, simulator=simulator)
        with serving(slow, "--workers", "2") as process:
            async with client_of(process.url, "") as client, client.stream("POST", CHAT, json=BODY) as answer:
                pieces = answer.aiter_text()
                await anext(pieces)
                process.process.send_signal(signal.SIGTERM)
                await asyncio.to_thread(wait_until, lambda: not is_open(process.url))
                process.process.send_signal(signal.SIGINT)
                assert await asyncio.to_thread(process.process.wait, 20) == 0  # streams would get 30 seconds


def is_open(url: str) -> bool:
    host, _, port = url.removeprefix("http://").rpartition(":")
    with contextlib.suppress(OSError):
        socket.create_connection((host, int(port)), timeout=5).close()
        return True
    return False


async def test_the_workers_end_after_their_parent(shared: Shared) -> None:
    with serving(shared, "--workers", "2") as process:
        workers = process.children()
        process.process.kill()
        process.process.wait()
        await asyncio.to_thread(wait_until, lambda: not any(Path(f"/proc/{each}").exists() for each in workers))


async def test_a_stream_is_read_and_stopped_through_any_worker(shared: Shared) -> None:
    key = shared.new_key()
    other_key = shared.command("keys", "create", "other").split()[-1]
    with serving(shared, "--workers", "3") as process:
        headers = {"x-deluge-resumable": "1"}
        async with client_of(process.url, key) as client:
            async with client.stream("POST", CHAT, json=BODY, headers=headers) as answer:
                stream = answer.headers["x-deluge-stream"]
                part = ""
                async for piece in answer.aiter_text():
                    part += piece
                    if part.count("\n\n") > 5:
                        break
            # Each connection may be another worker's.
            texts = [await get(process.url, key, f"/v1/streams/{stream}") for _ in range(12)]
            assert {text_of(text) for text in texts} == {text_of(texts[0])}
            assert texts[0].rstrip().endswith("[DONE]")
            async with client.stream("POST", CHAT, json=BODY, headers=headers) as answer:
                stream = answer.headers["x-deluge-stream"]
            receipt = await post(process.url, key, f"/v1/streams/{stream}/stop")
            rests = [await get(process.url, key, f"/v1/streams/{stream}") for _ in range(6)]
            assert all('"code":"stopped"' in rest for rest in rests)
            receipts = [await post(process.url, key, f"/v1/streams/{stream}/stop") for _ in range(6)]
        assert '"status":"stopped"' in receipt
        assert all("ended before" in each for each in receipts)
        found = [await get(process.url, other_key, f"/v1/streams/{stream}") for _ in range(6)]
        assert all("there is no such stream" in text for text in found)


async def test_the_page_is_served_by_any_worker(shared: Shared) -> None:
    """An answer runs in one worker; each connection below may be another one's."""
    with (
        Simulator(TEXT * 8, pace=Pace(tokens_per_second=150)).start_in_thread() as simulator,
        serving(dataclasses.replace(shared, simulator=simulator), "--workers", "3") as process,
    ):
        assert f"the chat page is at {process.url}/" in process.log
        assert "<!doctype html>" in await page_of(process.url, "GET", "/", accept="text/html")
        (found,) = await started(process.url, 1)
        texts = [await page_of(process.url, "GET", f"/page/api/answers/{found[1]}/events") for _ in range(9)]
        assert len(set(texts)) == 1
        assert page_text(texts[0]) == TEXT * 8
        assert '"type":"finish"' in texts[0]
        number = [line.removeprefix("id: ") for line in texts[0].splitlines() if line.startswith("id: ")][5]
        rest = f"/page/api/answers/{found[1]}/events?after={number}"
        for _ in range(6):
            part = await page_of(process.url, "GET", rest)
            assert texts[0].endswith(part)
            assert part
        stopped = await started(process.url, 4)
        for conversation, answer in stopped[:2]:
            receipt = json.loads(await page_of(process.url, "POST", f"/page/api/answers/{answer}/stop", body={}))
            stored = json.loads(await page_of(process.url, "GET", f"/page/api/conversations/{conversation}"))
            assert stored["messages"][-1]["status"] == "stopped"
            assert receipt["cost"] == pytest.approx(stored["messages"][-1]["cost"])
        for conversation, _ in stopped[2:]:
            await page_of(process.url, "DELETE", f"/page/api/conversations/{conversation}")
        await asyncio.to_thread(wait_until, lambda: simulator.stats.aborted == 4)


async def started(url: str, count: int) -> list[tuple[str, str]]:
    """Start answers; return the ids of their conversations and their own."""
    found = []
    for _ in range(count):
        made = json.loads(await page_of(url, "POST", "/page/api/conversations", body={}))
        message = {"parts": [{"type": "text", "text": "Hello"}]}
        body = {"parent": None, "message": message, "models": ["gpt-4o"]}
        asked = json.loads(await page_of(url, "POST", f"/page/api/conversations/{made['id']}/answers", body=body))
        found.append((made["id"], asked["answers"][0]["id"]))
    return found


async def page_of(url: str, method: str, path: str, *, body: object = None, accept: str = "*/*") -> str:
    """Send a request of the page over a connection of its own."""
    headers = {"accept": accept, **({} if method == "GET" else {"content-type": "application/json"})}
    async with httpx.AsyncClient(base_url=url, timeout=60, headers=headers) as client:
        answer = await client.request(method, path, content=None if body is None else json.dumps(body))
        assert answer.is_success, answer.text
        return answer.text


async def get(url: str, key: str, path: str) -> str:
    async with client_of(url, key) as client:
        return (await client.get(path)).text


async def post(url: str, key: str, path: str, body: object = None) -> str:
    async with client_of(url, key) as client:
        return (await client.post(path, json=body)).text
