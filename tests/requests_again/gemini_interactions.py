"""The Interactions API."""

from requests_again import JSON, Again

API = "gemini-interactions"


def normal(raw: JSON) -> JSON:
    """Convert input original as a string or as contents to a user step."""
    original = raw["input"]
    contents = [{"type": "text", "text": original}] if isinstance(original, str) else original
    if all(content["type"] in ("text", "image", "audio", "document") for content in contents):
        contents = [{"type": "user_input", "content": contents}]
    return {**raw, "input": contents}


AGAIN = Again(normal)
