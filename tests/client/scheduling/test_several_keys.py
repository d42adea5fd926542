"""Several keys of one provider: how calls are shared, and what a refused key or a rate limit of one key means."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

import pytest

from lm_deluge import LLMClient
from lm_deluge.client.scheduling import build_limiter, build_routes
from lm_deluge.dispatch.scheduling.limiter import Observation, ReservationRequest
from lm_deluge.errors import APIError, AuthenticationError
from lm_deluge.wire.rate_limit_headers import RateLimit
from loopback import HELLO, Loopback, Step, answer, plain
from patience import JumpingClock, without_waiting

ONE, TWO = "sk-first-0123456789", "sk-second-0123456789"
REFUSED = plain("401 Unauthorized", b'{"error":{"message":"Incorrect API key provided","code":"invalid_api_key"}}')
NO_CREDIT = plain("429 Too Many Requests", b'{"error":{"message":"no credit","code":"insufficient_quota"}}')
LIMITED = plain("429 Too Many Requests", b'{"error":{"message":"slow down"}}', "retry-after: 30")


class ByKey(Loopback):
    """Responds to each request with what belongs to its key."""

    def __init__(self, **by_key: list[Step]) -> None:
        super().__init__()
        self.by_key = {ONE: by_key.get("one", answer(HELLO)), TWO: by_key.get("two", answer(HELLO))}

    def _next_transcript(self) -> list[Step]:
        return self.by_key[self.keys_seen()[-1]]

    def keys_seen(self) -> list[str]:
        return [headers["authorization"].removeprefix("bearer ") for _, headers, _ in self.requests]


def client_of(server: Loopback, keys: Any = (ONE, TWO), **options: Any) -> LLMClient:
    return LLMClient("gpt-4o", **{"api_key": keys, "base_url": server.url, "progress": "none", **options})


async def ask(client: LLMClient, count: int) -> list[Any]:
    return await client.process_prompts_async(["hi"] * count)


async def test_keys_share_the_calls() -> None:
    async with ByKey() as server:
        async with client_of(server) as client:
            answers = await ask(client, 40)
        assert [each.completion for each in answers] == ["Hello world"] * 40
        assert Counter(server.keys_seen()) == {ONE: 20, TWO: 20}


async def test_streams_share_the_keys_as_well() -> None:
    async with ByKey() as server:
        async with client_of(server) as client:
            for _ in range(6):
                await client.stream("hi", echo=None)
        assert Counter(server.keys_seen()) == {ONE: 3, TWO: 3}


@pytest.mark.parametrize("refusal", [REFUSED, NO_CREDIT], ids=["wrong key", "no credit"])
async def test_a_dead_key_is_set_aside_named_and_tried_again_later(
    refusal: list[Step], caplog: pytest.LogCaptureFixture
) -> None:
    async with ByKey(one=refusal) as server, client_of(server, max_concurrent_requests=4) as client:
        clock = JumpingClock()
        client.dispatcher.make_runner(lambda *args, **rest: _runner(clock, *args, **rest))
        with caplog.at_level(logging.WARNING, "lm_deluge"):
            answers = await ask(client, 30)
        assert [each.completion for each in answers] == ["Hello world"] * 30
        refused = server.keys_seen().count(ONE)
        assert 1 <= refused <= 4  # those that were under way when the first refusal came
        aside = [record.getMessage() for record in caplog.records if "is not used" in record.getMessage()]
        assert len(aside) == 1
        assert "key 1 of openai is not used for gpt-4o for 300 s" in aside[0]
        assert ONE not in caplog.text
        await ask(client, 10)
        assert server.keys_seen().count(ONE) == refused
        server.by_key[ONE] = answer(HELLO)
        clock.ahead_s += 301
        await ask(client, 10)
        assert server.keys_seen().count(ONE) > refused


def _runner(clock: JumpingClock, limiter: Any, routes: Any, **options: Any) -> Any:
    from lm_deluge.dispatch.scheduling.runner import Runner

    return Runner(limiter, routes, clock=clock.now, **options)


async def test_a_rate_limit_of_one_key_sends_its_calls_to_the_other_without_a_wait() -> None:
    async with ByKey(one=LIMITED) as server:
        async with client_of(server) as client:
            waits = without_waiting(client)
            answers = await ask(client, 12)
        assert all(each.completion == "Hello world" for each in answers)
        assert set(waits) == {0.0}
        assert server.keys_seen().count(TWO) == 12


async def test_an_error_names_the_keys_that_were_refused() -> None:
    async with ByKey(one=REFUSED, two=REFUSED) as server, client_of(server) as client:
        with pytest.raises(AuthenticationError) as caught:
            await client.stream("hi", echo=None)
        text = f"{caught.value} {caught.value.__notes__ if hasattr(caught.value, '__notes__') else ''}"
        assert len(server.requests) == 2
        assert "key 1" in text
        assert ONE not in text
        assert TWO not in text


async def test_a_single_key_in_a_list_is_a_key() -> None:
    async with ByKey(one=REFUSED) as server, client_of(server, [ONE, ONE]) as client:
        with pytest.raises(APIError):
            await client.stream("hi", echo=None)
        assert server.keys_seen() == [ONE]


def test_each_key_has_limits_of_its_own() -> None:
    limits = {"gpt-4o": {"max_requests_per_minute": 60}}
    client = LLMClient("gpt-4o", api_key=[ONE, TWO], model_limits=limits)
    accounts = client.dispatcher.accounts
    limiter = build_limiter(client.options, client.models, accounts)
    assert [route.key for route in build_routes(client.models, None, accounts=accounts)] == ["key 1", "key 2"]
    first, second = (ReservationRequest("gpt-4o", key, 10, None) for key in ("key 1", "key 2"))
    ticket = limiter.reserve(first, 0.0)
    assert ticket is not None
    assert limiter.earliest(first, 0.0) > 0.0
    assert limiter.earliest(second, 0.0) == 0.0
    left = {"requests": RateLimit(dimension="requests", limit=100, remaining=0, reset_after_s=20.0)}
    limiter.observe(Observation(ticket=ticket, status=200, sent_at=0.0, rate_limits=left), 1.0)
    assert limiter.earliest(first, 2.0) > 19.0
    assert limiter.earliest(second, 2.0) == 2.0
