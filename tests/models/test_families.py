"""What the families of models accept, at every host."""

from __future__ import annotations

import json
import re
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any, get_args

import pytest

from lm_deluge.config import ReasoningEffort
from lm_deluge.models import registry
from lm_deluge.models.families import describe_model, plain_name
from lm_deluge.models.rows import Capabilities, ModelRow

TABLE = tomllib.loads(resources.files("lm_deluge.models").joinpath("families.toml").read_text("utf-8"))["family"]
ROWS = [row for row in registry.list_models() if row.id != "simulator"]
HOSTS = {row.id for row in registry.list_providers()}
LOW_TO_MAX = ("low", "medium", "high", "xhigh", "max")


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("gpt-6-sol", "gpt-6-sol"),
        ("gpt-5.4-mini-2026-03-17", "gpt-5.4-mini"),
        ("us.anthropic.claude-opus-4-5-20251101-v1:0", "claude-opus-4.5"),
        ("apac.anthropic.claude-sonnet-5", "claude-sonnet-5"),
        ("us-gov.anthropic.claude-sonnet-5-5", "claude-sonnet-5.5"),
        ("claude-opus-4-8@default", "claude-opus-4.8"),
        ("claude-haiku-4-5@20251001", "claude-haiku-4.5"),
        ("anthropic/claude-opus-4.5:beta", "claude-opus-4.5"),
        ("~anthropic/claude-fable-latest", "claude-fable-latest"),
        ("databricks-gpt-5-2", "gpt-5.2"),
        ("openai-gpt-5-mini", "gpt-5-mini"),
        ("accounts/fireworks/models/deepseek-v3p1", "deepseek-v3.1"),
        ("@cf/meta/llama-3.1-8b-instruct", "llama-3.1-8b-instruct"),
        ("openai.gpt-oss-120b-1:0", "gpt-oss-120b"),
        ("ft:gpt-4.1-2025-04-14:acme::x1", "gpt-4.1"),
        ("gpt-4-0613", "gpt-4-0613"),
        ("command-r-08-2024", "command-r-08-2024"),
        ("Qwen/Qwen3-235B-A22B-Instruct-2507", "qwen3-235b-a22b-instruct-2507"),
    ],
)
def test_names_lose_vendor_region_date_and_release(name: str, plain: str) -> None:
    assert plain_name(name) == plain


def test_each_entry_has_a_source_a_date_and_known_fields() -> None:
    for entry in TABLE:
        assert entry["source"], entry
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", entry["date"]), entry
        assert entry.keys() - {"names", "hosts", "source", "date"} <= set(Capabilities.__struct_fields__), entry
        assert set(entry.get("hosts", ())) <= HOSTS, entry


@pytest.mark.parametrize("entry", TABLE, ids=lambda entry: entry["names"][:40])
def test_each_entry_describes_a_model_of_the_registry(entry: dict[str, Any]) -> None:
    pattern = re.compile(rf"(?:{entry['names']})(?![\w.])")
    hosts = entry.get("hosts")
    assert any(pattern.match(plain_name(row.name)) and (not hosts or row.provider in hosts) for row in ROWS)


@pytest.mark.parametrize("name", ["gpt-55", "gpt-5x", "gpt-5.45", "gemini-45", "grok-44", "o33", "unknown", ""])
def test_a_longer_number_is_another_version(name: str) -> None:
    assert describe_model(name, "openai").get("reasoning_efforts") in (None, ["minimal", "low", "medium", "high"])
    assert "default_effort" not in describe_model(name, "openai")


def able(name: str) -> Capabilities:
    return registry.find_model(name).capabilities


