"""Usage as Converse tells it, and as Bedrock itself counts in the native API, in our convention.

Both tell of input without what was read from the cache, or written to it: our input has them all.
"""

from __future__ import annotations

from typing import Any

from lm_deluge.usage import Usage

__all__ = ["read_converse_usage", "read_metrics"]


def read_converse_usage(raw: dict[str, Any]) -> Usage:
    """Return the usage that Converse, or Nova, tells."""
    read = _count(raw, "cacheReadInputTokens")
    written = _count(raw, "cacheWriteInputTokens")
    read = _count_of_native(raw, "cacheReadInputTokenCount") if read is None else read
    written = _count_of_native(raw, "cacheWriteInputTokenCount") if written is None else written
    return _usage(_count(raw, "inputTokens"), _count(raw, "outputTokens"), read, written, raw)


def read_metrics(raw: dict[str, Any]) -> Usage:
    """Return the tokens of `amazon-bedrock-invocationMetrics`."""
    read = _count_of_native(raw, "cacheReadInputTokenCount")
    written = _count_of_native(raw, "cacheWriteInputTokenCount")
    return _usage(_count(raw, "inputTokenCount"), _count(raw, "outputTokenCount"), read, written, raw)


def _usage(given: int | None, made: int | None, read: int | None, written: int | None, raw: dict[str, Any]) -> Usage:
    return Usage(
        input_tokens=(given or 0) + (read or 0) + (written or 0),
        output_tokens=made or 0,
        cache_read_tokens=read,
        cache_write_tokens=written,
        raw=raw,
    )


def _count_of_native(raw: dict[str, Any], name: str) -> int | None:
    """Return a count that is zero also where nothing can be cached: then it says nothing."""
    return _count(raw, name) or None


def _count(raw: dict[str, Any], name: str) -> int | None:
    value = raw.get(name)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
