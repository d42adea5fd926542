"""The request and response format of a model of Bedrock's native API, by the model's id."""

from __future__ import annotations

import re

__all__ = ["find_form"]

# Tried in order. A region may precede the vendor. In responses, the ids of Claude models contain no vendor.
_FORMS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(rf"(?:arn:.*/)?(?:[a-z-]+\.)?{pattern}"), form)
    for pattern, form in (
        (r"(?:anthropic\.|claude)", "claude"),
        (r"amazon\.titan", "titan"),
        (r"amazon\.", "nova"),
        (r"meta\.", "llama"),
        (r"mistral\.(?:mistral-7b|mixtral|mistral-small-2402)", "mistral-text"),
        (r"cohere\.command-r", "command-r"),
        (r"cohere\.", "command"),
    )
)


def find_form(model: str | None) -> str:
    """Return the name of the format; `chat`, OpenAI's format, if no pattern matches the id."""
    return next((form for pattern, form in _FORMS if model and pattern.match(model)), "chat")
