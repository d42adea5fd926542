"""Gemini."""

from typing import Any

from lm_deluge.encoders.gemini_generate.fields import camel, lower_types
from requests_again import JSON, Again

API = "gemini-generate"


def normal_part(raw: JSON) -> JSON:
    """Convert URL-safe base64 to the standard alphabet."""
    part = camel(raw)
    if "inlineData" in part:
        blob = part["inlineData"]
        part["inlineData"] = {**blob, "data": blob["data"].replace("-", "+").replace("_", "/")}
    return part


def normal_contents(raw: list[JSON]) -> list[JSON]:
    """Merge consecutive turns of a role; the default role is `user`."""
    turns: list[JSON] = []
    for content in raw:
        role = {"function": "user"}.get(content.get("role") or "user", content.get("role") or "user")
        parts = [normal_part(part) for part in content["parts"]]
        if turns and turns[-1]["role"] == role:
            turns[-1]["parts"] += parts
        else:
            turns.append({"role": role, "parts": parts})
    return turns


def normal_tools(raw: list[JSON]) -> tuple[list[JSON], list[JSON]]:
    """Collect the function declarations of all tools; `parameters` and `parametersJsonSchema` are equivalent."""
    declared, others = [], []
    for entry in raw:
        for name, value in camel(entry).items():
            if name == "functionDeclarations":
                declared += [normal_declaration(each) for each in value]
            else:
                others.append({name: value})
    return declared, others


def normal_declaration(raw: JSON) -> JSON:
    fields = camel(raw)
    schema = fields.pop("parameters", fields.pop("parametersJsonSchema", None))
    described = {name: value for name, value in fields.items() if value}  # an empty description equals an absent one
    return {**described, "schema": lower_types(schema) or None}


def normal(raw: JSON) -> JSON:
    found = camel(raw)
    found["contents"] = normal_contents(raw["contents"])
    found["tools"] = normal_tools(found.get("tools") or [])
    instruction: Any = found.pop("systemInstruction", None)
    found["system"] = "\n".join(part["text"] for part in instruction["parts"]) if instruction else None
    found["generationConfig"] = camel(found.get("generationConfig") or {})
    return found


def is_shortened(raw: JSON) -> bool:
    blobs = [part["inlineData"] for content in raw["contents"] for part in content["parts"] if "inlineData" in part]
    return any("..." in blob["data"] or len(blob["data"]) % 4 for blob in blobs)


AGAIN = Again(normal, {"an image that was shortened for the recording": is_shortened})
