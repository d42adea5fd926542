"""`collect=`: batches request their answers as streams, or as plain documents with the same guarantees."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from agents.loops import APIS, TOOLS, serving
from lm_deluge import LLMClient
from lm_deluge.cli.main import cli
from lm_deluge.config import Timeouts
from lm_deluge.errors import (
    BadRequestError,
    ConfigurationError,
    DelugeError,
    RateLimitError,
    StreamInterruptedError,
    TimeoutError,
)
from lm_deluge.filters import Redact
from lm_deluge.response import APIResponse
from lm_deluge.simulator import Script, Simulator, SimulatorThread
from loopback import FIN, HANG, Loopback, answer, finish, plain, text

ANSWER = Script(text="The capital is Rome. ")
_HELLO = json.dumps(
    {
        "id": "chatcmpl-1",
        "model": "gpt-4o",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
    }
).encode()


class Recorded:
    """A script that answers and notes whether each request asked for a stream."""

    def __init__(self, script: Any = ANSWER) -> None:
        self.streamed: list[bool] = []
        self._script = script

    def __call__(self, request: Any) -> Any:
        self.streamed.append(request.is_streamed)
        return self._script(request) if callable(self._script) else self._script


@asynccontextmanager
async def talking(*transcripts: Any, **options: Any) -> AsyncIterator[tuple[Loopback, LLMClient]]:
    """Yield a server that follows the scripts, and a client that asks it for plain answers."""
    options = {"api_key": "k", "collect": "plain", "progress": "none", **options}
    async with Loopback(*transcripts) as server, LLMClient("gpt-4o", base_url=server.url, **options) as client:
        yield server, client


async def collected(client: LLMClient, count: int = 1, **options: Any) -> list[APIResponse]:
    return await client.process_prompts_async([f"Prompt {number}" for number in range(count)], **options)


@pytest.mark.parametrize("api", APIS)
async def test_a_plain_answer_equals_the_streamed_one(api: str) -> None:
    found = {}
    for how in ("stream", "plain"):
        script = Recorded()
        async with serving(script, api=api, collect=how, max_new_tokens=500) as (_, client):
            (found[how],) = await collected(client)
        assert script.streamed == [how == "stream"]
    streamed, whole = found["stream"], found["plain"]
    assert whole.error is None
    assert (whole.completion, whole.finish_reason) == (streamed.completion, streamed.finish_reason)
    assert whole.usage.output_tokens == streamed.usage.output_tokens
    assert (whole.cost, whole.warnings) == (streamed.cost, streamed.warnings)
    assert whole.model_external == streamed.model_external
    assert whole.stats.time_to_first_token is None
    assert whole.stats.duration > 0


@pytest.mark.parametrize("api", APIS)
async def test_tools_run_and_errors_are_errors(api: str) -> None:
    asks = Script(text="Let me look.", tool_calls=[("weather", {"city": "Rome"})])
    turns = iter([asks, Script(text="21 degrees")])
    script = Recorded(lambda _: next(turns))
    async with serving(script, api=api, collect="plain", max_new_tokens=500) as (_, client):
        (response,) = await collected(client, tools=TOOLS, run_tools=True)
    assert response.error is None
    assert response.completion == "21 degrees"
    assert script.streamed == [False, False]

    def refuse(request: Any) -> Script:
        raise BadRequestError("This is not valid.", status_code=400)

    async with serving(refuse, api=api, collect="plain", max_new_tokens=500) as (_, client):
        (response,) = await collected(client)
    assert isinstance(response.error, BadRequestError)


CUT = {
    "content-length": ([plain("200 OK", _HELLO)[0][:-20], FIN], StreamInterruptedError),
    "chunked": (
        [
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n5\r\n"
            + _HELLO[:5],
            FIN,
        ],
        StreamInterruptedError,
    ),
    "no finish reason": (
        plain("200 OK", b'{"choices":[{"index":0,"message":{"role":"assistant","content":"Hel"}}]}'),
        DelugeError,
    ),
    "no JSON": (plain("200 OK", _HELLO[:-10]), DelugeError),
    "silence": ([HANG], TimeoutError),
}


@pytest.mark.parametrize("name", CUT)
async def test_a_cut_answer_is_an_error_or_asked_again(name: str) -> None:
    steps, kind = CUT[name]
    timeouts = Timeouts(first_token=0.3 if name == "silence" else 20)
    async with talking(steps, max_attempts=1, timeouts=timeouts) as (_, client):
        (response,) = await collected(client)
    assert isinstance(response.error, kind)
    assert response.completion in (None, "", "Hel")
    if name in ("content-length", "chunked"):
        async with talking(steps, plain("200 OK", _HELLO), max_attempts=2) as (_, client):
            (response,) = await collected(client)
        assert (response.error, response.completion) == (None, "Hello")


@pytest.mark.parametrize("cut", range(1, len(_HELLO), 23))
async def test_a_document_in_two_reads(cut: int) -> None:
    head = plain("200 OK", _HELLO)[0].removesuffix(_HELLO)
    async with talking([head + _HELLO[:cut], 0.01, _HELLO[cut:]]) as (_, client):
        (response,) = await collected(client)
    assert response.completion == "Hello"
    assert response.usage.output_tokens == 2


async def test_a_host_that_streams_anyway_is_read() -> None:
    async with talking(answer(text("Hello"), text(" world"), finish())) as (_, client):
        (response,) = await collected(client)
    assert response.completion == "Hello world"


async def test_connections_are_used_again() -> None:
    async with talking(plain("200 OK", _HELLO)) as (server, client):
        for _ in range(3):
            await client.start("hi")
    assert (server.connections, len(server.requests)) == (1, 3)


async def test_filters_typed_answers_and_postprocess_work() -> None:
    script = Recorded(Script(text='{"city": "Rome", "email": "a@b.example"}'))
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    async with serving(script, collect="plain", postprocess=lambda response: response) as (_, client):
        (typed,) = await collected(client, output=schema)
        (redacted,) = await collected(client, filters=[Redact("a@b.example")])
    assert typed.output["city"] == "Rome"
    assert "a@b.example" not in redacted.completion
    assert script.streamed == [False, False]


async def test_the_local_cache_and_the_journal_know_one_answer(tmp_path: Path) -> None:
    script = Recorded()
    cache = tmp_path / "cache"
    async with serving(script, local_cache=cache) as (_, client):
        await collected(client, collect="stream")
        (hit,) = await collected(client, collect="plain")
    assert hit.local_cache_hit
    assert hit.completion == ANSWER.text
    async with serving(script) as (_, client):
        await collected(client, collect="plain", journal=tmp_path / "journal")
        await collected(client, collect="stream", journal=tmp_path / "journal")
    assert script.streamed == [True, False]


async def test_a_limit_that_refuses_is_waited_for() -> None:
    refused = iter([True, False])

    def script(request: Any) -> Script:
        if next(refused, False):
            raise RateLimitError("Too many.", status_code=429, retry_after_s=0.01)
        return ANSWER

    recorded = Recorded(script)
    async with serving(recorded, collect="plain") as (_, client):
        (response,) = await collected(client)
    assert response.error is None
    assert response.stats.attempts == 2
    assert recorded.streamed == [False, False]


def check(partial: Any) -> None:
    return None


NEEDS_A_STREAM: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "hedge": ({"hedge_after": 5.0}, {}),
    "throughput": ({"min_tokens_per_second": 1}, {}),
    "partial objects": ({}, {"check_partial": check, "output": {"type": "object"}}),
}


@pytest.mark.parametrize("name", NEEDS_A_STREAM)
async def test_what_needs_a_stream_gets_one(name: str) -> None:
    of_client, of_call = NEEDS_A_STREAM[name]
    script = Recorded(Script(text="{}"))
    async with serving(script, collect="plain", **of_client) as (_, client):
        (response,) = await collected(client, **of_call)
    assert response.error is None
    assert script.streamed == [True]


async def test_events_and_streams_are_streamed() -> None:
    script = Recorded()
    async with serving(script, collect="plain") as (_, client):
        await client.stream("hi", echo=None)
        async for _ in client.stream_many(["hi"]):
            pass
        await client.process_agent_loops_async(["hi"], tools=TOOLS, on_event=lambda _index, _event: None)
    assert script.streamed == [True, True, True]


async def test_the_option_is_none_of_a_stream() -> None:
    client = LLMClient("gpt-4o", api_key="k")
    with pytest.raises(ConfigurationError, match="collect is no option of a stream"):
        client.stream("hi", collect="plain")
    with pytest.raises(ConfigurationError, match="collect is no option of a stream"):
        client.stream_many(["hi"], collect="plain")
    with pytest.raises(ConfigurationError, match="collect"):
        client.start_nowait("hi", collect="wrong")
    with pytest.raises(ConfigurationError, match="collect"):
        LLMClient("gpt-4o", collect="whole")


async def test_all_methods_that_collect_take_it() -> None:
    script = Recorded()
    async with serving(script) as (_, client):
        await client.start("hi", collect="plain")
        await client.wait_for(client.start_nowait("hi", collect="plain"))
        async for _ in client.answers(["hi"], collect="plain"):
            pass
        client.start_nowait("hi", collect="plain")
        async for _ in client.as_completed():
            pass
    assert script.streamed == [False] * 4


def test_the_command_line_has_it(tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    recorded = Recorded()
    source.write_text('"One?"\n"Two?"\n')
    with SimulatorThread(Simulator(recorded)) as sim:
        done = CliRunner().invoke(
            cli,
            [
                *("batch", str(source), str(target), "-m", "gpt-4o", "--base-url", sim.base_url, "--api-key", "k"),
                *("--collect", "plain", "--progress", "none"),
            ],
        )
    assert done.exit_code == 0, done.output
    assert recorded.streamed == [False, False]
    assert len(target.read_text().splitlines()) == 2


# collect="auto"


async def test_auto_asks_for_short_answers_plainly_and_for_others_as_streams() -> None:
    for tokens, is_streamed in ((100, False), (100_000, True), (None, True)):
        script = Recorded()
        async with serving(script, collect="auto", max_new_tokens=tokens) as (_, client):
            await collected(client)
        assert script.streamed == [is_streamed], tokens


async def test_auto_learns_how_long_answers_take() -> None:
    script = Recorded()
    async with serving(script, collect="auto", max_concurrent_requests=1) as (_, client):
        await collected(client, 30)
        assert script.streamed[:20] == [True] * 20
        assert script.streamed[-1] is False


async def test_auto_repeats_a_silent_answer_as_a_stream() -> None:
    steps = [HANG], answer(text("Hello"), finish())
    timeouts = Timeouts(first_token=0.3)
    async with talking(*steps, collect="auto", max_new_tokens=2, timeouts=timeouts) as (server, client):
        (response,) = await collected(client)
    assert (response.error, response.completion) == (None, "Hello")
    assert [json.loads(body).get("stream") for _, _, body in server.requests] == [None, True]


async def test_auto_keeps_the_stop_of_a_budget() -> None:
    script = Recorded()
    async with serving(script, collect="auto", max_new_tokens=10, max_cost=1) as (_, client):
        await collected(client)
    assert script.streamed == [True]
