"""Token counts in one convention, and what they cost."""

from __future__ import annotations

import math
from operator import attrgetter
from typing import Any

import msgspec

__all__ = ["BATCH_FACTOR", "Price", "PriceTier", "Usage", "estimate_tokens"]

# https://platform.openai.com/docs/guides/batch, https://platform.claude.com/docs/en/build-with-claude/batch-processing,
# https://ai.google.dev/gemini-api/docs/batch-api, https://console.groq.com/docs/batch (2026-11): half of all prices.
BATCH_FACTOR = 0.5
"""What a provider's own batch costs of the price of single requests, where a model's row has no price of its own."""


_CHARACTERS_PER_TOKEN = 4.0
"""English text in the tokenizers of OpenAI, Anthropic and Google: https://platform.openai.com/tokenizer (2026-11)."""


def estimate_tokens(characters: int, *, characters_per_token: float = _CHARACTERS_PER_TOKEN) -> int:
    """Return how many tokens a text of that length has, rounded up.

    Args:
        characters: Length of the text.
        characters_per_token: A smaller number gives an upper bound instead of the usual count.
    """
    return math.ceil(characters / characters_per_token)


class Usage(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Tokens of one answer, or of several added up.

    Attributes:
        input_tokens: All tokens of the prompt, cached ones included.
        output_tokens: All generated tokens, reasoning included.
        cache_read_tokens: The part of the input that was read from the provider's cache.
        cache_write_tokens: The part of the input that was written to it, for whatever time.
        cache_write_1h_tokens: The part of the written tokens that is kept for an hour, at a price of its own.
        reasoning_tokens: The part of the output that was reasoning.
        input_audio_tokens: The part of the input that was sound, cached sound included.
        cache_read_audio_tokens: The part of the sound that was read from the cache.
        output_audio_tokens: The part of the output that is sound.
        output_image_tokens: The part of the output that is images.
        service_tier: The provider's word for how it served the request, where prices depend on it: `flex`, `priority`.
        estimated: The provider did not report, or the answer was cut: counts are ours, from text lengths.
        raw: The provider's own object, unchanged; None where there was none.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    cache_write_1h_tokens: int | None = None
    reasoning_tokens: int | None = None
    input_audio_tokens: int | None = None
    cache_read_audio_tokens: int | None = None
    output_audio_tokens: int | None = None
    output_image_tokens: int | None = None
    service_tier: str | None = None
    estimated: bool = False
    raw: dict[str, Any] | None = None

    @property
    def total_tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: Usage) -> Usage:
        parts: dict[str, Any] = {name: _add(getattr(self, name), getattr(other, name)) for name in _PARTS}
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            service_tier=self.service_tier if self.service_tier == other.service_tier else None,
            estimated=self.estimated or other.estimated,
            **parts,
        )


_PARTS = (
    "cache_read_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
    "reasoning_tokens",
    "input_audio_tokens",
    "cache_read_audio_tokens",
    "output_audio_tokens",
    "output_image_tokens",
)


_parts_of = attrgetter(*_PARTS)


def _add(one: int | None, other: int | None) -> int | None:
    return other if one is None else one + (other or 0)


class PriceTier(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Prices that hold for the whole request once its input is larger than `above_input_tokens`."""

    above_input_tokens: int
    input: float | None = None
    output: float | None = None
    cache_read: float | None = None
    cache_write: float | None = None
    cache_write_1h: float | None = None
    reasoning: float | None = None
    input_audio: float | None = None
    cache_read_audio: float | None = None
    output_audio: float | None = None
    output_image: float | None = None


class Price(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """US dollars per million tokens.

    A kind of token without a price of its own costs what the next larger kind does: cached and audio tokens what
    input does, an hour in the cache what a short while does, reasoning and generated media what output does.

    Attributes:
        request: US dollars for each request, whatever its size.
        tiers: Other prices for larger requests.
        modes: The prices where a request is served in another way: `batch`, `flex`, `priority`, `fast`. Each one is
            complete.
    """

    input: float
    output: float
    cache_read: float | None = None
    cache_write: float | None = None
    cache_write_1h: float | None = None
    reasoning: float | None = None
    input_audio: float | None = None
    cache_read_audio: float | None = None
    output_audio: float | None = None
    output_image: float | None = None
    request: float = 0.0
    tiers: tuple[PriceTier, ...] = ()
    modes: dict[str, Price] = {}

    def cost(self, usage: Usage, mode: str | None = None) -> float:
        """Return the price of one request's `usage` in US dollars.

        Args:
            usage: Its tokens; its `service_tier`, where the provider named one, overrules `mode`.
            mode: How it was served; one without prices of its own costs what any request does.
        """
        other = self.modes.get(usage.service_tier or mode or "")
        if other is not None:
            return other.cost(usage)
        if not self.tiers and not _has_parts(usage):
            return self.request + (usage.input_tokens * self.input + usage.output_tokens * self.output) / 1e6
        rates = self._rates(usage.input_tokens)
        return self.request + sum(count * rates[kind] for kind, count in _kinds(usage).items()) / 1e6

    def batch_cost(self, usage: Usage) -> float:
        """Return the price of one request of a provider's own batch, whatever tier its usage names."""
        usage = msgspec.structs.replace(usage, service_tier=None)
        own = self.modes.get("batch")
        return own.cost(usage) if own is not None else BATCH_FACTOR * self.cost(usage)

    def _rates(self, input_tokens: int) -> dict[str, float]:
        rates: dict[str, Any] = {name: getattr(self, name) for name in _KINDS}
        for tier in sorted(self.tiers, key=lambda tier: tier.above_input_tokens):
            if input_tokens > tier.above_input_tokens:
                own = {name: getattr(tier, name) for name in rates}
                rates |= {name: value for name, value in own.items() if value is not None}
        for name, larger in _KINDS.items():
            if rates[name] is None:
                rates[name] = rates[larger]
        return rates


# Every kind of token that has a price, and the kind whose price it has where it has none of its own.
_KINDS = {
    "input": "",
    "output": "",
    "cache_read": "input",
    "cache_write": "input",
    "cache_write_1h": "cache_write",
    "reasoning": "output",
    "input_audio": "input",
    "cache_read_audio": "cache_read",
    "output_audio": "output",
    "output_image": "output",
}


def _has_parts(usage: Usage) -> bool:
    """Whether any of its tokens is of another kind than input and output."""
    return any(_parts_of(usage))


def _kinds(usage: Usage) -> dict[str, int]:
    """Return the usage cut into kinds that do not overlap. A part that is larger than its whole makes no rebate."""
    read, written = usage.cache_read_tokens or 0, usage.cache_write_tokens or 0
    heard, heard_again = usage.input_audio_tokens or 0, usage.cache_read_audio_tokens or 0
    kinds = {
        "cache_read": read - heard_again,
        "cache_write": written - (usage.cache_write_1h_tokens or 0),
        "cache_write_1h": usage.cache_write_1h_tokens or 0,
        "input_audio": heard - heard_again,
        "cache_read_audio": heard_again,
        "reasoning": usage.reasoning_tokens or 0,
        "output_audio": usage.output_audio_tokens or 0,
        "output_image": usage.output_image_tokens or 0,
    }
    kinds["input"] = usage.input_tokens - read - written - heard + heard_again
    kinds["output"] = usage.output_tokens - kinds["reasoning"] - kinds["output_audio"] - kinds["output_image"]
    return {kind: max(count, 0) for kind, count in kinds.items()}
