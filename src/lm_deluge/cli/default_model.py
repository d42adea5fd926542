"""The model of a command that names none."""

from __future__ import annotations

import os

from lm_deluge.cli.environment import MODEL_VARIABLE

__all__ = ["FIRST_MODEL", "find_default_model"]

FIRST_MODEL = "gpt-5.4"

# One general model of each provider, in the registry. If several keys are set, the first provider here is used. Tokens
# that are often set for other purposes than models (GITHUB_TOKEN, HF_TOKEN, CLOUDFLARE_API_TOKEN) choose no model.
_MODELS = {
    "openai": FIRST_MODEL,
    "anthropic": "claude-sonnet-5-5",
    "gemini": "gemini-3.8-flash",
    "mistral": "mistral-large-latest",
    "xai": "grok-latest",
    "deepseek": "deepseek-flash",
    "groq": "groq:openai/gpt-oss-120b",
    "cerebras": "cerebras:gpt-oss-120b",
    "cohere": "command-r-plus-08-2024",
    "perplexity": "sonar",
    "moonshot": "kimi-k3",
    "minimax": "MiniMax-M3",
    "zai": "glm-5.3",
    "alibaba": "qwen3.7-plus",
    "inception": "mercury-2",
    "openrouter": "openrouter:openai/gpt-5.4",
    "together": "together:openai/gpt-oss-120b",
    "nebius": "nebius:openai/gpt-oss-120b",
    "deepinfra": "deepinfra:zai-org/GLM-5.2",
}


def find_default_model(*, is_openai: bool = False) -> str:
    """Return the model of `DELUGE_MODEL`, else that of the first provider whose key or address is set, else `gpt-5.4`.

    Args:
        is_openai: Whether the command names a key or an address, which belong to an OpenAI-compatible host.
    """
    named = os.environ.get(MODEL_VARIABLE, "").strip()
    if named or is_openai:
        return named or FIRST_MODEL
    from lm_deluge.models.registry import find_provider

    for provider, model in _MODELS.items():
        row = find_provider(provider)
        if any(os.environ.get(name, "").strip() for name in (*row.key_env, *row.base_url_env)):
            return model
    return FIRST_MODEL
