"""Look-up of models and providers by name.

The rows are data files of the package. Rows of the user's own file, if there is one, override them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache, cached_property
from typing import Any

import msgspec

from lm_deluge.errors import ConfigurationError, UnknownModelError
from lm_deluge.models.costs import check_prices
from lm_deluge.models.data_files import read_data_file
from lm_deluge.models.families import describe_model, plain_name
from lm_deluge.models.names import find_spelling, older_name, split_provider
from lm_deluge.models.rows import Capabilities, ModelRow, ProviderRow
from lm_deluge.models.snapshots import Snapshot, read_snapshot
from lm_deluge.models.user_rows import read_user_rows
from lm_deluge.usage import Price

__all__ = [
    "find_model",
    "find_provider",
    "find_responses_provider",
    "find_served_model",
    "list_models",
    "list_providers",
    "register_model",
    "register_provider",
    "set_fetched_file",
    "set_user_file",
    "snapshot_date",
]

SIMULATOR = "simulator"
COMPATIBLE = "openai-compatible"
_MOST_SUGGESTIONS = 3  # read at a glance
_OTHER_SPELLING = 0.9  # similarity of claude-sonnet-5.5 and claude-sonnet-5-5; claude-sonnet-5.5 and -4-6 have less
_TAKEN = "Choose another id for the row, or pass replace=True."


class _Registry:
    """All rows, loaded on first use, so that importing the library reads no file."""

    def __init__(self) -> None:
        import tomllib

        tables: dict[str, Any] = tomllib.loads(read_data_file("providers.toml").decode())
        self.providers = {name: msgspec.convert({"id": name, **table}, ProviderRow) for name, table in tables.items()}
        snapshot = _newest(read_snapshot(read_data_file("models.json")))
        self.date = snapshot.date
        # Models of providers that have no row cannot be called.
        self.models = {row.id: row for row in snapshot.rows() if row.provider in self.providers}
        self.models[SIMULATOR] = ModelRow(id=SIMULATOR, name=SIMULATOR, provider=SIMULATOR)

    @cached_property
    def plain_names(self) -> frozenset[str]:
        """The names of the models of all makers, without vendor, region and date."""
        return frozenset(plain_name(row.name) for row in self.models.values() if row.id == row.name)


@cache
def _registry() -> _Registry:
    registry = _Registry()
    found = _user_file()
    if found is not None:
        file, text = found
        providers, models = read_user_rows(text, file, registry.providers, registry.models)
        registry.providers |= providers
        registry.models |= models
    return registry


def _newest(own: Snapshot) -> Snapshot:
    """Return the snapshot that the user has fetched, if it is newer than that of the package."""
    data = _fetched_file()
    if data is None:
        return own
    try:
        fetched = read_snapshot(data)
    except (msgspec.DecodeError, KeyError, UnicodeDecodeError):
        return own  # a file of another version of the library; `deluge models update` replaces it
    return fetched if fetched.date > own.date else own


def _no_file() -> None:
    return None


_user_file: Callable[[], tuple[str, str] | None] = _no_file


_fetched_file: Callable[[], bytes | None] = _no_file


def set_fetched_file(read: Callable[[], bytes | None]) -> None:
    """Set the function that returns the snapshot that `deluge models update` has fetched, or None.

    It is called at the first look-up.
    """
    global _fetched_file  # noqa: PLW0603 - as for `set_user_file`
    _fetched_file = read
    _registry.cache_clear()


def set_user_file(read: Callable[[], tuple[str, str] | None]) -> None:
    """Set the function that reads the user's own rows: it returns a file's name and text, or None.

    It is called at the first look-up.
    """
    global _user_file  # noqa: PLW0603 - this layer may not read the user's files, so a higher one injects the reader
    _user_file = read
    _registry.cache_clear()


def snapshot_date() -> str:
    """Return the date of the models and prices, as `2026-11-24`."""
    return _registry().date


def find_provider(provider_id: str) -> ProviderRow:
    """Return the row of a provider.

    Raises:
        UnknownModelError: The provider is unknown; the error lists the known ones.
    """
    providers = _registry().providers
    if provider_id not in providers:
        raise UnknownModelError(
            f"there is no provider {provider_id!r}",
            hint=f"Known providers: {', '.join(sorted(providers))}.",
            suggestions=_nearest(provider_id, providers),
        )
    return providers[provider_id]


def find_responses_provider(provider: ProviderRow) -> ProviderRow | None:
    """Return the provider with the Responses API of the same company; None if it has none."""
    found = (row for row in list_providers() if row.adapter == "openai-responses")
    return next((row for row in found if row.otel_name == provider.otel_name), None)


def find_model(name: str) -> ModelRow:
    """Return the row of a model.

    Args:
        name: A model of the registry, or `provider:model` for any other model of a known provider. `provider/model`
            is understood for the models of that provider in the registry, and so are other usual spellings: any case,
            with and without a date or `-latest`, the names of the older lm-deluge.

    Raises:
        UnknownModelError: The name is neither; the error lists the most similar names.

    Example:
        >>> find_model("gpt-6-sol").price.output
        >>> find_model("ollama:my-model").provider
    """
    registry = _registry()
    row = _named_row(registry, name) or _row_of_path(registry, name) or _row_of_spelling(registry, name)
    if row is not None:
        return row
    provider_id, colon, wire_name = name.partition(":")
    if colon and wire_name and "/" not in provider_id:
        find_provider(provider_id)
    near = _similar_models(registry, name)
    hint = f"Did you mean {' or '.join(near)}? " if near else ""
    example = _example(registry, name, near)
    raise UnknownModelError(
        f"there is no model {name!r} in the registry",
        hint=f"{hint}Any model of a provider can be named as provider:model, {example} for example.",
        suggestions=near,
    )


def _example(registry: _Registry, name: str, near: tuple[str, ...]) -> str:
    """Return the name with the provider that probably serves it: that of the prefix, or of the nearest model."""
    split = split_provider(name, registry.providers)
    if split is not None:
        return ":".join(split)
    if "/" in name:
        return f"openrouter:{name}"  # its names are vendor/model
    return f"{registry.models[near[0]].provider}:{name}" if near else f"openai:{name}"


def _named_row(registry: _Registry, name: str) -> ModelRow | None:
    """Return the row of a model of the registry, or of `provider:model`; None if the name is neither.

    Raises:
        UnknownModelError: The name is empty.
    """
    if not isinstance(name, str) or not name.strip():
        raise UnknownModelError("the model's name is empty", hint='Write LLMClient("gpt-6-sol"), for example.')
    if name in registry.models:
        return registry.models[name]
    provider_id, colon, wire_name = name.partition(":")
    is_provider = bool(colon and wire_name) and provider_id in registry.providers
    return _row_of_provider(registry, provider_id, wire_name, name) if is_provider else None


def _row_of_path(registry: _Registry, name: str) -> ModelRow | None:
    """Return the row for `provider/model`, as LiteLLM and others write it; None unless that provider has that model.

    A name such as `openai/gpt-oss-120b` is also that of a repository, whose model many hosts serve. A provider without
    models in the registry is a server of the user, or a host of any model: its models are not known.
    """
    prefix, slash, _ = name.partition("/")
    split = split_provider(name, registry.providers) if slash and ":" not in prefix else None
    if split is None:
        return None
    own, rest = registry.providers[split[0]], split[1]
    served = _served_by(registry, own)
    if not served and own.id not in (SIMULATOR, COMPATIBLE):
        return _row_of_provider(registry, own.id, rest, f"{own.id}:{rest}")
    found = served.get(rest) or served.get(f"{own.id}:{rest}")
    return found or find_spelling(rest, served) or find_spelling(f"{own.id}:{rest}", served)


def _row_of_spelling(registry: _Registry, name: str) -> ModelRow | None:
    """Return the row for another spelling of a name in the registry, or for `provider:model` with an alias."""
    split = split_provider(name, registry.providers)
    if split is not None and ":" in name and "/" not in name.partition(":")[0]:
        provider_id, wire_name = split
        return _row_of_provider(registry, provider_id, wire_name, f"{provider_id}:{wire_name}")
    found = find_spelling(name, registry.models)
    older = older_name(name)
    return _named_row(registry, older) if found is None and older is not None else found


def _served_by(registry: _Registry, own: ProviderRow) -> dict[str, ModelRow]:
    return {id: row for id, row in registry.models.items() if _is_same_company(registry.providers[row.provider], own)}


def _similar_models(registry: _Registry, name: str) -> tuple[str, ...]:
    """Return the most similar names; for `vendor/model` those of the model, or the hosts that serve it.

    Models that a maker serves itself come before those of hosts; retired ones are left out.
    """
    live = {id: row for id, row in registry.models.items() if row.status != "retired"}
    rest = name.partition("/")[2]
    if not rest:
        makers = {id: row for id, row in live.items() if id == row.name}
        lasting = {id: row for id, row in makers.items() if row.status != "deprecated"}
        typing_slip = _nearest(name, makers, cutoff=_OTHER_SPELLING)[:1]
        near = tuple(dict.fromkeys((*typing_slip, *_newest_of(name, lasting), *_nearest(name, lasting))))
        near = near[:_MOST_SUGGESTIONS]
        return near or _nearest(name, makers) or _nearest(name, live)
    if rest in live:
        return (rest,)
    hosted = tuple(id for id in live if id.endswith(f":{name}"))
    split = split_provider(name, registry.providers)
    own = None if split is None else registry.providers[split[0]]
    served = {} if own is None else {id: row for id, row in _served_by(registry, own).items() if id in live}
    spellings = _nearest(rest, served, cutoff=_OTHER_SPELLING)
    same = sorted((id for id, row in live.items() if plain_name(row.name).startswith(plain_name(rest))), key=len)
    near = (*spellings, *hosted) or _nearest(rest, served) or tuple(same)
    return near[:_MOST_SUGGESTIONS] or _nearest(name, live)


def _newest_of(word: str, rows: dict[str, ModelRow]) -> list[str]:
    """Return the models with a word in their name, such as `opus`, those of the highest version first."""
    found = [id for id in rows if word.lower() in re.split(r"[-.\d]", id.lower())]
    return sorted(found, key=lambda id: [int(each) for each in re.findall(r"\d+", id)], reverse=True)


def find_served_model(name: str, base_url: str | None) -> ModelRow:
    """Return the row of a model; with a base URL, unknown names are models of an OpenAI-compatible host.

    Raises:
        UnknownModelError: The name is unknown, and there is no base URL.
    """
    if base_url is None:
        return find_model(name)
    # At a host of the user's own, `openai/gpt-oss-120b` is the whole name of a model.
    return _named_row(_registry(), name) or ModelRow(id=name, name=name, provider=COMPATIBLE)


def _row_of_provider(registry: _Registry, provider_id: str, wire_name: str, name: str) -> ModelRow:
    """Return a row for `provider:model`, with the properties of the model's row at this or another provider."""
    own = registry.providers[provider_id]
    same = [row.id for row in registry.providers.values() if _is_same_company(row, own)]
    for known in map(registry.models.get, (wire_name, *(f"{each}:{wire_name}" for each in same))):
        if known is not None and known.provider in same:
            return msgspec.structs.replace(known, id=name, provider=provider_id)
    base, _, variant = wire_name.rpartition(":")
    known = registry.models.get(f"{provider_id}:{base}")
    if known is not None:
        # A variant of a model, as OpenRouter has them; `:free` costs nothing.
        price = Price(input=0.0, output=0.0) if variant == "free" else known.price
        return msgspec.structs.replace(known, id=name, name=wire_name, price=price)
    known = registry.models.get(wire_name)
    if known is not None and registry.providers[known.provider].opaque_owner == own.opaque_owner:
        # The same model at another host has the same capabilities, but maybe another price.
        return msgspec.structs.replace(known, id=name, provider=provider_id, price=None)
    dated = find_spelling(wire_name, _served_by(registry, own)) if _has_models(own) else None
    if dated is not None and dated.name.lower() == wire_name.lower():
        return msgspec.structs.replace(dated, id=name, name=wire_name, provider=provider_id)
    # A name that no maker has is of an unknown model, even if it looks like one of a family.
    is_known = _has_models(own) and plain_name(wire_name) in registry.plain_names
    facts = describe_model(wire_name, provider_id) if is_known else {}
    capabilities = msgspec.convert(facts, Capabilities)
    return ModelRow(id=name, name=wire_name, provider=provider_id, capabilities=capabilities)


