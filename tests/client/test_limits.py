"""Limits of a client and of its models: what may be set, what holds calls back, what answers tell about both."""

from __future__ import annotations

import time
from typing import Any

import pytest

from lm_deluge import LLMClient
from lm_deluge.client.batch.answers import AnswerOptions, start_answers
from lm_deluge.client.scheduling import build_limiter
from lm_deluge.dispatch.batch.progress import BatchProgress
from lm_deluge.dispatch.scheduling.limiter import Observation, ReservationRequest
from lm_deluge.errors import ConfigurationError, RateLimitError
from lm_deluge.simulator import Simulator
from lm_deluge.usage import Usage
from lm_deluge.wire.rate_limit_headers import RateLimit
from loopback import HELLO, Loopback, answer, plain
from patience import without_waiting

NOW = 1_000.0


def client_of(server: Simulator | Loopback, model: Any = "gpt-4o", **options: Any) -> LLMClient:
    url = server.url if isinstance(server, Loopback) else server.base_url
    return LLMClient(model, **{"api_key": "test-key", "base_url": url, "progress": "none", **options})


# Setting them


@pytest.mark.parametrize(
    ("limits", "message", "hint"),
    [
        ({"gpt-4": {"max_requests_per_minute": 5}}, "no model 'gpt-4' for model_limits", "Did you mean gpt-4o?"),
        (
            {"gpt-4o": {"max_request_per_minute": 5}},
            r"no option 'max_request_per_minute' for",
            "max_requests_per_minute",
        ),
        ({"gpt-4o": {"max_tokens_per_minute": 0}}, r"max_tokens_per_minute'\]=0 is not a number 1 or more", None),
        ({"gpt-4o": {"max_concurrent_requests": 1.5}}, "is not an integer", None),
        ({"gpt-4o": 500}, "is not a mapping, but int", None),
        ([500], "model_limits is not a mapping, but list", None),
    ],
)
def test_what_cannot_be_kept_is_said_at_once(limits: Any, message: str, hint: str | None) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        LLMClient("gpt-4o", model_limits=limits)
    assert hint is None or hint in (caught.value.hint or "")


def test_limits_of_one_model_hold_beside_those_of_all() -> None:
    client = LLMClient(
        ["gpt-4o", "claude-sonnet-4-5"],
        max_requests_per_minute=600,
        model_limits={"gpt-4o": {"max_requests_per_minute": 60, "max_concurrent_requests": 3}},
    )
    limiter = build_limiter(client.options, client.models)
    slow = [limiter.reserve(ReservationRequest("gpt-4o"), NOW) for _ in range(4)]
    assert slow[3] is None, "three at once"
    assert slow[2] is not None
    assert slow[2].at > NOW + 1.8, "one a second"
    free = LLMClient(["gpt-4o", "claude-sonnet-4-5"], model_limits={"gpt-4o": {"max_requests_per_minute": 60}})
    limiter = build_limiter(free.options, free.models)
    assert [limiter.reserve(ReservationRequest("claude-sonnet-4-5"), NOW).at for _ in range(4)] == [NOW] * 4


def test_what_the_user_set_a_provider_may_lower_only() -> None:
    client = LLMClient("gpt-4o", model_limits={"gpt-4o": {"max_requests_per_minute": 60}})
    limiter = build_limiter(client.options, client.models)
    for amount, least_s, most_s in ((6_000, 0.9, 1.1), (30, 1.9, 2.1)):
        ticket = limiter.reserve(ReservationRequest("gpt-4o"), NOW)
        limits = {"requests": RateLimit("requests", 60.0, amount)}
        limiter.observe(Observation(ticket=ticket, status=200, sent_at=NOW, rate_limits=limits), NOW)
        later = NOW + 600 / amount
        one, two = (
            limiter.reserve(ReservationRequest("gpt-4o"), later),
            limiter.reserve(ReservationRequest("gpt-4o"), later),
        )
        assert least_s < two.at - one.at < most_s


def spent_after(model: str) -> float:
    """Return how long the third of three requests waits that may write 4,000 tokens and wrote ten."""
    client = LLMClient(model, api_key="k", model_limits={model: {"max_tokens_per_minute": 10_000}})
    limiter = build_limiter(client.options, client.models)
    need = ReservationRequest(model, max_output_tokens=4_000)
    for _ in range(2):
        limiter.settle(limiter.reserve(need, NOW), Usage(output_tokens=10), NOW + 1)
    return limiter.earliest(need, NOW + 20) - NOW


