"""The checks that `make live` runs against real providers pass against the simulator."""

from __future__ import annotations

import pytest

from live.checks import CHECKS, run_checks
from lm_deluge.adapters.catalog import adapter_names
from lm_deluge.models.registry import list_providers
from lm_deluge.simulator import Simulator
from samples.api_calls import simulated_url


@pytest.mark.parametrize("api", adapter_names())
async def test_every_check_passes_against_the_simulator(api: str) -> None:
    row = next(row for row in list_providers() if row.adapter == api and row.id != "simulator")
    async with Simulator() as sim:
        found = await run_checks(f"{row.id}:some-model", base_url=simulated_url(sim, row), api_key="test-key")
    assert list(found) == list(CHECKS)
    assert {name: word for name, (works, word) in found.items() if works is False} == {}
    assert found["text"][0] is found["tools"][0] is True


async def test_a_failed_check_is_reported() -> None:
    async with Simulator("one, two, three, four", faults="missing_usage") as sim:
        found = await run_checks("openai:some-model", base_url=sim.base_url, api_key="test-key")
    assert found["text"] == (False, "usage is not reported")
    assert found["schema"][0] is False