def _has_models(provider: ProviderRow) -> bool:
    """Whether a name means the same model for all users of the provider; a user's own server names models freely."""
    return bool(provider.base_url) and provider.auth not in ("optional", "none")


def _is_same_company(one: ProviderRow, other: ProviderRow) -> bool:
    """Whether two rows are the same company: the same models at the same prices, through different APIs."""
    if not one.key_env:
        return one.id == other.id
    return (one.otel_name, one.key_env) == (other.otel_name, other.key_env)


def _nearest(name: str, known: dict[str, Any], *, cutoff: float = 0.5) -> tuple[str, ...]:
    import difflib

    return tuple(difflib.get_close_matches(name.lower(), list(known), n=_MOST_SUGGESTIONS, cutoff=cutoff))


def list_models(*, provider: str | None = None, search: str = "") -> list[ModelRow]:
    """Return the models, sorted by provider and id.

    Args:
        provider: Only models of this provider.
        search: Only models whose id contains this text, in any case.

    Raises:
        UnknownModelError: The provider is unknown.
    """
    wanted = None if provider is None else find_provider(provider).id
    rows = [
        row
        for row in _registry().models.values()
        if search.lower() in row.id.lower() and wanted in (None, row.provider)
    ]
    return sorted(rows, key=lambda row: (row.provider, row.id))


