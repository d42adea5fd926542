"""The guide that the library was made for runs as it stands, on our simulator and on a server that is not ours."""

import asyncio
import contextlib
import json
import os
import re
import socket
import sys
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import lm_deluge
from gated_relay import GatedRelay
from lm_deluge.simulator import Pace, Simulator

HERE = Path(__file__).parent
BLOCKS = sorted((HERE / "guide").glob("*.py"))
GUIDES = sorted((HERE.parents[2] / "shared" / "seeds").glob("*.txt"))
ANSWER = "Paint dries, circuits hum: a robot learns that red is warm, and blue is not."
PROMPTS = {
    "basic_streaming": "Write a short story about a robot learning to paint.",
    "conversation_streaming": "Write a haiku about artificial intelligence.",
    "custom_streaming": "Explain quantum computing in simple terms.",
}
OUTPUTS = {
    "basic_streaming": re.escape(f"{ANSWER}\n\nFinal response: {ANSWER}\n"),
    "conversation_streaming": re.escape(f"{ANSWER}\n\nComplete response: {ANSWER}\n"),
    "custom_streaming": re.escape(f"{ANSWER}\n\nStreaming complete!\n") + r"Total tokens: [1-9]\d*\nModel: gpt-4o\n",
}
# asyncio's debug mode says how long the first import took: no fault, and a matter of the machine.
SLOW_IMPORT = re.compile(r"^Executing <.*> took [\d.]+ seconds\n", re.MULTILINE)


def environment(**extra: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OPENAI_")}
    source = str(Path(lm_deluge.__file__).parents[1])
    return {**kept, "PYTHONPATH": source, "PYTHONIOENCODING": "utf-8", **extra}


@contextlib.asynccontextmanager
async def simulator(tmp_path: Path) -> AsyncIterator[int]:
    with Simulator(ANSWER, pace=Pace(tokens_per_second=2_000)).start_in_thread() as running:
        yield running.port


@contextlib.asynccontextmanager
async def mockllm(tmp_path: Path) -> AsyncIterator[int]:
    """Start a server of other people, with answers to the guide's three prompts."""
    # When it streams it looks the answer up as if it were a prompt.
    answers = {**dict.fromkeys(PROMPTS.values(), ANSWER), ANSWER: ANSWER}
    file = tmp_path / "responses.yml"
    file.write_text(json.dumps({"responses": answers, "settings": {"lag_enabled": False}}))
    nowhere = "http://127.0.0.1:9"  # whatever it wants to download
    # It inherits a socket that listens: a port that was merely free may be somebody else's by now.
    with socket.create_server(("127.0.0.1", 0)) as listener, (tmp_path / "log").open("wb") as log:
        port, number = listener.getsockname()[1], listener.fileno()
        process = await asyncio.create_subprocess_exec(
            *[sys.executable, "-m", "uvicorn", "mockllm.server:app", "--fd", str(number)],
            env=environment(MOCKLLM_RESPONSES_FILE=str(file), HTTP_PROXY=nowhere, HTTPS_PROXY=nowhere),
            cwd=tmp_path,
            pass_fds=[number],
            stdout=log,
            stderr=log,
        )
    try:
        await _is_ready(f"http://127.0.0.1:{port}/models", process, tmp_path / "log")
        yield port
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _is_ready(url: str, process: asyncio.subprocess.Process, log: Path) -> None:
    async with asyncio.timeout(60):
        while True:
            assert process.returncode is None, log.read_text()  # noqa: ASYNC240 - once, at the end
            try:
                await asyncio.to_thread(lambda: urllib.request.urlopen(url, timeout=5).read())  # noqa: S310 - loopback
            except OSError:
                await asyncio.sleep(0.05)
            else:
                return


async def run_block(block: Path, base_url: str, *flags: str, relay: GatedRelay | None = None) -> tuple[str, str, int]:
    """Run a block; a gated stream is let go on once its first token was printed."""
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, *flags, str(block)],
        env=environment(OPENAI_API_KEY="sk-of-the-guide", OPENAI_BASE_URL=base_url),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(60):
            first = await process.stdout.read(1)
            if relay is not None:
                relay.open_gate()
            rest, complaints = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return (first + rest).decode(), complaints.decode(), process.returncode


@pytest.mark.parametrize("server", [simulator, mockllm], ids=["simulator", "mockllm"])
async def test_the_guide_runs_as_it_stands(server, tmp_path: Path) -> None:
    async with server(tmp_path) as port:
        for block in BLOCKS:
            async with GatedRelay(port) as relay:
                out, complaints, code = await run_block(block, relay.base_url, relay=relay)
            assert (complaints, code) == ("", 0)
            assert re.fullmatch(OUTPUTS[block.stem], out), out
            request = b"".join(relay.bodies)
            assert b"POST /v1/chat/completions" in request
            assert b"Bearer sk-of-the-guide" in request
            assert PROMPTS[block.stem].encode() in request


@pytest.mark.parametrize("block", BLOCKS, ids=lambda path: path.stem)
async def test_the_guide_leaves_nothing_open(block: Path) -> None:
    with Simulator(ANSWER).start_in_thread() as running:
        out, complaints, code = await run_block(block, running.base_url, "-X", "dev", "-W", "error")
    assert (SLOW_IMPORT.sub("", complaints), code) == ("", 0)
    assert re.fullmatch(OUTPUTS[block.stem], out), out


def test_the_blocks_are_those_of_the_guide() -> None:
    assert len(BLOCKS) == 3
    if not GUIDES:
        pytest.skip("the guide's text is not here; its blocks are, and they ran")
    text = GUIDES[0].read_bytes()
    found = re.findall(rb"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert sorted(found) == sorted(block.read_bytes() for block in BLOCKS)
