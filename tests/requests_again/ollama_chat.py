"""Ollama: empty options, an empty format and nulls equal absent fields."""

from requests_again import JSON, Again

API = "ollama-chat"


def normal(raw: JSON) -> JSON:
    return {name: value for name, value in raw.items() if value not in (None, "", {})}


AGAIN = Again(normal)
