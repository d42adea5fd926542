"""Authentication of requests without an API key: one function for each scheme of the provider rows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from lm_deluge.adapters.adapter import Call
from lm_deluge.wire.http import HttpRequest

__all__ = ["authorize"]

Scheme: TypeAlias = Callable[[HttpRequest, Call], Awaitable[dict[str, str]]]


async def authorize(request: HttpRequest, call: Call) -> dict[str, str]:
    """Return the headers that authenticate a request without an API key; none if the provider needs none.

    Raises:
        ConfigurationError: There are no credentials.
    """
    scheme = _KEYLESS_SCHEMES.get(call.provider.auth)
    return {} if scheme is None else await scheme(request, call)


async def _by_signature(request: HttpRequest, call: Call) -> dict[str, str]:
    from lm_deluge.api_requests.aws import sign

    return await sign(request, call)


async def _by_google(request: HttpRequest, call: Call) -> dict[str, str]:
    from lm_deluge.api_requests.google import bearer

    return await bearer(call)


_KEYLESS_SCHEMES: dict[str, Scheme] = {
    "google": _by_google,
    "sigv4": _by_signature,
}
