"""The table of adapters, by the name of their wire API."""

from __future__ import annotations

from collections.abc import Callable

from lm_deluge.adapters.adapter import Adapter
from lm_deluge.adapters.anthropic_messages.adapter import AnthropicMessages
from lm_deluge.adapters.bedrock_converse.adapter import BedrockConverse
from lm_deluge.adapters.bedrock_invoke.adapter import BedrockInvoke
from lm_deluge.adapters.cohere_v2.adapter import CohereV2
from lm_deluge.adapters.gemini_generate.adapter import GeminiGenerate
from lm_deluge.adapters.gemini_interactions.adapter import GeminiInteractions
from lm_deluge.adapters.mistral_chat.adapter import MistralChat
from lm_deluge.adapters.ollama_chat.adapter import OllamaChat
from lm_deluge.adapters.openai_chat.adapter import OpenAIChat
from lm_deluge.adapters.openai_responses.adapter import OpenAIResponses
from lm_deluge.errors import ConfigurationError

__all__ = ["adapter_names", "find_adapter"]

_ADAPTERS: dict[str, Callable[[], Adapter]] = {
    AnthropicMessages.name: AnthropicMessages,
    CohereV2.name: CohereV2,
    MistralChat.name: MistralChat,
    OllamaChat.name: OllamaChat,
    BedrockConverse.name: BedrockConverse,
    BedrockInvoke.name: BedrockInvoke,
    GeminiGenerate.name: GeminiGenerate,
    GeminiInteractions.name: GeminiInteractions,
    OpenAIChat.name: OpenAIChat,
    OpenAIResponses.name: OpenAIResponses,
}


def adapter_names() -> list[str]:
    """Return the names of all wire APIs, sorted."""
    return sorted(_ADAPTERS)


def find_adapter(name: str) -> Adapter:
    """Return the adapter of a wire API.

    Raises:
        ConfigurationError: No wire API has this name; the hint lists the known names.
    """
    if name not in _ADAPTERS:
        raise ConfigurationError(f"there is no wire API {name!r}", hint=f"Known: {', '.join(adapter_names())}.")
    return _ADAPTERS[name]()
