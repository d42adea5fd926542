"""Access tokens for Google Cloud, from google-auth: the only file that imports google-auth.

https://cloud.google.com/docs/authentication/application-default-credentials
"""

from __future__ import annotations

import asyncio
import threading
from typing import Any
from urllib.parse import urlsplit

from lm_deluge.adapters.adapter import Call
from lm_deluge.api_requests.credentials import google_environment
from lm_deluge.errors import ConnectError, MissingAPIKeyError, MissingExtraError
from lm_deluge.extras import install_hint

try:
    import google.auth
    from google.auth.exceptions import GoogleAuthError, TransportError
    from google.auth.transport.requests import Request
except ImportError as missing:
    raise MissingExtraError(
        "access tokens for Google Cloud need google-auth, which is not installed",
        hint=install_hint("google-auth[requests]", otherwise="pass an API key of Vertex"),
    ) from missing

__all__ = ["bearer"]

_SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
_HOST = "googleapis.com"

_lock = threading.Lock()
_found: dict[tuple[tuple[str, str], ...], Any] = {}
"""Credentials by the environment variables they depend on; only those of the present environment are kept."""


async def bearer(call: Call) -> dict[str, str]:
    """Return the headers with a token of the Application Default Credentials; it is fetched again after it expired.

    Only Google's hosts get a token; a proxy authenticates the caller by a key or by the caller's own headers. Reading
    files and asking the network happens in a thread.

    Raises:
        MissingAPIKeyError: There are no credentials, or they are refused.
        ConnectError: Google's token endpoint was not reached.
    """
    parts = urlsplit(call.base_url)
    host = parts.hostname or ""
    if parts.scheme != "https" or not (host == _HOST or host.endswith(f".{_HOST}")):
        return {}
    environment = google_environment()
    credentials: Any = _found.get(environment)
    if credentials is None or not credentials.valid:
        credentials = await asyncio.to_thread(_refreshed, environment, call)
    headers: dict[str, str] = {}
    credentials.apply(headers)  # they may name the project that is billed
    return {name.lower(): value for name, value in headers.items()}


def _refreshed(environment: tuple[tuple[str, str], ...], call: Call) -> Any:
    """Return credentials with a valid token; concurrent callers wait for the first one's result."""
    with _lock:
        try:
            credentials = _found.get(environment)
            if credentials is None:
                credentials, _ = google.auth.default(scopes=_SCOPES)
            if not credentials.valid:
                credentials.refresh(Request())
        except TransportError as error:
            raise ConnectError(
                "Google's token endpoint was not reached", provider=call.provider.id, model=call.model.id
            ) from error.with_traceback(None)
        except GoogleAuthError as error:
            # The message of the error may quote the response of the endpoint.
            raise MissingAPIKeyError(
                f"there are no Google Cloud credentials: {type(error).__name__}",
                provider=call.provider.id,
                model=call.model.id,
                hint="Run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS to a file of "
                "credentials.",
            ) from error.with_traceback(None)
        _found.clear()
        _found[environment] = credentials
    return credentials
