"""What models accept, from the sources beside each entry and not from `families.toml`.

`names` is searched in the model's name on the wire, in lower case. All matching entries apply, in order. None: the
sources do not state it.

Sources: PYD is pydantic-ai 2.68 (profiles verified against the live APIs), AIS the AI SDK (@ai-sdk/openai 4.0.118,
anthropic 4.0.105, google 4.0.121), PI @earendil-works/pi-ai 1.6.0, LL litellm 1.110.2; all of 2026-11.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from typing import Literal

__all__ = ["FACTS", "Fact", "facts_of"]

Support = Literal["yes", "no", "off", "ignored"]  # `off`: only while the model does not reason
Need = Literal["tools", "max", "all"]

LOW_TO_HIGH = ("low", "medium", "high")
LOW_TO_XHIGH = (*LOW_TO_HIGH, "xhigh")
LOW_TO_MAX = (*LOW_TO_XHIGH, "max")
ALL = ("none", "minimal", *LOW_TO_MAX)
EVERYTHING = ("tools", "schema", "image", "pdf")


@dataclass(frozen=True, kw_only=True)
class Fact:
    """What the models of a name accept.

    Attributes:
        efforts: All values of the effort that they accept; an empty tuple: none at all.
        reasons: Whether a request without an effort reasons.
        takes: Inputs and forms of answers that they accept.
        needs_responses: What OpenAI's Chat Completions rejects and the Responses API takes.
        hosts: The entry is about these providers; empty: about all.
    """

    names: str = ""
    source: str = ""
    efforts: tuple[str, ...] | None = None
    reasons: bool | None = None
    sampling: Support | None = None
    stop: Support | None = None
    forced: Support | None = None
    prefill: Support | None = None
    takes: tuple[str, ...] | None = None
    needs_responses: tuple[Need, ...] | None = None
    hosts: tuple[str, ...] = ()


_OPENAI = ("openai", "openai-chat", "openai-responses", "azure", "azure-responses", "azure-deployment")
_CLAUDE = ("anthropic", "vertex-anthropic", "bedrock", "bedrock-invoke")
_GOOGLE = ("gemini", "gemini-interactions", "vertex", "vertex-express")
_V = r"[-.]"  # between the parts of a version
_END = r"(?![\d.]|-\d(?!\d))"  # the version ends here: a date may follow

FACTS = (
    # --- OpenAI ---
    Fact(names=r"gpt-4o(?!.*(audio|search))|gpt-4\.1", source="OpenAI's model pages", efforts=(), sampling="yes"),
    Fact(names=r"gpt-4o(-mini)?(-20\d\d|$)|gpt-4\.1", source="OpenAI's model pages", stop="yes", hosts=("openai",)),
    Fact(
        names=r"(^|/)o[134](-|$)",
        source="PYD profiles/openai.py _O_SERIES_REASONING; stop: litellm and OpenAI's reasoning guide",
        efforts=LOW_TO_HIGH,
        reasons=True,
        sampling="no",
        stop="no",
    ),
    Fact(names=r"(^|/)o1-(mini|preview)", source="OpenAI's deprecations page", efforts=()),
    Fact(names=r"o\d(-mini)?-deep-research", source="LL", efforts=("medium",)),
    Fact(
        names=r"(^|/|\.|-)gpt-[56]",
        source="https://github.com/bolna-ai/bolna/issues/1019 (stop: 400)",
        sampling="no",
        stop="no",
    ),
    Fact(
        names=r"gpt-5(-mini|-nano)?(?!\d|\.\d|-\d(?!\d)|-chat|-pro|-codex|-search)",
        source="PYD gpt-5",
        efforts=("minimal", *LOW_TO_HIGH),
        reasons=True,
    ),
    Fact(names=r"gpt-5-chat", source="PYD gpt-5-chat", efforts=(), reasons=False, sampling="yes", stop="yes"),
    Fact(names=r"gpt-5-search", source="no page has its efforts", efforts=None),
    Fact(
        names=r"gpt-5-codex|gpt-5[-.]1-codex", source="OpenAI's page of gpt-5-codex", efforts=LOW_TO_HIGH, reasons=True
    ),
    Fact(names=r"gpt-5-pro", source="PYD gpt-5-pro", efforts=("high",), reasons=True, needs_responses=("all",)),
    Fact(
        names=r"gpt-5[-.]1(?!\d|-chat|-codex)",
        source="PYD gpt-5.1, https://github.com/langchain-ai/langchain/issues/35423",
        efforts=("none", *LOW_TO_HIGH),
        reasons=False,
        sampling="off",
    ),
    Fact(
        names=r"gpt-5[-.][23](?!\d|-chat|-codex|-pro)",
        source="PYD gpt-5.2",
        efforts=("none", *LOW_TO_XHIGH),
        reasons=False,
        sampling="off",
    ),
    Fact(
        names=r"gpt-5[-.]4(?!\d|-pro)",
        source="PYD gpt-5.4, https://github.com/openai/openai-openapi/issues/541",
        efforts=("none", *LOW_TO_XHIGH),
        reasons=False,
        sampling="off",
        needs_responses=("tools",),
    ),
    Fact(
        names=r"gpt-5[-.]5(?!\d|-pro|-cyber)",
        source="PYD gpt-5.5, https://github.com/BerriAI/litellm/issues/34569",
        efforts=("none", *LOW_TO_XHIGH),
        reasons=True,
        sampling="off",
        needs_responses=("tools",),
    ),
    Fact(
        names=r"gpt-5[-.]6(?!-cyber)|gpt-6-(sol|luna)|gpt-6[-.]1-terra",
        source="PYD gpt-5.6, gpt-6-sol; AIS; https://github.com/BerriAI/litellm/issues/34569",
        efforts=("none", *LOW_TO_MAX),
        reasons=True,
        sampling="off",
        needs_responses=("tools", "max"),
    ),
    Fact(
        names=r"gpt-6-astra(?!-law)|gpt-6[-.]1-sol|gpt-6[-.]2-(sol|astra)(?!-law)",
        source="PYD gpt-6-astra, gpt-6.1-sol; OpenAI's pages of gpt-6.2",
        efforts=LOW_TO_MAX,
        reasons=True,
        sampling="no",
        needs_responses=("tools", "max"),
        takes=EVERYTHING,
    ),
    Fact(
        names=r"gpt-5[-.][245]-pro",
        source="PYD _GPT_5_PRO_EFFORTS",
        efforts=("medium", "high", "xhigh"),
        reasons=True,
        sampling="no",
        needs_responses=("all",),
    ),
    Fact(names=r"gpt-5[-.][123]-chat", source="PYD _CHAT_LATEST_REASONING", efforts=("medium",), reasons=True),
    Fact(names=r"gpt-5[-.]1-codex-max|gpt-5[-.]2-codex|gpt-5[-.]3-codex-spark", source="PI", efforts=LOW_TO_XHIGH),
    Fact(
        names=r"gpt-5[-.]3-codex(?!-spark)",
        source="PYD: like gpt-5.4",
        efforts=("none", *LOW_TO_XHIGH),
        reasons=False,
        sampling="off",
    ),
    Fact(
        names=r"gpt-5[-.]5-cyber",
        source="PYD gpt-5.5",
        efforts=("none", *LOW_TO_XHIGH),
        reasons=True,
        sampling="off",
    ),
    Fact(names=r"gpt-5[-.]6-cyber|gpt-6-(cyber|rosalind)|gpt-rosalind", source="PI", efforts=LOW_TO_MAX),
    Fact(names=r"gpt-6(\.2)?-astra-law", source="as gpt-6-astra", efforts=LOW_TO_MAX),
    Fact(names=r"gpt-daybreak", source="PI", efforts=("none", *LOW_TO_MAX)),
    Fact(
        names=r"codex|-cyber|-law$|^o\d.*deep-research|^o[13]-pro",
        source="openai 3.57.0, types/shared/responses_model.py",
        needs_responses=("all",),
        hosts=_OPENAI,
    ),
    Fact(
        names=r"gpt-(5[-.][4-9]|6)",
        source="PYD providers/bedrock.py: rejects temperature",
        sampling="no",
        hosts=("bedrock",),
    ),
    Fact(names=r"gpt-oss", source="Groq's reasoning page, PYD profiles/groq.py", efforts=LOW_TO_HIGH),
    # --- Claude ---
    Fact(
        names=r"claude",
        source="https://platform.claude.com/docs/en/build-with-claude/effort",
        efforts=("none", *LOW_TO_MAX),
        sampling="no",
        stop="yes",
        forced="yes",
        takes=("tools",),
    ),
    Fact(names=r"claude-(v?2|instant|3-(haiku|sonnet|opus)|3[-.]5)", source="no thinking", efforts=(), sampling="yes"),
    Fact(
        names=rf"claude-3[-.]7|claude-(opus|sonnet|haiku)-4({_V}[15])?{_END}|claude-4({_V}[15])?-(opus|sonnet|haiku)",
        source=".../extended-thinking#feature-compatibility: neither temperature nor a forced tool while thinking",
        efforts=ALL,
        reasons=False,
        sampling="off",
        forced="off",
        prefill="yes",
        hosts=_CLAUDE,
    ),
    Fact(
        names=rf"claude-3[-.]7|claude-(opus|sonnet|haiku)-4({_V}[015])?{_END}|claude-4({_V}[15])?-(opus|sonnet|haiku)",
        source="the same models at other hosts",
        efforts=ALL,
        sampling="off",
        forced="off",
    ),
    Fact(
        names=rf"claude-(opus|sonnet)-4{_V}6|claude-4{_V}6-(opus|sonnet)",
        source="PYD anthropic_supports_xhigh_effort: xhigh came with 4.7",
        efforts=("none", "low", "medium", "high", "max"),
        reasons=False,
        sampling="off",
        prefill="no",
    ),
    Fact(names=rf"claude-(opus-4{_V}[78]|[a-z]+-5|mythos)", source="Anthropic's migration guides", prefill="no"),
    Fact(
        names=rf"claude-(opus-5{_V}5|fable|mythos)",
        source="PYD thinking_always_enabled",
        efforts=LOW_TO_MAX,
        reasons=True,
    ),
    Fact(names=r"claude-mythos-preview", source="anthropic 2.14.0", efforts=("low", "medium", "high", "max")),
    Fact(
        names=rf"claude-(opus|sonnet)-5{_V}5|claude-(fable|mythos)-5{_V}[12]",
        source="PYD supports_forced_tool_choice, Anthropic's page on forcing tool use",
        forced="no",
    ),
    Fact(names=r"claude-[a-z]+-[45]", source="Anthropic's model pages", takes=EVERYTHING, hosts=_CLAUDE[:2]),
    Fact(
        names=rf"claude-sonnet-5{_V}5|claude-(fable|opus|sonnet)-latest|gpt-6\.1-terra-pro",
        source="OpenRouter's list of models, in PYD providers/openrouter.py: reasoning is mandatory",
        efforts=LOW_TO_MAX,
        hosts=("openrouter", "openrouter-responses"),
    ),
    # --- Gemini ---
    Fact(
        names=r"gemini-(3|flash-l|robotics|omni|nano)",
        source="https://ai.google.dev/gemini-api/docs/thinking#thinking-levels",
        efforts=("minimal", *LOW_TO_HIGH),
    ),
    Fact(names=r"gemini-3-pro", source="PYD gemini-3-pro-preview", efforts=("low", "high")),
    Fact(
        names=r"gemini-(3[-.]1-pro|3[-.][78]-flash|4-argon|4-carbon|pro-latest|flash-latest)",
        source="PYD _MODEL_THINKING_LEVELS (verified 2026-10-13)",
        efforts=LOW_TO_HIGH,
    ),
    Fact(names=r"gemini-4-(hydrogen|neon)", source="AIS, PI", efforts=LOW_TO_XHIGH),
    Fact(names=r"gemini-3[-.]1-flash-lite-image", source="PYD", efforts=("minimal", "high")),
    Fact(
        names=r"gemini-(3[-.][678]-flash|3[-.]5-flash-lite|4|flash-latest|flash-lite-latest)",
        source=".../whats-new-gemini-3.6, https://github.com/Zoo-Code-Org/Zoo-Code/issues/1052",
        sampling="ignored",
        prefill="no",
    ),
    Fact(names=r"gemini-(3\.[5678]-flash|4-)", source="Google's model pages", takes=EVERYTHING, hosts=_GOOGLE[:1]),
    Fact(names=r"gemini-2[-.]5-flash(?!.*image)", source=".../thinking#set-budget", efforts=ALL),
    Fact(names=r"gemini-2[-.]5-(pro|computer)", source=".../thinking#set-budget: at least 128 tokens", efforts=ALL[1:]),
    Fact(names=r"gemini-2\.5-flash-(preview-)?image", source="PYD: thinking is a 400", efforts=()),
    Fact(names=r"gemma-?4", source="PI", efforts=("minimal", "high"), hosts=(*_GOOGLE, "gemini-openai")),
    # --- Grok ---
    Fact(names=r"grok-4[-.][56]|grok-build-latest", source="PYD _GROK_45_REASONING_EFFORTS", efforts=LOW_TO_HIGH),
    Fact(names=r"grok-4[-.]7", source="docs.x.ai, reasoning", efforts=LOW_TO_XHIGH),
    Fact(names=r"grok-(4\.3|latest)", source="PYD _GROK_43_REASONING_EFFORTS", efforts=("none", *LOW_TO_HIGH)),
    Fact(
        names=r"grok-latest",
        source="OpenRouter's list of models: reasoning is mandatory",
        efforts=LOW_TO_HIGH,
        hosts=("openrouter", "openrouter-responses"),
    ),
    Fact(names=r"grok-4[.-]20(?!.*(non-reasoning|multi))", source="docs.x.ai, models: the name chooses", efforts=()),
    Fact(
        names=r"grok-(3|3-beta|4|4-0709|4-fast.*|4-1-fast.*)$(?<!non-reasoning)",
        source="PYD: retired names are answered by Grok 4.3",
        efforts=("none", *LOW_TO_HIGH),
    ),
    Fact(names=r"grok-3-mini", source="PYD (verified 2026-10-22)", efforts=("none", "low", "high")),
    Fact(names=r"grok-4\.[3567]", source="docs.x.ai, reasoning: stop is not supported", stop="no"),
    Fact(names=r"grok-4\.[67]", source="AWS model card", efforts=LOW_TO_XHIGH, sampling="no", hosts=("bedrock",)),
    # --- DeepSeek ---
    Fact(names=r"deepseek-(flash|v?4.*flash)", source="PI", efforts=("none", "low", "high", "max"), takes=("tools",)),
    Fact(names=r"deepseek-(pro|v?4.*pro)", source="PI", efforts=("none", "high", "max"), takes=("tools",)),
    Fact(names=r"deepseek-v4-", source="PYD providers/together.py", forced="no", hosts=("together",)),
    Fact(
        names=r"deepseek-(flash|pro|v4)",
        source="PYD providers/deepseek.py (verified): no forced tool while thinking, and it thinks by default",
        reasons=True,
        forced="off",
        hosts=("deepseek",),
    ),
    # --- Others ---
    Fact(
        names=r"mistral-(large-(4|4-0|4-0-8|latest)|medium(-3|-3[-.]5|-latest|-2604)?|small(-4|-latest|-2603)?)$"
        r"|devstral.*-latest|magistral.*-latest|mistral-code-agent",
        source="LL (none, high), PI",
        efforts=("none", "high"),
    ),
    Fact(names=r"(codestral|ministral|mistral-nemo)", source="docs.mistral.ai", efforts=(), hosts=("mistral",)),
    Fact(names=r"glm-5[-.p]2", source="PYD profiles/zai.py", efforts=ALL),
    Fact(names=r"glm-5[-.p]3", source="PYD profiles/zai.py: low, high or max", efforts=("low", "high", "max")),
    Fact(names=r"kimi-k3", source="PI, PYD", efforts=("low", "high", "max")),
    Fact(names=r"kimi|moonshot", source="PYD providers/moonshotai.py", forced="no", hosts=("moonshot",)),
    Fact(names=r"minimax-m3[.p]1", source="PI", efforts=LOW_TO_MAX),
    Fact(names=r"nova-2", source="AWS, Nova 2 extended thinking", efforts=("none", *LOW_TO_HIGH)),
    Fact(names=r"muse", source="PYD profiles/meta.py", efforts=ALL[1:]),
    Fact(names=r"muse", source="PYD providers/meta.py", forced="no", hosts=("meta", "meta-responses")),
    Fact(names=r"qwen3(-32b|\.6)", source="Groq's reasoning page", efforts=("none",), hosts=("groq",)),
    Fact(names=r"qwen-?3\.8", source="PI", efforts=("none", *LOW_TO_HIGH), hosts=("groq", "cerebras")),
)


def facts_of(name: str, provider: str) -> Fact:
    """Return what is known of a model at a provider."""
    known = Fact()
    for fact in FACTS:
        if re.search(fact.names, name) and (not fact.hosts or provider in fact.hosts):
            own = {field.name: getattr(fact, field.name) for field in fields(fact) if field.name != "hosts"}
            known = replace(known, **{key: value for key, value in own.items() if value is not None})
    return known
