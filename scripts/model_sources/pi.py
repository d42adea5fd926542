"""The data of `@earendil-works/pi-ai`: a copy of models.dev of the day, corrected by its authors."""

from __future__ import annotations

import json
from typing import Any

from lm_deluge.usage import Price, PriceTier
from model_sources.listing import Listing
from model_sources.packages import Package

__all__ = ["read_pi"]

_FOLDER = "package/dist/providers/data/"
_RATES = {"input": "input", "output": "output", "cacheRead": "cache_read", "cacheWrite": "cache_write"}


def read_pi(package: Package) -> dict[str, dict[str, Listing]]:
    """Return the chat models by provider and name, and under the empty name the day of the data."""
    found: dict[str, dict[str, Listing]] = {}
    for member in package.members(_FOLDER):
        provider = member.removeprefix(_FOLDER).removesuffix(".json")
        if provider.startswith("."):
            continue
        models: dict[str, Listing] = {}
        for entries in json.loads(package.read(member)).values():
            for entry in entries.values():
                if entry["type"] == "chat":
                    models.setdefault(entry["id"], _listing(entry))
        found[provider] = models
    return found


def _listing(entry: dict[str, Any]) -> Listing:
    # The data has models that call tools only.
    facts: dict[str, Any] = {"reasoning": bool(entry.get("reasoning")), "tools": True}
    if "image" in entry["input"]:
        facts["image_input"] = True
    if entry.get("compat", {}).get("supportsTemperature") is False:
        facts["sampling"] = False
    return Listing(
        price=_price(entry["cost"], is_free=entry["id"].endswith(":free")),
        context_window=entry.get("contextWindow"),
        max_output_tokens=entry.get("maxTokens"),
        facts=facts,
    )


def _price(cost: dict[str, Any], *, is_free: bool) -> Price | None:
    """Return the prices. 0 for input and output means an unknown price; 0 for a cache means no own price."""
    if not (cost["input"] or cost["output"]) and not is_free:
        return None
    tiers = tuple(
        PriceTier(above_input_tokens=tier["inputTokensAbove"], **_rates(tier)) for tier in cost.get("tiers", ())
    )
    return Price(**_rates(cost, "input", "output"), tiers=tiers)


def _rates(cost: dict[str, Any], *kept: str) -> dict[str, Any]:
    return {ours: cost[theirs] for theirs, ours in _RATES.items() if cost.get(theirs) or ours in kept}
