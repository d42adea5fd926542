"""Metrics of Prometheus, read as its own parser reads them."""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from lm_deluge import LLMClient
from lm_deluge.errors import MissingExtraError
from lm_deluge.models.registry import list_models
from lm_deluge.simulator import Script, Simulator
from lm_deluge.simulator.faults.catalog import Fault
from lm_deluge.telemetry.prometheus import PrometheusObserver
from lm_deluge.usage import Usage
from loopback import END, HEAD, HELLO, chunk, text
from racing import SILENT, racing
from telemetry.recorder import client_of, without_pauses

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]
WORDS = "one two three"


def samples_of(exposition: str) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(exposition)
        for sample in family.samples
    }


class Scraped:
    def __init__(self, **options: Any) -> None:
        self.registry = CollectorRegistry()
        self.observer = PrometheusObserver(self.registry, **options)

    @property
    def text(self) -> str:
        return generate_latest(self.registry).decode()

    def __call__(self, name: str, **labels: str) -> float | None:
        return samples_of(self.text).get((f"deluge_{name}", frozenset(labels.items())))

    def labels(self, name: str, label: str) -> set[str]:
        found = (dict(labels) for each, labels in samples_of(self.text) if each == f"deluge_{name}")
        return {labels[label] for labels in found}


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    usage = Usage(input_tokens=100, output_tokens=50, cache_read_tokens=40, reasoning_tokens=20)
    async with Simulator(Script(text=WORDS, usage=usage)) as running:
        yield running


async def test_the_metrics_of_a_call(sim: Simulator) -> None:
    scraped = Scraped()
    response = await client_of(sim, scraped.observer).stream("Hi", echo=None)
    model = {"model": "gpt-4o"}
    assert scraped("requests_total", status="ok", **model) == 1
    assert scraped("in_flight") == 0
    for kind, count in {"input": 100, "output": 50, "cache_read": 40, "reasoning": 20}.items():
        assert scraped("tokens_total", kind=kind, **model) == count
    assert scraped("cost_dollars_total", **model) == pytest.approx(response.cost)
    assert scraped("time_to_first_token_seconds_count", **model) == 1
    assert scraped("time_to_first_token_seconds_sum", **model) == response.stats.time_to_first_token
    assert scraped("limiter_wait_seconds_count", **model) == 1
    assert scraped("request_seconds_count", **model) == 1
    assert scraped.labels("retries_total", "reason") == set()


def test_the_names_are_those_of_the_documentation() -> None:
    names = {family.name for family in text_string_to_metric_families(Scraped().text)}
    assert names == {
        *("deluge_requests", "deluge_in_flight", "deluge_request_seconds", "deluge_time_to_first_token_seconds"),
        *("deluge_inter_token_seconds", "deluge_tokens", "deluge_cost_dollars", "deluge_limiter_wait_seconds"),
        "deluge_retries",
    }


async def test_calls_in_flight() -> None:
    scraped, go = Scraped(), asyncio.Event()
    steps = [HEAD, chunk(text("Hel")), go, chunk(HELLO), END]
    async with racing(steps, observers=[scraped.observer], hedge_after=None, model="gpt-4o") as race:
        stream = race.client.stream("Hi")
        await stream.next_batch()
        assert scraped("in_flight") == 1
        go.set()
        await stream.read_to_end()
    assert scraped("in_flight") == 0
    assert scraped("inter_token_seconds_count", model="gpt-4o") == 1  # one read, of several tokens


async def test_retries_by_their_reason() -> None:
    scraped = Scraped()
    async with Simulator(WORDS, faults=[Fault("status", status=500)]) as sim:
        await without_pauses(client_of(sim, scraped.observer)).stream("Hi", echo=None)
    assert scraped("retries_total", model="gpt-4o", reason="ServerError") == 1
    assert scraped("requests_total", model="gpt-4o", status="ok") == 1


async def test_a_hedged_call_counts_for_the_model_that_answered() -> None:
    scraped = Scraped()
    async with racing(SILENT, [HEAD, chunk(HELLO), END], observers=[scraped.observer]) as race:
        await race.begin()
        await race.ring()
        await race.end()
    assert scraped("retries_total", model="gpt-4o-mini", reason="Hedge") == 1
    assert scraped("requests_total", model="gpt-4o-mini", status="ok") == 1
    assert scraped("tokens_total", model="gpt-4o-mini", kind="output") >= 2


async def fail(client: LLMClient) -> None:
    await client.process_prompts_async(["Hi"])


async def leave(client: LLMClient) -> None:
    stream = client.stream("Hi")
    await stream.next_batch()
    await stream.cancel()


@pytest.mark.parametrize(
    ("ask", "fault", "status"),
    [(fail, Fault("status", status=400), "BadRequestError"), (leave, (), "cancelled")],
    ids=["failed", "cancelled"],
)
async def test_other_outcomes(ask: Callable[[LLMClient], Any], fault: Any, status: str) -> None:
    scraped = Scraped()
    async with Simulator(WORDS, faults=fault) as sim:
        await ask(client_of(sim, scraped.observer))
    assert scraped("requests_total", model="gpt-4o", status=status) == 1
    assert scraped("in_flight") == 0


async def test_an_answer_of_the_local_cache_costs_nothing(sim: Simulator, tmp_path: Path) -> None:
    scraped = Scraped()
    async with client_of(sim, scraped.observer, local_cache=tmp_path / "answers") as client:
        await client.stream("Hi", echo=None)
        await client.stream("Hi", echo=None)
    assert scraped("requests_total", model="gpt-4o", status="cached") == 1
    assert scraped("tokens_total", model="gpt-4o", kind="input") == 100


# Labels


async def ask_by_name(sim: Simulator, observer: PrometheusObserver, name: str) -> None:
    client = LLMClient(name, base_url=sim.base_url, api_key="k", observers=[observer])
    await client.stream("Hi", echo=None)


async def test_where_models_are_listed_no_other_name_is_a_label(sim: Simulator) -> None:
    scraped = Scraped(models=["our-model"])
    for name in ("gpt-4o", "our-model", "openai:whatever a user types", "openai:something else"):
        await ask_by_name(sim, scraped.observer, name)
    assert scraped.labels("requests_total", "model") == {"gpt-4o", "our-model", "other"}
    assert scraped("requests_total", model="other", status="ok") == 2


async def test_the_number_of_labels_has_a_bound(sim: Simulator) -> None:
    scraped = Scraped()
    await ask_by_name(sim, scraped.observer, "our-model")
    assert scraped.labels("requests_total", "model") == {"our-model"}
    labels = {scraped.observer.label_of(f"name-{number}") for number in range(1_000)}
    assert len(labels) <= 200
    assert "other" in labels
    assert {scraped.observer.label_of(row.id) for row in list_models()} == {row.id for row in list_models()}


def test_a_missing_package_has_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name.startswith("prometheus_client"):
            raise ModuleNotFoundError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match="pip install prometheus-client"):
        PrometheusObserver()
