"""The simulator's estimate of the tokens of a prompt, for usage and for the endpoints that count tokens."""

from __future__ import annotations

from lm_deluge.adapters.count_api import estimate_prompt
from lm_deluge.encoders.encoder import ParsedRequest

__all__ = ["count_input_tokens"]


def count_input_tokens(request: ParsedRequest) -> int:
    """Return the estimated number of tokens of the conversation and the tools of a request, at least 1.

    The count endpoints and the usage of an answer to the same request agree. A tokenizer gives another number.
    """
    return max(1, estimate_prompt(request.conversation.text_length(), request.tools))
