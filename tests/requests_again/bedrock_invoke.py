"""The native API: the formats of Claude, Nova and text completion models."""

from requests_again import JSON, Again
from requests_again.anthropic_messages import normal as normal_claude
from requests_again.bedrock_converse import normal as normal_converse

API = "bedrock-invoke"


def normal(raw: JSON) -> JSON:
    if "inputText" in raw:
        return {**raw, "textGenerationConfig": without_empty(raw.get("textGenerationConfig", {}))}
    if "schemaVersion" in raw:
        found = normal_converse(raw)
        found.setdefault("maxTokens", found.pop("max_new_tokens", None))  # two names of the same limit
        return found
    if "anthropic_version" in raw:
        return normal_claude(raw)
    if "num_generations" in raw and raw["num_generations"] == 1:
        raw = {name: value for name, value in raw.items() if name != "num_generations"}
    return without_empty(raw)


def without_empty(raw: JSON) -> JSON:
    return {name: value for name, value in raw.items() if value not in (None, [])}


AGAIN = Again(
    normal,
    {
        "the format of Claude's first models, which also accept the newer format": lambda request: (
            "max_tokens_to_sample" in request
        ),
    },
)
