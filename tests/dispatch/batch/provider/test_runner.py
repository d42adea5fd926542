"""A provider's own batches, over real sockets: the answers of direct calls at half the price, whatever fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from batch_runs import KEY, MODELS, Clock, Script, client_of, plans_of, run_batch
from lm_deluge import LLMClient, Message, SamplingParams, Tool
from lm_deluge.adapters.batch_api import BatchState
from lm_deluge.adapters.openai_chat.batch import OpenAIBatch
from lm_deluge.dispatch.batch.provider.runner import MAX_OUTAGE_S, ProviderBatch
from lm_deluge.dispatch.journal.journal import Journal
from lm_deluge.errors import (
    AuthenticationError,
    BadRequestError,
    BatchEndedError,
    ConfigurationError,
    InvalidPromptError,
    OverloadedError,
    RateLimitError,
    RequestTooLargeError,
    ServerError,
)
from lm_deluge.models.registry import find_model
from lm_deluge.response import APIResponse
from lm_deluge.simulator import Batches, Fault, Simulator
from lm_deluge.simulator import Script as Answer
from lm_deluge.usage import BATCH_FACTOR, Price, Usage

PROMPTS = [f"say {letter}" for letter in "abcdefg"]
WEATHER = Tool(name="weather", parameters={"type": "object", "properties": {"city": {"type": "string"}}})
ANSWERS = {
    "plain": Answer(text="Grüße, 世界! \u2028 Bye."),
    "thought": Answer(text="42", reasoning="Let me see."),
    "call": Answer(tool_calls=[("weather", {"city": "Roma"})]),
    "cut": Answer(text="one two three", finish_reason="length"),
    "counted": Answer(text="x", usage=Usage(input_tokens=1_000, output_tokens=500, cache_read_tokens=400)),
}


def told(response: APIResponse) -> dict[str, Any]:
    """Return the part of a response that a batch and a direct call have in common."""
    data = response.to_dict()
    for name in ("id", "cost", "stats", "request_id", "response_id"):
        del data[name]
    data["usage"]["raw"] = None  # streams and plain answers have different fields
    return data


@pytest.mark.parametrize("model", MODELS)
async def test_a_batched_answer_is_the_direct_one(model: str, tmp_path: Path) -> None:
    options = {"sampling_params": SamplingParams(max_new_tokens=90)}
    async with (
        Simulator(lambda request: ANSWERS[request.conversation[-1].completion]) as sim,
        client_of(sim, model, **options) as client,
    ):
        direct = await client.process_prompts_async(list(ANSWERS), tools=[WEATHER])
        asked = client.provider_batch(list(ANSWERS), tools=[WEATHER], journal=tmp_path / "j")
        batched = {number: response async for number, response in asked}
    assert [told(batched[number]) for number in range(len(ANSWERS))] == [told(response) for response in direct]
    for number, response in enumerate(direct):
        assert response.error is None
        assert batched[number].id == number
        assert batched[number].cost == pytest.approx(find_model(model).price.batch_cost(response.usage))
        assert 0 < batched[number].cost < response.cost


def test_a_batch_costs_half_where_its_model_has_no_price_of_its_own_for_it() -> None:
    usage = Usage(input_tokens=1_000_000, output_tokens=1_000_000, service_tier="priority")
    price = Price(input=2.0, output=8.0, request=1.0)
    assert BATCH_FACTOR == 0.5
    assert price.batch_cost(usage) == 0.5 * price.cost(usage) == 5.5
    own = Price(
        input=2.0, output=8.0, modes={"batch": Price(input=1.5, output=3.0), "priority": Price(input=9, output=9)}
    )
    assert own.batch_cost(usage) == 4.5  # whatever service tier the usage names
    assert own.cost(usage) == 18


async def test_a_model_without_a_price_has_no_cost(tmp_path: Path) -> None:
    async with Simulator(Script()) as sim, client_of(sim, "openai:gpt-some-day") as client:
        found = await run_batch(client, PROMPTS[:1], tmp_path / "j")
    assert (found["row 0"].completion, found["row 0"].cost) == ("SAY A", None)


@pytest.mark.parametrize("model", MODELS)
async def test_results_come_in_any_order_and_from_several_batches(model: str, tmp_path: Path) -> None:
    seen: list[str] = []
    async with Simulator(Script(), batches=Batches(is_shuffled=True)) as sim, client_of(sim, model) as client:
        found = await run_batch(
            client, PROMPTS, tmp_path / "j", max_requests=3, on_state=lambda name, _: seen.append(name)
        )
    assert [found[f"row {number}"].completion for number in range(7)] == [text.upper() for text in PROMPTS]
    assert len(set(seen)) == 3
    assert list(found) != sorted(found)


async def test_requests_are_those_of_the_adapter(tmp_path: Path) -> None:
    """Parameters, tools, headers and extra fields are the same in a batch and in a direct call."""
    options = {"extra_body": {"user": "me"}, "extra_headers": {"x-team": "a"}, "temperature": 0.5}
    async with Simulator(Script()) as sim, client_of(sim, "claude-haiku-4-5", **options) as client:
        await client.process_prompts_async(["hi"], tools=[WEATHER])
        [answer async for answer in client.provider_batch(["hi"], tools=[WEATHER], journal=tmp_path / "j")]
        direct, batch = sim.requests[0], sim.requests[1]
    (item,) = batch.json["requests"]
    assert item["params"] == {name: value for name, value in direct.json.items() if name != "stream"}
    assert item["params"]["temperature"] == 0.5
    assert {name: batch.headers[name] for name in ("x-team", "anthropic-version", "x-api-key", "user-agent")} == {
        name: direct.headers[name] for name in ("x-team", "anthropic-version", "x-api-key", "user-agent")
    }


async def test_large_batches_are_split_by_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OpenAIBatch, "max_bytes", 6_000)
    prompts = [letter * 700 for letter in "abcde"]
    async with Simulator(Script()) as sim, client_of(sim, "gpt-4o") as client:
        found = await run_batch(client, [*prompts, "x" * 7_000], tmp_path / "j")
        paths = [request.path for request in sim.requests]
    assert paths.count("/v1/batches") == 3
    assert [found[f"row {number}"].completion for number in range(5)] == [text.upper() for text in prompts]
    assert isinstance(found["row 5"].error, RequestTooLargeError)


# Errors of single requests


def refuse_some(request) -> str:
    text = request.conversation[-1].completion
    if text.endswith("b"):
        raise BadRequestError("This is not valid.", status_code=400, type="invalid_request_error")
    if text.endswith("d"):
        raise OverloadedError("Later.", status_code=503)
    return text.upper()


@pytest.mark.parametrize("model", MODELS)
async def test_a_request_that_fails_is_an_answer_with_an_error(model: str, tmp_path: Path) -> None:
    async with Simulator(refuse_some) as sim, client_of(sim, model) as client:
        found = await run_batch(client, PROMPTS, tmp_path / "j")
        sim._router._answers._scripts._source = Script()
        again = await run_batch(client, PROMPTS, tmp_path / "j")
    refused, later = found["row 1"], found["row 3"]
    assert isinstance(refused.error, BadRequestError)
    assert "This is not valid" in str(refused.error)
    assert (refused.error.model, refused.model_internal) == (model, model)
    assert isinstance(later.error, OverloadedError | ServerError)
    assert {row for row, answer in found.items() if answer.error} == {"row 1", "row 3"}
    # The next run sends calls with a retryable error again, and returns the other errors from the journal.
    assert isinstance(again["row 1"].error, BadRequestError)
    assert (again["row 3"].completion, again["row 3"].stats.attempts) == ("SAY D", 2)


async def test_what_cannot_be_asked_is_an_answer_with_an_error(tmp_path: Path) -> None:
    script = Script()
    async with Simulator(script) as sim, client_of(sim, "claude-haiku-4-5") as client:
        prompts = ["a", "", "b"]
        found = {number: each async for number, each in client.provider_batch(prompts, journal=tmp_path / "j")}
    assert isinstance(found[1].error, InvalidPromptError)
    assert (found[0].completion, found[2].completion) == ("A", "B")
    assert script.asked == {"a": 1, "b": 1}


async def test_what_cannot_be_asked_is_in_the_journal_once(tmp_path: Path) -> None:
    for _ in range(3):
        async with Simulator(Script()) as sim, client_of(sim, "claude-haiku-4-5") as client:
            found = {each: one async for each, one in client.provider_batch(["a", ""], journal=tmp_path / "j")}
        assert isinstance(found[1].error, InvalidPromptError)
    assert (tmp_path / "j").read_bytes().count(b'"type":"failed"') == 1


@pytest.mark.parametrize(
    ("retry", "asked"), [("retryable", {"say b": 1, "say d": 2}), ("all", {"say b": 2, "say d": 2})]
)
async def test_which_failures_are_asked_again(retry: Any, asked: dict[str, int], tmp_path: Path) -> None:
    counted = Script()

    def script(request) -> str:
        counted(request)
        return refuse_some(request)

    async with Simulator(script) as sim, client_of(sim, "gpt-4o") as client:
        for _ in range(2):
            found = await run_batch(client, PROMPTS, tmp_path / "j", retry=retry)
            assert {row for row, answer in found.items() if answer.error} == {"row 1", "row 3"}
    assert {text: counted.asked[text] for text in asked} == asked
    assert counted.asked["say a"] == 1


async def test_nothing_to_ask_is_nothing_sent(tmp_path: Path) -> None:
    async with Simulator(Script()) as sim, client_of(sim, "gpt-4o") as client:
        assert await run_batch(client, [], tmp_path / "j") == {}
        assert sim.requests == []


# Errors of whole batches


@pytest.mark.parametrize(("model", "finished"), [(MODELS[0], 3), (MODELS[1], 3), (MODELS[2], 3), (MODELS[3], 0)])
async def test_a_batch_that_expires_keeps_what_is_finished(model: str, finished: int, tmp_path: Path) -> None:
    script = Script()
    async with (
        Simulator(script, batches=Batches(ends="expired", finished=finished)) as sim,
        client_of(sim, model) as client,
    ):
        found = await run_batch(client, PROMPTS, tmp_path / "j")
        sim._router._answers._batches.plan = Batches()
        again = await run_batch(client, PROMPTS, tmp_path / "j")
    errors = [found[f"row {number}"].error for number in range(7)]
    assert errors[:finished] == [None] * finished
    assert {type(error) for error in errors[finished:]} == {BatchEndedError}
    assert "expired" in str(errors[-1])
    assert {error.code for error in errors[finished:]} == {"expired"}
    assert [again[f"row {number}"].completion for number in range(7)] == [text.upper() for text in PROMPTS]
    assert [script.asked[text] for text in PROMPTS] == [1] * finished + [2] * (7 - finished)


@pytest.mark.parametrize("model", MODELS)
async def test_a_batch_that_the_provider_refuses_is_the_error_of_each(model: str, tmp_path: Path) -> None:
    async with Simulator(Script(), batches=Batches(ends="failed")) as sim, client_of(sim, model) as client:
        found = await run_batch(client, PROMPTS, tmp_path / "j")
    errors = [found[f"row {number}"].error for number in range(7)]
    assert {type(error) for error in errors} == {ServerError if "claude" in model else BadRequestError}
    assert len({id(error) for error in errors}) == 7
    assert all(error.model == model for error in errors)


@pytest.mark.parametrize("model", MODELS)
async def test_a_cancelled_batch_is_over(model: str, tmp_path: Path) -> None:
    clock = Clock()
    batch: ProviderBatch

    async def sleep(seconds: float) -> None:
        await clock.sleep(seconds)
        if len(clock.waits) == 3:
            await batch.cancel()

    async with (
        Simulator(Script(), batches=Batches(polls=9)) as sim,
        client_of(sim, model) as client,
        await Journal.open(tmp_path / "j", fingerprint="f" * 64) as journal,
    ):
        batch = ProviderBatch(journal, sleep=sleep, now=clock.now)
        found = dict([each async for each in batch.run(plans_of(client, PROMPTS))])
        await batch.cancel()  # no batch is in progress
    assert {type(answer.error) for answer in found.values()} == {BatchEndedError}
    assert "cancelled" in found["row 0"].error_message
    assert len(clock.waits) == 3
    assert [request.path.endswith("cancel") for request in sim.requests].count(True) == 1


@pytest.mark.parametrize("model", MODELS)
async def test_cancelling_what_is_over_is_no_error(model: str, tmp_path: Path) -> None:
    async with (
        Simulator(Script()) as sim,
        client_of(sim, model) as client,
        await Journal.open(tmp_path / "j", fingerprint="f" * 64) as journal,
    ):
        batch = ProviderBatch(journal, sleep=Clock().sleep)
        async for _, answer in batch.run(plans_of(client, PROMPTS)):
            await batch.cancel()
            assert answer.error is None


# The provider is unreachable


async def test_polls_come_less_and_less_often(tmp_path: Path) -> None:
    clock = Clock()
    states: list[BatchState] = []
    async with Simulator(Script(), batches=Batches(polls=9)) as sim, client_of(sim, "gpt-4o") as client:
        await run_batch(client, PROMPTS, tmp_path / "j", clock=clock, on_state=lambda _, state: states.append(state))
    assert clock.waits == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]
    assert [state.phase for state in states] == ["in_progress"] * 9 + ["ended"]
    assert (states[0].finished, states[0].total, states[-1].finished) == (0, 7, 7)


async def test_several_batches_are_polled_in_turn(tmp_path: Path) -> None:
    clock = Clock()
    seen: list[str] = []
    async with Simulator(Script(), batches=Batches(polls=2)) as sim, client_of(sim, "gpt-4o") as client:
        await run_batch(
            client,
            PROMPTS,
            tmp_path / "j",
            clock=clock,
            max_requests=4,
            on_state=lambda name, _: seen.append(name),
        )
    first, second = dict.fromkeys(seen)
    assert seen == [first, second] * 3
    assert clock.waits == [1, 2, 4]


@pytest.mark.parametrize("model", MODELS)
async def test_faults_that_pass_are_waited_for(model: str, tmp_path: Path) -> None:
    healthy = [None] * {"claude": 1, "gemini": 3}.get(model.partition("-")[0], 2)
    faults = [*healthy, "status_503", "empty_reply", "html_200", "retry_after_seconds", None, "status_500", None]
    clock = Clock()
    async with Simulator(Script(), faults=faults) as sim, client_of(sim, model) as client:
        found = await run_batch(client, PROMPTS, tmp_path / "j", clock=clock)
    assert [found[f"row {number}"].completion for number in range(7)] == [text.upper() for text in PROMPTS]
    # A request without a reply is sent again at once: the server had closed an idle connection.
    assert clock.waits == [1, 1, 2, 4, 1]


async def test_a_provider_that_is_out_of_reach_for_an_hour_ends_a_run_and_no_batch(tmp_path: Path) -> None:
    script, clock = Script(), Clock()
    faults: list[Any] = [None, None, *(["status_503"] * 70)]
    async with Simulator(script, faults=faults) as sim, client_of(sim, "gpt-4o") as client:
        with pytest.raises(OverloadedError):
            await run_batch(client, PROMPTS, tmp_path / "j", clock=clock)
        assert sum(clock.waits) == pytest.approx(MAX_OUTAGE_S, rel=0.05)
        sim._router._answers._faults._faults = iter(())
        found = await run_batch(client, PROMPTS, tmp_path / "j", clock=clock)
    assert {answer.error for answer in found.values()} == {None}
    assert set(script.asked.values()) == {1}


async def test_a_refused_key_is_raised_and_nothing_is_lost(tmp_path: Path) -> None:
    script = Script()
    async with Simulator(script, faults=["status_401"]) as sim, client_of(sim, "gpt-4o") as client:
        with pytest.raises(AuthenticationError) as caught:
            await run_batch(client, PROMPTS, tmp_path / "j")
        assert KEY not in str(caught.value)
        found = await run_batch(client, PROMPTS, tmp_path / "j")
    assert {answer.error for answer in found.values()} == {None}
    assert set(script.asked.values()) == {1}


@pytest.mark.parametrize("fault", ["status_400", "status_413"])
async def test_a_submission_that_is_refused_for_its_own_sake_is_the_error_of_each(fault: str, tmp_path: Path) -> None:
    async with Simulator(Script(), faults=[None, fault]) as sim, client_of(sim, "gpt-4o") as client:
        found = await run_batch(client, PROMPTS, tmp_path / "j", max_requests=4)
        asked = len(sim.requests)
        again = await run_batch(client, PROMPTS, tmp_path / "j", max_requests=4)
        assert len(sim.requests) == asked
    errors = [found[f"row {number}"].error for number in range(7)]
    assert {type(error) for error in errors[:4]} == {BadRequestError if fault == "status_400" else RequestTooLargeError}
    assert errors[4:] == [None] * 3
    assert [again[row].error_message for row in found] == [answer.error_message for answer in found.values()]


async def test_a_submission_that_comes_too_early_is_tried_again(tmp_path: Path) -> None:
    clock, script = Clock(), Script()
    faults = [Fault("retry_after_seconds", seconds=7.0), "status_429", None]
    async with Simulator(script, faults=faults) as sim, client_of(sim, "claude-haiku-4-5") as client:
        await run_batch(client, PROMPTS, tmp_path / "j", clock=clock)
    assert clock.waits == [7, 2, 1]
    assert set(script.asked.values()) == {1}


async def test_a_submission_that_is_always_refused_is_given_up(tmp_path: Path) -> None:
    async with Simulator(Script(), faults="status_429") as sim, client_of(sim, "gpt-4o") as client:
        with pytest.raises(RateLimitError):
            await run_batch(client, PROMPTS, tmp_path / "j", max_attempts=3)
        assert len(sim.requests) == 3
    async with await Journal.open(tmp_path / "j", fingerprint="f" * 64) as journal:
        assert journal.state.ambiguous == ()
        assert journal.state.status("row 0") == "waiting"


@pytest.mark.parametrize("fault", ["clean_truncation", "close_truncation", "empty_body"])
async def test_results_that_were_cut_short_in_order_are_read_again(fault: str, tmp_path: Path) -> None:
    script = Script()
    faults = [None, None, None, fault, None]
    async with Simulator(script, faults=faults) as sim, client_of(sim, "gpt-4o") as client:
        found = await run_batch(client, PROMPTS, tmp_path / "j")
        assert sim.stats.faults[fault] == 1
    assert {answer.error for answer in found.values()} == {None}
    assert set(script.asked.values()) == {1}


async def test_results_that_are_gone_are_the_error_of_each(tmp_path: Path) -> None:
    faults = [None, None, None, "status_404", "status_404", "status_404"]
    async with Simulator(Script(), faults=faults) as sim, client_of(sim, "gpt-4o") as client:
        found = await run_batch(client, PROMPTS, tmp_path / "j")
    assert {type(answer.error) for answer in found.values()} == {BatchEndedError}
    assert "ended without a result" in found["row 0"].error_message


# Providers with and without a batch API


@pytest.mark.parametrize("model", ["mistral:mistral-small-latest", "vertex:gemini-2.5-flash", "groq-less"])
async def test_a_provider_without_a_batch_api_is_refused_before_anything_is_sent(model: str, tmp_path: Path) -> None:
    async with Simulator(Script()) as sim:
        client = LLMClient(
            [model, "gpt-4o"], base_url={"openai": sim.url, "openai-compatible": sim.url}, api_key={"openai": KEY}
        )
        with pytest.raises(ConfigurationError, match=r"no batch API .* Providers with one: anthropic, gemini, "):
            client.provider_batch(["a"], journal=tmp_path / "j")
        assert sim.requests == []
    assert not (tmp_path / "j").exists()


async def test_a_budget_cannot_be_kept_and_is_refused(tmp_path: Path) -> None:
    client = LLMClient("gpt-4o", api_key=KEY, max_cost=1.0)
    with pytest.raises(ConfigurationError, match="max_cost cannot be enforced"):
        client.provider_batch(["a"], journal=tmp_path / "j")


async def test_several_models_have_a_batch_each(tmp_path: Path) -> None:
    async with Simulator(lambda request: request.model) as sim:
        client = LLMClient(["gpt-4o", "gpt-4.1-mini"], base_url=sim.base_url, api_key=KEY)
        batched = client.provider_batch(["a", "b", "c"], journal=tmp_path / "j")
        found = {number: response.completion async for number, response in batched}
        await client.close()
        assert [request.path for request in sim.requests].count("/v1/batches") == 2
    assert found == {0: "gpt-4o", 1: "gpt-4.1-mini", 2: "gpt-4o"}


async def test_neither_key_nor_prompt_is_in_the_journal(tmp_path: Path) -> None:
    async with Simulator(refuse_some) as sim, client_of(sim, "gpt-4o") as client:
        await run_batch(client, [*PROMPTS, "TheSecretOfTheUser"], tmp_path / "j")
    written = (tmp_path / "j").read_bytes()
    assert b"THESECRETOFTHEUSER" in written  # the answer
    assert b"TheSecretOfTheUser" not in written
    assert KEY.encode() not in written


async def test_conversations_of_any_length_have_fingerprints_of_their_own(tmp_path: Path) -> None:
    def asked(client: LLMClient, text: str) -> Any:
        return client.provider_batch([[Message.system("Be brief."), Message.user(text)]], journal=tmp_path / "j")

    async with Simulator(Script()) as sim, client_of(sim, "gpt-4o") as client:
        assert [answer.completion async for _, answer in asked(client, "a")] == ["A"]
        assert [answer.completion async for _, answer in asked(client, "a")] == ["A"]
        with pytest.raises(Exception, match="belongs to another batch"):
            await anext(asked(client, "b"))
