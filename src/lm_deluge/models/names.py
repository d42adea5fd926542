"""Other spellings of the names in the registry: those of other libraries, of an older version, and of habit. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache

import msgspec

from lm_deluge.models.data_files import read_data_file
from lm_deluge.models.families import plain_name
from lm_deluge.models.rows import ModelRow, ProviderRow

__all__ = ["find_spelling", "older_name", "split_provider"]


class OldNames(msgspec.Struct, frozen=True):
    """Names of lm-deluge 0.0.168: endings with their provider and region, and names that no rule finds."""

    hosts: dict[str, tuple[str, str]]
    names: dict[str, str]


@cache
def _old_names() -> OldNames:
    import tomllib

    text = read_data_file("old_names.toml").decode()
    return msgspec.convert(tomllib.loads(text), OldNames)


def older_name(name: str) -> str | None:
    """Return our name for one of lm-deluge 0.0.168 that no rule finds, `provider:model` for some; None for others."""
    return _old_names().names.get(name.lower())


_CLAUDE = re.compile(r"claude-(\d)(?:[.-](\d))?-(opus|sonnet|haiku)(-\d{8})?")
_DATE = re.compile(r"[-@](\d{8}|\d{4}-\d\d-\d\d)$")


def split_provider(name: str, providers: Mapping[str, ProviderRow]) -> tuple[str, str] | None:
    """Return the id of the provider, and the model, of `provider:model` or `provider/model` in any case.

    None: the name has no known provider.

    Args:
        name: The name as the user wrote it.
        providers: The providers by id.
    """
    found = re.match(r"([\w-]+)[:/](.+)", name)
    if found is None:
        return None
    prefix, model = found[1].lower(), found[2]
    if prefix in providers:
        return prefix, model
    known = [row for row in providers.values() if prefix in row.aliases]
    # Google serves Claude through another API than Gemini, and its name is that of both.
    known.sort(key=lambda row: model.lower().startswith("claude") != row.adapter.startswith("anthropic-"))
    return (known[0].id, model) if known else None


def find_spelling(name: str, rows: Mapping[str, ModelRow]) -> ModelRow | None:
    """Return the row that a name means which is not the id of a row; None: no rule finds one.

    Understood are: any case; `-latest` and dates in only one of the two names; Claude's version before its family
    (`claude-4.5-sonnet`); the folder `models/`; and the names of the older lm-deluge.
    """
    by_lower_case = {id.lower(): row for id, row in rows.items()}
    for spelling in _spellings(name.lower().removeprefix("models/")):
        found = by_lower_case.get(spelling) or _dated(spelling, by_lower_case)
        if found is not None:
            return found
    return _hosted(name.lower(), rows)


def _spellings(name: str) -> Iterator[str]:
    yield name
    old = older_name(name)
    if old is not None:
        yield old.lower()
    claude = _CLAUDE.fullmatch(name)
    if claude:
        version = "-".join(part for part in claude.group(1, 2) if part)
        yield f"claude-{claude[3]}-{version}{claude[4] or ''}"
    yield f"{name}-latest"
    yield f"{name}-preview"
    if name.endswith("-latest"):
        yield name.removesuffix("-latest")
    if re.search(r"\d\.\d", name):
        yield re.sub(r"(?<=\d)\.(?=\d)", "-", name)


def _dated(name: str, rows: Mapping[str, ModelRow]) -> ModelRow | None:
    """Return the row of a dated name without the date, or of a name without a date the newest dated row.

    The name that is sent keeps its date.
    """
    date = _DATE.search(name)
    if date:
        known = rows.get(name[: date.start()])
        return known and msgspec.structs.replace(known, id=name, name=name.rpartition(":")[2])
    dated = [id for id in rows if id.startswith(name) and _DATE.fullmatch(id[len(name) :])]
    return rows[max(dated)] if dated else None


def _hosted(name: str, rows: Mapping[str, ModelRow]) -> ModelRow | None:
    """Return the row of `<model>-<host>`."""
    for ending, (provider, region) in _old_names().hosts.items():
        if not name.endswith(ending):
            continue
        wanted = {plain_name(each).replace("-", "") for each in _spellings(name.removesuffix(ending))}
        served = [row for row in rows.values() if row.provider == provider and row.name.startswith(region)]
        served = served or [row for row in rows.values() if row.provider == provider]
        plain = [(plain_name(row.name).replace("-", ""), row) for row in served]
        exact = [row for each, row in plain if each in wanted]
        longer = [row for each, row in plain if each.startswith(tuple(wanted))]
        return min(exact or longer, key=lambda row: len(row.name), default=None)
    return None
