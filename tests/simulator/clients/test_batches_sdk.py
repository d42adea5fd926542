"""The providers' own SDKs submit batches to the simulator and read the results."""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from lm_deluge.errors import BadRequestError
from lm_deluge.simulator import Batches, Simulator

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # raised by its imports
    from google import genai
    from google.genai import errors as genai_errors

google_warns = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::UserWarning"
)


def echo(request: Any) -> str:
    text = request.conversation[-1].completion
    if text == "bad":
        raise BadRequestError("This is not valid.", status_code=400, type="invalid_request_error")
    return text.upper()


def chat_line(name: str, text: str, **fields: Any) -> dict[str, Any]:
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": text}]}
    return {"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": body, **fields}


def lines_of(*items: Any) -> bytes:
    return b"".join((item if isinstance(item, bytes) else json.dumps(item).encode()) + b"\n" for item in items)


# OpenAI


def openai_of(sim: Simulator) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=sim.base_url, api_key="sk-test", max_retries=0)


async def submit(client: openai.AsyncOpenAI, *items: Any, **fields: Any) -> Any:
    file = await client.files.create(file=("in.jsonl", io.BytesIO(lines_of(*items))), purpose="batch")
    assert (file.object, file.purpose) == ("file", "batch")
    return await client.batches.create(
        **{"input_file_id": file.id, "endpoint": "/v1/chat/completions", "completion_window": "24h", **fields}
    )


async def results_of(client: openai.AsyncOpenAI, file_id: str) -> dict[str, Any]:
    content = await client.files.content(file_id)
    lines = [json.loads(line) for line in content.text.splitlines()]
    return {line["custom_id"]: line for line in lines}


async def test_a_round_trip_of_openai() -> None:
    plan = Batches(polls=1, is_shuffled=True)
    async with Simulator(echo, batches=plan) as sim, openai_of(sim) as client:
        items = [chat_line(name, name) for name in ("a", "b", "bad")]
        batch = await submit(client, *items, metadata={"job": "nightly"})
        assert (batch.status, batch.metadata, batch.output_file_id) == ("validating", {"job": "nightly"}, None)
        batch = await client.batches.retrieve(batch.id)
        assert batch.status == "in_progress"
        batch = await client.batches.retrieve(batch.id)
        assert batch.status == "completed"
        assert (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed) == (3, 2, 1)
        good = await results_of(client, batch.output_file_id)
        bad = await results_of(client, batch.error_file_id)
        listed = [each.id async for each in client.batches.list()]
    assert set(good) == {"a", "b"}
    body = good["a"]["response"]["body"]
    assert (good["a"]["response"]["status_code"], body["choices"][0]["message"]["content"]) == (200, "A")
    assert body["usage"]["total_tokens"] > 0
    assert bad["bad"]["response"]["status_code"] == 400
    assert bad["bad"]["response"]["body"]["error"]["message"] == "This is not valid."
    assert listed == [batch.id]


async def test_a_batch_of_openai_is_cancelled_or_expires() -> None:
    async with Simulator(echo, batches=Batches(polls=9, finished=1)) as sim, openai_of(sim) as client:
        batch = await submit(client, chat_line("a", "a"), chat_line("b", "b"))
        assert (await client.batches.cancel(batch.id)).status == "cancelling"
        batch = await client.batches.retrieve(batch.id)
        assert batch.status == "cancelled"
        assert set(await results_of(client, batch.output_file_id)) == {"a"}
        with pytest.raises(openai.ConflictError):
            await client.batches.cancel(batch.id)
    async with Simulator(echo, batches=Batches(ends="expired")) as sim, openai_of(sim) as client:
        batch = await client.batches.retrieve((await submit(client, chat_line("a", "a"))).id)
        assert (batch.status, batch.output_file_id) == ("expired", None)
        lost = await results_of(client, batch.error_file_id)
    assert lost["a"]["error"]["code"] == "batch_expired"


