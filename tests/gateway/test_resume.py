"""Streams that go on without their client: read again from any frame, followed by several readers, stopped."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import msgspec
import openai
import pytest

from gateway.conftest import TEXT, point_providers_at
from gateway.serving import Serving, serve
from gateway.test_bad_clients import until
from lm_deluge.gateway.configuration.settings import GatewaySettings
from lm_deluge.simulator import Pace, Simulator

CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}], "stream": True}
RESUMABLE = {"x-deluge-resumable": "1"}
LONG = TEXT * 8


@pytest.fixture
async def slow(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Serving]:
    async with Simulator(LONG, pace=Pace(tokens_per_second=150)) as simulator:
        point_providers_at(simulator, monkeypatch)
        async with serve(GatewaySettings(), simulator) as serving:
            yield serving


def text_of(body: str) -> str:
    chunks = [line.removeprefix("data: ") for line in body.splitlines() if line.startswith("data: {")]
    deltas = [choice["delta"] for chunk in chunks for choice in msgspec.json.decode(chunk).get("choices", [])]
    return "".join(delta.get("content") or "" for delta in deltas)


async def begin_and_leave(client: httpx.AsyncClient, path: str, body: object, **headers: str) -> tuple[str, str]:
    """Start a stream, read a part of it, and close the connection; return its id and the part."""
    async with client.stream("POST", path, json=body, headers=headers) as answer:
        stream = answer.headers["x-deluge-stream"]
        part = ""
        async for piece in answer.aiter_text():
            part += piece
            if part.count("\n\n") > 5:
                break
    return stream, part


@pytest.mark.parametrize("model", ["gpt-4o", "claude-sonnet-5-5"])
async def test_a_stream_goes_on_and_is_read_to_its_end(slow: Serving, model: str) -> None:
    async with httpx.AsyncClient(base_url=slow.url, timeout=30) as client:
        stream, part = await begin_and_leave(client, "/v1/chat/completions", {**CHAT, "model": model}, **RESUMABLE)
        whole = part[: part.rfind("\n\n") + 2]
        last = [line.removeprefix("id: ") for line in whole.splitlines() if line.startswith("id: ")][-1]
        assert last.startswith(f"{stream}:")
        rest, again = await asyncio.gather(
            client.get(f"/v1/streams/{stream}", headers={"last-event-id": last}), client.get(f"/v1/streams/{stream}")
        )
    assert text_of(whole + rest.text) == LONG
    assert text_of(again.text) == LONG
    assert again.text.rstrip().endswith("data: [DONE]")
    assert slow.simulator.stats.requests == 1
    assert [call.status for call in slow.log.calls] == [200]


async def test_a_stream_is_stopped_with_a_receipt(slow: Serving) -> None:
    async with httpx.AsyncClient(base_url=slow.url, timeout=30) as client:
        stream, part = await begin_and_leave(client, "/v1/chat/completions", CHAT, **RESUMABLE)
        receipt = (await client.post(f"/v1/streams/{stream}/stop")).json()
        await until(lambda: slow.simulator.stats.aborted == 1)
        await until(lambda: bool(slow.log.calls))
        again = await client.get(f"/v1/streams/{stream}")
        second = (await client.post(f"/v1/streams/{stream}/stop")).json()
    assert receipt["status"] == "stopped"
    assert LONG.startswith(receipt["text"])
    assert receipt["text"].startswith(text_of(part[: part.rfind("\n\n") + 2]))
    assert receipt["usage"]["output_tokens"] > 0
    assert receipt["cost"] == pytest.approx(slow.log.calls[0].cost)
    assert text_of(again.text) == receipt["text"]
    assert "[DONE]" not in again.text
    assert '"code":"stopped"' in again.text
    assert second["status"] == "ended before"


async def test_a_stream_that_is_billed_whole_is_stopped_at_once_and_booked_at_its_end(slow: Serving) -> None:
    """Google bills all of an answer: it is read to its end, although its reader gets the end now."""
    async with httpx.AsyncClient(base_url=slow.url, timeout=30) as client:
        body = {**CHAT, "model": "gemini-3.8-flash"}
        stream, _ = await begin_and_leave(client, "/v1/chat/completions", body, **RESUMABLE)
        receipt, second = [(await client.post(f"/v1/streams/{stream}/stop")).json() for _ in range(2)]
        again = await client.get(f"/v1/streams/{stream}")
        assert not slow.log.calls
        assert slow.simulator.stats.completed == 0
        await until(lambda: bool(slow.log.calls))
        late = await client.get(f"/v1/streams/{stream}")
    assert (receipt["status"], second["status"]) == ("stopped", "stopped")
    assert receipt["upstream"] == second["upstream"] == "goes on, as its provider bills all of the answer"
    assert receipt["text"] != LONG
    assert LONG.startswith(text_of(again.text))
    assert text_of(again.text)
    assert '"code":"stopped"' in again.text
    assert "[DONE]" not in again.text
    assert late.text == again.text
    (call,) = slow.log.calls
    assert (slow.simulator.stats.completed, slow.simulator.stats.aborted) == (1, 0)
    assert call.status == 499
    assert call.output_tokens > receipt["usage"]["output_tokens"]
    assert call.cost > receipt["cost"]


async def test_a_stream_that_is_billed_whole_is_stopped_before_its_first_event(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Simulator(TEXT, pace=Pace(first_token_s=0.2, tokens_per_second=1000)) as simulator:
        point_providers_at(simulator, monkeypatch)
        async with (
            serve(GatewaySettings(), simulator) as serving,
            httpx.AsyncClient(base_url=serving.url, timeout=30) as client,
        ):
            body = {**CHAT, "model": "gemini-3.8-flash"}
            asked = asyncio.create_task(client.post("/v1/chat/completions", json=body, headers=RESUMABLE))
            await until(lambda: simulator.stats.requests == 1)
            (log,) = serving.gateway._services.streams._logs.values()
            receipt = (await client.post(f"/v1/streams/{log.id}/stop")).json()
            answer = await asked
            assert receipt["status"] == "stopped"
            assert answer.status_code == 499
            assert answer.json()["error"]["code"] == "stopped"
            await until(lambda: bool(serving.log.calls))
        assert simulator.stats.completed == 1
        assert serving.log.calls[0].output_tokens


async def test_a_stream_without_the_header_ends_with_its_client(slow: Serving) -> None:
    async with httpx.AsyncClient(base_url=slow.url) as client:
        async with client.stream("POST", "/v1/chat/completions", json=CHAT) as answer:
            assert "x-deluge-stream" not in answer.headers
            async for _ in answer.aiter_text():
                break
        await until(lambda: slow.simulator.stats.aborted == 1)


async def test_a_response_in_the_background_as_openais_client_reads_it(slow: Serving) -> None:
    async with openai.AsyncOpenAI(api_key="any", base_url=f"{slow.url}/v1", max_retries=0) as client:
        stream = await client.responses.create(model="claude-sonnet-5-5", input="Hello", background=True, stream=True)
        seen = []
        async for event in stream:
            seen.append(event)
            if len(seen) > 6:
                break
        await stream.close()
        response_id = seen[0].response.id
        rest = await client.responses.retrieve(response_id, stream=True, starting_after=seen[-1].sequence_number)
        events = [*seen, *[event async for event in rest]]
        found = await client.responses.retrieve(response_id)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[-1].type == "response.completed"
    assert found.output_text == LONG


async def test_a_response_in_the_background_that_is_not_streamed(slow: Serving) -> None:
    async with openai.AsyncOpenAI(api_key="any", base_url=f"{slow.url}/v1", max_retries=0) as client:
        response = await client.responses.create(model="claude-sonnet-5-5", input="Hello", background=True)
        assert response.status == "in_progress"
        cancelled = await client.responses.cancel(response.id)
        assert cancelled.status == "cancelled"
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve("resp_unknown")


@pytest.mark.parametrize("last", ["other:3", "x", ":y"])
async def test_an_id_of_another_stream(slow: Serving, last: str) -> None:
    async with httpx.AsyncClient(base_url=slow.url, timeout=30) as client:
        stream, _ = await begin_and_leave(client, "/v1/chat/completions", CHAT, **RESUMABLE)
        answer = await client.get(f"/v1/streams/{stream}", headers={"last-event-id": last})
        assert answer.status_code == 400
        assert (await client.get("/v1/streams/0123")).status_code == 404
        await client.post(f"/v1/streams/{stream}/stop")


async def test_an_error_before_the_stream_is_an_ordinary_error(slow: Serving) -> None:
    async with httpx.AsyncClient(base_url=slow.url) as client:
        answer = await client.post(
            "/v1/chat/completions",
            json={**CHAT, "logit_bias": {"1": 1}, "model": "claude-sonnet-5-5"},
            headers=RESUMABLE,
        )
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


async def test_only_the_key_that_started_a_stream_may_read_it(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lm_deluge.gateway.key_access import KeyAccess
    from lm_deluge.gateway.ledger.database import Database
    from lm_deluge.gateway.ledger.keys import KeyRules
    from lm_deluge.gateway.ledger.ledger import Ledger

    database = Database(f"sqlite:///{tmp_path / 'ledger.db'}")
    await database.open()
    ledger = Ledger(database)
    own = (await ledger.create_key("own", KeyRules())).token
    other = (await ledger.create_key("other", KeyRules())).token
    async with Simulator(TEXT) as simulator:
        point_providers_at(simulator, monkeypatch)
        async with (
            serve(GatewaySettings(), simulator, access=KeyAccess(ledger)) as serving,
            httpx.AsyncClient(base_url=serving.url) as client,
        ):
            headers = {"authorization": f"Bearer {own}", **RESUMABLE}
            answer = await client.post("/v1/chat/completions", json=CHAT, headers=headers)
            path = f"/v1/streams/{answer.headers['x-deluge-stream']}"
            found = [
                (await client.get(path, headers={} if token is None else {"x-api-key": token})).status_code
                for token in (own, other, None)
            ]
            stopped = await client.post(f"{path}/stop", headers={"x-api-key": other})
    assert found == [200, 404, 401]
    assert stopped.status_code == 404
    await database.close()
