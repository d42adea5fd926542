"""Costs of every priced model, compared with the results of `genai-prices` on the same data."""

from __future__ import annotations

import datetime as dt
import json
import random
import re
from collections import Counter
from decimal import Decimal
from importlib import resources
from typing import Any

import genai_prices
import pytest
from genai_prices.data import providers
from genai_prices.types import ModelInfo, ModelPrice, Provider

from lm_deluge.models.rows import ModelRow
from lm_deluge.models.snapshots import read_snapshot
from lm_deluge.usage import Usage

TEXT = resources.files("lm_deluge.models").joinpath("models.json").read_text("utf-8")
DATA = json.loads(TEXT)
ROWS = read_snapshot(TEXT.encode()).rows()
# At this hour DeepSeek has its peak prices, which are in the rows.
WHEN = dt.datetime.combine(dt.date.fromisoformat(DATA["date"]), dt.time(2), dt.UTC)

THEIRS = {
    "openai": "openai",
    "openai-responses": "openai",
    "anthropic": "anthropic",
    "gemini": "google",
    "vertex": "google",
    "vertex-anthropic": "google",
    "bedrock": "aws",
    "cohere": "cohere",
    "mistral": "mistral",
    "xai": "x-ai",
    "deepseek": "deepseek",
    "moonshot": "moonshotai",
    "minimax": "minimax",
    "zai": "zai",
    "perplexity": "perplexity",
    "arcee": "arcee",
    "azure": "azure",
    "groq": "groq",
    "together": "together",
    "fireworks": "fireworks",
    "cerebras": "cerebras",
    "cloudflare": "cloudflare",
    "databricks": "databricks",
}
# Their prices are those of other sources; OpenRouter's are those of its own list, which is newer.
UNKNOWN_THERE = {
    "openrouter",
    "sambanova",
    "azure-responses",
    "alibaba",
    "inception",
    "nvidia",
    "huggingface",
    "deepinfra",
    "nebius",
    "snowflake",
    "baseten",
    "friendli",
    "meta",
    "scaleway",
    "xiaomi",
}

# Rows whose prices are not those of genai-prices, each with the reason. Checked on 2026-11-30.
OTHERS = {
    r"azure:((?i:deepseek)|grok|gpt-oss).*": "genai-prices has the makers' own prices there",
    r"bedrock:(us-gov\.(openai|anthropic)|(eu|ca)\.amazon\.nova).*": "genai-prices has the prices of other regions",
    r"vertex:gemini-3\.8-flash-cyber": "genai-prices takes it for Gemini 3.8 Flash",
    r"bedrock:apac\.amazon\.nova.*": "genai-prices has the prices of us-east-1; litellm and pi-ai agree",
    r"gpt-5\.6-cyber": "genai-prices has no prices above 272k",
    r"bedrock:.*amazon\.nova-2-lite.*": "genai-prices has other regions' prices",
    r"bedrock:(meta\.llama4|deepseek|us\.meta).*": "genai-prices has no price of the cache",
    r"claude-sonnet-4-5.*|(vertex-anthropic|bedrock):.*claude-(3-sonnet|sonnet-4-5|sonnet-4-2).*": "1M has ended",
    r"cloudflare:.*|cerebras:.*": "genai-prices rounds, and has no prices of the cache",
    r"(codestral|devstral|magistral|mistral|ministral|open-mistral|pixtral|voxtral)-.*": "aliases moved on",
    r"fireworks:.*(glm-4p7|minimax-m2p1)|together:.*Llama-3\.3-70B.*": "genai-prices is older",
    r"gpt-4o-search-preview.*": "genai-prices has no price of the cache",
    r"grok-(3|4|4-fast|4-1-fast|4-0709|latest|code-fast)(-.*)?": "retired names are answered by Grok 4.3",
    r"databricks:.*": "genai-prices has the makers' prices there",
}

MODES = {
    "batch": {"processing": "batch"},
    "flex": {"service_tier": "flex"},
    "priority": {"service_tier": "priority"},
}
FIELDS = {
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
    "cache_read_tokens": "cache_read_tokens",
    "cache_write_tokens": "cache_write_tokens",
    "cache_write_1h_tokens": "cache_write_1h_tokens",
    "reasoning_tokens": "output_reasoning_tokens",
    "input_audio_tokens": "input_audio_tokens",
    "cache_read_audio_tokens": "cache_audio_read_tokens",
    "output_audio_tokens": "output_audio_tokens",
    "output_image_tokens": "output_image_tokens",
}


