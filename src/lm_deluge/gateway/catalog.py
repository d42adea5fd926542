"""Which client answers for the name of a model that a request asks for."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from lm_deluge.api_requests.credentials import has_key, has_named_key
from lm_deluge.client.client import LLMClient
from lm_deluge.dispatch.scheduling.shared.connection import with_defaults
from lm_deluge.errors import ConfigurationError, NotFoundError, UnknownModelError
from lm_deluge.gateway.configuration.settings import GatewaySettings, ServedModel
from lm_deluge.models.registry import SIMULATOR, find_model, find_provider, list_models, list_providers
from lm_deluge.models.rows import ModelRow
from lm_deluge.telemetry.observer import Observer

__all__ = ["ModelCatalog"]

_MOST_CLIENTS = 1024
"""Clients of models without configuration that are kept: far more than one installation uses, and a bound for one whose
users ask for random names."""


class ModelCatalog:
    """The served models, each with the client that answers for it.

    Without configured models every model of the registry is served whose provider's key is set. Without any key the
    simulator answers, by every name.

    Args:
        settings: The settings of the gateway.
        observers: What watches the calls.
        processes: Returns how many processes serve: each begins with that share of the limits if the server of the
            limiter cannot be reached.

    Raises:
        ConfigurationError: A configured model is unknown, or an option of it is wrong.
    """

    def __init__(
        self, settings: GatewaySettings, observers: Sequence[Observer] = (), processes: Callable[[], int] = lambda: 1
    ) -> None:
        self._observers = tuple(observers)
        self._processes = processes
        self._limiter = settings.limiter
        self._clients: OrderedDict[str, LLMClient] = OrderedDict()
        self._configured = {model.name: model for model in settings.models}
        for model in settings.models:
            self._clients[model.name] = self._configured_client(model)
        self.is_simulated = not settings.models and not _has_any_key()

    def find(self, name: str) -> LLMClient:
        """Return the client that answers for a name.

        Raises:
            NotFoundError: No model is served by this name.
        """
        client = self._clients.get(name)
        if client is not None:
            self._clients.move_to_end(name)
            return client
        if self._configured:
            known = ", ".join(self._configured)
            raise NotFoundError(f"the model {name!r} is not served here. Served: {known}", status_code=404)
        served = ServedModel(
            name=name, models=(SIMULATOR if self.is_simulated else name,), options={"progress": "none"}
        )
        client = self._found_client(served)
        self._clients[name] = client
        if len(self._clients) > _MOST_CLIENTS:
            self._clients.popitem(last=False)
        return client

    def rows(self) -> list[tuple[str, ModelRow]]:
        """Return the names that clients may ask for, each with the row of its first model."""
        if self._configured:
            return [(name, self._clients[name].models[0]) for name in self._configured]
        if self.is_simulated:
            return [(SIMULATOR, find_model(SIMULATOR))]
        return [(row.id, row) for row in _rows_with_keys()]

    @property
    def configured_ids(self) -> set[str]:
        """The ids of all models that are configured, fallbacks included."""
        return {row for name in self._configured for row in self._clients[name].dispatcher.rows}

    def _build(self, model: ServedModel) -> LLMClient:
        options: dict[str, Any] = {"observers": self._observers, **model.options}
        if self._limiter is not None:
            options.setdefault("limiter", with_defaults(self._limiter, scope=model.name))
        processes = self._processes()
        if processes > 1 and isinstance(options.get("limiter"), str):
            options["limiter"] = with_defaults(options["limiter"], processes=processes)
        return LLMClient(list(model.models), **options)

    def _configured_client(self, model: ServedModel) -> LLMClient:
        try:
            return self._build(model)
        except ConfigurationError as error:
            raise ConfigurationError(f"model {model.name!r}: {error.message}", hint=error.hint) from error

    def _found_client(self, model: ServedModel) -> LLMClient:
        try:
            client = self._build(model)
        except UnknownModelError as error:
            near = f" Similar names: {', '.join(error.suggestions)}." if error.suggestions else ""
            raise NotFoundError(f"there is no model {model.name!r}.{near}", status_code=404) from error
        row = client.models[0]
        if row.id != SIMULATOR and not _is_reachable(row.provider):
            raise NotFoundError(
                f"the model {model.name!r} is not served here: there is no key for {row.provider}", status_code=404
            )
        return client

    async def close(self) -> None:
        """Close the connections of all clients."""
        for client in [*self._clients.values()]:
            await client.close()


def _is_reachable(provider_id: str) -> bool:
    provider = find_provider(provider_id)
    return provider.auth in ("none", "optional") or has_key(provider)


def _has_any_key() -> bool:
    # Providers with credential chains are left out: whether there are credentials may take a request to find out.
    return any(map(has_named_key, list_providers()))


def _rows_with_keys() -> Iterable[ModelRow]:
    reachable: dict[str, bool] = {}
    for row in list_models():
        if row.provider not in reachable:
            reachable[row.provider] = False
            with contextlib.suppress(ConfigurationError):
                provider = find_provider(row.provider)
                reachable[row.provider] = has_named_key(provider)
        if reachable[row.provider] and row.status != "retired":
            yield row
