"""Merge the usage objects of one response."""

from __future__ import annotations

from itertools import islice
from typing import Any

__all__ = ["merge_usage"]

# Fields of a merged usage object: five times as many as any provider has. It bounds the work for each report: a copy,
# because each event has its own object.
_MOST_FIELDS = 200


def merge_usage(before: dict[str, Any] | None, new: dict[str, Any]) -> dict[str, Any]:
    """Merge two usage objects of one response: the last value of each field that is not null wins, without summing.

    Once there are 200 fields, others are left out. The result is a new object, or `new` itself.
    """
    known = new if None not in new.values() else {name: value for name, value in new.items() if value is not None}
    if not before or before.keys() <= known.keys():
        return known
    merged = dict(islice(before.items(), _MOST_FIELDS))
    for name, value in known.items():
        if name in merged or len(merged) < _MOST_FIELDS:
            merged[name] = value
    return merged
