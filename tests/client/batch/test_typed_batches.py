"""Typed answers of batches: each row judged, asked again, journaled as data and typed again when it is read."""

import json
from pathlib import Path
from typing import Any

import pytest

from grammar import check_grammar
from lm_deluge import LLMClient
from lm_deluge.encoders.encoder import ParsedRequest
from lm_deluge.errors import ConfigurationError, JournalError, OutputError
from lm_deluge.events import Attempt, ResponseFinished
from lm_deluge.simulator import Script, Simulator
from outputs.invoices import DATA, INVOICE, NEGATIVE, TEXT, Invoice, text_with


def client_of(sim: Simulator, **options: Any) -> LLMClient:
    return LLMClient("gpt-4o", base_url=sim.base_url, api_key="sk-test", progress="none", **options)


def corrected(request: ParsedRequest) -> Script:
    """Answer a first question about `bad` wrongly, and the second one, with the error, well."""
    first = request.conversation[0].completion
    is_bad = first == "never" or (first == "bad" and len(request.conversation) == 1)
    return Script(text=NEGATIVE if is_bad else TEXT)


async def test_each_row_has_its_object_or_the_error() -> None:
    async with Simulator(corrected) as sim, client_of(sim) as client:
        good, bad, never = await client.process_prompts_async(
            ["good", "bad", "never"], output=Invoice, max_output_retries=1
        )
        assert sim.stats.requests == 5
        task = client.start_nowait("bad", output=Invoice, max_output_retries=1)
        assert (await client.wait_for(task)).output == INVOICE
    assert (good.output, bad.output) == (INVOICE, INVOICE)
    assert good.usage is not None
    assert bad.usage is not None
    assert bad.usage.output_tokens == pytest.approx(2 * good.usage.output_tokens, abs=3)
    assert bad.cost is not None
    assert bad.cost > 2 * (good.cost or 0)
    assert bad.stats is not None
    assert bad.stats.attempts == 2
    assert isinstance(never.error, OutputError)
    assert (never.error.path, never.error.attempts) == (("total",), 2)
    assert never.error.partial is not None
    assert never.error.partial.output == {**DATA, "total": -1}
    with pytest.raises(OutputError):
        _ = never.output


async def test_merged_streams() -> None:
    async with Simulator(corrected) as sim, client_of(sim) as client:
        streams = client.stream_many(["good", "bad", "never"], output=Invoice, max_output_retries=1)
        events: dict[int, list[Any]] = {0: [], 1: [], 2: []}
        async for index, event in streams:
            events[index].append(event)
    for found in events.values():
        check_grammar(found)
    assert [sum(isinstance(each, Attempt) for each in found) for found in events.values()] == [0, 1, 1]
    assert (streams.responses[0].output, streams.responses[1].output) == (INVOICE, INVOICE)
    assert events[2][-1] == ResponseFinished("error", "OutputError")


async def test_a_journal_keeps_the_object_as_data_and_gives_it_back_typed(tmp_path: Path) -> None:
    journal = tmp_path / "answers.journal"
    async with Simulator(corrected) as sim:
        for run in range(2):
            async with client_of(sim) as client:
                answers = client.answers(
                    ["good", "bad", "never"], output=Invoice, journal=journal, max_output_retries=1
                )
                found = {index: response async for index, response in answers}
            assert sim.stats.requests == 5, run
            assert (found[0].output, found[1].output) == (INVOICE, INVOICE)
            assert isinstance(found[2].error, OutputError)
            assert found[2].error.path == ("total",)
        async with client_of(sim) as client:
            with pytest.raises(JournalError):
                _ = [each async for each in client.answers(["good"], output={"type": "object"}, journal=journal)]
        async with client_of(sim, max_attempts=1) as client:
            other = tmp_path / "other.journal"
            ((_, response),) = [
                each async for each in client.answers(["bad"], output=Invoice, journal=other, max_output_retries=1)
            ]
    assert response.output == INVOICE
    records = [json.loads(line[18:]) for line in journal.read_text("utf-8").splitlines()]
    done = [each["response"] for each in records if each["type"] == "done"]
    assert [each["output"] for each in done] == [DATA, DATA]
    states = [(each["type"], each.get("is_final")) for each in records if each.get("id", "").startswith("1:")]
    assert states == [("intent", None), ("failed", False), ("intent", None), ("done", None)]


async def test_equal_prompts_share_a_typed_answer() -> None:
    async with Simulator(TEXT) as sim, client_of(sim) as client:
        responses = await client.process_prompts_async(["x", "x"], output=Invoice, ask_duplicates_once=True)
        assert sim.stats.requests == 1
    assert [response.output for response in responses] == [INVOICE, INVOICE]


async def test_the_provider_s_own_batch_is_judged_too(tmp_path: Path) -> None:
    texts = {"good": TEXT, "bad": text_with(total=None)}
    async with Simulator(lambda request: texts[request.conversation[0].completion]) as sim, client_of(sim) as client:
        for _ in range(2):  # the second run reads the journal
            answers = client.provider_batch(["good", "bad"], output=Invoice, journal=tmp_path / "batch.journal")
            found = {index: response async for index, response in answers}
            assert found[0].output == INVOICE
            assert isinstance(found[1].error, OutputError)
            assert found[1].error.path == ("total",)
        with pytest.raises(ConfigurationError, match="takes no max_output_retries"):
            client.provider_batch(["x"], output=Invoice, journal=tmp_path / "b", max_output_retries=1)  # type: ignore[call-arg]
        with pytest.raises(ConfigurationError, match="takes no max_cost"):
            client.provider_batch(["x"], journal=tmp_path / "b", max_cost=0)  # type: ignore[call-arg]
