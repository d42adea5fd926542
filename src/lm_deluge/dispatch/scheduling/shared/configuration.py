"""Which limits processes share, and under which names the server keeps them. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from lm_deluge.dispatch.scheduling.limiter import Limit
from lm_deluge.models.rows import CountsMaxTokens

__all__ = ["CLIENT", "GroupLimits", "Part", "SharedConfiguration", "SharedRoute", "state_key"]

CLIENT = "*"
"""Name of the limits of a client, which apply to all its models together. No model has this name."""
_TAG_DIGITS = 24  # of a SHA-256 in hexadecimal: two credentials never meet


def state_key(credentials: Iterable[str]) -> str:
    """Return the key of the state that the users of these credentials share; it has their hash, never themselves."""
    digest = hashlib.sha256("\0".join(sorted(set(credentials))).encode()).hexdigest()
    return f"{{deluge:{digest[:_TAG_DIGITS]}}}:limits"


class Part(NamedTuple):
    """A group of limits: the number of its state, from 1, and its name within that state."""

    state: int
    group: str


class GroupLimits(msgspec.Struct, frozen=True):
    """The limits that the user has set: of the client, or of a (key, model)."""

    limits: Sequence[Limit] = ()
    max_concurrent: int | None = None


class SharedRoute(msgspec.Struct, frozen=True):
    """A (key, model): its own limits, and the groups of limits that apply to it, its own as the last."""

    parts: tuple[Part, ...]
    limits: GroupLimits = GroupLimits()
    counts_max_tokens: CountsMaxTokens = "never"


class SharedConfiguration:
    """The states of a client, and the limits in them.

    Args:
        key: Key of the state that has the limits of models which are not configured.
        client: The limits of all models together.
        client_key: Key of the state of these limits; by default `key`.
    """

    def __init__(self, key: str, client: GroupLimits | None = None, client_key: str | None = None) -> None:
        self.keys: list[str] = [key]
        self.groups: dict[Part, GroupLimits] = {}
        self.routes: dict[tuple[str, str], SharedRoute] = {}
        self._of_client: tuple[Part, ...] = ()
        self.client = client or GroupLimits()
        if self.client.limits or self.client.max_concurrent is not None:
            part = Part(self._place_of(client_key or key), CLIENT)
            self._of_client = (part,)
            self.groups[part] = self.client

    def _place_of(self, key: str) -> int:
        if key not in self.keys:
            self.keys.append(key)
        return self.keys.index(key) + 1

    def add(
        self,
        model: str,
        key: str = "",
        limits: GroupLimits | None = None,
        *,
        counts_max_tokens: CountsMaxTokens = "never",
        state: str | None = None,
    ) -> SharedRoute:
        """Add a (key, model), whose limits are in the state of a credential."""
        own = limits or GroupLimits()
        # The state of a credential has one key, whose name differs between clients.
        part = Part(1, f"{model} {key}".rstrip()) if state is None else Part(self._place_of(state), model)
        self.groups[part] = own
        route = self.routes[model, key] = SharedRoute((*self._of_client, part), own, counts_max_tokens)
        return route
