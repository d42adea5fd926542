"""Token counts in one convention, and what they cost."""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = ["Price", "PriceTier", "Usage"]


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of one answer, or of several added up.

    Attributes:
        input_tokens: All tokens of the prompt, cached ones included.
        output_tokens: All generated tokens, reasoning included.
        cache_read_tokens: The part of the input that was read from the provider's cache.
        cache_write_tokens: The part of the input that was written to it.
        reasoning_tokens: The part of the output that was reasoning.
        estimated: The provider did not report, or the answer was cut: counts are ours, from text lengths.
        raw: The provider's own object, unchanged; None where there was none.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    estimated: bool = False
    raw: dict[str, Any] | None = None

    @property
    def total_tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cache_read_tokens=_add(self.cache_read_tokens, other.cache_read_tokens),
            cache_write_tokens=_add(self.cache_write_tokens, other.cache_write_tokens),
            reasoning_tokens=_add(self.reasoning_tokens, other.reasoning_tokens),
            estimated=self.estimated or other.estimated,
        )


def _add(one: int | None, other: int | None) -> int | None:
    return other if one is None else one + (other or 0)


class PriceTier(msgspec.Struct, frozen=True, kw_only=True):
    """Prices that hold for the whole request once its input is larger than `above_input_tokens`."""

    above_input_tokens: int
    input: float | None = None
    output: float | None = None
    cache_read: float | None = None
    cache_write: float | None = None


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """US dollars per million tokens.

    `cache_read` and `cache_write` default to the input price, as tokens without a rebate cost the same.
    """

    input: float
    output: float
    cache_read: float | None = None
    cache_write: float | None = None
    tiers: tuple[PriceTier, ...] = ()

    def cost(self, usage: Usage) -> float:
        """Return the price of `usage` in US dollars."""
        rates = self._rates(usage.input_tokens)
        read = usage.cache_read_tokens or 0
        written = usage.cache_write_tokens or 0
        plain = max(usage.input_tokens - read - written, 0)
        return (
            plain * rates["input"]
            + read * rates["cache_read"]
            + written * rates["cache_write"]
            + usage.output_tokens * rates["output"]
        ) / 1e6

    def _rates(self, input_tokens: int) -> dict[str, float]:
        rates = {name: getattr(self, name) for name in ("input", "output", "cache_read", "cache_write")}
        for tier in sorted(self.tiers, key=lambda tier: tier.above_input_tokens):
            if input_tokens > tier.above_input_tokens:
                own = {name: getattr(tier, name) for name in rates}
                rates |= {name: value for name, value in own.items() if value is not None}
        for name in ("cache_read", "cache_write"):
            if rates[name] is None:
                rates[name] = rates["input"]
        return rates