@pytest.mark.parametrize(
    ("names", "efforts", "default"),
    [
        ("gpt-6-astra gpt-6.1-sol gpt-6.2-sol gpt-6.2-astra azure:gpt-6-astra", LOW_TO_MAX, "medium"),
        ("gpt-5.6-sol gpt-6-sol gpt-6-luna gpt-6.1-terra azure:gpt-6-sol", ("none", *LOW_TO_MAX), "medium"),
        ("gpt-5 gpt-5-mini gpt-5-nano azure:gpt-5", ("minimal", "low", "medium", "high"), "medium"),
        ("o1 o3 o4-mini o3-pro o3-mini", ("low", "medium", "high"), "medium"),
        ("gpt-5-pro", ("high",), "high"),
        ("gpt-5.2-pro gpt-5.4-pro gpt-5.5-pro", ("medium", "high", "xhigh"), "medium"),
        ("gpt-5.1", ("none", "low", "medium", "high"), "none"),
        ("gpt-5.2 gpt-5.4 gpt-5.4-mini gpt-5.4-nano", ("none", "low", "medium", "high", "xhigh"), "none"),
        ("gpt-5.5 openrouter:openai/gpt-5.5", ("none", "low", "medium", "high", "xhigh"), "medium"),
        ("claude-opus-5-5 claude-fable-5 claude-fable-5-1 claude-fable-5-2 claude-mythos-5-2", LOW_TO_MAX, "high"),
        ("bedrock:us.anthropic.claude-opus-5-5 vertex-anthropic:claude-opus-5-5@default", LOW_TO_MAX, "high"),
        ("claude-sonnet-5-5 claude-opus-5 claude-haiku-5-5", ("none", *LOW_TO_MAX), "high"),
        ("claude-opus-4-7 claude-opus-4-8", ("none", *LOW_TO_MAX), "none"),
        ("claude-opus-4-6 claude-sonnet-4-6", ("none", "low", "medium", "high", "max"), "none"),
        ("gemini-3.7-flash gemini-3.8-flash gemini-3.1-pro-preview", ("low", "medium", "high"), "high"),
        ("gemini-4-argon gemini-4-carbon vertex:gemini-4-argon", ("low", "medium", "high"), "high"),
        ("gemini-4-hydrogen gemini-4-neon", ("low", "medium", "high", "xhigh"), "high"),
        ("gemini-3.6-flash gemini-3.5-flash", ("minimal", "low", "medium", "high"), "medium"),
        ("gemini-3.5-flash-lite", ("minimal", "low", "medium", "high"), "minimal"),
        ("gemini-3-flash-preview", ("minimal", "low", "medium", "high"), "high"),
        ("openrouter:anthropic/claude-sonnet-5.5", LOW_TO_MAX, "high"),
        ("bedrock:us.xai.grok-4.6", ("low", "medium", "high", "xhigh"), None),
        ("grok-4.5 grok-4.6", ("low", "medium", "high"), None),
        ("grok-4.7", ("low", "medium", "high", "xhigh"), None),
        ("grok-4.3 grok-latest", ("none", "low", "medium", "high"), None),
        ("mistral-large-4-0 mistral-medium-latest", ("none", "high"), "none"),
        ("deepseek-flash", ("none", "low", "high", "max"), "high"),
        ("groq:openai/gpt-oss-120b bedrock:openai.gpt-oss-20b-1:0", ("low", "medium", "high"), "medium"),
        ("glm-5.3 kimi-k3", ("low", "high", "max"), None),
    ],
)
def test_efforts(names: str, efforts: tuple[str, ...], default: str | None) -> None:
    for name in names.split():
        assert (able(name).reasoning_efforts, able(name).default_effort) == (efforts, default), name


def test_gemini_2_5_pro_cannot_stop_to_think_and_flash_can() -> None:
    assert "none" not in able("gemini-2.5-pro").reasoning_efforts
    assert "none" in able("gemini-2.5-flash").reasoning_efforts


@pytest.mark.parametrize(
    ("names", "sampling"),
    [
        ("gpt-5.1 gpt-5.2 gpt-5.4 gpt-5.4-mini gpt-5.5 gpt-5.6-sol gpt-6-sol gpt-6-luna", "without_reasoning"),
        ("gpt-6-astra gpt-6.1-sol gpt-6.2-sol gpt-5 o3 gpt-5-pro", False),
        ("claude-haiku-5-5 claude-opus-4-7 claude-sonnet-5 claude-opus-5-5", False),
        ("bedrock:global.anthropic.claude-haiku-5-5 bedrock:apac.anthropic.claude-sonnet-5", False),
        ("bedrock:in.anthropic.claude-opus-5 bedrock:us-gov.anthropic.claude-sonnet-5-5", False),
        ("claude-sonnet-4-5 claude-opus-4-6", "without_reasoning"),
        ("gemini-3.6-flash gemini-3.8-flash gemini-3.5-flash-lite", "ignored"),
        ("gemini-2.5-flash gpt-4o mistral-large-latest gpt-5-chat-latest", True),
        ("bedrock:global.openai.gpt-6-astra azure:gpt-6-astra", False),
        ("bedrock:global.openai.gpt-6-sol bedrock:us.xai.grok-4.7", False),
    ],
)
def test_sampling(names: str, sampling: bool | str) -> None:
    assert {name: able(name).sampling for name in names.split()} == dict.fromkeys(names.split(), sampling)


@pytest.mark.parametrize(
    ("names", "forced"),
    [
        ("claude-opus-5-5 claude-sonnet-5-5 claude-fable-5-1 claude-fable-5-2 claude-mythos-5-2", False),
        ("bedrock:us.anthropic.claude-opus-5-5 vertex-anthropic:claude-sonnet-5-5", False),
        ("claude-opus-5 claude-sonnet-5 claude-haiku-5-5 claude-fable-5 claude-opus-4-6 gpt-6-sol", True),
        ("claude-sonnet-4-5 deepseek-flash", "without_reasoning"),
        ("together:deepseek-ai/DeepSeek-V4-Pro", False),
    ],
)
def test_forced_tools(names: str, forced: bool | str) -> None:
    assert {name: able(name).forced_tool_choice for name in names.split()} == dict.fromkeys(names.split(), forced)


