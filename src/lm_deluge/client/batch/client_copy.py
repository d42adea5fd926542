"""A client in another process whose calls this process admits: its models and options travel, its limits do not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from lm_deluge.client.client import LLMClient
from lm_deluge.config import ClientOptions

__all__ = ["ClientCopy"]


class ClientCopy(msgspec.Struct, frozen=True):
    """What another process needs to make the same client. It pickles.

    Attributes:
        models: The ids of the models.
        options: The options, with a key that was given to the client. A key of the environment is not among them.
    """

    models: tuple[str, ...]
    options: ClientOptions

    @classmethod
    def of(cls, client: LLMClient, *, has_key: bool = True) -> ClientCopy:
        """Return the copy of a client.

        Args:
            client: The client.
            has_key: Whether the copy has the keys; without them, the copy can hold limits and send nothing.
        """
        options = msgspec.structs.replace(client.options, limiter=None)  # the process that admits its calls asks it
        if not has_key:
            options = msgspec.structs.replace(options, api_key=_names_of(options.api_key))
        return cls(tuple(model.id for model in client.models), options)

    def make(self) -> LLMClient:
        """Return the client."""
        return LLMClient(self.models, **{name: getattr(self.options, name) for name in self.options.__struct_fields__})


def _names_of(keys: Any) -> Any:
    """Return names in place of keys: each of several keys has limits of its own."""
    if isinstance(keys, Mapping):
        return {provider: _names_of(each) for provider, each in keys.items() if not isinstance(each, str)}
    if keys is None or isinstance(keys, str):
        return None
    return [f"key-{number}" for number, _ in enumerate(dict.fromkeys(keys))]
