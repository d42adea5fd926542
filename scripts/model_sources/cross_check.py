"""Compares the prices of makers' rows with those of litellm."""

from __future__ import annotations

from lm_deluge.models.rows import ModelRow
from model_sources.hosts import HOSTS
from model_sources.listing import agree
from model_sources.sources import Sources

__all__ = ["MAKERS", "check_prices", "second_opinion"]

MAKERS = (
    *("openai", "openai-responses", "anthropic", "gemini", "mistral", "xai", "deepseek", "cohere", "moonshot"),
    *("minimax", "zai", "alibaba", "perplexity", "inception"),
)
"""Providers that serve models of their own."""


def check_prices(rows: list[ModelRow], sources: Sources) -> list[str]:
    """Return a line for each live row whose price of input or output differs from litellm's by more than 1 %."""
    providers = _providers()
    odd = []
    for row in rows:
        if row.status == "retired" or row.price is None:
            continue
        for each in providers.get(row.provider, ()):
            other = sources.litellm[each].get(row.name)
            if other is not None and other.price is not None and not agree(row.price, other.price):
                ours, theirs = row.price, other.price
                odd.append(f"{row.id}: {ours.input:g}/{ours.output:g}, litellm {theirs.input:g}/{theirs.output:g}")
                break
    return odd


def _providers() -> dict[str, tuple[str, ...]]:
    own = {host.provider: host.litellm for host in HOSTS}
    return own | {"openai": ("openai",), "openai-responses": ("openai",)}


def second_opinion(rows: list[ModelRow], sources: Sources) -> dict[str, list[float]]:
    """Return litellm's prices of input and output for the makers' rows, by id: data for the tests."""
    providers = _providers()
    found = {}
    for row in rows:
        if row.provider not in MAKERS:
            continue
        listed = (sources.litellm[each].get(row.name) for each in providers[row.provider])
        price = next((each.price for each in listed if each is not None and each.price is not None), None)
        if price is not None:
            found[row.id] = [price.input, price.output]
    return found