@pytest.mark.parametrize(
    ("items", "code"),
    [
        ([b"not json"], "invalid_json_line"),
        ([chat_line("a", "a"), chat_line("a", "b")], "duplicate_custom_id"),
        ([chat_line("a", "a", url="/v1/responses")], "mismatched_endpoint"),
        ([chat_line("a", "a", method="GET")], "missing_required_parameter"),
        ([chat_line("a", "a"), chat_line("b", "b", body={"model": "o3", "messages": []})], "mismatched_model"),
        ([], "empty_file"),
    ],
)
async def test_a_file_that_openai_would_refuse(items: list[Any], code: str) -> None:
    async with Simulator(echo) as sim, openai_of(sim) as client:
        batch = await client.batches.retrieve((await submit(client, *items)).id)
    assert batch.status == "failed"
    assert [error.code for error in batch.errors.data] == [code]


async def test_what_openai_refuses_at_once() -> None:
    async with Simulator(echo) as sim, openai_of(sim) as client:
        with pytest.raises(openai.BadRequestError):
            await client.files.create(file=("in.jsonl", b"{}"), purpose="assistants")
        with pytest.raises(openai.NotFoundError):
            await client.batches.retrieve("batch_none")
        with pytest.raises(openai.NotFoundError):
            await client.files.content("file-none")
        with pytest.raises(openai.BadRequestError):
            await submit(client, chat_line("a", "a"), endpoint="/v1/embeddings")
        file = await client.files.create(file=("in.jsonl", b"{}"), purpose="batch")
        assert (await client.files.retrieve(file.id)).bytes == 2


async def test_lists_of_openai_have_pages() -> None:
    async with Simulator(echo) as sim, openai_of(sim) as client:
        made = [(await submit(client, chat_line("a", "a"))).id for _ in range(5)]
        assert [each.id async for each in client.batches.list(limit=2)] == made[::-1]


# Anthropic


def anthropic_of(sim: Simulator) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(base_url=sim.url, api_key="sk-ant-test", max_retries=0)


def message(name: str, text: str) -> Any:
    params = {"model": "claude-some-day", "max_tokens": 99, "messages": [{"role": "user", "content": text}]}
    return {"custom_id": name, "params": params}


async def test_a_round_trip_of_anthropic() -> None:
    plan = Batches(polls=1, is_shuffled=True)
    async with Simulator(echo, batches=plan) as sim, anthropic_of(sim) as client:
        batch = await client.messages.batches.create(requests=[message(name, name) for name in ("a", "b", "bad")])
        assert (batch.processing_status, batch.request_counts.processing) == ("in_progress", 3)
        assert (await client.messages.batches.retrieve(batch.id)).results_url is None
        batch = await client.messages.batches.retrieve(batch.id)
        assert batch.processing_status == "ended"
        assert (batch.request_counts.succeeded, batch.request_counts.errored) == (2, 1)
        found = {each.custom_id: each.result async for each in await client.messages.batches.results(batch.id)}
        listed = [each.id async for each in client.messages.batches.list(limit=1)]
    assert found["a"].type == "succeeded"
    assert found["a"].message.content[0].text == "A"
    assert found["a"].message.usage.output_tokens > 0
    assert found["bad"].type == "errored"
    assert found["bad"].error.error.message == "This is not valid."
    assert listed == [batch.id]


async def test_a_batch_of_anthropic_is_cancelled_or_expires() -> None:
    async with Simulator(echo, batches=Batches(polls=9, finished=1)) as sim, anthropic_of(sim) as client:
        batch = await client.messages.batches.create(requests=[message("a", "a"), message("b", "b")])
        assert (await client.messages.batches.cancel(batch.id)).processing_status == "canceling"
        found = [each.result.type async for each in await client.messages.batches.results(batch.id)]
        assert found == ["succeeded", "canceled"]
        with pytest.raises(anthropic.BadRequestError, match="already ended"):
            await client.messages.batches.cancel(batch.id)
    async with Simulator(echo, batches=Batches(ends="expired")) as sim, anthropic_of(sim) as client:
        batch = await client.messages.batches.create(requests=[message("a", "a")])
        found = [each.result.type async for each in await client.messages.batches.results(batch.id)]
    assert found == ["expired"]


@pytest.mark.parametrize("requests", [[], [message("a b", "a")], [message("a", "a")] * 2, [message("a" * 65, "a")]])
async def test_what_anthropic_refuses_at_once(requests: list[Any]) -> None:
    async with Simulator(echo) as sim, anthropic_of(sim) as client:
        with pytest.raises(anthropic.BadRequestError, match="requests"):
            await client.messages.batches.create(requests=requests)
        with pytest.raises(anthropic.NotFoundError):
            await client.messages.batches.retrieve("msgbatch_none")


