"""Interactions."""

from requests_again import JSON, Again

API = "gemini-interactions"


def normal(raw: JSON) -> JSON:
    """Text, content and steps of the user say the same."""
    given = raw["input"]
    contents = [{"type": "text", "text": given}] if isinstance(given, str) else given
    if all(content["type"] in ("text", "image", "audio", "document") for content in contents):
        contents = [{"type": "user_input", "content": contents}]
    return {**raw, "input": contents}


AGAIN = Again(normal)
