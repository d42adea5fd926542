"""The model list of `litellm`: tiers of service, shutdown dates, and a second opinion on prices."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from typing import Any

from lm_deluge.usage import Price, PriceTier
from model_sources.listing import Listing
from model_sources.packages import Package

__all__ = ["read_litellm"]

JSON = dict[str, Any]

_RATES = {
    "input": "input_cost_per_token",
    "output": "output_cost_per_token",
    "cache_read": "cache_read_input_token_cost",
    "cache_write": "cache_creation_input_token_cost",
    "cache_write_1h": "cache_creation_input_token_cost_above_1hr",
    "cache_write_12h": "cache_creation_input_token_cost_above_12hr",
    "reasoning": "output_cost_per_reasoning_token",
    "input_audio": "input_cost_per_audio_token",
    "output_audio": "output_cost_per_audio_token",
}
_MODES = {"batch": "_batches", "flex": "_flex", "priority": "_priority", "ultrafast": "_ultrafast"}
_TIER = re.compile(r"input_cost_per_token_above_(\d+)k_tokens(.*)")
_UNIT_ERROR = 0.0015  # the largest error of a price in Databricks' unit, in the list of 2026-11
_REGION = "regional_processing_uplift_multiplier_"
_ANY_REGION = "regional_endpoint_uplift_multiplier"  # Vertex: all locations but `global`

# The list states what is supported, and what is not only for some of these; a missing flag means nothing.
_FLAGS = {
    "reasoning": "supports_reasoning",
    "tools": "supports_function_calling",
    "json_schema": "supports_response_schema",
    "image_input": "supports_vision",
    "file_input": "supports_pdf_input",
    "audio_input": "supports_audio_input",
    "sampling": "supports_sampling_params",
    "forced_tool_choice": "supports_forced_tool_use",
}
_TRUSTED_NO = ("sampling", "forced_tool_choice", "json_schema")


def read_litellm(package: Package) -> dict[str, dict[str, Listing]]:
    """Return the chat models by provider, and name without the prefix of the provider."""
    data: dict[str, JSON] = json.loads(package.read("litellm/model_prices_and_context_window_backup.json"))
    found: dict[str, dict[str, Listing]] = defaultdict(dict)
    for key, entry in data.items():
        if entry.get("mode") not in ("chat", "responses") or "litellm_provider" not in entry:
            continue
        provider = entry["litellm_provider"]
        first, _, rest = key.partition("/")
        is_prefixed = rest and (first == provider or first in ("vertex_ai", "azure", "azure_ai"))
        # `openai/gpt-oss-20b` at Groq is `groq/openai/gpt-oss-20b`; regional entries of clouds have more parts.
        found[provider].setdefault(rest if is_prefixed else key, _listing(entry))
    return found


def _listing(entry: JSON) -> Listing:
    facts = {name: entry[flag] for name, flag in _FLAGS.items() if flag in entry}
    successor = entry.get("successor_model", "")
    return Listing(
        price=_price(entry),
        context_window=entry.get("max_input_tokens"),
        max_output_tokens=entry.get("max_output_tokens"),
        facts={name: value for name, value in facts.items() if value or name in _TRUSTED_NO},
        retires=entry.get("deprecation_date"),
        successor=successor.rpartition("/")[2] if isinstance(successor, str) else "",
    )


def _price(entry: JSON) -> Price | None:
    normal = _rates(entry, "")
    if normal is None or not (normal.input or normal.output):
        return None  # 0 stands for an unknown price
    modes = {mode: found for mode, ending in _MODES.items() if (found := _rates(entry, ending)) is not None}
    fast = entry.get("provider_specific_entry") or {}
    factors = {
        name.removeprefix(_REGION): factor
        for name, factor in entry.items()
        if name.startswith(_REGION) and isinstance(factor, float)
    }
    if isinstance(fast.get("us"), float):
        factors["us"] = fast["us"]
    if isinstance(entry.get(_ANY_REGION), float):
        factors["regional"] = entry[_ANY_REGION]
    # A mode may omit prices of caches: they are those of the normal price, by the factor of the mode.
    kept = {
        mode: price for mode, price in modes.items() if (price.input, price.output) != (normal.input, normal.output)
    }
    full = {mode: _filled(price, normal) for mode, price in kept.items()}
    return Price(**_fields(normal), modes=full, region_factors=factors)


def _fields(price: Price) -> JSON:
    names = ("modes", "region_factors", "changes")
    return {name: getattr(price, name) for name in price.__struct_fields__ if name not in names}


def _filled(price: Price, normal: Price) -> Price:
    factor = price.input / normal.input if normal.input else 1.0
    fields = _fields(price)
    for name in ("cache_read", "cache_write", "cache_write_1h", "cache_write_12h"):
        base = getattr(normal, name)
        if fields[name] is None and base is not None:
            fields[name] = round(base * factor, 6)
    return Price(**fields)


def _rates(entry: JSON, ending: str) -> Price | None:
    first, *steps = _by_length(entry) if not ending else ({},)
    rates = {
        ours: value
        for ours, theirs in _RATES.items()
        if (value := _money({**first, **entry}, theirs + ending)) is not None
    }
    if "input" not in rates or "output" not in rates:
        return None
    if rates.get("reasoning") == rates["output"]:
        del rates["reasoning"]
    tiers = [_tier(step) for step in steps]
    for name in entry:
        found = _TIER.fullmatch(name)
        if found and found[2] == ending and not steps:
            start = int(found[1])
            step = {
                ours: value
                for ours, theirs in _RATES.items()
                if (value := _money(entry, f"{theirs}_above_{start}k_tokens{ending}")) is not None
            }
            tiers.append(PriceTier(above_input_tokens=start * 1000, **step))
    return Price(**_without_zero(rates), tiers=tuple(sorted(tiers, key=lambda tier: tier.above_input_tokens)))


def _by_length(entry: JSON) -> list[JSON]:
    """Return the rates of the steps in `tiered_pricing`, the lowest first; one empty step if the entry has none."""
    steps = [step for step in entry.get("tiered_pricing") or () if "input_cost_per_token" in step]
    marked = [{**step, "litellm_provider": entry["litellm_provider"]} for step in steps]
    return sorted(marked, key=lambda step: step["range"][0]) or [{}]


def _tier(step: JSON) -> PriceTier:
    rates = {ours: value for ours, theirs in _RATES.items() if (value := _money(step, theirs)) is not None}
    return PriceTier(above_input_tokens=int(step["range"][0]), **rates)


def _without_zero(rates: JSON) -> JSON:
    """Drop caches that cost 0: the list has 0 where there is no own price."""
    return {name: rate for name, rate in rates.items() if rate or name in ("input", "output")}


def _money(entry: JSON, name: str) -> float | None:
    value = entry.get(name)
    if not isinstance(value, int | float):
        return None
    rate = round(value * 1e6, 6)
    if entry["litellm_provider"] != "databricks":
        return rate
    # Computed from Databricks' own unit: 2.99999 stands for 3.
    near = (round(rate, digits) for digits in (2, 3, 4))
    return next((each for each in near if abs(each - rate) <= _UNIT_ERROR * rate), rate)
