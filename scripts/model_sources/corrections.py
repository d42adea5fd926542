"""Corrections by hand, from `corrections.toml`."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["corrections"]

_KNOWN = {
    *("row", "source", "date", "drop", "price", "context_window", "max_output_tokens"),
    *("status", "retires", "successor", "capabilities", "factors", "later_factors"),
}


def corrections(provider: str, name: str) -> dict[str, Any]:
    """Return the fields of a row that are set by hand; `capabilities` are merged."""
    found: dict[str, Any] = {"capabilities": {}}
    for pattern, fields in _table():
        if pattern.fullmatch(f"{provider}:{name}"):
            merged = {**found["capabilities"], **fields.get("capabilities", {})}
            found |= {**fields, "capabilities": merged}
    return found


@cache
def _table() -> list[tuple[re.Pattern[str], dict[str, Any]]]:
    entries = tomllib.loads((Path(__file__).parent / "corrections.toml").read_text("utf-8"))["correction"]
    table = []
    for number, entry in enumerate(entries, 1):
        if not entry.get("source") or not entry.get("date") or entry.keys() - _KNOWN:
            raise SystemExit(
                f"corrections.toml: entry {number} ({entry.get('row')}) has no source, no date or odd keys"
            )
        fields = {key: value for key, value in entry.items() if key not in ("row", "source", "date")}
        table.append((re.compile(entry["row"]), fields))
    return table
