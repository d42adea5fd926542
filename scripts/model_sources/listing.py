"""`Listing`: what one source knows of one model of one provider."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lm_deluge.usage import Price

__all__ = ["Listing", "agree", "find_price"]

# Sources round prices differently; providers change them by more.
_CLOSE = 0.01


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The facts of a model. None and missing entries mean that the source does not state them.

    Attributes:
        facts: Fields of `Capabilities`.
        retires: The day on which the provider ends the model, as `2027-01-14`.
        client: The API, if it is not the usual one of the provider.
    """

    price: Price | None = None
    context_window: int | None = None
    max_output_tokens: int | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    outputs: frozenset[str] = frozenset({"text"})
    status: str | None = None
    retires: str | None = None
    successor: str = ""
    client: str = ""


def agree(one: Price | None, other: Price | None) -> bool:
    """Whether two price lists have the same prices of input and output, within 1 %."""
    if one is None or other is None:
        return False
    pairs = ((one.input, other.input), (one.output, other.output))
    return all(abs(left - right) <= _CLOSE * max(left, right) for left, right in pairs)


def find_price(
    candidates: list[Price | None], *, is_newest_first: bool = False, is_regional: bool = False
) -> Price | None:
    """Return the first price list, unless two later ones agree with each other and not with it.

    Args:
        candidates: The price lists of the sources, the most reliable first.
        is_newest_first: The first source is newer than the others: they may agree on an old price.
        is_regional: Prices depend on the region: if no two sources agree, the dearest price is returned.
    """
    known = [price for price in candidates if price is not None]
    if not known:
        return None
    first, *others = known
    if (
        not is_newest_first
        and len(others) > 1
        and not any(agree(first, other) for other in others)
        and agree(others[0], others[1])
    ):
        return others[0]
    if is_regional and not any(agree(first, other) for other in others):
        return max(known, key=lambda price: price.input + price.output)
    return first
