"""Converse."""

import json
from typing import Any

from requests_again import JSON, Again

API = "bedrock-converse"


def normal_block(block: JSON) -> JSON:
    """Parse results that are JSON in text form; drop the status `success`, which is the default."""
    if "toolResult" not in block:
        return block
    result = {name: value for name, value in block["toolResult"].items() if (name, value) != ("status", "success")}
    result["content"] = [normal_result(piece) for piece in result["content"]]
    return {"toolResult": result}


def normal_result(piece: JSON) -> Any:
    try:
        return {"json": json.loads(piece["text"])} if "text" in piece else piece
    except ValueError:
        return piece


def normal_format(config: JSON) -> JSON:
    """Drop the name and the description of a schema, which are also in the schema."""
    schema = config["textFormat"]["structure"]["jsonSchema"]["schema"] if "textFormat" in config else None
    return {"effort": config.get("effort"), "schema": None if schema is None else json.loads(schema)}


def normal(raw: JSON) -> JSON:
    found = {name: value for name, value in raw.items() if value}
    found["messages"] = [
        {"role": message["role"], "content": [normal_block(block) for block in message["content"]]}
        for message in raw["messages"]
    ]
    config = {name: value for name, value in raw.get("inferenceConfig", {}).items() if value not in (None, [])}
    found.pop("inferenceConfig", None)
    if "outputConfig" in found:
        found["outputConfig"] = normal_format(found["outputConfig"])
    return {**found, **config}


AGAIN = Again(normal)