def list_providers() -> list[ProviderRow]:
    """Return all providers, sorted by id."""
    return sorted(_registry().providers.values(), key=lambda row: row.id)


def register_model(row: ModelRow, *, replace: bool = False) -> None:
    """Add a model for this process, or with `replace=True` also replace one of the same id.

    Raises:
        ConfigurationError: The id is taken, or a price is negative, infinite or NaN.
        UnknownModelError: The provider of the row is unknown.

    Example:
        >>> register_model(ModelRow(id="mine", name="my-model-v2", provider="vllm"))
        >>> client = LLMClient("mine")
    """
    find_provider(row.provider)
    check_prices(row)
    if row.id in _registry().models and not replace:
        raise ConfigurationError(f"there is a model {row.id!r} already", hint=_TAKEN)
    _registry().models[row.id] = row


def register_provider(row: ProviderRow, *, replace: bool = False) -> None:
    """Add a provider for this process, or with `replace=True` also replace one of the same id.

    Raises:
        ConfigurationError: The id is taken.

    Example:
        >>> register_provider(ProviderRow(id="mine", otel_name="mine", adapter="openai-chat", base_url="http://gpu/v1"))
        >>> client = LLMClient("mine:llama")
    """
    if row.id in _registry().providers and not replace:
        raise ConfigurationError(f"there is a provider {row.id!r} already", hint=_TAKEN)
    _registry().providers[row.id] = row
