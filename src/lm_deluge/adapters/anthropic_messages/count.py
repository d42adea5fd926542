"""Build the request that counts the tokens of a prompt for Claude.

https://platform.claude.com/docs/en/api/messages/count_tokens
"""

from __future__ import annotations

import msgspec

from lm_deluge.adapters.adapter import Call
from lm_deluge.adapters.anthropic_messages.request import build_messages_body
from lm_deluge.adapters.http_request import build_side_request
from lm_deluge.wire.http import HttpRequest

__all__ = ["build_count"]

_FIELDS = ("model", "messages", "system", "tools", "tool_choice", "thinking", "output_config")
# https://docs.cloud.google.com/vertex-ai/generative-ai/docs/partner-models/claude/count-tokens
_VERTEX_PATH = "/models/count-tokens:rawPredict"


def build_count(call: Call) -> HttpRequest:
    """Return the request, without credentials. The model's name is in the body also where Vertex AI serves it."""
    body = build_messages_body(msgspec.structs.replace(call, is_streamed=False))
    path = _VERTEX_PATH if call.provider.path.endswith(":rawPredict") else "/v1/messages/count_tokens"
    content = {name: body[name] for name in _FIELDS if name in body}
    return build_side_request(call, method="POST", path=path, content=content)
