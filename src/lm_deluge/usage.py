"""Token counts, in one convention for all providers, and their cost."""

from __future__ import annotations

import math
from collections import Counter
from operator import attrgetter
from typing import Any, Self

import msgspec

__all__ = ["BATCH_FACTOR", "Price", "PriceChange", "PriceTier", "TokenCount", "Usage", "estimate_tokens"]

# https://platform.openai.com/docs/guides/batch, https://platform.claude.com/docs/en/build-with-claude/batch-processing,
# https://ai.google.dev/gemini-api/docs/batch-api, https://console.groq.com/docs/batch (2026-11): half of all prices.
BATCH_FACTOR = 0.5
"""Price of a request in a provider's own batch, relative to a single request, for models without a batch price."""


_CHARACTERS_PER_TOKEN = 4.0
"""Average of English text with OpenAI, Anthropic and Google: https://platform.openai.com/tokenizer (2026-11)."""


def estimate_tokens(characters: int, *, characters_per_token: float = _CHARACTERS_PER_TOKEN) -> int:
    """Return the estimated number of tokens of a text, rounded up.

    Args:
        characters: Length of the text.
        characters_per_token: The default fits English text; a smaller number gives an upper bound.
    """
    return math.ceil(characters / characters_per_token)


class TokenCount(int):
    """The number of tokens of a prompt.

    Attributes:
        estimated: The number is estimated from the length of the texts, as the provider has no endpoint that counts.

    Example:
        >>> tokens = await client.count_tokens("Hello")
        >>> print(tokens, tokens.estimated)
    """

    estimated: bool

    def __new__(cls, tokens: int, *, estimated: bool = False) -> Self:  # noqa: D102
        count = super().__new__(cls, tokens)
        count.estimated = estimated
        return count

    def __repr__(self) -> str:
        return f"TokenCount({int(self)}, estimated={self.estimated})"

    __str__ = int.__repr__

    @property
    def tokens(self) -> int:
        """The number, as a plain integer."""
        return int(self)


class Usage(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Token counts of one answer, or the sum of several (`a + b`).

    Attributes:
        input_tokens: All tokens of the prompt, cached ones included.
        output_tokens: All generated tokens, reasoning included.
        cache_read_tokens: The part of the input that was read from the provider's cache.
        cache_write_tokens: The part of the input that was written to that cache, for any duration.
        cache_write_1h_tokens: The part of `cache_write_tokens` that is kept for an hour, at a price of its own.
        cache_write_12h_tokens: The part of `cache_write_tokens` that is kept for more than 12 hours.
        reasoning_tokens: The part of the output that was reasoning.
        input_audio_tokens: The part of the input that was audio, cached audio included.
        cache_read_audio_tokens: The part of `input_audio_tokens` that was read from the cache.
        output_audio_tokens: The part of the output that is audio.
        output_image_tokens: The part of the output that is images.
        tool_uses: How often each of the provider's own tools was used that may have a price per use, for example
            `{"web_search": 3}`.
        region: The region that served the request, as the provider calls it, where prices depend on it; else None.
        service_tier: The tier that served the request as the provider calls it, for example `flex` or `priority`; None
            where prices do not depend on it.
        reported_cost: What the provider itself states as the cost of the request, in US dollars, fees included; None:
            it states none.
        estimated: The counts are estimates from text lengths: the provider reported none, or the answer was cut off.
        raw: The provider's own usage object, unchanged, or None.

    Example:
        >>> response = await client.stream("Hello")
        >>> print(response.usage.input_tokens, response.usage.total_tokens)
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    cache_write_1h_tokens: int | None = None
    cache_write_12h_tokens: int | None = None
    reasoning_tokens: int | None = None
    input_audio_tokens: int | None = None
    cache_read_audio_tokens: int | None = None
    output_audio_tokens: int | None = None
    output_image_tokens: int | None = None
    tool_uses: dict[str, int] = {}
    region: str | None = None
    service_tier: str | None = None
    reported_cost: float | None = None
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
            tool_uses=dict(Counter(self.tool_uses) + Counter(other.tool_uses)),
            region=self.region if self.region == other.region else None,
            service_tier=self.service_tier if self.service_tier == other.service_tier else None,
            reported_cost=_add_cost(self.reported_cost, other.reported_cost),
            estimated=self.estimated or other.estimated,
            **parts,
        )


_PARTS = (
    "cache_read_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
    "cache_write_12h_tokens",
    "reasoning_tokens",
    "input_audio_tokens",
    "cache_read_audio_tokens",
    "output_audio_tokens",
    "output_image_tokens",
)


_parts_of = attrgetter(*_PARTS)


def _add(one: int | None, other: int | None) -> int | None:
    return other if one is None else one + (other or 0)


def _add_cost(one: float | None, other: float | None) -> float | None:
    """Return the sum, or None if one of them is unknown: a part of the cost is not the cost."""
    return None if one is None or other is None else one + other


