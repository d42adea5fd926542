"""The cost that providers state in their usage objects."""

from __future__ import annotations

from typing import Any

import pytest

from lm_deluge.adapters.openai_chat.usage import read_usage
from lm_deluge.models.costs import request_cost
from lm_deluge.models.registry import find_model, find_provider
from lm_deluge.usage import Usage

COUNTS = {"prompt_tokens": 1_000_000, "completion_tokens": 0, "total_tokens": 1_000_000}


@pytest.mark.parametrize(
    ("stated", "cost"),
    [
        ({"cost": 0.95, "is_byok": False, "cost_details": {"upstream_inference_cost": 0.95}}, 0.95),  # OpenRouter
        ({"cost": 0.05, "is_byok": True, "cost_details": {"upstream_inference_cost": 1.0}}, 1.05),
        ({"cost": 0.05, "is_byok": True}, None),  # the larger part is unknown
        ({"cost": 0}, 0.0),
        ({"cost": {"input_tokens_cost": 0.1, "total_cost": 0.35}}, 0.35),  # Perplexity
        ({"cost_in_usd_ticks": 37_756_000}, 0.0037756),  # xAI
        ({"estimated_cost": 0.0001}, 0.0001),  # DeepInfra
        ({}, None),
        ({"cost": None}, None),
        ({"cost": "0.5"}, None),
        ({"cost": True}, None),
        ({"cost": -1}, None),
        ({"cost": float("nan")}, None),
        ({"cost": float("inf")}, None),
        ({"cost": {"total_cost": []}}, None),
        ({"cost": []}, None),
    ],
)
def test_a_stated_cost_is_read(stated: dict[str, Any], cost: float | None) -> None:
    usage = read_usage({**COUNTS, **stated})
    assert usage is not None
    assert usage.reported_cost == (None if cost is None else pytest.approx(cost))


def test_it_has_precedence_over_the_price_and_over_fees() -> None:
    model, provider = find_model("openrouter:openai/gpt-6-sol"), find_provider("openrouter")
    usage = Usage(input_tokens=1_000_000, tool_uses={"web_search": 3}, reported_cost=0.5)
    assert request_cost(model, provider, usage) == 0.5
    assert request_cost(model, provider, Usage(input_tokens=100_000)) == pytest.approx(0.2)


def test_a_sum_has_a_stated_cost_only_if_all_parts_have_one() -> None:
    one, other = Usage(input_tokens=1, reported_cost=0.5), Usage(input_tokens=2, reported_cost=0.25)
    assert (one + other).reported_cost == 0.75
    assert (one + Usage(input_tokens=2)).reported_cost is None
