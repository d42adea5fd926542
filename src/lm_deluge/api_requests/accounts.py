"""The API keys and base URLs that a client was given, each for the provider that it belongs to."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar
from urllib.parse import urlsplit

from lm_deluge.config import ApiKeys, PerProvider
from lm_deluge.errors import ConfigurationError
from lm_deluge.models.registry import COMPATIBLE, SIMULATOR, find_provider, list_providers
from lm_deluge.models.rows import ModelRow, ProviderRow

_ValueT = TypeVar("_ValueT")

__all__ = ["Accounts", "url_of_unknown_models"]

_CREDENTIAL_HEADERS = ("authorization", "api-key", "x-api-key", "x-goog-api-key", "cookie")


class Accounts:
    """Keys and base URLs by provider. No provider is sent the key, or the requests, of another one.

    Rows of one company at one host, such as `openai` and `openai-responses`, are one account: they have the same key.

    Args:
        models: All models of the client, fallback models included.
        api_key: One key for all of them, or keys by provider; several keys of one account share its calls.
        base_url: One URL for all of them, or URLs by provider.
        extra_headers: Sent with every request.

    Raises:
        ConfigurationError: One key, URL or credential header is given for several providers, or a mapping names an
            unknown provider.
    """

    def __init__(
        self,
        models: Iterable[ModelRow],
        *,
        api_key: ApiKeys = None,
        base_url: PerProvider = None,
        extra_headers: Mapping[str, str] | None = None,
    ) -> None:
        self._key = api_key
        self._url = base_url
        providers = {model.provider: find_provider(model.provider) for model in models if model.provider != SIMULATOR}
        for name, values in (("api_key", api_key), ("base_url", base_url)):
            if isinstance(values, Mapping):
                _check_names(name, values)
        if isinstance(base_url, str):
            self._check_url(providers.values())
        with_key = [provider for provider in providers.values() if provider.auth != "none"]
        if len({self._destination(provider) for provider in with_key}) > 1:
            self._check_key(with_key)
            _check_headers(with_key, extra_headers or {})

    def keys_of(self, provider: ProviderRow) -> dict[str, str | None]:
        """Return the keys that were given for a provider, by their names in limits, logs and errors.

        Several keys are `key 1`, `key 2` and so on. The name of a single one is empty; it is None if none was given.
        """
        found = None if provider.auth == "none" else _value_for(provider, self._key, _account)
        if found is None or isinstance(found, str):
            return {"": found}
        keys = tuple(dict.fromkeys(found))
        return {"": keys[0]} if len(keys) == 1 else {f"key {number}": key for number, key in enumerate(keys, 1)}

    def url_of(self, provider: ProviderRow) -> str | None:
        """Return the base URL that was given for a provider; None if there is none."""
        return None if provider.id == SIMULATOR else _value_for(provider, self._url, _address)

    def _destination(self, provider: ProviderRow) -> tuple[object, str | None]:
        """Return where requests to a provider go, and for which account."""
        url = self.url_of(provider)
        return (None if isinstance(self._url, str) else _account(provider)), url

    def _check_url(self, providers: Iterable[ProviderRow]) -> None:
        # Models without a row are at the host of the base URL, so they share it with any provider.
        named = [provider for provider in providers if provider.id != COMPATIBLE]
        if len({_address(provider) for provider in named}) > 1:
            raise ConfigurationError(
                f"one base_url cannot serve models of several providers ({_names(named)})",
                hint=f"Write {_example('base_url', named, 'https://...')}. For one gateway that serves all of them, "
                "name the models as the gateway does, with the prefix openai-compatible:",
            )

    def _check_key(self, providers: list[ProviderRow]) -> None:
        if self._key is not None and not isinstance(self._key, Mapping):
            variables = [provider.key_env[0] for provider in providers if provider.key_env]
            raise ConfigurationError(
                f"one api_key cannot serve models of several providers ({_names(providers)})",
                hint=f"Write {_example('api_key', providers, '...')}, or set {' and '.join(dict.fromkeys(variables))}.",
            )


def url_of_unknown_models(base_url: PerProvider) -> str | None:
    """Return the base URL of models that are in no registry; None if there is none."""
    return base_url.get(COMPATIBLE) if isinstance(base_url, Mapping) else base_url


def _account(provider: ProviderRow) -> tuple[object, ...]:
    return (provider.key_env, urlsplit(provider.base_url).netloc) if provider.key_env else (provider.id,)


def _address(provider: ProviderRow) -> tuple[object, ...]:
    return (provider.base_url or provider.id,)


def _value_for(
    provider: ProviderRow,
    values: _ValueT | Mapping[str, _ValueT] | None,
    group: Callable[[ProviderRow], tuple[object, ...]],
) -> _ValueT | None:
    """Return the value of a provider, or else of another row of its group."""
    if not isinstance(values, Mapping):
        return values
    own = values.get(provider.id)
    same = (value for name, value in values.items() if group(find_provider(name)) == group(provider))
    return next(same, None) if own is None else own


def _check_names(option: str, values: Mapping[str, object]) -> None:
    """Check that the names are providers. The message quotes no name: keys and names may have been exchanged."""
    known = [provider.id for provider in list_providers()]
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise ConfigurationError(
                f"{option} has the name of an unknown provider",
                hint=f"Did you mean {near[0]}?" if near else f"Known providers: {', '.join(known)}.",
            )


def _check_headers(providers: list[ProviderRow], headers: Mapping[str, str]) -> None:
    own = {provider.key_header.lower() for provider in providers if provider.key_header}
    for name in headers:
        if isinstance(name, str) and name.lower() in own.union(_CREDENTIAL_HEADERS):
            raise ConfigurationError(
                f"extra_headers has {name!r}, which would be sent to several providers ({_names(providers)})",
                hint=f"Write {_example('api_key', providers, '...')}, or make one client for each provider.",
            )


def _names(providers: Iterable[ProviderRow]) -> str:
    return ", ".join(provider.id for provider in providers)


def _example(option: str, providers: Iterable[ProviderRow], value: str) -> str:
    pairs = ", ".join(f'"{provider.id}": "{value}"' for provider in providers)
    return f"{option}={{{pairs}}}"