class PriceTier(msgspec.Struct, frozen=True, gc=False, kw_only=True, forbid_unknown_fields=True):
    """Prices of a whole request whose input is larger than `above_input_tokens`, in US dollars per million tokens.

    A price that is None is the same as in the `Price` that the tier belongs to.
    """

    above_input_tokens: int
    input: float | None = None
    output: float | None = None
    cache_read: float | None = None
    cache_write: float | None = None
    cache_write_1h: float | None = None
    cache_write_12h: float | None = None
    reasoning: float | None = None
    input_audio: float | None = None
    cache_read_audio: float | None = None
    output_audio: float | None = None
    output_image: float | None = None


class PriceChange(msgspec.Struct, frozen=True, gc=False, kw_only=True, forbid_unknown_fields=True):
    """A complete price list that replaces the earlier one on the day `start`, such as `2026-12-01`."""

    start: str
    price: Price


class Price(msgspec.Struct, frozen=True, gc=False, kw_only=True, forbid_unknown_fields=True):
    """US dollars per million tokens.

    A kind of token without its own price has the price of the kind that includes it: cached and audio tokens cost as
    much as input, cache writes for an hour as much as other cache writes, reasoning and generated media as output.

    Where prices depend on the time of day these are the higher ones, so that no budget is exceeded.

    Attributes:
        cache_write_12h: Cache writes that are kept for more than 12 hours.
        request: US dollars for each request, in addition to its tokens.
        tiers: Other prices for larger requests.
        modes: The prices by service tier: `batch`, `flex`, `priority`, `fast`, `ultrafast`. Each is a complete price
            list.
        region_factors: What all token prices are multiplied by, by the region that served the request; `regional`: any
            location of Vertex but the global one.
        changes: Announced changes, in the order of their days.
    """

    input: float
    output: float
    cache_read: float | None = None
    cache_write: float | None = None
    cache_write_1h: float | None = None
    cache_write_12h: float | None = None
    reasoning: float | None = None
    input_audio: float | None = None
    cache_read_audio: float | None = None
    output_audio: float | None = None
    output_image: float | None = None
    request: float = 0.0
    tiers: tuple[PriceTier, ...] = ()
    modes: dict[str, Price] = {}
    region_factors: dict[str, float] = {}
    changes: tuple[PriceChange, ...] = ()

    def on(self, day: str) -> Price:
        """Return the prices that hold on a day such as `2026-12-01`; later changes stay in `changes`."""
        started = [change for change in self.changes if change.start <= day]
        if not started:
            return self
        later = tuple(change for change in self.changes if change.start > day)
        return msgspec.structs.replace(started[-1].price, changes=later)

    def cost(self, usage: Usage, mode: str | None = None) -> float:
        """Return the cost of one request in US dollars.

        Args:
            usage: The request's token counts; a `service_tier` in them overrides `mode`.
            mode: The service tier, a key of `modes`; tiers without an entry there have the normal prices.
        """
        other = self.modes.get(usage.service_tier or mode or "")
        if other is not None:
            return other.cost(usage)
        if not self.tiers and not _has_parts(usage):
            return self.request + (usage.input_tokens * self.input + usage.output_tokens * self.output) / 1e6
        rates = self._rates(usage.input_tokens)
        return self.request + sum(count * rates[kind] for kind, count in _kinds(usage).items()) / 1e6

    def batch_cost(self, usage: Usage) -> float:
        """Return the cost of one request of a provider's own batch in US dollars; `usage.service_tier` is ignored."""
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


# Each kind of token that can have a price, and the kind whose price applies where it has none.
_KINDS = {
    "input": "",
    "output": "",
    "cache_read": "input",
    "cache_write": "input",
    "cache_write_1h": "cache_write",
    "cache_write_12h": "cache_write",
    "reasoning": "output",
    "input_audio": "input",
    "cache_read_audio": "cache_read",
    "output_audio": "output",
    "output_image": "output",
}


def _has_parts(usage: Usage) -> bool:
    """Whether any of the tokens are of another kind than input and output."""
    return any(_parts_of(usage))


def _kinds(usage: Usage) -> dict[str, int]:
    """Return the counts of disjoint kinds of tokens. Inconsistent reports give 0, never a negative count."""
    read, written = usage.cache_read_tokens or 0, usage.cache_write_tokens or 0
    audio, cached_audio = usage.input_audio_tokens or 0, usage.cache_read_audio_tokens or 0
    hour, half_day = usage.cache_write_1h_tokens or 0, usage.cache_write_12h_tokens or 0
    kinds = {
        "cache_read": read - cached_audio,
        "cache_write": written - hour - half_day,
        "cache_write_1h": hour,
        "cache_write_12h": half_day,
        "input_audio": audio - cached_audio,
        "cache_read_audio": cached_audio,
        "reasoning": usage.reasoning_tokens or 0,
        "output_audio": usage.output_audio_tokens or 0,
        "output_image": usage.output_image_tokens or 0,
    }
    kinds["input"] = usage.input_tokens - read - written - audio + cached_audio
    kinds["output"] = usage.output_tokens - kinds["reasoning"] - kinds["output_audio"] - kinds["output_image"]
    return {kind: max(count, 0) for kind, count in kinds.items()}
