"""What a request costs: its tokens at the model's prices, and the fees of the provider's own tools. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from lm_deluge.errors import ConfigurationError
from lm_deluge.models.rows import ModelRow, ProviderRow, ToolFee
from lm_deluge.usage import Usage

__all__ = ["check_prices", "request_cost", "unpriced_tools"]


def request_cost(
    model: ModelRow, provider: ProviderRow, usage: Usage, *, tier: str | None = None, is_batch: bool = False
) -> float | None:
    """Return the cost of a request in US dollars; None if the model has no price.

    Tools without a known fee are left out; `unpriced_tools` returns their names.

    Args:
        model: The model that answered.
        provider: Its provider.
        usage: The usage of the request.
        tier: The service tier of the request, if the usage names none.
        is_batch: Whether the request was part of a provider's own batch.
    """
    if model.price is None:
        return None
    tokens = model.price.batch_cost(usage) if is_batch else model.price.cost(usage, tier)
    if usage.region is not None:
        tokens *= provider.region_factors.get(usage.region, 1.0)
    if not usage.tool_uses:
        return tokens
    fees = ((_fee(model, provider, tool), count) for tool, count in usage.tool_uses.items())
    return tokens + sum(fee.usd * (count if fee.per == "use" else 1) for fee, count in fees if fee is not None)


def unpriced_tools(model: ModelRow, provider: ProviderRow, usage: Usage) -> list[str]:
    """Return the tools that the request used and whose fee is unknown."""
    return [tool for tool in usage.tool_uses if _fee(model, provider, tool) is None]


def _fee(model: ModelRow, provider: ProviderRow, tool: str) -> ToolFee | None:
    name = model.name.rpartition("/")[2]
    return next((fee for fee in provider.tool_fees if fee.tool == tool and name.startswith(fee.models)), None)


def check_prices(model: ModelRow) -> None:
    """Check that all prices of a row are amounts of money.

    Raises:
        ConfigurationError: A price is negative, infinite or NaN.
    """
    if model.price is not None and not _is_money(msgspec.to_builtins(model.price)):
        raise ConfigurationError(
            f"a price of {model.id} is not an amount of money", hint="Prices are 0 or more, and finite."
        )


def _is_money(value: Any) -> bool:
    if isinstance(value, Mapping | list | tuple):
        return all(map(_is_money, value.values() if isinstance(value, Mapping) else value))
    return value is None or (math.isfinite(value) and value >= 0)
