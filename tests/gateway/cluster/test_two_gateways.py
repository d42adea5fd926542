"""Two gateways on one Redis and one PostgreSQL: budgets and limits hold for both, and one survives the other."""

import asyncio
import dataclasses
import json
from collections import Counter

import httpx
import pytest
import redis

from gateway.cluster.conftest import TEXT
from gateway.cluster.processes import BODY, Process, Shared, client_of, serving
from gateway.ledger.ledgers import open_ledger
from lm_deluge.simulator import Pace, Simulator

CALLS = 200  # at the same time
MOST_TOKENS = 100  # of an answer
RESERVED = 0.0011  # US dollars for a call of gpt-4o: 10 dollars for a million tokens, and the prompt


async def ask(client: httpx.AsyncClient) -> tuple[int, float]:
    """Return status and cost of a plain call."""
    answer = await client.post("/v1/chat/completions", json={**BODY, "stream": False, "max_tokens": MOST_TOKENS})
    return answer.status_code, float(answer.headers.get("x-deluge-cost", 0))


async def ask_all(gateways: list[Process], key: str, calls: int) -> list[tuple[int, float]]:
    clients = [client_of(gateway.url, key) for gateway in gateways]
    try:
        return await asyncio.gather(*(ask(clients[at % len(clients)]) for at in range(calls)))
    finally:
        for client in clients:
            await client.aclose()


def spend_of(shared: Shared) -> dict[str, float]:
    (listed,) = [json.loads(line) for line in shared.command("keys", "list", "--json").splitlines()]
    return listed


async def test_a_budget_is_exact_for_calls_on_both(shared: Shared) -> None:
    budget = 0.02
    key = shared.new_key("--budget", f"{budget}/day")
    with serving(shared) as one, serving(shared) as other:
        outcomes = await ask_all([one, other], key, CALLS)
        statuses = Counter(status for status, _ in outcomes)
        assert set(statuses) == {200, 429}, (one.log, other.log)
        spent = sum(cost for _, cost in outcomes)
        assert spent == pytest.approx(spend_of(shared)["spent"], abs=1e-6)  # the headers have 8 digits
        assert spend_of(shared)["reserved"] == 0
        assert 0 < spent <= budget
        # What is left is usable: further calls come near to the budget, and never over it.
        while granted := [cost for status, cost in await ask_all([one, other], key, 40) if status == 200]:
            spent += sum(granted)
        assert budget - RESERVED < spent <= budget + 1e-6
        assert spend_of(shared)["spent"] == pytest.approx(spent, abs=1e-6)


async def test_a_gateway_goes_on_when_another_is_killed(shared: Shared) -> None:
    with Simulator(TEXT * 100, pace=Pace(tokens_per_second=150)).start_in_thread() as simulator:
        await go_on(dataclasses.replace(shared, simulator=simulator))


async def go_on(shared: Shared) -> None:
    key = shared.new_key("--budget", "5/day", "--concurrent", "60")
    with serving(shared) as one, serving(shared) as other:
        async with client_of(one.url, key) as doomed, client_of(other.url, key) as client:

            async def stream(client: httpx.AsyncClient) -> str:
                text = ""
                most = {"max_tokens": MOST_TOKENS} if client is not doomed else {}  # the others last for a minute
                async with client.stream("POST", "/v1/chat/completions", json={**BODY, **most}) as answer:
                    async for piece in answer.aiter_text():
                        if not text:
                            started.release()
                        text += piece
                return text

            started = asyncio.Semaphore(0)
            tasks = [asyncio.create_task(stream(each)) for each in (doomed, client) for _ in range(20)]
            for _ in tasks:
                await started.acquire()
            one.process.kill()
            one.process.wait()
            texts = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(text, httpx.TransportError) for text in texts[:20])
            assert all(str(text).rstrip().endswith("data: [DONE]") for text in texts[20:])
            assert (await ask(client))[0] == 200
        async with open_ledger(shared.database) as ledger:
            await ledger.settle_lost()  # as each gateway does every 20 seconds
            assert ledger.servers == 2  # the one that runs, and this one
        assert spend_of(shared)["reserved"] == 0
    rows = [json.loads(line) for line in shared.command("spend", "--by", "key", "--json").splitlines()]
    assert rows[0]["calls"] == 41
    assert rows[0]["errors"] == 20


async def test_the_limits_of_a_key_hold_for_both(shared: Shared) -> None:
    key = shared.new_key("--requests", "30/minute")
    with serving(shared) as one, serving(shared) as other:
        outcomes = await ask_all([one, other], key, 80)
        assert Counter(status for status, _ in outcomes) == {200: 30, 429: 50}
        async with client_of(other.url, key) as client:
            refused = await client.post("/v1/chat/completions", json=BODY)
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert "30 requests per minute" in refused.text
    with redis.Redis.from_url(shared.limiter) as client:
        assert client.keys("{deluge:*}:limits")  # those of the provider are shared as well
