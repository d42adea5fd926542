"""Convert the usage that OpenAI-compatible hosts report into `Usage`.

`input_tokens` counts all prompt tokens and `output_tokens` all generated tokens. Hosts use the same names for
the totals but different names and structures for the details.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec.structs import replace

from lm_deluge.adapters.token_counts import (
    COST_FIELDS,
    Count,
    complete_counts,
    read_cost,
    read_counts,
    read_tool_uses,
)
from lm_deluge.usage import Usage

__all__ = ["read_usage"]

# xAI: https://docs.x.ai/docs/guides/tools/tool-usage-details (2026-11)
_TOOL_USES = "server_side_tool_usage_details"
_OTHERS = frozenset({_TOOL_USES, *COST_FIELDS})
_WITH_TOTAL = 3  # fields of the shortest usage object that hosts send: both counts and their total


class _InputDetails(msgspec.Struct, gc=False):
    cached_tokens: Count = None
    cache_write_tokens: Count = None
    audio_tokens: Count = None


class _OutputDetails(msgspec.Struct, gc=False):
    reasoning_tokens: Count = None
    audio_tokens: Count = None


class _Counts(msgspec.Struct, gc=False):
    """The fields in which hosts report each number."""

    prompt_tokens: Count = None
    input_tokens: Count = None
    completion_tokens: Count = None
    output_tokens: Count = None
    total_tokens: Count = None
    prompt_tokens_details: _InputDetails | None = None
    input_tokens_details: _InputDetails | None = None
    completion_tokens_details: _OutputDetails | None = None
    output_tokens_details: _OutputDetails | None = None
    prompt_cache_hit_tokens: Count = None  # DeepSeek
    cache_read_input_tokens: Count = None  # LiteLLM's proxy
    cached_tokens: Count = None  # Moonshot
    cache_creation_input_tokens: Count = None
    reasoning_tokens: Count = None  # Perplexity


_NO_INPUT, _NO_OUTPUT = _InputDetails(), _OutputDetails()


def read_usage(raw: dict[str, Any], service_tier: str | None = None) -> Usage | None:
    """Convert a usage object of the provider; None if it has no counts.

    Args:
        raw: The object.
        service_tier: A field of the response, outside the object.
    """
    counts = read_counts(raw, _Counts)
    sent, output, total = counts.prompt_tokens, counts.completion_tokens, counts.total_tokens
    if sent is not None and output is not None and total is not None and len(raw) == _WITH_TOTAL:
        return Usage(input_tokens=sent, output_tokens=output, service_tier=service_tier, raw=raw)
    sent = counts.input_tokens if sent is None else sent
    output = counts.output_tokens if output is None else output
    read, written, input_audio = _read_input_details(counts)
    reasoning, output_audio = _read_output_details(counts)
    # xAI does not count reasoning in completion_tokens, but does in total_tokens (seen 2026-02).
    if reasoning and output is not None and total == (sent or 0) + output + reasoning:
        output += reasoning
    known = complete_counts(sent, output, total)
    if known is None:
        return None
    sent, output, is_partial = known
    usage = Usage(
        input_tokens=sent,
        output_tokens=output,
        cache_read_tokens=read,
        cache_write_tokens=written,
        reasoning_tokens=reasoning,
        input_audio_tokens=input_audio,
        output_audio_tokens=output_audio,
        service_tier=service_tier,
        estimated=is_partial,
        raw=raw,
    )
    return usage if _OTHERS.isdisjoint(raw) else replace(usage, **_others_of(raw))


def _read_input_details(counts: _Counts) -> tuple[int | None, int | None, int | None]:
    """Return the tokens read from the cache, written to it, and of audio; of each the most reliable report."""
    first, second = counts.prompt_tokens_details or _NO_INPUT, counts.input_tokens_details or _NO_INPUT
    read = second.cached_tokens if first.cached_tokens is None else first.cached_tokens
    for other in (counts.prompt_cache_hit_tokens, counts.cache_read_input_tokens, counts.cached_tokens):
        read = other if read is None else read
    written = second.cache_write_tokens if first.cache_write_tokens is None else first.cache_write_tokens
    written = counts.cache_creation_input_tokens if written is None else written
    return read, written, second.audio_tokens if first.audio_tokens is None else first.audio_tokens


def _read_output_details(counts: _Counts) -> tuple[int | None, int | None]:
    """Return the tokens of reasoning and of audio; of each the most reliable report."""
    first, second = counts.completion_tokens_details or _NO_OUTPUT, counts.output_tokens_details or _NO_OUTPUT
    reasoning = second.reasoning_tokens if first.reasoning_tokens is None else first.reasoning_tokens
    reasoning = counts.reasoning_tokens if reasoning is None else reasoning
    return reasoning, second.audio_tokens if first.audio_tokens is None else first.audio_tokens


def _others_of(raw: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    tool_uses = raw.get(_TOOL_USES)
    if tool_uses is not None:
        found["tool_uses"] = read_tool_uses(tool_uses, "_calls")
    cost = read_cost(raw)
    if cost is not None:
        found["reported_cost"] = cost
    return found
