"""In which form a model of Bedrock's native API is asked and answers, as its id says."""

from __future__ import annotations

import re

__all__ = ["find_form"]

# Tried in order. In front of the vendor may stand a region; answers of Claude and its kin name no vendor at all.
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
    """Return the form's name; `chat`, OpenAI's, where the id says nothing."""
    return next((form for pattern, form in _FORMS if model and pattern.match(model)), "chat")
