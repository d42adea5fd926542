"""Rows from a TOML file of the user: new rows, and fields that override those of the package's rows."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from lm_deluge.errors import ConfigurationError
from lm_deluge.models.costs import check_prices
from lm_deluge.models.rows import ModelRow, ProviderRow

__all__ = ["read_user_rows"]

_Row = TypeVar("_Row", ModelRow, ProviderRow)


def read_user_rows(
    text: str, file: str, providers: Mapping[str, ProviderRow], models: Mapping[str, ModelRow]
) -> tuple[dict[str, ProviderRow], dict[str, ModelRow]]:
    """Return the rows of a file by id, from tables `[providers.ID]` and `[models."ID"]` with the fields of the rows.

    Fields that a table omits keep their values from the existing row of that id. In new rows `otel_name` defaults to
    the provider's id, and `provider` and `name` of a model to the parts of its id before and after the colon.

    Raises:
        ConfigurationError: The file is not valid TOML, or a row is invalid; the message contains file and key.
    """
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{file} is not valid TOML: {error}") from error
    for name in tables:
        if name not in ("providers", "models"):
            raise ConfigurationError(f"{file}: unknown table {name!r}", hint="Known: [providers] and [models].")
    own_providers = {
        name: _row(ProviderRow, providers.get(name), {"otel_name": name, **table}, name, f"{file}: providers.{name}")
        for name, table in _tables(tables, "providers", file)
    }
    own_models = {}
    for name, table in _tables(tables, "models", file):
        provider, colon, wire_name = name.partition(":")
        usual = {"name": wire_name, "provider": provider} if colon else {"name": name}
        where = f"{file}: models.{name}"
        row = _row(ModelRow, models.get(name), {**usual, **table}, name, where)
        if row.provider not in providers and row.provider not in own_providers:
            raise ConfigurationError(f"{where}.provider: there is no provider {row.provider!r}")
        check_prices(row)
        own_models[name] = row
    return own_providers, own_models


def _tables(tables: dict[str, Any], kind: str, file: str) -> list[tuple[str, dict[str, Any]]]:
    found = tables.get(kind, {})
    if not isinstance(found, dict):
        raise ConfigurationError(f"{file}: {kind} is not a table", hint=f"Write [{kind}.NAME] above the fields.")
    for name, table in found.items():
        if not isinstance(table, dict):
            raise ConfigurationError(
                f"{file}: {kind}.{name} is not a table", hint=f'Write [{kind}."{name}"] above the fields.'
            )
    return list(found.items())


def _row(kind: type[_Row], known: _Row | None, table: dict[str, Any], name: str, where: str) -> _Row:
    """Return a row with the fields of the table, and those of the known row where the table omits them."""
    fields: dict[str, Any] = {}
    if known is not None:
        fields = {field: getattr(known, field) for field in known.__struct_fields__}
        fields = {field: value for field, value in fields.items() if value is not None}
    for field, value in table.items():
        inherited = fields.get(field)
        if isinstance(value, dict) and isinstance(inherited, msgspec.Struct):
            # Announced changes are of the provider's own price list; they do not end a price of the user.
            known_fields = {**msgspec.to_builtins(inherited), "changes": ()} if field == "price" else None
            value = {**(known_fields or msgspec.to_builtins(inherited)), **value}  # noqa: PLW2901
        fields[field] = value
    if fields.get("id", name) != name:
        raise ConfigurationError(f"{where}.id is not the table's name")
    try:
        return msgspec.convert(msgspec.to_builtins({**fields, "id": name}), kind)
    except msgspec.ValidationError as error:
        reason, _, location = str(error).partition(" - at `$")
        key = location.rstrip("`")
        raise ConfigurationError(f"{where}{key}: {reason[:1].lower()}{reason[1:]}") from None
