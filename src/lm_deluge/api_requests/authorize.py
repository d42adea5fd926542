"""By what a request is known: one function for each scheme of the providers' rows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from lm_deluge.api_requests.credentials import authorization
from lm_deluge.config import Secret
from lm_deluge.providers.adapter import Call
from lm_deluge.wire.http import HttpRequest

__all__ = ["authorize"]

Scheme: TypeAlias = Callable[[HttpRequest, Call, Secret | None], Awaitable[dict[str, str]]]


async def authorize(request: HttpRequest, call: Call, key: Secret | None) -> dict[str, str]:
    """Return the headers by which the provider knows its customer.

    Raises:
        ConfigurationError: There are none to be had.
    """
    return await _SCHEMES.get(call.provider.auth, _by_key)(request, call, key)


async def _by_key(request: HttpRequest, call: Call, key: Secret | None) -> dict[str, str]:
    return authorization(call.provider, key)


async def _by_signature(request: HttpRequest, call: Call, key: Secret | None) -> dict[str, str]:
    if key is not None:
        return authorization(call.provider, key)
    from lm_deluge.api_requests.aws import sign

    return await sign(request, call)


async def _by_google(request: HttpRequest, call: Call, key: Secret | None) -> dict[str, str]:
    if key is not None:
        return {call.provider.key_header: key.reveal()}
    from lm_deluge.api_requests.google import bearer

    return await bearer(call)


_SCHEMES: dict[str, Scheme] = {
    "google": _by_google,
    "sigv4": _by_signature,
}
