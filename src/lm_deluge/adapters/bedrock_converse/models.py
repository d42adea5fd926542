"""Whose a model of Bedrock is, and what it is asked in: its id says it.

https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters.html (2026-11)
"""

from __future__ import annotations

from typing import Literal, TypeAlias

__all__ = ["Family", "find_family", "find_vendor"]

Family: TypeAlias = Literal["claude", "nova", "chat", "titan", "llama", "mistral-text", "command-r", "command"]
"""A form of requests and answers. `chat` is OpenAI's, which all newer models take, imported ones among them."""

_VENDORS = frozenset(
    {
        *("ai21", "amazon", "anthropic", "cohere", "deepseek", "google", "meta", "minimax", "mistral", "moonshot"),
        *("moonshotai", "nvidia", "openai", "qwen", "writer", "zai"),
    }
)

_FAMILIES: tuple[tuple[str, str, Family], ...] = (
    ("anthropic", "", "claude"),
    ("amazon", "titan", "titan"),
    ("amazon", "", "nova"),
    ("meta", "", "llama"),
    ("mistral", "mistral-7b", "mistral-text"),
    ("mistral", "mixtral", "mistral-text"),
    ("mistral", "mistral-small-2402", "mistral-text"),
    ("cohere", "command-r", "command-r"),
    ("cohere", "", "command"),
)


def _split(model: str) -> tuple[str, str]:
    """Return the vendor and the name behind it.

    In front of the vendor may stand the region of an inference profile, `us.` or `global.`; an ARN ends with the id, or
    with a name that says nothing.
    """
    words = (model.rpartition("/")[2] if model.startswith("arn:") else model).split(".")
    for position, word in enumerate(words[:2]):
        if word in _VENDORS:
            return word, ".".join(words[position + 1 :])
    return "", model


def find_vendor(model: str) -> str:
    """Return the vendor's word in a model id, empty where it has none: a custom or an imported model."""
    return _split(model)[0]


def find_family(model: str) -> Family:
    """Return the form in which a model is asked by the native API."""
    vendor, name = _split(model)
    for word, prefix, family in _FAMILIES:
        if word == vendor and name.startswith(prefix):
            return family
    return "chat"
