"""Convert the usage of Converse, and the invocation metrics of Bedrock's native API, into a `Usage`.

In both, the input excludes tokens read from and written to the cache, so these are added.
"""

from __future__ import annotations

from typing import Any

from lm_deluge.adapters.token_counts import build_usage, read_count
from lm_deluge.usage import Usage

__all__ = ["read_converse_usage", "read_metrics"]


def read_converse_usage(raw: dict[str, Any]) -> Usage | None:
    """Return the `Usage` of a usage object of Converse or Nova; None if it has no counts."""
    read = _count(raw, "cacheReadInputTokens")
    written = _count(raw, "cacheWriteInputTokens")
    read = _count_unless_zero(raw, "cacheReadInputTokenCount") if read is None else read
    written = _count_unless_zero(raw, "cacheWriteInputTokenCount") if written is None else written
    return _usage(_count(raw, "inputTokens"), _count(raw, "outputTokens"), read, written, raw)


def read_metrics(raw: dict[str, Any]) -> Usage | None:
    """Return the `Usage` of `amazon-bedrock-invocationMetrics`; None if they have no counts."""
    read = _count_unless_zero(raw, "cacheReadInputTokenCount")
    written = _count_unless_zero(raw, "cacheWriteInputTokenCount")
    return _usage(_count(raw, "inputTokenCount"), _count(raw, "outputTokenCount"), read, written, raw)


def _usage(
    sent: int | None, output: int | None, read: int | None, written: int | None, raw: dict[str, Any]
) -> Usage | None:
    return build_usage(
        raw,
        None if sent is None and not (read or written) else (sent or 0) + (read or 0) + (written or 0),
        output,
        raw.get("totalTokens"),
        cache_read_tokens=read,
        cache_write_tokens=written,
    )


def _count_unless_zero(raw: dict[str, Any], name: str) -> int | None:
    """Return a count, or None if it is 0: the native API also reports 0 for models that cannot cache."""
    return _count(raw, name) or None


def _count(raw: dict[str, Any], name: str) -> int | None:
    return read_count(raw.get(name))
