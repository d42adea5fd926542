"""The rows of all models of all providers."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections import Counter
from importlib import resources
from typing import Any

import msgspec
import pytest

from lm_deluge.models import registry
from lm_deluge.models.snapshots import read_snapshot
from lm_deluge.usage import Price, PriceTier

TEXT = resources.files("lm_deluge.models").joinpath("models.json").read_text("utf-8")
DATA = json.loads(TEXT)
ROWS = read_snapshot(TEXT.encode()).rows()
BY_ID = {row.id: row for row in ROWS}

# Rows of these wait for a provider of that id: a row whose provider is none is passed over.
PROVIDERS = {row.provider for row in ROWS}


def test_ids_are_unique_and_sorted() -> None:
    ids = [row.id for row in ROWS]
    assert ids == sorted(set(ids))


def test_each_model_stands_on_a_line_of_its_own() -> None:
    head, _, rest = TEXT.partition('},"models":[\n')
    *lines, last = rest.splitlines()
    assert last == "]}"
    assert [json.loads(line.removesuffix(",")) for line in lines] == DATA["models"]
    first, *sets = head.splitlines()
    assert first == f'{{"date":"{DATA["date"]}","capabilities":{{'
    assert len(sets) == len(DATA["capabilities"])


def test_the_file_is_small_and_stores_equal_capabilities_once() -> None:
    assert len(TEXT.encode()) <= 600_000
    sets = [json.dumps(each, sort_keys=True) for each in DATA["capabilities"].values()]
    assert len(sets) == len(set(sets))
    assert {row["capabilities"] for row in DATA["models"]} == DATA["capabilities"].keys()


def test_the_day_of_the_prices_is_told() -> None:
    assert registry.snapshot_date() == DATA["date"]
    assert dt.date.fromisoformat(registry.snapshot_date()).year >= 2026
    sources = resources.files("lm_deluge.models").joinpath("SOURCES.md").read_text("utf-8")
    assert f"on {DATA['date']}" in sources


def test_nothing_in_the_file_is_ignored_when_it_is_read() -> None:
    def holds(whole: Any, part: Any) -> bool:
        if isinstance(part, dict):
            return isinstance(whole, dict) and all(holds(whole[key], part[key]) for key in part)
        if isinstance(part, list):
            return isinstance(whole, list) and all(map(holds, whole, part))
        return bool(whole == part)

    full = [{**row, "capabilities": DATA["capabilities"][row["capabilities"]]} for row in DATA["models"]]
    assert holds(json.loads(msgspec.json.encode(ROWS)), full)


def test_an_id_is_the_name_or_has_the_provider_before_it() -> None:
    assert [row.id for row in ROWS if row.id not in (row.name, f"{row.provider}:{row.name}")] == []
    assert [row.id for row in ROWS if not re.fullmatch(r"[\w~@./:+-]+", row.id)] == []


def test_bare_ids_are_of_makers() -> None:
    bare = {row.provider for row in ROWS if row.id == row.name}
    hosts = {
        "azure",
        "bedrock",
        "groq",
        "openrouter",
        "together",
        "fireworks",
        "vertex",
        "nvidia",
        "huggingface",
        "baseten",
    }
    assert bare & hosts == set()
    assert {"openai", "anthropic", "gemini", "mistral", "cohere", "xai", "deepseek"} <= bare


@pytest.mark.parametrize(
    ("name", "provider"),
    [
        ("gpt-4o", "openai"),
        ("gpt-5-pro", "openai-responses"),
        ("claude-sonnet-4-5", "anthropic"),
        ("claude-opus-4-1-20250805", "anthropic"),
        ("gemini-2.5-pro", "gemini"),
        ("mistral-large-latest", "mistral"),
        ("command-a-03-2025", "cohere"),
        ("grok-4", "xai"),
        ("deepseek-chat", "deepseek"),
        ("kimi-k2-thinking", "moonshot"),
        ("glm-4.6", "zai"),
        ("qwen3-max", "alibaba"),
        ("sonar-pro", "perplexity"),
        ("groq:llama-3.3-70b-versatile", "groq"),
        ("bedrock:us.anthropic.claude-sonnet-4-5-20250929-v1:0", "bedrock"),
        ("vertex:gemini-2.5-pro", "vertex"),
        ("azure:gpt-4o", "azure"),
    ],
)
def test_the_well_known_models_are_there(name: str, provider: str) -> None:
    row = BY_ID[name]
    assert row.provider == provider
    assert row.price is not None


def test_every_model_of_a_provider_that_can_be_asked_is_found() -> None:
    known = {row.id for row in registry.list_providers()}
    found = {row.id for row in registry.list_models()} - {"simulator"}
    assert found == {row.id for row in ROWS if row.provider in known}
    for row in ROWS[::50]:
        if row.provider in known:
            named = registry.find_model(f"{row.provider}:{row.name}")
            assert (named.price, named.name) == (row.price, row.name)


def _rates(price: Price | PriceTier) -> dict[str, float]:
    others = ("tiers", "modes", "above_input_tokens", "region_factors", "changes")
    names = [name for name in price.__struct_fields__ if name not in others]
    return {name: value for name in names if (value := getattr(price, name)) is not None}


@pytest.mark.parametrize("provider", sorted(PROVIDERS))
def test_prices_are_sane(provider: str) -> None:
    for row in ROWS:
        if row.provider != provider or row.price is None:
            continue
        later = [change.price for change in row.price.changes]
        for price in (row.price, *row.price.modes.values(), *later, *(m for p in later for m in p.modes.values())):
            assert all(0 <= rate <= 1000 for rate in _rates(price).values()), row.id
            starts = [tier.above_input_tokens for tier in price.tiers]
            assert starts == sorted(set(starts)), row.id
            assert all(_rates(tier) for tier in price.tiers), row.id
            assert not (price in row.price.modes.values() and price.modes), row.id


def test_cached_input_is_hardly_ever_dearer_than_fresh() -> None:
    odd = [row.id for row in ROWS if row.price and (row.price.cache_read or 0) > row.price.input]
    assert len(odd) <= len(ROWS) // 50, odd


def test_limits_are_sane() -> None:
    for row in ROWS:
        assert row.context_window is None or 256 <= row.context_window <= 20_000_000, row.id
        assert row.max_output_tokens is None or row.max_output_tokens > 0, row.id


def test_models_that_do_not_chat_are_absent() -> None:
    other = re.compile(r"embed|rerank|whisper|\btts\b|moderation|-guard|imagine|veo-|realtime", re.IGNORECASE)
    assert [row.id for row in ROWS if other.search(row.name)] == []


@pytest.mark.parametrize(
    ("name", "has_budget", "prefill"),
    [
        ("claude-3-haiku-20240307", False, True),
        ("claude-opus-4-1", True, True),
        ("claude-haiku-5-5", False, False),
        ("claude-sonnet-4-5-20250929", True, True),
        ("claude-haiku-4-5", True, True),
        ("claude-opus-4-6", False, False),
        ("claude-opus-5", False, False),
        ("bedrock:us.anthropic.claude-sonnet-4-5-20250929-v1:0", True, True),
        ("bedrock:global.anthropic.claude-sonnet-4-6", False, False),
        ("vertex-anthropic:claude-opus-4-6@default", False, False),
        ("gemini-2.5-flash", True, None),
        ("gemini-3-flash-preview", False, None),
        ("mistral-large-latest", False, True),
        ("magistral-medium-latest", False, None),
        ("gpt-5", False, None),
        ("openrouter:anthropic/claude-sonnet-4.5", False, None),
    ],
)
def test_how_reasoning_is_asked_for(name: str, has_budget: bool, prefill: bool | None) -> None:
    able = BY_ID[name].capabilities
    assert (able.reasoning_budget, able.prefill) == (has_budget, prefill)


def test_most_models_are_described() -> None:
    described = Counter(row.provider for row in ROWS if row.capabilities.reasoning is not None)
    counts = Counter(row.provider for row in ROWS)
    assert described.total() > counts.total() * 0.6
    for provider in ("openai", "azure", "vertex", "vertex-anthropic", "alibaba", "together", "groq"):
        assert described[provider] == counts[provider], provider
