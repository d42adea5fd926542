"""The simulator's estimate of the tokens of a prompt, for usage and for the endpoints that count tokens."""

from __future__ import annotations

import msgspec

from lm_deluge.encoders.encoder import ParsedRequest
from lm_deluge.prompt.tool import Tool
from lm_deluge.usage import estimate_tokens

__all__ = ["count_input_tokens"]


def count_input_tokens(request: ParsedRequest) -> int:
    """Return the estimated number of tokens of the conversation and the tools of a request, at least 1.

    The count endpoints and the usage of an answer to the same request agree. A tokenizer gives another number.
    """
    return max(1, estimate_tokens(request.conversation.text_length() + sum(map(_tool_length, request.tools))))


def _tool_length(tool: object) -> int:
    if isinstance(tool, Tool):
        return len(tool.name) + len(tool.description) + len(msgspec.json.encode(tool.parameters))
    return len(msgspec.json.encode(tool))
