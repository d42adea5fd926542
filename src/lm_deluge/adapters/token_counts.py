"""Validate the token counts that providers report. Every adapter builds its `Usage` here, before anything is summed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, TypeAlias, TypeVar, get_args

import msgspec

from lm_deluge.events import Event, UsageReported
from lm_deluge.usage import Usage

__all__ = [
    "COST_FIELDS",
    "MOST_TOKENS",
    "Count",
    "add_usage",
    "build_usage",
    "complete_counts",
    "read_cost",
    "read_count",
    "read_counts",
    "read_tool_uses",
]

MOST_TOKENS = 2**53
"""Larger integers are not exact in many JSON implementations (RFC 8259, section 6); no answer has so many tokens."""
_TICKS_PER_USD = 1e10  # https://docs.x.ai/developers/cost-tracking (2026-11)
_MOST_DIGITS = 16  # of MOST_TOKENS

Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=MOST_TOKENS)] | None
"""A field of a struct for `read_counts` that contains a count."""
T = TypeVar("T", bound=msgspec.Struct)


def read_count(value: Any) -> int | None:
    """Return a count, or None if the value is none: negative, fractional, above `MOST_TOKENS` or no number.

    Some hosts report counts as floats (Cohere) or as text (proxies that pass headers on).
    """
    if value is None or type(value) is int:  # nearly all
        return value if value is not None and 0 <= value <= MOST_TOKENS else None
    if isinstance(value, str):
        if not (len(value) <= _MOST_DIGITS and value.isascii() and value.isdigit()):
            return None
        value = int(value)
    elif isinstance(value, float):
        if not value.is_integer():
            return None
        value = int(value) if abs(value) <= MOST_TOKENS else -1
    return value if type(value) is int and 0 <= value <= MOST_TOKENS else None


def read_counts(raw: dict[str, Any], kind: type[T]) -> T:
    """Return the counts in a usage object, as `read_count` returns each of them.

    Args:
        raw: The object.
        kind: A struct with fields of the types `Count`, `Any`, and optional structs of the same kind.
    """
    try:
        return msgspec.convert(raw, kind)  # checks all counts without Python code
    except (msgspec.ValidationError, RecursionError):
        return kind(**{name: _read(raw.get(key), inner) for name, key, inner in _fields_of(kind)})


@cache
def _fields_of(kind: type[msgspec.Struct]) -> tuple[tuple[str, str, Any], ...]:
    """Return our name, the provider's name and the type of each field, for a struct the struct itself."""
    found = []
    for field in msgspec.structs.fields(kind):
        inner = next((each for each in get_args(field.type) if isinstance(each, type(msgspec.Struct))), field.type)
        found.append((field.name, field.encode_name, inner))
    return tuple(found)


def _read(value: Any, kind: Any) -> Any:
    if kind == Count:
        return read_count(value)
    if kind is Any:
        return value
    return read_counts(value, kind) if isinstance(value, dict) else None


def complete_counts(
    input_tokens: int | None, output_tokens: int | None, total: int | None = None
) -> tuple[int, int, bool] | None:
    """Return the input and the output tokens, and whether one of them is unknown; None if both are.

    A count that is missing is derived from the total. Without a total it is 0 and the usage has to be marked as
    estimated: `api_requests.answer` estimates the count from the texts. All arguments are results of `read_count`.
    """
    if input_tokens is not None and output_tokens is not None:
        return input_tokens, output_tokens, False
    known = output_tokens if input_tokens is None else input_tokens
    if known is None:
        return None
    is_partial = total is None or total < known
    rest = 0 if total is None or is_partial else total - known
    return (rest, known, is_partial) if input_tokens is None else (known, rest, is_partial)


def build_usage(
    raw: dict[str, Any], input_tokens: int | None, output_tokens: int | None, total: Any = None, **others: Any
) -> Usage | None:
    """Return the `Usage` of a provider's usage object, or None if it has neither an input nor an output count.

    For usage that is reported once: an adapter that reads it from every chunk calls `complete_counts` and `Usage`,
    which takes half the time.

    Args:
        raw: The provider's usage object.
        input_tokens: All tokens of the prompt, as `read_count` returned them.
        output_tokens: All generated tokens, as `read_count` returned them.
        total: The provider's total, as it was sent.
        others: Other fields of `Usage`.
    """
    known = complete_counts(input_tokens, output_tokens, read_count(total))
    if known is None:
        return None
    sent, output, is_partial = known
    return Usage(input_tokens=sent, output_tokens=output, estimated=is_partial, raw=raw, **others)


def add_usage(usage: Usage | None, events: list[Event]) -> None:
    """Append the event of a usage, if there is one."""
    if usage is not None:
        events.append(UsageReported(usage))


COST_FIELDS = ("cost", "cost_in_usd_ticks", "estimated_cost")
"""The fields of a usage object in which providers state a cost, see `read_cost`."""


def read_cost(raw: Mapping[str, Any]) -> float | None:
    """Return the cost of a request in US dollars that the provider states in its usage object; None: it states none.

    OpenRouter: https://openrouter.ai/docs/cookbook/administration/usage-accounting; with the user's own key for the
    provider, `cost` is OpenRouter's fee only. Perplexity: an object. xAI: https://docs.x.ai/developers/cost-tracking.
    DeepInfra: `estimated_cost`. (All 2026-11.)
    """
    stated = raw.get("cost")
    if isinstance(stated, Mapping):
        return _read_money(stated.get("total_cost"))
    cost = _read_money(stated)
    if cost is None:
        ticks = _read_money(raw.get("cost_in_usd_ticks"))
        return _read_money(raw.get("estimated_cost")) if ticks is None else ticks / _TICKS_PER_USD
    if raw.get("is_byok") is True:
        details = raw.get("cost_details")
        upstream = _read_money(details.get("upstream_inference_cost")) if isinstance(details, Mapping) else None
        return None if upstream is None else cost + upstream
    return cost


def _read_money(value: Any) -> float | None:
    is_money = type(value) in (int, float) and 0 <= value < math.inf
    return float(value) if is_money else None


def read_tool_uses(raw: Any, suffix: str) -> dict[str, int]:
    """Return how often each of the provider's own tools was used, from an object with counts by name.

    Args:
        raw: The object, or anything else if the provider sent none.
        suffix: What follows the tool's name in the names of the object, for example `_requests`.
    """
    if not isinstance(raw, Mapping):
        return {}
    counts = {str(name).removesuffix(suffix): read_count(value) for name, value in raw.items()}
    return {name: count for name, count in counts.items() if count}
