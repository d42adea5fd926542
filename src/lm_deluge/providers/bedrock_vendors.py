"""Who made a model of Bedrock: the second, or only, word of its id says it."""

from __future__ import annotations

__all__ = ["find_vendor"]

# https://docs.aws.amazon.com/bedrock/latest/userguide/models-supported.html (2026-11). In front of the vendor may stand
# the region of an inference profile, `us.` or `global.`; an ARN ends with the id, or with a name that says nothing.
_VENDORS = frozenset(
    {
        *("ai21", "amazon", "anthropic", "cohere", "deepseek", "google", "meta", "minimax", "mistral", "moonshot"),
        *("moonshotai", "nvidia", "openai", "qwen", "writer", "zai"),
    }
)


def find_vendor(model: str) -> str:
    """Return the vendor's word in a model id, empty where it has none: a custom or an imported model."""
    name = model.rpartition("/")[2] if model.startswith("arn:") else model
    return next((word for word in name.split(".")[:2] if word in _VENDORS), "")