def their_model(row: ModelRow) -> tuple[Provider, ModelInfo] | None:
    if row.provider not in THEIRS:
        return None
    every = list(providers)
    provider = next(each for each in every if each.id == THEIRS[row.provider])
    found = provider.find_model(row.name, all_providers=every)
    return (provider, found) if found is not None else None


def a_usage(draw: random.Random, row: ModelRow) -> Usage:
    """Generate counts of all kinds of tokens that the model has prices for, above and below its tiers."""
    assert row.price is not None
    size = draw.choice([900, 30_000, 130_000, 199_999, 200_000, 200_001, 272_001, 600_000])
    if row.price.tiers and draw.random() < 0.7:
        size = row.price.tiers[-1].above_input_tokens + draw.choice([-1, 0, 1, 5_000])
    written = draw.randint(0, size // 4)
    read = draw.randint(0, size // 4)
    output = draw.randint(0, 20_000)
    parts: dict[str, int] = {
        "cache_read_tokens": read,
        "cache_write_tokens": written,
        "cache_write_1h_tokens": draw.randint(0, written),
        "reasoning_tokens": draw.randint(0, output // 3),
    }
    if row.price.input_audio is not None:
        parts["input_audio_tokens"] = draw.randint(0, size // 4)
        if row.price.cache_read_audio is not None:
            parts["cache_read_audio_tokens"] = draw.randint(0, min(read, parts["input_audio_tokens"]))
    if row.price.output_audio is not None:
        parts["output_audio_tokens"] = draw.randint(0, output // 3)
    if row.price.output_image is not None:
        parts["output_image_tokens"] = draw.randint(0, output // 3)
    return Usage(input_tokens=size, output_tokens=output, **parts)


def their_cost(provider: Provider, model: ModelInfo, usage: Usage, mode: str | None) -> float:
    theirs: dict[str, Any] = {FIELDS[name]: getattr(usage, name) for name in FIELDS}
    counted = genai_prices.Usage(**{name: count for name, count in theirs.items() if count is not None})
    context = MODES[mode] if mode else None
    return float(model.calc_price(counted, provider, genai_request_timestamp=WHEN, price_context=context).total_price)


CASES = [(row, found) for row in ROWS if row.price is not None and (found := their_model(row)) is not None]


def has_mode(provider: Provider, model: ModelInfo, mode: str) -> bool:
    is_own = any(each is model for each in provider.models)
    return is_own and any(variant.when == MODES[mode] for variant in model.price_variants or ())


@pytest.mark.parametrize("provider", sorted(THEIRS))
def test_what_an_answer_costs(provider: str) -> None:
    draw = random.Random(provider)
    compared = 0
    for row, (theirs, model) in CASES:
        if row.provider != provider or any(re.fullmatch(pattern, row.id) for pattern in OTHERS):
            continue
        assert row.price is not None
        for mode in (None, *(mode for mode in MODES if mode in row.price.modes and has_mode(theirs, model, mode))):
            for _ in range(2):
                usage = a_usage(draw, row)
                expected = their_cost(theirs, model, usage, mode)
                assert row.price.cost(usage, mode) == pytest.approx(expected, rel=1e-6, abs=1e-12), (row.id, mode)
                compared += 1
    assert compared > 0 or provider in ("mistral", "databricks", "cloudflare", "cerebras")


def test_enough_is_compared_and_what_is_not_is_said() -> None:
    compared = {row.id for row, _ in CASES}
    priced = [row for row in ROWS if row.price is not None]
    skipped = Counter(row.provider for row in priced if row.id not in compared)
    # Hosts that they do not know; and single models that only the other source lists.
    assert {provider for provider, count in skipped.items() if provider in UNKNOWN_THERE} == UNKNOWN_THERE
    single = {provider: count for provider, count in skipped.items() if provider not in UNKNOWN_THERE}
    assert set(single) <= set(THEIRS)
    assert sum(single.values()) <= len(priced) * 0.15, single
    assert len(compared) >= 200


def test_a_price_that_they_change_would_be_noticed() -> None:
    row, (provider, model) = next(case for case in CASES if case[0].id == "gpt-4o")
    assert row.price is not None
    other = ModelInfo(id="x", match=model.match, prices=ModelPrice(input_mtok=Decimal("2.51"), output_mtok=Decimal(10)))
    usage = Usage(input_tokens=1_000, output_tokens=10)
    assert row.price.cost(usage) != pytest.approx(their_cost(provider, other, usage, None), rel=1e-6)
