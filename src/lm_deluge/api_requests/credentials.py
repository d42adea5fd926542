"""Keys, base URLs and proxies: the only reader of the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from urllib.parse import urlsplit

from lm_deluge.config import Secret
from lm_deluge.errors import ConfigurationError, MissingAPIKeyError
from lm_deluge.models.rows import ModelRow, ProviderRow

__all__ = ["authorization", "check_headers", "find_base_url", "find_key", "find_proxy", "has_key"]


def _from_environment(names: tuple[str, ...]) -> str | None:
    return next((value for name in names if (value := os.environ.get(name, "").strip())), None)


def has_key(provider: ProviderRow) -> bool:
    """Whether the environment holds a key of the provider."""
    return _from_environment(provider.key_env) is not None


def find_key(provider: ProviderRow, model: ModelRow, base_url: str, explicit: str | None) -> Secret | None:
    """Return the key for the provider, None where it needs none, and where somebody else may serve its models.

    Raises:
        MissingAPIKeyError: It needs one and there is none.
        ConfigurationError: The key has characters that no header can carry.
    """
    key = explicit.strip() if explicit is not None else _from_environment(provider.key_env)
    if not key:
        if provider.auth == "none" or not provider.key_env or base_url != provider.base_url:
            return None
        raise MissingAPIKeyError(
            "there is no API key",
            provider=provider.id,
            model=model.id,
            hint=f"Set {' or '.join(provider.key_env)}, or pass api_key=...; "
            'to try things out without a key, use the model "simulator".',
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigurationError(
            "the API key holds blanks, line ends or characters beyond ASCII",
            provider=provider.id,
            hint="Copy it again.",
        )
    return Secret(key)


def find_base_url(provider: ProviderRow, explicit: str | None) -> str:
    """Return where the provider is, without a trailing slash.

    Raises:
        ConfigurationError: Nobody says where it is, or what is said is no URL.
    """
    url = (explicit or _from_environment(provider.base_url_env) or provider.base_url).strip().rstrip("/")
    if not url:
        raise ConfigurationError(
            f"nothing says where {provider.id} is", hint='Pass base_url=..., "http://localhost:8000/v1" for example.'
        )
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigurationError("the base URL is none", provider=provider.id, hint="Write it as https://host/v1.")
    if parts.username or parts.password:
        raise ConfigurationError(
            "the base URL holds a user name or a password", provider=provider.id, hint="Pass api_key or extra_headers."
        )
    return url


def find_proxy(url: str, explicit: str | None) -> str | None:
    """Return the proxy for a URL: the explicit one, else that of the environment (`HTTPS_PROXY` and its kin)."""
    if explicit is not None:
        return explicit
    import urllib.request  # takes longer than all of this library to import

    parts = urlsplit(url)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy is None or urllib.request.proxy_bypass(parts.hostname or ""):
        return None
    return proxy


def authorization(provider: ProviderRow, key: Secret | None) -> dict[str, str]:
    """Return the headers by which the provider knows its customer."""
    if key is None or provider.auth == "none":
        return {}
    return {"authorization": f"Bearer {key.reveal()}"}


def check_headers(headers: Mapping[str, str]) -> None:
    """Refuse headers that could smuggle others.

    Raises:
        ConfigurationError: A name or value is no text, or has a line end in it.
    """
    for name, value in headers.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise ConfigurationError("extra_headers must map text to text")
        if any(sign in name + value for sign in "\r\n\0") or not name.strip():
            raise ConfigurationError(f"the header {name[:40]!r} has a line end in it, or no name")
