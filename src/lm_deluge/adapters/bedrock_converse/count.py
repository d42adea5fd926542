"""Build the request that counts the tokens of a prompt for models on Bedrock.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_CountTokens.html
"""

from __future__ import annotations

import msgspec

from lm_deluge.adapters.adapter import Call
from lm_deluge.adapters.bedrock_converse.models import without_profile
from lm_deluge.adapters.bedrock_converse.request import build_converse_body
from lm_deluge.adapters.http_request import build_side_request
from lm_deluge.wire.http import HttpRequest

__all__ = ["build_count"]

_FIELDS = ("messages", "system", "toolConfig", "additionalModelRequestFields")


def build_count(call: Call) -> HttpRequest:
    """Return the request, without credentials. The API takes the model itself, and no inference profile of it."""
    body = build_converse_body(call)
    content = {"input": {"converse": {name: body[name] for name in _FIELDS if name in body}}}
    model = msgspec.structs.replace(call.model, name=without_profile(call.model.name))
    named = msgspec.structs.replace(call, model=model)
    return build_side_request(named, method="POST", path="/model/{model}/count-tokens", content=content)