async def test_lists_of_anthropic_have_pages() -> None:
    async with Simulator(echo) as sim, anthropic_of(sim) as client:
        made = [(await client.messages.batches.create(requests=[message("a", "a")])).id for _ in range(5)]
        assert [each.id async for each in client.messages.batches.list(limit=2)] == made[::-1]


# Google


def google_of(sim: Simulator) -> genai.Client:
    return genai.Client(api_key="g-test", http_options={"base_url": sim.url})


def content(text: str) -> dict[str, Any]:
    return {"contents": [{"role": "user", "parts": [{"text": text}]}]}


@google_warns
async def test_a_round_trip_of_google_by_file(tmp_path: Path) -> None:
    plan = Batches(polls=1, is_shuffled=True)
    path = tmp_path / "in.jsonl"
    path.write_bytes(lines_of(*({"key": name, "request": content(name)} for name in ("a", "b", "bad"))))
    async with Simulator(echo, batches=plan) as sim:
        client = google_of(sim).aio
        file = await client.files.upload(file=str(path), config={"mime_type": "jsonl"})
        job = await client.batches.create(
            model="gemini-2.5-flash", src=file.name, config={"display_name": "file-upload-job-1"}
        )
        assert (job.state.name, job.display_name) == ("JOB_STATE_RUNNING", "file-upload-job-1")
        await client.batches.get(name=job.name)
        job = await client.batches.get(name=job.name)
        assert job.state.name == "JOB_STATE_SUCCEEDED"
        data = await client.files.download(file=job.dest.file_name)
        listed = [each.name async for each in await client.batches.list()]
        await client.aclose()
    found = {line["key"]: line for line in map(json.loads, data.splitlines())}
    assert found["a"]["response"]["candidates"][0]["content"]["parts"][0]["text"] == "A"
    assert found["bad"]["error"] == {"code": 3, "message": "This is not valid."}
    assert listed == [job.name]


@google_warns
async def test_a_round_trip_of_google_inline() -> None:
    async with Simulator(echo) as sim:
        client = google_of(sim).aio
        job = await client.batches.create(model="gemini-2.5-flash", src=[content("a"), content("bad")])
        job = await client.batches.get(name=job.name)
        good, bad = job.dest.inlined_responses
        await client.aclose()
    assert (good.response.text, good.error) == ("A", None)
    assert (bad.response, bad.error.code) == (None, 3)


@google_warns
async def test_a_batch_of_google_is_cancelled_expires_or_fails() -> None:
    async with Simulator(echo, batches=Batches(polls=9)) as sim:
        client = google_of(sim).aio
        job = await client.batches.create(model="gemini-2.5-flash", src=[content("a")])
        await client.batches.cancel(name=job.name)
        assert (await client.batches.get(name=job.name)).state.name == "JOB_STATE_CANCELLED"
        with pytest.raises(genai_errors.ClientError):
            await client.batches.get(name="batches/none")
        with pytest.raises(genai_errors.ClientError):
            await client.batches.create(model="gemini-2.5-flash", src="files/none")
        await client.aclose()
    for ends in ("expired", "failed"):
        async with Simulator(echo, batches=Batches(ends=ends)) as sim:
            client = google_of(sim).aio
            job = await client.batches.create(model="gemini-2.5-flash", src=[content("a")])
            job = await client.batches.get(name=job.name)
            assert job.state.name == f"JOB_STATE_{ends.upper()}"
            await client.aclose()


# All of them


async def test_a_wrong_method_is_refused_with_a_hint() -> None:
    async with Simulator(echo) as sim, openai_of(sim) as client:
        with pytest.raises(openai.APIStatusError, match="HINT: use POST or GET") as caught:
            await client.delete("/batches", cast_to=object)
    assert caught.value.status_code == 405


async def test_a_batch_takes_its_time() -> None:
    async with Simulator(echo, batches=Batches(seconds=3_600)) as sim, openai_of(sim) as client:
        batch = await submit(client, chat_line("a", "a"))
        assert (await client.batches.retrieve(batch.id)).status == "in_progress"
        sim._router._answers._batches.jobs[batch.id].created -= 3_600
        assert (await client.batches.retrieve(batch.id)).status == "completed"
