"""Rows of each kind of which some were wrong: copies at other hosts, regions, long requests, names, status, flags."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest

from lm_deluge.errors import UnknownModelError
from lm_deluge.models import registry
from lm_deluge.models.costs import endpoint_region, request_cost
from lm_deluge.models.families import plain_name
from lm_deluge.models.rows import ModelRow
from lm_deluge.usage import Price, Usage

ROWS = [row for row in registry.list_models() if row.id != "simulator"]
LIVE = [row for row in ROWS if row.status != "retired"]
IDS = {row.id for row in ROWS}


def price_of(name: str, day: str | None = None) -> Price:
    price = registry.find_model(name).price
    assert price is not None, name
    return price if day is None else price.on(day)


@pytest.mark.parametrize(
    ("name", "rates"),
    [
        ("bedrock:us-gov.anthropic.claude-sonnet-5", (2.4, 12.0, 0.24)),
        ("bedrock:us-gov.anthropic.claude-sonnet-5-5", (2.4, 12.0, 0.12)),
        ("bedrock:us-gov.anthropic.claude-haiku-5-5", (0.12, 0.6, 0.012)),
        ("bedrock:eu.amazon.nova-pro-v1:0", (1.05, 4.2, 0.2625)),
        ("bedrock:eu.amazon.nova-lite-v1:0", (0.078, 0.312, 0.0195)),
        ("bedrock:eu.amazon.nova-2-lite-v1:0", (0.429, 3.597, 0.10725)),
        ("bedrock:ca.amazon.nova-lite-v1:0", (0.064, 0.256, 0.016)),
        ("bedrock:anthropic.claude-opus-5", (5.5, 27.5, 0.55)),
        ("bedrock:anthropic.claude-sonnet-5-5", (2.2, 11.0, 0.11)),
        ("bedrock:global.anthropic.claude-sonnet-5-5", (2.0, 10.0, 0.1)),
        ("bedrock:qwen.qwen3-coder-next", (0.5, 1.2, None)),
        ("azure:grok-4.7", (2.0, 6.0, 0.5)),
        ("azure:FW-Kimi-K3", (3.0, 15.0, 0.3)),
        ("azure:gpt-oss-120b", (0.15, 0.6, None)),
        ("databricks:databricks-claude-opus-5-5", (4.0, 20.0, 0.2)),
        ("databricks:databricks-gpt-6-1-sol", (2.0, 10.0, 0.1)),
        ("databricks-serving:databricks-gpt-6-1-sol", (2.0, 10.0, 0.1)),
        ("vertex:gemini-3.8-flash-cyber", (1.5, 7.5, 0.15)),
        ("baseten:zai-org/GLM-5.3", (1.4, 4.4, 0.14)),
        ("muse-spark-1.3", (1.25, 4.25, 0.15)),
        ("mimo-v2.6-pro", (0.435, 0.87, 0.0036)),
        ("deepseek-v4-flash-vision-exp", (0.3, 1.2, 0.006)),
    ],
)
def test_prices_of_copies_at_other_hosts_and_regions(name: str, rates: tuple[float | None, ...]) -> None:
    price = price_of(name)
    assert (price.input, price.output, price.cache_read) == rates


@pytest.mark.parametrize(
    ("name", "tokens", "usd"),
    [
        ("qwen3-max", 10_000, 0.012),
        ("qwen3-max", 100_000, 0.24),
        ("qwen3-max", 200_000, 0.6),
        ("qwen3-coder-plus", 500_000, 3.0),
        ("qwen3-coder-flash", 300_000, 0.48),
        ("qwen-flash", 300_000, 0.075),
        ("qwen-plus-latest", 300_000, 0.36),
        ("qwen3.5-plus", 300_000, 0.15),
        ("gpt-6.2-sol", 300_000, 1.2),
        ("gpt-6.2-astra", 300_000, 4.8),
        ("claude-haiku-5-5", 200_000, 0.1),
    ],
)
def test_long_requests(name: str, tokens: int, usd: float) -> None:
    assert price_of(name).cost(Usage(input_tokens=tokens)) == pytest.approx(usd)


@pytest.mark.parametrize(("name", "normal", "thinking"), [("qwen-plus-2025-04-28", 1.2, 4.0), ("qwen-turbo", 0.2, 0.5)])
def test_reasoning_may_have_a_price_of_its_own(name: str, normal: float, thinking: float) -> None:
    price = price_of(name)
    million = 1_000_000
    assert price.cost(Usage(output_tokens=million)) == pytest.approx(normal)
    assert price.cost(Usage(output_tokens=million, reasoning_tokens=million)) == pytest.approx(thinking)


@pytest.mark.parametrize(
    ("name", "mode", "day", "factor"),
    [
        ("gpt-6.2-sol", "ultrafast", "2027-02-28", 3.0),
        ("gpt-6.2-sol", "ultrafast", "2027-03-01", 6.0),
        ("gpt-6.2-sol", "priority", "2026-11-30", 2.0),
        ("gpt-6.2-sol", "fast", "2027-03-01", 2.0),
        ("gpt-6.2-astra", "priority", "2026-11-30", 2.0),
        ("gemini-4-neon", "flex", "2026-11-30", 0.5),
        ("vertex:gemini-4-neon", "priority", "2026-11-30", 1.8),
        ("vertex:gemini-4-hydrogen", "flex", "2026-11-30", 0.5),
        ("bedrock:eu.amazon.nova-pro-v1:0", "flex", "2026-11-30", 0.5),
        ("bedrock:amazon.nova-2-lite-v1:0", "priority", "2026-11-30", 1.75),
        ("bedrock:qwen.qwen3-coder-next", "flex", "2026-11-30", 0.5),
        ("bedrock:openai.gpt-oss-120b", "priority", "2026-11-30", 1.75),
    ],
)
def test_tiers_of_service(name: str, mode: str, day: str, factor: float) -> None:
    price = price_of(name, day)
    usage = Usage(input_tokens=300_000, output_tokens=100, cache_read_tokens=1000)
    assert price.cost(usage, mode) == pytest.approx(factor * price.cost(usage), rel=0.01)


# Google has these tiers for text; images, robots and the oldest previews have batches only.
_TEXT_GEMINI = re.compile(
    r"gemini-(2\.5-(pro|flash|flash-lite)$|[34](\.\d)?-(?!.*image)|(pro|flash|flash-lite)-latest)"
)


@pytest.mark.parametrize(
    "row",
    [row for row in LIVE if row.provider in ("gemini", "vertex") and _TEXT_GEMINI.match(row.name)],
    ids=lambda r: r.id,
)
def test_every_gemini_for_text_has_flex_and_priority(row: ModelRow) -> None:
    assert row.price is not None
    for price in (row.price, *(change.price for change in row.price.changes)):
        assert price.modes["flex"].input == pytest.approx(price.input / 2)
        assert price.modes["priority"].input == pytest.approx(price.input * 1.8)


def test_a_model_has_its_tiers_of_service_in_every_region_of_bedrock() -> None:
    tiers: dict[str, dict[str, set[str]]] = {}
    for row in LIVE:
        if row.provider == "bedrock" and row.price is not None:
            found = set(row.price.modes) & {"flex", "priority"}
            tiers.setdefault(plain_name(row.name), {})[row.id] = found
    differing = {plain: each for plain, each in tiers.items() if len({frozenset(found) for found in each.values()}) > 1}
    assert len(tiers) > 60
    assert differing == {}


@pytest.mark.parametrize(
    ("url", "region"),
    [
        ("https://europe-west4-aiplatform.googleapis.com/v1/projects/p", "regional"),
        ("https://aiplatform.eu.rep.googleapis.com/v1/projects/p", "regional"),
        ("https://aiplatform.googleapis.com/v1/projects/p", None),
        ("https://europe-west4-aiplatform.googleapis.com.evil.test/v1", None),
        ("https://us.api.openai.com/v1", "us"),
    ],
)
def test_the_region_of_an_endpoint(url: str, region: str | None) -> None:
    assert endpoint_region(url) == region


@pytest.mark.parametrize(
    "name", ["vertex-anthropic:claude-opus-5-5", "vertex:gemini-3.8-flash", "vertex:gemini-4-argon"]
)
def test_regional_endpoints_of_vertex_cost_a_tenth_more(name: str) -> None:
    model = registry.find_model(name)
    provider = registry.find_provider(model.provider)
    usage = Usage(input_tokens=1_000_000)
    for day in ("2026-11-30", "2027-01-01"):
        plain = request_cost(model, provider, usage, now=day)
        assert plain is not None
        assert request_cost(model, provider, usage, now=day, region="regional") == pytest.approx(1.1 * plain)


def test_a_cache_write_of_long_life_is_never_cheaper_than_a_short_one() -> None:
    """In every tier and mode of every row."""
    seen = 0
    for row in LIVE:
        for price in _price_lists(row):
            for long in (price.cache_write_1h, price.cache_write_12h):
                if long is not None:
                    seen += 1
                    assert price.cache_write is None or long > price.cache_write, row.id
    assert seen > 250


def test_prices_rise_with_the_length_of_requests() -> None:
    for row in LIVE:
        for price in _price_lists(row):
            steps = [price.input, *(tier.input for tier in price.tiers if tier.input is not None)]
            assert all(lower <= higher for lower, higher in pairwise(steps)), row.id


def _price_lists(row: ModelRow) -> list[Price]:
    if row.price is None:
        return []
    lists = [row.price, *(change.price for change in row.price.changes)]
    return [each for price in lists for each in (price, *price.modes.values())]


@pytest.mark.parametrize(
    "name",
    [
        *(
            "databricks:databricks-claude-haiku-5-5",
            "databricks:databricks-gemini-3-8-flash",
            "groq:openai/gpt-oss-safeguard-20b",
        ),
        *("qwen3.8-flash", "qwen-plus-latest", "qwen3-vl-235b-a22b-instruct", "glm-5-code", "MiniMax-M2.5-lightning"),
        *("together:Qwen/Qwen3.8-Flash", "nebius:zai-org/GLM-5.3", "deepinfra:deepseek-ai/DeepSeek-V4.1-Flash"),
        *("azure:MAI-Thinking-1", "azure:grok-4.3", "moonshot-v1-8k", "muse-wonder-1.0", "mimo-v2.6-flash"),
        *("scaleway:glm-5.2", "friendli:zai-org/GLM-5.3-Flash", "bedrock:eu.anthropic.claude-fable-5-2"),
    ],
)
def test_more_names_that_were_missing(name: str) -> None:
    assert name in IDS


@pytest.mark.parametrize(
    "name",
    [
        *("openrouter:anthropic/claude-2", "openrouter:google/palm-2-chat-bison", "openrouter:openai/gpt-4-32k"),
        *("openrouter:mistralai/mistral-tiny", "openrouter:x-ai/grok-beta", "openrouter:google/gemini-pro"),
        *("bedrock:global.anthropic.claude-opus-4-6-v1:0", "bedrock:nvidia.nemotron-nano-9b-v2:0", "sonar-pro-search"),
        *("codestral-2501", "mistral-saba-latest", "command-r", "nvidia:nvidia/active-speaker-detection"),
        *("cloudflare:@cf/huggingface/distilbert-sst-2-int8", "databricks:databricks-claude-sonnet-4-1"),
    ],
)
def test_more_names_that_no_provider_serves(name: str) -> None:
    assert name not in IDS


def test_an_old_name_of_cohere_means_the_newest_dated_one() -> None:
    assert registry.find_model("command-r").name == "command-r-08-2024"
    assert registry.find_model("command-r-plus").name == "command-r-plus-08-2024"


def test_a_host_that_was_shut_down_is_no_provider() -> None:
    with pytest.raises(UnknownModelError):
        registry.find_provider("github")


@pytest.mark.parametrize(
    "name", ["gemini-2.5-flash-image-preview", "gemini-2.5-flash-preview-09-2025", "moonshot-v1-8k"]
)
def test_more_models_that_have_ended(name: str) -> None:
    assert registry.find_model(name).status == "retired"


def test_the_earliest_possible_end_at_a_cloud_is_no_announced_end() -> None:
    for row in LIVE:
        if row.provider == "vertex-anthropic" and row.retires is not None:
            maker = [
                own for own in ROWS if own.provider == "anthropic" and plain_name(own.name) == plain_name(row.name)
            ]
            assert any(own.retires is not None for own in maker), row.id
    assert registry.find_model("vertex-anthropic:claude-sonnet-5").status is None
    assert registry.find_model("vertex-anthropic:claude-sonnet-4-5").status == "retired"


@pytest.mark.parametrize(
    ("names", "field", "value"),
    [
        ("bedrock:qwen.qwen3-coder-480b-a35b-v1:0 bedrock:qwen.qwen3-next-80b-a3b", "reasoning", False),
        ("bedrock:qwen.qwen3-235b-a22b-2507-v1:0 openrouter:qwen/qwen3-235b-a22b-2507", "reasoning", False),
        ("qwen3-coder-plus qwen-turbo qwen3-max openrouter:deepseek/deepseek-chat-v3.1", "thinking", "switch"),
        ("mistral-large-4-0-8 devstral-latest", "reasoning_efforts", ("none", "high")),
        ("openrouter:~moonshotai/kimi-latest bedrock:writer.palmyra-x5-v1:0", "reasoning", True),
        ("gpt-5.2-pro azure-responses:gpt-5.2-pro gpt-5.4-pro", "json_schema", False),
        ("gpt-5-pro gpt-5.5-pro openrouter:openai/gpt-5.2-pro", "json_schema", True),
        ("mimo-v2.6-pro xiaomi:mimo-v2.6-pro", "thinking", "switch"),
        ("openrouter:deepseek/deepseek-v4-pro", "prefill", None),
        ("muse-spark-1.3 meta-responses:muse-spark-1.3", "thinking", "effort"),
        ("mistral-medium-latest mistral-small-latest deepseek-flash deepseek-v4-pro", "prefill", True),
    ],
)
def test_more_flags(names: str, field: str, value: object) -> None:
    found = {name: getattr(registry.find_model(name).capabilities, field) for name in names.split()}
    assert found == dict.fromkeys(found, value)


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        ("grok-latest", 500_000),
        ("openrouter:inception/mercury-3", 1_000_000),
        ("openrouter:google/gemini-omni-1.2-flash", 131_072),
        ("M2-her", 64_000),
    ],
)
def test_limits_that_only_the_list_of_prices_has(name: str, tokens: int) -> None:
    assert registry.find_model(name).context_window == tokens
