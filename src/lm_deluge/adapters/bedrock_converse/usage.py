"""Convert the usage of Converse, and the invocation metrics of Bedrock's native API, into a `Usage`.

In both, the input excludes tokens read from and written to the cache, so these are added.
"""

from __future__ import annotations

from typing import Any

from lm_deluge.usage import Usage

__all__ = ["read_converse_usage", "read_metrics"]


def read_converse_usage(raw: dict[str, Any]) -> Usage:
    """Return the `Usage` of a usage object of Converse or Nova."""
    read = _count(raw, "cacheReadInputTokens")
    written = _count(raw, "cacheWriteInputTokens")
    read = _count_unless_zero(raw, "cacheReadInputTokenCount") if read is None else read
    written = _count_unless_zero(raw, "cacheWriteInputTokenCount") if written is None else written
    return _usage(_count(raw, "inputTokens"), _count(raw, "outputTokens"), read, written, raw)


def read_metrics(raw: dict[str, Any]) -> Usage:
    """Return the `Usage` of `amazon-bedrock-invocationMetrics`."""
    read = _count_unless_zero(raw, "cacheReadInputTokenCount")
    written = _count_unless_zero(raw, "cacheWriteInputTokenCount")
    return _usage(_count(raw, "inputTokenCount"), _count(raw, "outputTokenCount"), read, written, raw)


def _usage(sent: int | None, output: int | None, read: int | None, written: int | None, raw: dict[str, Any]) -> Usage:
    return Usage(
        input_tokens=(sent or 0) + (read or 0) + (written or 0),
        output_tokens=output or 0,
        cache_read_tokens=read,
        cache_write_tokens=written,
        raw=raw,
    )


def _count_unless_zero(raw: dict[str, Any], name: str) -> int | None:
    """Return a count, or None if it is 0: the native API also reports 0 for models that cannot cache."""
    return _count(raw, name) or None


def _count(raw: dict[str, Any], name: str) -> int | None:
    value = raw.get(name)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
