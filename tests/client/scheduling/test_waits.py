"""How long a call waits before the next attempt, by what the provider names, and where."""

from __future__ import annotations

import json
import time
from email.utils import formatdate
from functools import partial
from typing import Any

import pytest

import lm_deluge.adapters.catalog as adapters
from lm_deluge import LLMClient
from lm_deluge.dispatch.scheduling.runner import Runner
from lm_deluge.errors import APIError
from loopback import END, HELLO, NEXT, Loopback, Step, answer, chunk, data, plain
from patience import JumpingClock, without_waiting

FAR_S = 20  # more than the backoff of a first attempt


def body(message: str = "slow down", **fields: Any) -> bytes:
    return json.dumps({"error": {"message": message, "code": "rate_limit_exceeded", **fields}}).encode()


def late_stream(*headers: str) -> list[Step]:
    """Return a response of status 200 whose stream begins with a rate limit error."""
    lines = ["HTTP/1.1 200 OK", "content-type: text/event-stream", "transfer-encoding: chunked", *headers]
    head = "\r\n".join(lines).encode() + b"\r\n\r\n"
    return [head, chunk(data({"error": {"message": "slow down", "code": "rate_limit_exceeded"}})), END, NEXT]


def client_of(server: Loopback, **options: Any) -> LLMClient:
    return LLMClient("gpt-4o", **{"api_key": "sk-test", "base_url": server.url, "progress": "none", **options})


async def waits_after(refusal: list[Step], chance: float = 0.0) -> list[float]:
    async with Loopback(refusal, answer(HELLO)) as server, client_of(server) as client:
        waits = without_waiting(client, chance)
        response = await client.stream("Hi", echo=None)
    assert response.completion == "Hello world"
    return list(waits)


NAMED: dict[str, list[Step]] = {
    "header": plain("429 X", body(), f"retry-after: {FAR_S}"),
    "header in milliseconds": plain("429 X", body(), f"retry-after-ms: {FAR_S * 1000}"),
    "message": plain("429 X", body(f"Please try again in {FAR_S}.0s.")),
    "field": plain("429 X", body(retry_after=FAR_S)),
    "message of an overloaded host": plain("503 X", body(f"Please retry after {FAR_S} seconds")),
    "the header is shorter than the message": plain("429 X", body(f"try again in {FAR_S}s"), "retry-after: 0"),
    "header of a stream with status 200": late_stream(f"retry-after: {FAR_S}"),
}


@pytest.mark.parametrize("name", NAMED)
async def test_the_wait_is_as_long_as_the_provider_names_it(name: str) -> None:
    assert await waits_after(NAMED[name]) == [FAR_S]


@pytest.mark.parametrize("date", ["", "date: today"])
async def test_a_date_without_the_date_of_the_response_is_compared_with_the_local_clock(date: str) -> None:
    later = formatdate(usegmt=True)  # as long as the response takes, in the future or in the past
    (wait,) = await waits_after(plain("429 X", body(), f"retry-after: {later}", *filter(None, [date])), chance=1.0)
    assert wait == 0.5, "not the wait, but the back-off: the date is not in the future"
    then = formatdate(time.time() + 60, usegmt=True)
    (wait,) = await waits_after(plain("429 X", body(), f"retry-after: {then}", *filter(None, [date])))
    assert 50 <= wait <= 60


SHORT: dict[str, list[Step]] = {
    "header": plain("429 X", body(), "retry-after: 0"),
    "header in milliseconds": plain("429 X", body(), "retry-after-ms: 1"),
    "message": plain("429 X", body("Please try again in 1ms.")),
    "field": plain("429 X", body(retry_after=0)),
    "overloaded": plain("503 X", body(), "retry-after: 0"),
    "stream": late_stream("retry-after: 0"),
}


@pytest.mark.parametrize("name", SHORT)
async def test_attempts_never_follow_each_other_at_once(name: str) -> None:
    async with Loopback(SHORT[name]) as server, client_of(server) as client:
        waits = without_waiting(client, chance=0.5)
        with pytest.raises(APIError) as caught:
            await client.stream("Hi", echo=None)
    base = 2.0 if name == "overloaded" else 0.5
    assert caught.value.attempts == 5
    assert list(waits) == [0.5 * base * 2**attempt for attempt in range(4)]


class LimitedForASecond(Loopback):
    """Refuses all requests of the first second of a clock."""

    clock: JumpingClock

    def _next_transcript(self) -> list[Step]:
        is_limited = self.clock.ahead_s < 1.0
        return plain("429 X", body(), "retry-after: 0") if is_limited else answer(HELLO)


async def test_a_batch_outlasts_a_limit_of_a_second_with_retry_after_0() -> None:
    async with LimitedForASecond() as server, client_of(server, max_concurrent_requests=20) as client:
        server.clock = clock = JumpingClock()
        make = partial(Runner, clock=clock.now, later=clock.later, chance=lambda: 0.5)
        client.dispatcher.make_runner(make)
        responses = await client.process_prompts_async([f"Prompt {n}" for n in range(20)])
    assert [response.error for response in responses] == [None] * 20


@pytest.mark.parametrize("api", adapters.adapter_names())
def test_every_adapter_reads_a_wait_in_the_message(api: str) -> None:
    adapter = adapters.find_adapter(api)
    error = adapter.classify_error(429, {}, json.dumps({"error": {"message": "Try again in 7.5s"}}).encode())
    assert error.retry_after_s == 7.5
    error = adapter.classify_error(429, {}, json.dumps({"message": "Please retry after 20 seconds."}).encode())
    assert error.retry_after_s == 20
    rejected = adapter.classify_error(400, {}, json.dumps({"message": "bad: 'try again in 5s'"}).encode())
    assert rejected.retry_after_s is None
