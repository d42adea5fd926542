"""Cohere: text may be a string or pieces; the content of an assistant message may be empty or absent."""

import json
from typing import Any

from requests_again import JSON, Again

API = "cohere-v2"


def normal_content(content: Any) -> Any:
    if isinstance(content, list) and all(piece["type"] == "text" for piece in content):
        return "".join(piece["text"] for piece in content)
    return content or ""


def normal_message(raw: JSON) -> JSON:
    found = {**raw, "content": normal_content(raw.get("content"))}
    for call in found.get("tool_calls") or ():
        call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    return found


def normal(raw: JSON) -> JSON:
    return {**raw, "messages": [normal_message(message) for message in raw["messages"]]}


AGAIN = Again(normal)