def test_what_needs_the_responses_api() -> None:
    both = ("tools_while_reasoning", "effort_max")
    for name in ("gpt-5.6-sol", "gpt-6-sol", "gpt-6-astra", "gpt-6.1-sol", "gpt-6.2-astra", "azure:gpt-6-sol"):
        assert able(name).needs_responses == both, name
    for name in ("gpt-5.4", "gpt-5.4-mini", "gpt-5.5"):
        assert able(name).needs_responses == ("tools_while_reasoning",), name
    for name in ("gpt-5-pro", "gpt-5.4-pro", "o3-pro", "gpt-5.3-codex", "openai:gpt-5-pro", "azure:gpt-5-pro"):
        assert able(name).needs_responses == ("every_request",), name
    for name in ("gpt-5", "gpt-5.1", "gpt-5.2", "gpt-4o", "o3", "openrouter:openai/gpt-6-sol"):
        assert able(name).needs_responses == (), name


@pytest.mark.parametrize(
    ("name", "effort", "reasons"),
    [
        ("gpt-5.4", None, False),
        ("gpt-5.4", "low", True),
        ("gpt-5.5", None, True),
        ("gpt-5.5", "none", False),
        ("claude-sonnet-4-5", None, False),
        ("claude-opus-5-5", None, True),
        ("gpt-4o", None, False),
        ("magistral-medium-2509", None, True),
        ("gemini-2.5-flash", None, None),
    ],
)
def test_whether_a_request_reasons(name: str, effort: str | None, reasons: bool | None) -> None:
    row = (
        registry.find_model(name)
        if name != "magistral-medium-2509"
        else ModelRow(
            id=name, name=name, provider="mistral", capabilities=Capabilities(reasoning=True, thinking="fixed")
        )
    )
    assert row.capabilities.reasons(effort) is reasons


def test_stop_prefill_and_other_flags() -> None:
    for name in ("o3", "o4-mini", "gpt-5", "gpt-6-astra", "grok-4.7"):
        assert not able(name).stop, name
    assert able("gpt-4o").stop
    assert able("claude-sonnet-5-5").thinking_off == "between_tools"
    assert able("claude-opus-5").thinking_off == "disabled"
    assert able("gemini-3.8-flash").prefill is False
    assert able("mistral-medium-latest").prefill is True
    assert able("deepseek-v4-flash").image_input
    assert able("deepseek-flash").output_form == "object"
    assert not able("grok-4.6").penalties


def test_no_row_of_a_maker_is_without_capabilities() -> None:
    makers = {row.provider for row in ROWS if row.id == row.name}
    assert len(makers) >= 14
    assert [row.id for row in ROWS if row.provider in makers and row.capabilities.reasoning is None] == []


def test_hosts_are_described_nearly_always() -> None:
    known = [row for row in ROWS if row.capabilities.reasoning is not None]
    assert len(known) > 0.95 * len(ROWS)


def test_a_model_is_described_alike_at_every_host() -> None:
    """All rows of a family have its efforts, whoever serves them, apart from entries for single hosts."""
    fields = ("reasoning", "reasoning_efforts", "default_effort", "sampling", "forced_tool_choice", "thinking")
    exceptions = [
        (re.compile(rf"(?:{entry['names']})(?![\w.])"), entry["hosts"])
        for entry in TABLE
        if entry.get("hosts") and not entry.keys().isdisjoint(fields)
    ]
    families: dict[str, dict[tuple[Any, ...], list[str]]] = {}
    for row in ROWS:
        plain = plain_name(row.name)
        if any(row.provider in hosts and pattern.match(plain) for pattern, hosts in exceptions):
            continue
        if re.match(r"claude-(opus|sonnet|haiku|fable)-[45]|gpt-[56]|gemini-[34]", plain):
            values = tuple(getattr(row.capabilities, field) for field in fields)
            families.setdefault(plain, {}).setdefault(values, []).append(row.id)
    assert len(families) > 60
    assert {plain: list(found.values()) for plain, found in families.items() if len(found) > 1} == {}


def test_efforts_are_words_of_the_library_in_order() -> None:
    order = get_args(ReasoningEffort)
    for row in ROWS:
        efforts = row.capabilities.reasoning_efforts
        assert list(efforts) == sorted(efforts, key=order.index), row.id
        if efforts and row.capabilities.default_effort is not None:
            assert row.capabilities.default_effort in efforts, row.id
        assert not efforts or row.capabilities.reasoning, row.id


# --- Prices and names against other sources ---

# Live rows of makers that differ from litellm 1.110.2 by more than 1 %, checked on 2026-11-30.
OTHER_PRICES = {
    "mistral-large-latest": "litellm has the alias as Large 3; it names Large 4 (pi-ai)",
    "mistral-small": "litellm has Small 3; the alias names Small 4",
    "open-mistral-nemo": "pi-ai and Mistral's page have 0.15",
}


def test_prices_of_makers_are_those_of_litellm() -> None:
    theirs = json.loads(Path(__file__).with_name("litellm_prices.json").read_text("utf-8"))
    odd = {}
    for name, (their_input, their_output) in theirs.items():
        row = registry.find_model(name)
        if row.status == "retired" or row.price is None:
            continue
        pairs = ((row.price.input, their_input), (row.price.output, their_output))
        if any(abs(ours - other) > 0.01 * max(ours, other) for ours, other in pairs):
            odd[name] = pairs
    assert len(theirs) > 200
    assert odd.keys() == OTHER_PRICES.keys(), odd
