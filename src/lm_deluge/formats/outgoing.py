"""Build the messages of a conversation in the format of a provider's own library.

The adapters build them, so they are those that a call of ours sends. A conversation may end with open tool calls here:
the program that gets the messages can still answer them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

from lm_deluge.adapters.adapter import Call
from lm_deluge.adapters.anthropic_messages.cache_control import add_cache_marks
from lm_deluge.adapters.anthropic_messages.request import build_system, build_turns
from lm_deluge.adapters.gemini_generate.contents import build_contents, leading_instructions
from lm_deluge.adapters.mistral_chat.request import MISTRAL_MESSAGES
from lm_deluge.adapters.openai_chat.quirks import sign_foreign_calls
from lm_deluge.adapters.openai_chat.request import build_messages
from lm_deluge.adapters.openai_responses.request import build_input
from lm_deluge.adapters.text_files import takes_documents, with_inline_files
from lm_deluge.config import PromptCache
from lm_deluge.errors import ConfigurationError
from lm_deluge.models.registry import find_provider
from lm_deluge.models.rows import ModelRow
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.message import Message

__all__ = ["build_anthropic", "build_gemini", "build_mistral", "build_openai", "build_openai_responses"]

JSON = dict[str, Any]


def _call_of(messages: Sequence[Message], provider: str) -> Call:
    """Return a call to a model that takes everything, as the capabilities of the real one are not known here."""
    model = ModelRow(id=provider, name="", provider=provider)
    return Call(model=model, provider=find_provider(provider), conversation=Conversation(messages))


def build_openai(messages: Sequence[Message], provider: str | None) -> list[JSON]:
    """Return the messages of Chat Completions for a provider; None: OpenAI.

    Raises:
        ConfigurationError: A part cannot be sent in this format, or there is no such provider.
    """
    call = with_inline_files(_call_of(messages, provider or "openai"))
    found = build_messages(call)
    sign_foreign_calls(call, found)
    return found


def build_openai_responses(messages: Sequence[Message]) -> JSON:
    """Return the field `input` of the Responses API, as a dict with the other fields of a conversation.

    Raises:
        ConfigurationError: A part cannot be sent in this format.
    """
    return {"input": build_input(with_inline_files(_call_of(messages, "openai-responses"), lambda _: True))}


def build_anthropic(messages: Sequence[Message], cache: Any) -> tuple[str | list[JSON] | None, list[JSON]]:
    """Return the fields `system` and `messages` of Anthropic's API, with marks of the part to cache.

    Raises:
        ConfigurationError: A part cannot be sent in this format, or there is no such pattern.
    """
    if cache is not None and cache not in get_args(PromptCache):
        raise ConfigurationError(
            f"there is no cache_pattern {cache!r}", hint=f"Known: {', '.join(get_args(PromptCache))}."
        )
    call = _call_of(messages, "anthropic")
    call = with_inline_files(call, takes_documents(call))
    body: JSON = {"messages": build_turns(call)}
    system = build_system(call)
    if system:
        body["system"] = system
    if cache is not None:
        add_cache_marks(body, cache)
    return body.get("system"), body["messages"]


def build_gemini(messages: Sequence[Message]) -> tuple[str | None, list[JSON]]:
    """Return the system instruction and the contents of Google's API.

    Raises:
        ConfigurationError: A part cannot be sent in this format.
    """
    call = _call_of(messages, "gemini")
    call = with_inline_files(call, takes_documents(call))
    return "\n\n".join(leading_instructions(call)) or None, build_contents(call)


def build_mistral(messages: Sequence[Message]) -> list[JSON]:
    """Return the messages of Mistral's API.

    Raises:
        ConfigurationError: A part cannot be sent in this format.
    """
    call = with_inline_files(_call_of(messages, "mistral"))
    return build_messages(call, MISTRAL_MESSAGES, results_have_media=True)
