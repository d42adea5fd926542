"""Other spellings of the names in the registry: those of other libraries, of an older version, and of habit. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import msgspec

from lm_deluge.models.families import plain_name
from lm_deluge.models.rows import ModelRow

__all__ = ["PROVIDER_ALIASES", "find_alias", "find_spelling", "split_provider"]

PROVIDER_ALIASES = {
    "google": "gemini",
    "google-gla": "gemini",
    "google-vertex": "vertex",
    "vertex_ai": "vertex",
    "vertexai": "vertex",
    "aws": "bedrock",
    "amazon-bedrock": "bedrock",
    "azure_ai": "azure",
    "azure-openai": "azure",
    "x-ai": "xai",
    "grok": "xai",
    "mistralai": "mistral",
    "moonshotai": "moonshot",
    "kimi": "moonshot",
    "zhipu": "zai",
    "z-ai": "zai",
    "dashscope": "alibaba",
    "qwen": "alibaba",
    "together_ai": "together",
    "togetherai": "together",
    "fireworks_ai": "fireworks",
    "fireworks-ai": "fireworks",
    "huggingface-hub": "huggingface",
    "hf": "huggingface",
    "cohere_chat": "cohere",
}
"""Names of providers in LiteLLM, models.dev, pydantic-ai and the AI SDK (2026-11), with those of this library."""

# Endings of the names in lm-deluge 0.0.168, which named the host at the end of a model's name.
_HOST_ENDINGS = {
    "-bedrock-global": ("bedrock", "global."),
    "-bedrock": ("bedrock", "us."),
    "-azure": ("azure", ""),
    "-openrouter": ("openrouter", ""),
    "-groq": ("groq", ""),
    "-together": ("together", ""),
    "-fireworks": ("fireworks", ""),
    "-cerebras": ("cerebras", ""),
    "-cf": ("cloudflare", ""),
    "-nvidia": ("nvidia", ""),
    "-cohere": ("cohere", ""),
}

# Names of lm-deluge 0.0.168 that no rule finds.
_OLD_NAMES = {
    "claude-3.7-sonnet": "claude-3-7-sonnet-20250219",
    "claude-4-opus": "claude-opus-4-20250514",
    "claude-4-sonnet": "claude-sonnet-4-20250514",
    "aya-expanse-8b": "c4ai-aya-expanse-8b",
    "aya-expanse-32b": "c4ai-aya-expanse-32b",
    "aya-vision-8b": "c4ai-aya-vision-8b",
    "aya-vision-32b": "c4ai-aya-vision-32b",
    "mistral-nemo": "open-mistral-nemo",
    "command-a": "command-a-03-2025",
    "command-r": "command-r-08-2024",
    "command-r-plus": "command-r-plus-08-2024",
    "command-r-cohere": "command-r7b-12-2024",
    "deepseek-r1": "deepseek-reasoner",
    "deepseek-speciale": "deepseek-reasoner",
    "gpt-5-chat": "gpt-5-chat-latest",
    "gpt-4.5": "gpt-4.5-preview",
    "gpt-chat-latest": "chat-latest",
    "kimi-k2": "kimi-k2-0905-preview",
    "kimi-k2-turbo": "kimi-k2-turbo-preview",
    "gemini-2.5-computer-use": "gemini-2.5-computer-use-preview-10-2025",
    "nova-micro": "bedrock:us.amazon.nova-micro-v1:0",
    "nova-lite": "bedrock:us.amazon.nova-lite-v1:0",
    "nova-pro": "bedrock:us.amazon.nova-pro-v1:0",
}

_CLAUDE = re.compile(r"claude-(\d)(?:[.-](\d))?-(opus|sonnet|haiku)(-\d{8})?")
_DATE = re.compile(r"[-@](\d{8}|\d{4}-\d\d-\d\d)$")


def split_provider(name: str, known: Mapping[str, object]) -> tuple[str, str] | None:
    """Return provider and model of `provider:model` or `provider/model` in any case; None: the name has no provider.

    Args:
        name: The name as the user wrote it.
        known: The providers by id.
    """
    found = re.match(r"([\w-]+)[:/](.+)", name)
    if found is None:
        return None
    provider = find_alias(found[1], found[2])
    return (provider, found[2]) if provider in known else None


def find_alias(prefix: str, model: str) -> str:
    """Return the id of the provider that a prefix of a model's name means, or the prefix if it is no alias."""
    provider = PROVIDER_ALIASES.get(prefix.lower(), prefix.lower())
    is_claude = provider == "vertex" and model.lower().startswith("claude")
    return "vertex-anthropic" if is_claude else provider


def find_spelling(name: str, rows: Mapping[str, ModelRow]) -> ModelRow | None:
    """Return the row that a name means which is not the id of a row; None: no rule finds one.

    Understood are other case, `-latest` and dates that the row's name has not or the other way round, versions of Claude
    before its family (`claude-4.5-sonnet`), the folder `models/`, and the names of the older lm-deluge.
    """
    by_lower_case = {id.lower(): row for id, row in rows.items()}
    for spelling in _spellings(name.lower().removeprefix("models/")):
        found = by_lower_case.get(spelling) or _dated(spelling, by_lower_case)
        if found is not None:
            return found
    return _hosted(name.lower(), rows)


def _spellings(name: str) -> Iterator[str]:
    yield name
    if name in _OLD_NAMES:
        yield _OLD_NAMES[name].lower()
    claude = _CLAUDE.fullmatch(name)
    if claude:
        version = "-".join(part for part in claude.group(1, 2) if part)
        yield f"claude-{claude[3]}-{version}{claude[4] or ''}"
    yield f"{name}-latest"
    yield f"{name}-preview"
    if name.endswith("-latest"):
        yield name.removesuffix("-latest")
    if re.search(r"\d\.\d", name):
        yield re.sub(r"(?<=\d)\.(?=\d)", "-", name)


def _dated(name: str, rows: Mapping[str, ModelRow]) -> ModelRow | None:
    """Return the row of a dated name without the date, which keeps its date, or the newest dated row of a plain name."""
    date = _DATE.search(name)
    if date:
        known = rows.get(name[: date.start()])
        return known and msgspec.structs.replace(known, id=name, name=name.rpartition(":")[2])
    dated = [id for id in rows if id.startswith(name) and _DATE.fullmatch(id[len(name) :])]
    return rows[max(dated)] if dated else None


def _hosted(name: str, rows: Mapping[str, ModelRow]) -> ModelRow | None:
    """Return the row of `<model>-<host>`."""
    for ending, (provider, region) in _HOST_ENDINGS.items():
        if not name.endswith(ending):
            continue
        wanted = {plain_name(each).replace("-", "") for each in _spellings(name.removesuffix(ending))}
        served = [row for row in rows.values() if row.provider == provider and row.name.startswith(region)]
        served = served or [row for row in rows.values() if row.provider == provider]
        plain = [(plain_name(row.name).replace("-", ""), row) for row in served]
        exact = [row for each, row in plain if each in wanted]
        longer = [row for each, row in plain if each.startswith(tuple(wanted))]
        return min(exact or longer, key=lambda row: len(row.name), default=None)
    return None
