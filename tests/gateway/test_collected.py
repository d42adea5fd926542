"""`collect` of a served model: requests without a stream are passed to another API as plain documents."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.conftest import TEXT, point_providers_at
from gateway.serving import Serving, serve
from lm_deluge.gateway.configuration.settings import read_settings
from lm_deluge.simulator import Fault, Simulator
from lm_deluge.simulator.server import RecordedRequest

CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
CLAUDE, GEMINI, GPT = "claude-sonnet-5-5", "gemini-3.8-flash", "gpt-4o"


@asynccontextmanager
async def gateway(
    folder: Path, monkeypatch: pytest.MonkeyPatch, model: str, collect: str | None, **options: Any
) -> AsyncIterator[tuple[Serving, httpx.AsyncClient]]:
    line = "" if collect is None else f'collect = "{collect}"\n'
    file = folder / "deluge.toml"
    file.write_text(f'[[models]]\nname = "m"\nmodels = ["{model}"]\nmax_attempts = 1\n{line}')
    async with Simulator(options.pop("script", TEXT), **options) as simulator:
        point_providers_at(simulator, monkeypatch)
        async with (
            serve(read_settings(file), simulator) as serving,
            httpx.AsyncClient(base_url=serving.url, timeout=30) as client,
        ):
            yield serving, client


def is_stream(request: RecordedRequest) -> bool:
    return "streamGenerateContent" in request.path or request.json.get("stream") is True


OPENAI, ANTHROPIC = "/v1/chat/completions", "/v1/messages"


@pytest.mark.parametrize(
    ("path", "model", "collect", "limit", "is_streamed"),
    [
        (OPENAI, CLAUDE, "plain", 1000, False),
        (OPENAI, CLAUDE, "plain", 30_000, True),  # Anthropic refuses plain answers that may be so long
        (OPENAI, CLAUDE, "stream", 1000, True),
        (OPENAI, CLAUDE, None, 1000, True),
        (OPENAI, CLAUDE, "auto", 100, True),  # how long it thinks cannot be predicted
        (OPENAI, GEMINI, "plain", 1000, False),
        (ANTHROPIC, GPT, "auto", 100, False),
        (ANTHROPIC, GPT, "auto", 16_000, True),  # such an answer may take longer than a proxy waits
        (OPENAI, GPT, None, 100, False),  # of the same API: as the client asks
        (OPENAI, GPT, "stream", 100, False),
    ],
)
async def test_how_the_answer_is_requested(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    model: str,
    collect: str | None,
    limit: int,
    *,
    is_streamed: bool,
) -> None:
    async with gateway(tmp_path, monkeypatch, model, collect) as (serving, client):
        answer = await client.post(path, json={**CHAT, "max_tokens": limit})
        assert answer.status_code == 200, answer.text
        assert TEXT in answer.text
        usage = answer.json()["usage"]
        output = usage.get("completion_tokens", usage.get("output_tokens"))
        (request,) = serving.simulator.requests
        assert is_stream(request) == is_streamed
        (call,) = serving.log.calls
        assert (call.status, call.output_tokens) == (200, output)
        assert call.cost == pytest.approx(float(answer.headers["x-deluge-cost"]), abs=1e-8)
        assert call.cost > 0


@pytest.mark.parametrize("model", [CLAUDE, GEMINI])
async def test_streams_stay_streams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    async with gateway(tmp_path, monkeypatch, model, "plain") as (serving, client):
        answer = await client.post("/v1/chat/completions", json={**CHAT, "stream": True})
        assert answer.text.rstrip().endswith("data: [DONE]")
        assert is_stream(serving.simulator.requests[0])


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        ("short_length", 502),
        ("truncated_gzip", 502),
        ("empty_body", 502),
        ("html_200", 502),
        ("status_429", 429),
        ("status_500", 500),
    ],
)
async def test_a_plain_answer_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, status: int
) -> None:
    async with gateway(tmp_path, monkeypatch, CLAUDE, "plain", faults=Fault(fault)) as (serving, client):
        answer = await client.post("/v1/chat/completions", json={**CHAT, "max_tokens": 1000})
        assert answer.status_code == status, answer.text
        assert answer.json()["error"]["message"]
        assert TEXT not in answer.text
        assert [call.status for call in serving.log.calls] == [status]
        assert not is_stream(serving.simulator.requests[0])
