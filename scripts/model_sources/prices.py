"""The prices of `genai-prices`. Its data module is parsed as source text, so its dependencies are not needed."""

from __future__ import annotations

import ast
import datetime as dt
import re
from collections.abc import Callable, Iterator
from typing import Any

from lm_deluge.usage import Price, PriceTier
from model_sources.wheels import Package

__all__ = ["PriceBook", "exact_names"]

JSON = dict[str, Any]

# Names of rates in this library and in the package. Its other rates (searches, pages, seconds) are not in `Usage`.
_RATES = {
    "input": "input_mtok",
    "output": "output_mtok",
    "cache_read": "cache_read_mtok",
    "cache_write": "cache_write_mtok",
    "cache_write_1h": "cache_write_1h_mtok",
    "reasoning": "output_reasoning_mtok",
    "input_audio": "input_audio_mtok",
    "cache_read_audio": "cache_audio_read_mtok",
    "output_audio": "output_audio_mtok",
    "output_image": "output_image_mtok",
}

# Conditions that are parameters of a request. Other conditions of the package are not.
_MODES = ("processing", "service_tier", "speed")


def _plain(node: ast.expr) -> Any:
    """Return the value of an expression of `genai_prices/data.py`: a constructor call becomes a dict."""
    match node:
        case ast.List():
            return [_plain(item) for item in node.elts]
        case ast.Dict():
            return {_plain(key): _plain(value) for key, value in zip(node.keys, node.values, strict=True) if key}
        case ast.Call(func=ast.Name(id="Decimal"), args=[ast.Constant(value=str(digits))]):
            return float(digits)
        case ast.Call(func=ast.Attribute(attr=name), args=args):
            return getattr(dt, name)(*(_plain(item) for item in args))
        case ast.Call(func=ast.Name(id=name), keywords=keywords):
            return {"type": name, **{str(word.arg): _plain(word.value) for word in keywords}}
        case _:
            return ast.literal_eval(node)


_MATCHERS: dict[str, Callable[[Any, str], bool]] = {
    "equals": lambda value, name: name == value.lower(),
    "starts_with": lambda value, name: name.startswith(value.lower()),
    "ends_with": lambda value, name: name.endswith(value.lower()),
    "contains": lambda value, name: value.lower() in name,
    "regex": lambda value, name: bool(re.search(value, name)),
    "or_": lambda clauses, name: any(_matches(clause, name) for clause in clauses),
    "and_": lambda clauses, name: all(_matches(clause, name) for clause in clauses),
}


def _matches(clause: JSON, name: str) -> bool:
    return all(_MATCHERS[key](value, name) for key, value in clause.items() if key != "type")


def exact_names(clause: JSON) -> Iterator[str]:
    """Yield the names that a matching clause lists literally."""
    if "equals" in clause:
        yield clause["equals"]
    for part in clause.get("or_", ()):
        yield from exact_names(part)


class PriceBook:
    """The prices of `genai-prices` that hold on one day."""

    def __init__(self, package: Package, today: dt.date) -> None:
        self._today = today
        self._entries: dict[str, list[JSON]] = {}
        self._fallbacks: dict[str, list[str]] = {}
        for node in ast.walk(ast.parse(package.read("genai_prices/data.py"))):
            match node:
                case ast.Call(func=ast.Name(id="Provider"), keywords=keywords):
                    words = {word.arg: word.value for word in keywords}
                    provider = ast.literal_eval(words["id"])
                    self._entries[provider] = _plain(words["models"])
                    others = words.get("fallback_model_providers")
                    self._fallbacks[provider] = (ast.literal_eval(others) if others else None) or []

    def entries(self, provider: str) -> list[JSON]:
        """Return the entries of a provider, of which the first match counts.

        Raises:
            SystemExit: The package does not list the provider.
        """
        if provider not in self._entries:
            raise SystemExit(f"genai-prices has no provider {provider!r}: adapt the parser to its new layout")
        return self._entries[provider]

    def find(self, provider: str, name: str) -> JSON | None:
        """Return the entry of a model from its provider, or from the fallback providers of its provider."""
        for each in (provider, *self._fallbacks[provider]):
            found = next((entry for entry in self.entries(each) if _matches(entry["match"], name.lower())), None)
            if found is not None:
                return found
        return None

    def names(self, provider: str, *, with_ids: bool) -> Iterator[str]:
        """Yield the names in the entries of a provider, and with `with_ids` the ids of entries that are names."""
        for entry in self.entries(provider):
            yield from exact_names(entry["match"])
            if with_ids and _matches(entry["match"], entry["id"].lower()):
                yield entry["id"]

    def price(self, provider: str, entry: JSON) -> Price | None:
        """Return the prices of an entry that hold today, or None if they are not per token.

        For an entry of a fallback provider only the standard prices hold.
        """
        prices = self._standard(entry)
        price = _price(prices)
        if price is None:
            return None
        modes: dict[str, JSON] = {}
        is_own = any(each is entry for each in self.entries(provider))
        for variant in (entry.get("price_variants") or ()) if is_own else ():
            (condition, mode), *others = variant["when"].items()
            if condition in _MODES and not others and self._has_started(variant.get("constraint")):
                # The first variant with a price for a rate wins.
                own = {key: value for key, value in variant["prices"].items() if value is not None}
                modes[mode] = {**own, **modes.get(mode, {})}
        found = {mode: _price({**prices, **own}) for mode, own in modes.items()}
        kept = {mode: each for mode, each in sorted(found.items()) if each is not None and each != price}
        return Price(**{name: getattr(price, name) for name in price.__struct_fields__ if name != "modes"}, modes=kept)

    def _standard(self, entry: JSON) -> JSON:
        """Return the latest prices that have started; prices for certain hours of the day are left out."""
        prices = entry["prices"]
        if isinstance(prices, dict):
            return prices
        started = [dated["prices"] for dated in prices if self._has_started(dated.get("constraint"))]
        found: JSON = started[-1] if started else prices[0]["prices"]
        return found

    def _has_started(self, constraint: JSON | None) -> bool:
        if constraint is None:
            return True
        return "start_date" in constraint and constraint["start_date"] <= self._today


def _price(prices: JSON) -> Price | None:
    base: dict[str, Any] = {}
    tiers: dict[int, dict[str, float]] = {}
    for ours, theirs in _RATES.items():
        value = prices.get(theirs)
        if isinstance(value, dict):
            base[ours] = value["base"]
            for tier in value["tiers"]:
                tiers.setdefault(tier["start"], {})[ours] = tier["price"]
        elif value is not None:
            base[ours] = value
    if "input" not in base or "output" not in base:
        return None
    if isinstance(prices.get("requests_kcount"), float):
        base["request"] = prices["requests_kcount"] / 1000
    steps = tuple(PriceTier(above_input_tokens=start, **tiers[start]) for start in sorted(tiers))
    return Price(**base, tiers=steps)
