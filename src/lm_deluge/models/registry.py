"""Look models and providers up by name."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec

from lm_deluge.errors import ConfigurationError, UnknownModelError
from lm_deluge.models.rows import Capabilities, ModelRow, ProviderRow

__all__ = [
    "find_model",
    "find_provider",
    "find_served_model",
    "list_models",
    "list_providers",
    "register_model",
    "register_provider",
]

SIMULATOR = "simulator"
COMPATIBLE = "openai-compatible"


class _Registry:
    """All rows; loaded on first use, so that importing the library reads no file."""

    def __init__(self) -> None:
        import tomllib
        from importlib import resources

        data = resources.files("lm_deluge.models")
        tables: dict[str, Any] = tomllib.loads((data / "providers.toml").read_text("utf-8"))
        self.providers = {name: msgspec.convert({"id": name, **table}, ProviderRow) for name, table in tables.items()}
        rows = msgspec.json.decode((data / "models.json").read_bytes(), type=list[ModelRow])
        self.models = {row.id: row for row in rows}
        self.models[SIMULATOR] = ModelRow(id=SIMULATOR, name=SIMULATOR, provider=SIMULATOR)


@cache
def _registry() -> _Registry:
    return _Registry()


def find_provider(provider_id: str) -> ProviderRow:
    """Return the provider's row.

    Raises:
        UnknownModelError: There is none; the error lists the known ones.
    """
    providers = _registry().providers
    if provider_id not in providers:
        raise UnknownModelError(
            f"there is no provider {provider_id!r}",
            hint=f"Known providers: {', '.join(sorted(providers))}.",
            suggestions=_nearest(provider_id, providers),
        )
    return providers[provider_id]


def find_model(name: str) -> ModelRow:
    """Return the row of `name`: a model of the registry, or `provider:model` for any other.

    Raises:
        UnknownModelError: The name is in no row and names no provider; the nearest names are listed.
    """
    if not isinstance(name, str) or not name.strip():
        raise UnknownModelError("the model's name is empty", hint='Write LLMClient("gpt-4o"), say.')
    registry = _registry()
    if name in registry.models:
        return registry.models[name]
    provider_id, colon, wire_name = name.partition(":")
    if colon and wire_name and provider_id in registry.providers:
        return _described(registry, provider_id, wire_name, name)
    if colon and wire_name:
        find_provider(provider_id)
    near = _nearest(name, registry.models)
    hint = f"Did you mean {' or '.join(near)}? " if near else ""
    raise UnknownModelError(
        f"there is no model {name!r} in the registry",
        hint=f"{hint}Any model of a provider can be named as provider:model, openai:{name} for example.",
        suggestions=near,
    )


def find_served_model(name: str, base_url: str | None) -> ModelRow:
    """Return the row of a model; with a base URL any name will do, for an OpenAI-compatible host.

    Raises:
        UnknownModelError: The name is in no row, and nobody says where such a model would be.
    """
    if base_url is None or not isinstance(name, str) or not name.strip():
        return find_model(name)
    try:
        return find_model(name)
    except UnknownModelError:
        return ModelRow(id=name, name=name, provider=COMPATIBLE)


def _described(registry: _Registry, provider_id: str, wire_name: str, name: str) -> ModelRow:
    """Return what the registry knows of a model that was named with its provider."""
    known = registry.models.get(wire_name)
    if known is not None and _is_same_house(registry.providers[known.provider], registry.providers[provider_id]):
        return msgspec.structs.replace(known, id=name, provider=provider_id)
    return ModelRow(id=name, name=wire_name, provider=provider_id, capabilities=Capabilities())


def _is_same_house(one: ProviderRow, other: ProviderRow) -> bool:
    """Whether two rows are ways to the same provider: the same models at the same prices, through other APIs."""
    return one.id == other.id or (one.opaque_owner == other.opaque_owner and one.key_env == other.key_env)


def _nearest(name: str, known: dict[str, Any]) -> tuple[str, ...]:
    import difflib

    return tuple(difflib.get_close_matches(name.lower(), list(known), n=3, cutoff=0.5))


def list_models(*, provider: str | None = None, search: str = "") -> list[ModelRow]:
    """Return the rows, by provider and id; `search` is a part of the id.

    Raises:
        UnknownModelError: There is no such provider.
    """
    wanted = None if provider is None else find_provider(provider).id
    rows = [
        row
        for row in _registry().models.values()
        if search.lower() in row.id.lower() and wanted in (None, row.provider)
    ]
    return sorted(rows, key=lambda row: (row.provider, row.id))


def list_providers() -> list[ProviderRow]:
    """Return all providers by id."""
    return sorted(_registry().providers.values(), key=lambda row: row.id)


def register_model(row: ModelRow) -> None:
    """Add a model for this process.

    Raises:
        ConfigurationError: Its id is taken.
        UnknownModelError: Its provider has no row.
    """
    find_provider(row.provider)
    if row.id in _registry().models:
        raise ConfigurationError(f"there is a model {row.id!r} already", hint="Choose another id for the row.")
    _registry().models[row.id] = row


def register_provider(row: ProviderRow) -> None:
    """Add a provider for this process.

    Raises:
        ConfigurationError: Its id is taken.
    """
    if row.id in _registry().providers:
        raise ConfigurationError(f"there is a provider {row.id!r} already", hint="Choose another id for the row.")
    _registry().providers[row.id] = row
