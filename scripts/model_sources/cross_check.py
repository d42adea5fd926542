"""Compares the prices of makers' rows with those of litellm."""

from __future__ import annotations

from lm_deluge.models.rows import ModelRow
from model_sources.hosts import HOSTS
from model_sources.listing import agree
from model_sources.sources import Sources

__all__ = ["check_prices"]


def check_prices(rows: list[ModelRow], sources: Sources) -> list[str]:
    """Return a line for each live row whose price of input or output differs from litellm's by more than 1 %."""
    providers = {host.provider: host.litellm for host in HOSTS} | {"openai": ("openai",), "openai-responses": ("openai",)}
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
