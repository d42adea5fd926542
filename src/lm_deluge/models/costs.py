"""What a request costs: its tokens at the model's prices, and the fees of the provider's own tools. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import msgspec

from lm_deluge.errors import ConfigurationError
from lm_deluge.models.rows import ModelRow, ProviderRow, ToolFee
from lm_deluge.usage import Usage

__all__ = ["check_prices", "endpoint_region", "request_cost", "unpriced_tools"]

_REGIONAL_VERTEX = r"https://(?:[a-z0-9-]+-aiplatform|aiplatform\.[a-z]{2}\.rep)\.googleapis\.com(?:[:/]|$)"


def request_cost(
    model: ModelRow,
    provider: ProviderRow,
    usage: Usage,
    *,
    tier: str | None = None,
    is_batch: bool = False,
    region: str | None = None,
    now: str | None = None,
) -> float | None:
    """Return the cost of a request in US dollars; None if the model has no price.

    The cost that the provider itself reports has precedence. Tools without a known fee are left out; `unpriced_tools`
    returns their names.

    Args:
        model: The model that answered.
        provider: Its provider.
        usage: The usage of the request.
        tier: The service tier of the request, if the usage names none.
        is_batch: Whether the request was part of a provider's own batch.
        region: The region of the request's endpoint, if the usage names none.
        now: The day of the request, such as `2026-12-01`; by default the row's present prices hold.
    """
    if usage.reported_cost is not None and not is_batch:
        return usage.reported_cost
    if model.price is None:
        return None
    price = model.price if now is None else model.price.on(now)
    tokens = price.batch_cost(usage) if is_batch else price.cost(usage, tier)
    place = usage.region or region
    if place is not None:
        tokens *= price.region_factors.get(place) or provider.region_factors.get(place, 1.0)
    if not usage.tool_uses:
        return tokens
    fees = ((_fee(model, provider, tool), count) for tool, count in usage.tool_uses.items())
    return tokens + sum(fee.usd * (count if fee.per == "use" else 1) for fee, count in fees if fee is not None)


@lru_cache(maxsize=64)
def endpoint_region(url: str) -> str | None:
    """Return the region of a URL by its name in `region_factors`, `eu` for `https://eu.api.openai.com/v1`; None: none.

    Vertex has one price for its global endpoint, and another for all others: these are `regional`.
    https://developers.openai.com/api/docs/guides/your-data, https://cloud.google.com/vertex-ai/generative-ai/pricing
    (2026-11).
    """
    found = re.match(r"https://([a-z]{2})\.api\.openai\.com(?:[:/]|$)", url)
    if found:
        return found[1]
    return "regional" if re.match(_REGIONAL_VERTEX, url) else None


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
    # A text is the day of a change.
    return value is None or isinstance(value, str) or (math.isfinite(value) and value >= 0)
