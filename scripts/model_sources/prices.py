"""The prices of `genai-prices`. Its data module is parsed as source text, so its dependencies are not needed."""

from __future__ import annotations

import ast
import datetime as dt
import re
from collections.abc import Callable, Iterator
from typing import Any

from lm_deluge.usage import Price, PriceChange, PriceTier
from model_sources.packages import Package

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
    """The prices of `genai-prices`, from one day on."""

    def __init__(self, package: Package, today: dt.date) -> None:
        self._today = today
        self._entries: dict[str, list[JSON]] = {}
        for node in ast.walk(ast.parse(package.read("genai_prices/data.py"))):
            match node:
                case ast.Call(func=ast.Name(id="Provider"), keywords=keywords):
                    words = {word.arg: word.value for word in keywords}
                    provider = ast.literal_eval(words["id"])
                    self._entries[provider] = _plain(words["models"])

    def entries(self, provider: str) -> list[JSON]:
        """Return the entries of a provider, of which the first match counts.

        Raises:
            SystemExit: The package does not list the provider.
        """
        if provider not in self._entries:
            raise SystemExit(f"genai-prices has no provider {provider!r}: adapt the parser to its new layout")
        return self._entries[provider]

    def find(self, provider: str, name: str) -> JSON | None:
        """Return the entry of a model. Entries of other providers, which the package falls back to, do not count."""
        return next((entry for entry in self.entries(provider) if _matches(entry["match"], name.lower())), None)

    def names(self, provider: str, *, with_ids: bool) -> Iterator[str]:
        """Yield the names in the entries of a provider, and with `with_ids` the ids of entries that are names."""
        for entry in self.entries(provider):
            yield from exact_names(entry["match"])
            if with_ids and _matches(entry["match"], entry["id"].lower()):
                yield entry["id"]

    def price(self, entry: JSON) -> Price | None:
        """Return the prices of an entry today, with announced changes, or None if they are not per token."""
        present = self._price_on(entry, self._today)
        if present is None:
            return None
        later = [(day, self._price_on(entry, day)) for day in _starts(entry) if day > self._today]
        changes, last = [], present
        for day, price in later:
            if price is not None and price != last:
                changes.append(PriceChange(start=day.isoformat(), price=price))
                last = price
        return _with(present, changes=tuple(changes))

    def _price_on(self, entry: JSON, day: dt.date) -> Price | None:
        prices = _standard(entry, day)
        price = _price(prices)
        if price is None:
            return None
        modes: dict[str, JSON] = {}
        for variant in entry.get("price_variants") or ():
            (condition, mode), *others = variant["when"].items()
            if condition in _MODES and not others and _has_started(variant.get("constraint"), day):
                # The first variant with a price for a rate wins.
                own = {key: value for key, value in variant["prices"].items() if value is not None}
                modes[mode] = {**own, **modes.get(mode, {})}
        found = {mode: _price({**prices, **own}) for mode, own in modes.items()}
        kept = {mode: each for mode, each in sorted(found.items()) if each is not None and each != price}
        return _with(price, modes=kept)


def _with(price: Price, **fields: Any) -> Price:
    return Price(**{**{name: getattr(price, name) for name in price.__struct_fields__}, **fields})


def _starts(entry: JSON) -> list[dt.date]:
    """Return the days on which a price of the entry starts, in order."""
    dated = [each.get("constraint") for each in entry["prices"]] if isinstance(entry["prices"], list) else []
    dated += [variant.get("constraint") for variant in entry.get("price_variants") or ()]
    return sorted({each["start_date"] for each in dated if each and "start_date" in each})


def _standard(entry: JSON, day: dt.date) -> JSON:
    """Return the latest prices that have started. Of prices for certain hours of the day, the highest ones."""
    prices = entry["prices"]
    if isinstance(prices, dict):
        return prices
    started = [dated["prices"] for dated in prices if _has_started(dated.get("constraint"), day)]
    latest: JSON = started[-1] if started else prices[0]["prices"]
    hourly = [dated["prices"] for dated in prices if "start_time" in (dated.get("constraint") or {})]
    return max([latest, *hourly], key=_height)


def _height(prices: JSON) -> float:
    rates = (prices.get("input_mtok"), prices.get("output_mtok"))
    return sum(rate["base"] if isinstance(rate, dict) else rate or 0.0 for rate in rates)


def _has_started(constraint: JSON | None, day: dt.date) -> bool:
    if constraint is None:
        return True
    return "start_date" in constraint and constraint["start_date"] <= day


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