def test_azure_counts_what_an_answer_may_come_to_whatever_it_comes_to() -> None:
    assert spent_after("openai:gpt-4o") == 20
    assert spent_after("bedrock:anthropic.claude-sonnet-4-5-20250929-v1:0") == 20, "settled when it ends"
    assert spent_after("azure:my-deployment") >= 60


async def test_a_model_s_places_are_kept() -> None:
    async with (
        Simulator("Yes.") as sim,
        client_of(sim, model_limits={"gpt-4o": {"max_concurrent_requests": 3}}) as client,
    ):
        responses = await client.process_prompts_async(["Hi"] * 30)
        assert [response.completion for response in responses] == ["Yes."] * 30
        assert sim.stats.most_open == 3


# What holds calls back


class Watching:
    """A display that keeps what it was told."""

    every_s = 0.0

    def __init__(self) -> None:
        self.told: list[BatchProgress] = []

    def show(self, tally: BatchProgress) -> None:
        self.told.append(tally)

    def close(self, tally: BatchProgress) -> None:
        self.told.append(tally)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_requests_per_minute": 3_000}, "requests per minute"),
        ({"model_limits": {"gpt-4o": {"max_requests_per_minute": 3_000}}}, "requests per minute of gpt-4o"),
        ({"max_concurrent_requests": 1}, "max_concurrent_requests, 1 at once"),
        ({"model_limits": {"gpt-4o": {"max_concurrent_requests": 1}}}, "calls at once at gpt-4o, 1 now"),
    ],
)
async def test_a_batch_says_what_holds_it_back(options: dict[str, Any], words: str) -> None:
    async with Simulator("Yes.") as sim, client_of(sim, **options) as client:
        shown = Watching()
        answers = start_answers(client.dispatcher, ["Hi"] * 20, None, AnswerOptions(call=None, progress=shown))
        assert len([each async for each in answers]) == 20
    assert words in {tally.limited_by for tally in shown.told}
    assert shown.told[-1].limited_by is None, "nothing waits any more"


async def test_a_refusal_holds_all_back() -> None:
    client = LLMClient("gpt-4o", api_key="k")
    limiter = build_limiter(client.options, client.models)
    assert limiter.limited_by(NOW) is None
    ticket = limiter.reserve(ReservationRequest("gpt-4o"), NOW)
    refusal = Observation(ticket=ticket, status=429, sent_at=NOW, retry_after_s=10.0, chance=0.0)
    limiter.observe(refusal, NOW)
    assert limiter.limited_by(NOW) == "a refusal of gpt-4o, for 10 s more"
    assert limiter.limited_by(NOW + 11) is None


# What answers tell


async def test_headers_of_a_refusal_are_learned_from() -> None:
    headers = ("retry-after: 0", "x-ratelimit-limit-requests: 30", "x-ratelimit-remaining-requests: 0")
    body = b'{"error": {"message": "slow down", "type": "requests", "code": "rate_limit_exceeded"}}'
    async with (
        Loopback(plain("429 Too Many Requests", body, *headers)) as server,
        client_of(server, max_attempts=1) as client,
    ):
        with pytest.raises(RateLimitError) as caught:
            await client.stream("Hi", echo=None)
        assert caught.value.rate_limits["requests"].limit == 30
        (limit,) = client.dispatcher.limiter().limiter._route("gpt-4o", "").limits
        assert (limit.dimension, limit.amount) == ("requests", 30)


async def test_jitter_is_learned_from_connections() -> None:
    async with Loopback(answer(HELLO)) as server, client_of(server) as client:
        for _ in range(60):
            await client.stream("Hi", echo=None)
        limiter = client.dispatcher.limiter().limiter
        assert len(limiter._delays) == 60
        assert min(limiter._delays) > 0
        assert limiter._jitter_s == max(0.003, *limiter._delays)


# Clocks


@pytest.fixture
def jumping_wall_clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Somebody sets the clock an hour ahead and back, all the time."""
    really, asked = time.time, list[float]()

    def jumps() -> float:
        asked.append(really() + (3_600.0 if len(asked) % 2 else -3_600.0))
        return asked[-1]

    monkeypatch.setattr(time, "time", jumps)
    return asked


async def test_the_wall_clock_changes_nothing(jumping_wall_clock: list[float]) -> None:
    async with Simulator("Yes.") as sim, client_of(sim, max_requests_per_minute=60) as client:
        without_waiting(client)
        runner = client.dispatcher.runner()
        begun = runner.now()
        responses = await client.process_prompts_async(["Hi"] * 30)
        took_s = runner.now() - begun
    assert all(response.completion == "Yes." for response in responses)
    assert time.time() in jumping_wall_clock, "it did jump"
    assert 29.0 < took_s < 60.0, "one a second, on a clock that goes on by itself"
