"""The table of batch APIs, by name."""

from __future__ import annotations

from collections.abc import Callable

from lm_deluge.adapters.anthropic_messages.batch import AnthropicBatch
from lm_deluge.adapters.batch_api import BatchAPI
from lm_deluge.adapters.gemini_generate.batch import GeminiBatch
from lm_deluge.adapters.openai_chat.batch import OpenAIBatch
from lm_deluge.errors import ConfigurationError
from lm_deluge.models.registry import list_providers
from lm_deluge.models.rows import ProviderRow

__all__ = ["batch_api_names", "find_batch_api"]

_APIS: dict[str, Callable[[], BatchAPI]] = {
    AnthropicBatch.name: AnthropicBatch,
    GeminiBatch.name: GeminiBatch,
    OpenAIBatch.name: OpenAIBatch,
}


def batch_api_names() -> list[str]:
    """Return the names of all batch APIs, sorted."""
    return sorted(_APIS)


def find_batch_api(provider: ProviderRow) -> BatchAPI:
    """Return the batch API of a provider.

    Raises:
        ConfigurationError: The provider's row names no known batch API; the hint lists the providers that have one.
    """
    if provider.batch_api in _APIS:
        return _APIS[provider.batch_api]()
    supported = ", ".join(row.id for row in list_providers() if row.batch_api in _APIS)
    raise ConfigurationError(
        "LM Deluge knows no batch API of this provider", provider=provider.id, hint=f"Providers with one: {supported}."
    )
