"""Prices of service tiers that are multiples of the normal ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import msgspec

from lm_deluge.models.families import plain_name
from lm_deluge.models.rows import ModelRow
from lm_deluge.usage import Price, PriceChange, PriceTier

__all__ = ["complete_price", "share_modes", "with_modes"]

# Providers that bill the tiers of one model alike, in all their regions: Google and Amazon publish one factor for each.
_ALIKE = {"gemini": "google", "vertex": "google", "bedrock": "bedrock"}
_SHARED = ("batch", "flex", "priority")

_Rates = TypeVar("_Rates", Price, PriceTier)


def with_modes(price: Price, factors: Mapping[str, float], later: Iterable[Mapping[str, Any]] = ()) -> Price:
    """Return a price list with service tiers at multiples of the normal prices.

    Args:
        price: The normal prices.
        factors: The factor of each tier of service.
        later: Announced changes, each with `start` and the `factors` that change.
    """
    plain = msgspec.structs.replace(price, modes={}, changes=(), region_factors={})
    modes = {**price.modes, **{mode: _times(plain, factor) for mode, factor in factors.items()}}
    complete = msgspec.structs.replace(price, modes=modes)
    changes = tuple(PriceChange(start=each["start"], price=with_modes(complete, each["factors"])) for each in later)
    return msgspec.structs.replace(complete, changes=changes) if changes else complete


def complete_price(price: Price) -> Price:
    """Return a price list whose tiers, modes and changes have rates that the sources state for the normal price only.

    A cache write with a longer life costs the same multiple of a normal one everywhere, and the factors of regions stay
    when a price changes.
    """
    ratios = {
        name: rate / price.cache_write
        for name in ("cache_write_1h", "cache_write_12h")
        if price.cache_write and (rate := getattr(price, name)) is not None
    }
    tiers = tuple(_with_long_writes(tier, ratios) for tier in price.tiers)
    modes = {mode: complete_price(_with_long_writes(each, ratios)) for mode, each in price.modes.items()}
    changes = tuple(
        PriceChange(
            start=change.start,
            price=complete_price(
                msgspec.structs.replace(
                    change.price, region_factors=change.price.region_factors or price.region_factors
                )
            ),
        )
        for change in price.changes
    )
    return msgspec.structs.replace(price, tiers=tiers, modes=modes, changes=changes)


def _with_long_writes(price: _Rates, ratios: Mapping[str, float]) -> _Rates:
    if price.cache_write is None:
        return price
    missing = {
        name: round(price.cache_write * ratio, 6) for name, ratio in ratios.items() if getattr(price, name) is None
    }
    return msgspec.structs.replace(price, **missing)


def share_modes(rows: list[ModelRow]) -> list[ModelRow]:
    """Return the rows, each with the service tiers that the same model has at another region of its company.

    The sources list these tiers for some regions only, while a request may have them anywhere.
    """
    factors: dict[tuple[str, str], dict[str, float]] = {}
    for row in rows:
        if row.provider in _ALIKE and row.price is not None and row.price.input:
            found = factors.setdefault((_ALIKE[row.provider], plain_name(row.name)), {})
            for mode in _SHARED:
                if mode in row.price.modes:
                    found.setdefault(mode, round(row.price.modes[mode].input / row.price.input, 6))
    return [_with_missing(row, factors.get((_ALIKE.get(row.provider, ""), plain_name(row.name)), {})) for row in rows]


def _with_missing(row: ModelRow, factors: dict[str, float]) -> ModelRow:
    if row.price is None or row.status == "retired":
        return row
    missing = {mode: factor for mode, factor in factors.items() if mode not in row.price.modes}
    return msgspec.structs.replace(row, price=with_modes(row.price, missing)) if missing else row


def _times(price: Price, factor: float) -> Price:
    rates = {name: round(rate * factor, 6) for name, rate in _rates(price).items()}
    tiers = tuple(
        msgspec.structs.replace(tier, **{name: round(rate * factor, 6) for name, rate in _rates(tier).items()})
        for tier in price.tiers
    )
    return msgspec.structs.replace(price, **rates, tiers=tiers)


def _rates(price: Price | PriceTier) -> dict[str, float]:
    """Return the prices per token, and those per request."""
    fields = ((name, getattr(price, name)) for name in price.__struct_fields__ if name != "above_input_tokens")
    return {name: value for name, value in fields if isinstance(value, int | float)}
