"""Fields that responses of several chat APIs share with Chat Completions: calls, images, log probabilities, usage."""

from __future__ import annotations

from typing import Any

from lm_deluge.prompt.parts import TokenLogprob
from lm_deluge.usage import Usage

__all__ = ["call_fields", "image_piece", "logprob_fields", "signature_field", "usage_fields"]

JSON = dict[str, Any]

# OpenAI sends -9999 for tokens outside the most likely ones; JSON has no -Infinity, so it also replaces that.
_LEAST_LOGPROB = -9999.0


def call_fields(call_id: str, name: str, arguments: str, *, custom: bool) -> JSON:
    """Return the JSON of a tool call; `arguments` may be a fragment."""
    if custom:
        return {"id": call_id, "type": "custom", "custom": {"name": name, "input": arguments}}
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def signature_field(signature: str) -> JSON:
    """Return the field with Google's signature of a tool call or of a message."""
    return {"extra_content": {"google": {"thought_signature": signature}}}


def logprob_fields(tokens: tuple[TokenLogprob, ...]) -> list[JSON]:
    """Return the JSON of tokens with their log probabilities."""
    return [{**_logprob(token), "top_logprobs": [_logprob(other) for other in token.top_logprobs]} for token in tokens]


def _logprob(token: Any) -> JSON:
    return {"token": token.token, "logprob": max(token.logprob, _LEAST_LOGPROB), "bytes": token.bytes}


def image_piece(url: str) -> JSON:
    """Return the content part of an image."""
    return {"type": "image_url", "image_url": {"url": url}}


def usage_fields(usage: Usage) -> JSON:
    """Return the JSON of usage; unknown counts are left out."""
    details = {
        "prompt_tokens_details": {
            "cached_tokens": usage.cache_read_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
            "audio_tokens": usage.input_audio_tokens,
        },
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "audio_tokens": usage.output_audio_tokens,
        },
    }
    fields: JSON = {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
    }
    for name, counts in details.items():
        known = {key: count for key, count in counts.items() if count is not None}
        if known:
            fields[name] = known
    return fields
