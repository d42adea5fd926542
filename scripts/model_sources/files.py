"""Writes the rows as JSON, with equal capabilities stored once, and compares two versions of the file."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Iterator
from typing import Any

import msgspec

from lm_deluge.models.rows import ModelRow
from lm_deluge.models.snapshots import Snapshot
from lm_deluge.usage import Price

__all__ = ["describe_changes", "lean", "models_json"]


def models_json(rows: list[ModelRow], today: dt.date) -> str:
    """Return the date, the sets of capabilities and the rows as JSON, with one set and one model per line."""
    sets: dict[str, str] = {}
    lines = []
    for row in rows:
        fields = lean(row)
        text = _compact(fields.pop("capabilities", {}))
        # A key by content: the line of a set, and those of its models, change only when the set does.
        key = hashlib.blake2b(text.encode(), digest_size=3).hexdigest()
        sets[key] = text
        lines.append(_compact({**fields, "capabilities": key}))
    described = ",\n".join(f'"{key}":{sets[key]}' for key in sorted(sets))
    models = ",\n".join(lines)
    return f'{{"date":"{today.isoformat()}","capabilities":{{\n{described}\n}},"models":[\n{models}\n]}}\n'


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def lean(value: Any) -> Any:
    """Return a struct as plain data, without fields that have their default value."""
    if isinstance(value, tuple):
        return [lean(item) for item in value]
    if isinstance(value, dict):
        return {key: lean(item) for key, item in value.items()}
    if isinstance(value, float):
        rounded = round(value, 6)
        return int(rounded) if rounded.is_integer() else rounded
    if not isinstance(value, msgspec.Struct):
        return value
    pairs = ((field, getattr(value, field.name)) for field in msgspec.structs.fields(value))
    return {field.name: lean(item) for field, item in pairs if item != _default(field)}


def _default(field: Any) -> Any:
    return field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()


def describe_changes(before: Snapshot, rows: list[ModelRow]) -> Iterator[str]:
    """Yield the differences between two versions of the rows: prices first, then rows, then other fields."""
    old, new = {row.id: row for row in before.rows()}, {row.id: row for row in rows}
    both = sorted(old.keys() & new.keys())
    prices = [line for name in both if (line := _price_change(name, old[name].price, new[name].price))]
    others = [line for name in both if (line := _field_changes(name, old[name], new[name]))]
    sections = {
        "prices": prices,
        "new models": sorted(f"{name}: {_short(new[name].price)}" for name in new.keys() - old.keys()),
        "models that left": sorted(old.keys() - new.keys()),
        "other fields": others,
    }
    for title, lines in sections.items():
        yield f"== {title}: {len(lines)}"
        yield from lines


def _price_change(name: str, old: Price | None, new: Price | None) -> str | None:
    if lean(old) == lean(new):  # as written to the file, where prices are rounded
        return None
    if _short(old) != _short(new):
        return f"{name}: {_short(old)} -> {_short(new)}"
    fields = [key for key in Price.__struct_fields__ if lean(getattr(old, key)) != lean(getattr(new, key))]
    return f"{name}: {_short(new)}, and other {', '.join(fields)}"


def _short(price: Price | None) -> str:
    return "no price" if price is None else f"{price.input:g}/{price.output:g} (cached {price.cache_read or '-'})"


def _field_changes(name: str, old: ModelRow, new: ModelRow) -> str | None:
    before, after = lean(old), lean(new)
    before |= {f"can.{key}": value for key, value in before.pop("capabilities", {}).items()}
    after |= {f"can.{key}": value for key, value in after.pop("capabilities", {}).items()}
    keys = sorted(key for key in before.keys() | after.keys() if key != "price" and before.get(key) != after.get(key))
    changed = (f"{key} {before.get(key)} -> {after.get(key)}" for key in keys)
    return f"{name}: {', '.join(changed)}" if keys else None
