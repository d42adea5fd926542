"""Mistral: like Chat Completions, except for the names of some values."""

from requests_again import JSON, Again
from requests_again.openai_chat import normal as normal_chat

API = "mistral-chat"


def normal(raw: JSON) -> JSON:
    found = normal_chat(raw)
    if found.get("tool_choice") == "required":
        found["tool_choice"] = "any"
    return found


AGAIN = Again(normal)
