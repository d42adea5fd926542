"""Build the request that counts the tokens of a prompt for Gemini.

https://ai.google.dev/api/tokens
"""

from __future__ import annotations

import msgspec

from lm_deluge.adapters.adapter import Call
from lm_deluge.adapters.gemini_generate.request import build_generate_body, wire_name
from lm_deluge.adapters.http_request import build_side_request
from lm_deluge.wire.http import HttpRequest

__all__ = ["build_count"]

# https://docs.cloud.google.com/vertex-ai/generative-ai/docs/reference/rest/v1/projects.locations.publishers.models/countTokens
_VERTEX_FIELDS = ("contents", "systemInstruction", "tools", "generationConfig")


def build_count(call: Call) -> HttpRequest:
    """Return the request, without credentials: the whole request at Google AI, some of its fields at Vertex AI."""
    body = build_generate_body(call)
    collection, name = wire_name(call.model.name)
    if call.provider.path:
        path = call.provider.path.replace(":generateContent", ":countTokens")
        content = {field: body[field] for field in _VERTEX_FIELDS if field in body}
    else:
        path = f"/v1beta/{collection}/{{model}}:countTokens"
        body.pop("serviceTier", None)
        content = {"generateContentRequest": {"model": f"{collection}/{name}", **body}}
    named = msgspec.structs.replace(call, model=msgspec.structs.replace(call.model, name=name))
    return build_side_request(named, method="POST", path=path, content=content)
