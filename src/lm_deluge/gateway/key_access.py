"""AccessControl with keys: who may call is in the ledger."""

from __future__ import annotations

import contextlib
import hmac
import time
import uuid
from collections import OrderedDict

from lm_deluge.errors import (
    APIError,
    AuthenticationError,
    BadRequestError,
    PermissionDeniedError,
    QuotaExceededError,
)
from lm_deluge.gateway.access import Grant, OpenAccess
from lm_deluge.gateway.dialects import KeyLimit
from lm_deluge.gateway.ledger.keys import GatewayKey, digest_of
from lm_deluge.gateway.ledger.ledger import Ledger, SettledCall
from lm_deluge.gateway.rate_limits import KeyPermit, LocalRates, RateLimits
from lm_deluge.response import APIResponse

__all__ = ["KeyAccess"]

_REMEMBERED_S = 2.0
"""For how long a key that was read from the database is valid without another look. A key that another process revokes
works for so long at most."""
_MOST_REMEMBERED = 10_000  # keys; unknown ones too, so that guessing does not load the database


class KeyAccess:
    """Grants calls to keys of a ledger. As long as there is no key, and no master key, everyone may call.

    Args:
        ledger: The ledger.
        master_key: The key of the administrator, which may not call models; None: there is none.
        rates: Counts the calls of the keys; None: those of this process alone.
    """

    def __init__(self, ledger: Ledger, *, master_key: str | None = None, rates: RateLimits | None = None) -> None:
        self._ledger = ledger
        self._rates: RateLimits = rates or LocalRates()
        self._master = None if master_key is None else digest_of(master_key)
        self._keys: OrderedDict[str, tuple[float, GatewayKey | None]] = OrderedDict()
        self._needs_key = False
        self._looked_at = -_REMEMBERED_S

    async def needs_key(self) -> bool:
        """Whether calls need a key. Once they do, they always will."""
        now = time.monotonic()
        if not self._needs_key and now - self._looked_at >= _REMEMBERED_S:
            self._looked_at = now
            self._needs_key = self._master is not None or await self._ledger.has_keys()
        return self._needs_key

    def is_master(self, token: str | None) -> bool:
        """Whether a token is the key of the administrator."""
        return token is not None and self._master is not None and hmac.compare_digest(digest_of(token), self._master)

    async def check(self, token: str | None, model: str | None = None) -> str:
        """Return the name of a key; empty if none is needed.

        Raises:
            AuthenticationError: The key is missing, unknown, expired or revoked.
            PermissionDeniedError: The key may not use the model.
        """
        if not await self.needs_key():
            return ""
        key = await self._find(token)
        if model is not None:
            _check_model(key, model)
        return key.name

    async def grant(
        self, token: str | None, model: str, *, tokens: int, cost: float | None, least: float = 0.0
    ) -> Grant:
        """Return the permission for a call.

        Raises:
            APIError: The key is missing or not valid, may not use the model, or is over a limit or its budget.
        """
        if not await self.needs_key():
            return await OpenAccess().grant(token, model, tokens=tokens, cost=cost)
        key = await self._find(token)
        _check_model(key, model)
        if cost is None and key.rules.budget is not None:
            raise BadRequestError(f"{model!r} has no price, so the budget of this key cannot be kept", status_code=400)
        call_id = uuid.uuid4().hex
        permit = await self._rates.begin(key, call_id, tokens)
        has_money = False
        try:
            has_money = await self._ledger.reserve(key, call_id, model, cost or 0.0, least=least, now=time.time())
        finally:
            if not has_money:
                permit.end(0)
        if not has_money:
            raise _over_budget(key)
        return _KeyGrant(self._ledger, key, call_id, permit, max_cost=cost if key.rules.budget is not None else None)

    async def _find(self, token: str | None) -> GatewayKey:
        if token is None:
            raise AuthenticationError(
                "there is no key: send it as Authorization: Bearer, or as x-api-key", status_code=401
            )
        if self.is_master(token):
            raise AuthenticationError("the master key administers the gateway, and answers no prompts", status_code=401)
        digest = digest_of(token)
        found = self._keys.get(digest)
        if found is None or time.monotonic() - found[0] >= _REMEMBERED_S:
            found = self._keys[digest] = (time.monotonic(), await self._ledger.find_key(digest))
            if len(self._keys) > _MOST_REMEMBERED:
                self._keys.popitem(last=False)
        key = found[1]
        refusal = "this key is not known" if key is None else key.refusal(time.time())
        if key is None or refusal is not None:
            raise AuthenticationError(refusal or "", status_code=401, code="invalid_api_key")
        return key


def _check_model(key: GatewayKey, model: str) -> None:
    if key.rules.models and model not in key.rules.models:
        allowed = ", ".join(key.rules.models)
        raise PermissionDeniedError(f"this key may not use {model!r}, only {allowed}", status_code=403)


def _over_budget(key: GatewayKey) -> APIError:
    period = {"day": "today", "month": "this month"}.get(key.rules.period, "in total")
    return QuotaExceededError(
        f"the budget of this key is used up: ${key.rules.budget:g} {period}, running calls included",
        status_code=429,
        type="budget_exceeded",
        code="budget_exceeded",
    )


class _KeyGrant:
    """The permission for one call of a key."""

    def __init__(
        self, ledger: Ledger, key: GatewayKey, call_id: str, permit: KeyPermit, *, max_cost: float | None
    ) -> None:
        self.key_name = key.name
        self.max_cost = max_cost
        self._ledger = ledger
        self._key = key
        self._call_id = call_id
        self._permit = permit

    @property
    def limits(self) -> list[KeyLimit]:
        """The rate limits of the key."""
        return self._permit.limits

    async def extend(self, cost: float) -> bool:
        """Reserve more for the call; return whether the budget has it."""
        with contextlib.suppress(APIError):
            return await self._ledger.extend(self._key, self._call_id, cost, now=time.time())
        return False

    def note_cost(self, cost: float) -> None:
        """Note what the call has cost so far."""
        self._ledger.note_cost(self._key, self._call_id, cost)

    async def settle(self, response: APIResponse | None, *, status: int) -> None:
        """Note what the call used and cost; None: nothing was sent."""
        usage = None if response is None else response.usage
        self._permit.end(0 if usage is None else usage.total_tokens)
        if response is None or usage is None:
            await self._ledger.settle(self._key, self._call_id, SettledCall(status=status))
            return
        settled = SettledCall(
            answered_by=response.model_internal,
            cost=response.cost or 0.0,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            status=status,
        )
        await self._ledger.settle(self._key, self._call_id, settled)
