"""Find the vendor and the request format of a Bedrock model from its id.

https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters.html (2026-11)
"""

from __future__ import annotations

from typing import Literal, TypeAlias

__all__ = ["Family", "find_family", "find_vendor", "without_profile"]

Family: TypeAlias = Literal["claude", "nova", "chat", "titan", "llama", "mistral-text", "command-r", "command"]
"""A native format of requests and responses. `chat` is OpenAI's, which newer and imported models use."""

_VENDORS = frozenset(
    {
        *("ai21", "amazon", "anthropic", "cohere", "deepseek", "google", "meta", "minimax", "mistral", "moonshot"),
        *("moonshotai", "nvidia", "openai", "qwen", "writer", "xai", "zai"),
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
    """Return the vendor and the rest of the id, or an empty vendor and the whole id.

    The vendor may follow the region of an inference profile, such as `us.` or `global.`. An ARN ends with such an id,
    or with a generated name without a vendor.
    """
    words = (model.rpartition("/")[2] if model.startswith("arn:") else model).split(".")
    for position, word in enumerate(words[:2]):
        if word in _VENDORS:
            return word, ".".join(words[position + 1 :])
    return "", model


def find_vendor(model: str) -> str:
    """Return the vendor in a model id; empty for custom and imported models."""
    return _split(model)[0]


def without_profile(model: str) -> str:
    """Return the id of the model itself for the id or ARN of an inference profile, such as `us.` before the id."""
    vendor, name = _split(model)
    return f"{vendor}.{name}" if vendor else model


def find_family(model: str) -> Family:
    """Return the model's request format in the native API (InvokeModel)."""
    vendor, name = _split(model)
    for word, prefix, family in _FAMILIES:
        if word == vendor and name.startswith(prefix):
            return family
    return "chat"
