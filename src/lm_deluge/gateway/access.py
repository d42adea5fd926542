"""Who may call which model, at which rate and for how much: the port between the endpoints and keys and budgets."""

from __future__ import annotations

from typing import Protocol

from lm_deluge.gateway.dialects import KeyLimit
from lm_deluge.response import APIResponse

__all__ = ["AccessControl", "Grant", "OpenAccess"]


class Grant(Protocol):
    """The permission for one call.

    Attributes:
        key_name: Name of the key, for the log; empty if none is needed.
        max_cost: US dollars that are reserved for the call; None: no limit.
    """

    key_name: str
    max_cost: float | None

    @property
    def limits(self) -> list[KeyLimit]:
        """The rate limits of the key after this call, for the headers."""
        ...

    async def extend(self, cost: float) -> bool:
        """Reserve more US dollars for the call; return whether the budget has them."""
        ...

    def note_cost(self, cost: float) -> None:
        """Note what the running call has cost so far."""
        ...

    async def settle(self, response: APIResponse | None, *, status: int) -> None:
        """Note what the call used and cost; None: nothing was sent."""
        ...


class AccessControl(Protocol):
    """Grants calls."""

    async def needs_key(self) -> bool:
        """Whether calls need a key."""
        ...

    async def check(self, token: str | None, model: str | None = None) -> str:
        """Return the name of a key.

        Args:
            token: The key, as the client sent it.
            model: A model that the key has to be allowed to use.

        Raises:
            AuthenticationError: The key is missing, unknown, expired or revoked.
            PermissionDeniedError: The key may not use the model.
        """
        ...

    async def grant(
        self, token: str | None, model: str, *, tokens: int, cost: float | None, least: float = 0.0
    ) -> Grant:
        """Return the permission for a call.

        Args:
            token: The key, as the client sent it.
            model: The name of the model that the client asks for.
            tokens: Estimate of what the call uses at most.
            cost: Estimate of what the call costs at most, in US dollars; None: not known.
            least: Estimate of what its prompt costs, in US dollars.

        Raises:
            APIError: The key is missing or not valid, may not use the model, or is over a limit or its budget.
        """
        ...


class _OpenGrant:
    key_name = ""
    max_cost: float | None = None

    @property
    def limits(self) -> list[KeyLimit]:
        """No limits."""
        return []

    async def extend(self, cost: float) -> bool:
        """Allow it."""
        return True

    def note_cost(self, cost: float) -> None:
        """Do nothing."""

    async def settle(self, response: APIResponse | None, *, status: int) -> None:
        """Do nothing."""


class OpenAccess:
    """AccessControl for everyone, for a server on the loopback address that has no keys."""

    async def needs_key(self) -> bool:
        """No call needs one."""
        return False

    async def check(self, token: str | None, model: str | None = None) -> str:
        """Return an empty name."""
        return ""

    async def grant(
        self, token: str | None, model: str, *, tokens: int, cost: float | None, least: float = 0.0
    ) -> Grant:
        """Return a permission without limits."""
        return _OpenGrant()
