"""Keys, base URLs, proxies, folders and the user's own model rows: the only file that reads the environment."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from lm_deluge.api_requests import proxies
from lm_deluge.config import BearerToken, Secret
from lm_deluge.errors import ConfigurationError, DelugeError, MissingAPIKeyError
from lm_deluge.models.rows import ModelRow, ProviderRow

__all__ = [
    "Access",
    "authorization",
    "aws_environment",
    "check_headers",
    "environment_variable",
    "fetched_rows_file",
    "find_access",
    "find_base_url",
    "find_cache_folder",
    "find_key",
    "find_place",
    "find_proxy",
    "google_environment",
    "has_key",
    "has_named_key",
    "hide",
    "is_row_url",
    "read_fetched_rows",
    "read_rows_file",
    "secrets_of",
    "without_secrets",
]

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_PLACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_KEYLESS = ("none", "optional", "sigv4", "google")
_ANY_INTERFACE = "0.0.0.0"  # noqa: S104 - where a server listens; not every system can connect to it
_SHORTEST_SECRET = 8
"""Characters. A shorter value (`none` or `x`, for a host without keys) occurs in ordinary words, and hiding it would
garble messages."""


def _first_set(names: tuple[str, ...]) -> str | None:
    """Return the first of the variables that has a value."""
    return next((name for name in names if os.environ.get(name, "").strip()), None)


def _from_environment(names: tuple[str, ...]) -> str | None:
    name = _first_set(names)
    return name and os.environ[name].strip()


def environment_variable(name: str) -> str | None:
    """Return the value of an environment variable, or None."""
    return os.environ.get(name)


def has_key(provider: ProviderRow) -> bool:
    """Whether the environment has a key of the provider, or may have other credentials."""
    # Only the credential chains of AWS and Google know whether there are credentials, and they may use the network.
    return provider.auth in ("google", "sigv4") or _from_environment(provider.key_env) is not None


def has_named_key(provider: ProviderRow) -> bool:
    """Whether one of the provider's variables in the environment has a key."""
    return _from_environment(provider.key_env) is not None


def find_key(provider: ProviderRow, model: ModelRow, base_url: str, explicit: str | None) -> Secret | None:
    """Return the key for the provider; None if it needs none, or if the base URL is another host than the row's.

    Raises:
        MissingAPIKeyError: The provider needs a key, and there is none.
        ConfigurationError: The key has characters that a header cannot contain.
    """
    if explicit is not None and not isinstance(explicit, str):
        raise ConfigurationError(f"api_key is not text, but {type(explicit).__name__}", provider=provider.id)
    variable = None if explicit is not None else _first_set(provider.key_env)
    key = os.environ[variable].strip() if variable is not None else (explicit or "").strip()
    if not key:
        if provider.auth in _KEYLESS or not provider.key_env or not is_row_url(provider, base_url):
            return None
        raise MissingAPIKeyError(
            "there is no API key",
            provider=provider.id,
            model=model.id,
            hint=f"Set {' or '.join(provider.key_env)}, or pass api_key=...; "
            'to try things out without a key, use the model "simulator".',
        )
    return _key_of(provider.id, key, is_token=variable in provider.bearer_env)


@lru_cache(maxsize=64)
def _key_of(provider: str, key: str, *, is_token: bool) -> Secret:
    """Return the key as a secret. The same few keys are checked for every call."""
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigurationError(
            "the API key has spaces, line ends or characters beyond ASCII",
            provider=provider,
            hint="Copy it again.",
        )
    return BearerToken(key) if is_token else Secret(key)


class Access(NamedTuple):
    """The address of a provider, the key for it (the first of several `keys`), and the proxy on the way."""

    base_url: str
    key: Secret | None
    proxy: Secret | None
    keys: Mapping[str, Secret | None] = MappingProxyType({})


def find_access(
    provider: ProviderRow, model: ModelRow, *, base_url: str | None, api_key: str | None, proxy: str | None
) -> Access:
    """Return where and with which key a provider is reached: as given, else as the environment or the row has it.

    Raises:
        MissingAPIKeyError: The provider needs a key, and there is none.
        ConfigurationError: A value cannot be used.
    """
    url = find_base_url(provider, base_url)
    key = find_key(provider, model, url, api_key)
    return Access(url, key, find_proxy(url, None if proxy is None else _secret_of(proxy)))


_secret_of = lru_cache(maxsize=64)(Secret)  # the same few proxies are looked up for every call


def find_base_url(provider: ProviderRow, explicit: str | None) -> str:
    """Return the base URL of the provider, without a trailing slash.

    Raises:
        ConfigurationError: No base URL is known, or it is invalid.
    """
    url = explicit or _completed(_from_environment(provider.base_url_env), provider) or _row_url(provider, must=True)
    return _checked_url(provider.id, url)


@lru_cache(maxsize=64)
def _checked_url(provider: str, url: str) -> str:
    """Return the URL without a trailing slash. The same few URLs are checked for every call."""
    url = url.strip().rstrip("/")
    if not url:
        raise ConfigurationError(
            f"the base URL of {provider} is not known",
            hint='Pass base_url=..., "http://localhost:8000/v1" for example.',
        )
    if not _is_url(url):
        raise ConfigurationError("the base URL is invalid", provider=provider, hint="Write it as https://host/v1.")
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise ConfigurationError(
            "the base URL contains a user name or a password",
            provider=provider,
            hint="Pass api_key or extra_headers.",
        )
    if parts.query or parts.fragment:
        raise ConfigurationError("the base URL has a query or a fragment", provider=provider, hint="Leave it out.")
    return url


def _completed(url: str | None, provider: ProviderRow) -> str | None:
    """Return the base URL that the environment names; a host or port alone is completed from the row of a local server.

    The local server reads the same variable: with `OLLAMA_HOST=0.0.0.0:11434` it listens on all interfaces.
    """
    local = urlsplit(provider.base_url) if "{" not in provider.base_url else None
    if not url or local is None or local.port is None or any(sign in url for sign in ("://", "@", "?", "#")):
        return url
    try:
        parts = urlsplit(f"{local.scheme}://{url}")
        port = parts.port or local.port
    except ValueError:
        return url  # it is refused later
    host = local.hostname if parts.hostname in (None, _ANY_INTERFACE) else parts.hostname
    return f"{local.scheme}://{f'[{host}]' if ':' in (host or '') else host}:{port}{parts.path}"


def _row_url(provider: ProviderRow, *, must: bool = False) -> str:
    """Return the base URL of the row with its variables filled in; empty if one is unknown and not `must`."""
    known = _known_places(provider, must=must)
    return "" if known is None else _filled(provider.base_url, known)


def is_row_url(provider: ProviderRow, base_url: str) -> bool:
    """Whether this is the base URL of the provider's row, and not another host that serves its models."""
    return base_url == _row_url(provider)


def find_place(provider: ProviderRow, name: str) -> str:
    """Return the value of a URL variable of the row, a region for example; empty if it is unknown."""
    return (_known_places(provider, must=False) or {}).get(name, "")


def aws_environment() -> int:
    """Return a number that changes with the environment variables that AWS credentials depend on."""
    return hash(frozenset((name, value) for name, value in os.environ.items() if name.startswith("AWS_")))


def google_environment() -> tuple[tuple[str, str], ...]:
    """Return the environment variables that Google's credentials depend on."""
    names = ("GOOGLE_", "CLOUDSDK_", "GCE_METADATA_")
    return tuple(sorted((name, value) for name, value in os.environ.items() if name.startswith(names)))


def _known_places(provider: ProviderRow, *, must: bool) -> dict[str, str] | None:
    """Return the values of all URL variables of the row; None if one is unknown, an error if it `must` be known."""
    known: dict[str, str] = {}
    for name, place in provider.places.items():
        value = place.values.get(known.get(place.of, "")) or _from_environment(place.env) or place.default
        # Some variables may have a URL where the row needs a host, since other tools accept both: DATABRICKS_HOST.
        known[name] = _filled(value, known).removeprefix("https://").rstrip("/")
        if not known[name]:
            if not must:
                return None
            raise ConfigurationError(
                f"the {name} is not known", provider=provider.id, hint=f"Set {' or '.join(place.env)}."
            )
        if not _PLACE.fullmatch(known[name]):
            raise ConfigurationError(f"the {name} has characters that do not fit into a URL", provider=provider.id)
    return known


def _filled(template: str, known: Mapping[str, str]) -> str:
    for name, value in known.items():
        template = template.replace(f"{{{name}}}", value)
    return template


def _is_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def read_rows_file() -> tuple[str, str] | None:
    """Return name and text of the user's file of model rows: `DELUGE_MODELS`, else the default file if it exists.

    Raises:
        ConfigurationError: The file cannot be read.
    """
    named = os.environ.get("DELUGE_MODELS", "").strip()
    path = Path(named) if named else _config_folder() / "lm_deluge" / "models.toml"
    try:
        return str(path), path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        if isinstance(error, FileNotFoundError | PermissionError) and not named:
            return None
        why = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ConfigurationError(
            f"the file of models {path} was not read: {why}", hint="It is named by DELUGE_MODELS." if named else ""
        ) from error


def fetched_rows_file() -> Path:
    """Return the path of the rows that `deluge models update` fetches. Only that command writes the file."""
    return _config_folder() / "lm_deluge" / "models.json"


def read_fetched_rows() -> bytes | None:
    """Return the content of the fetched rows, or None if there are none that can be read."""
    try:
        return fetched_rows_file().read_bytes()
    except OSError:
        return None


def _config_folder() -> Path:
    # By the specification, relative paths are ignored: https://specifications.freedesktop.org/basedir-spec/
    chosen = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    return chosen if chosen.is_absolute() else Path(os.path.expanduser("~")) / ".config"  # noqa: PTH111 - never raises


def find_proxy(url: str, explicit: Secret | None) -> Secret | None:
    """Return the proxy for a URL: the explicit one, else that of the environment (`HTTPS_PROXY`, `NO_PROXY`, ...).

    It is a secret, as it may contain a password.

    Raises:
        ConfigurationError: It is not the URL of an HTTP proxy.
    """
    found = explicit
    if found is None:
        found = proxies.proxy_of(*_scheme_host_port(url), _proxy_state())
    if found is not None and not proxies.is_http_url(found.reveal()):
        raise ConfigurationError("the proxy is not an HTTP proxy", hint="Write it as http://host:port.")
    return found


@lru_cache(maxsize=64)
def _scheme_host_port(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    try:
        port = parts.port or proxies.PORTS.get(parts.scheme, 0)
    except ValueError:
        port = 0
    return parts.scheme, parts.hostname or "", port


_PROXY_VARIABLES = (*(spelled for name in proxies.VARIABLES for spelled in (name, name.upper())), "REQUEST_METHOD")
_STORED_PROXY_VARIABLES = frozenset(map(os.environ.encodekey, _PROXY_VARIABLES))


def _proxy_state() -> tuple[str | None, ...]:
    """Return the environment's values that the proxy depends on."""
    # `os.environ.get` takes a microsecond for a variable that is not set, and each call asks for nine (3.11, 2026-11).
    stored = getattr(os.environ, "_data", None)
    if stored is not None and _STORED_PROXY_VARIABLES.isdisjoint(stored):
        return ()
    return tuple(map(os.environ.get, _PROXY_VARIABLES))


def find_cache_folder() -> Path:
    """Return the folder for this library's caches, by the conventions of the platform."""
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path.home() / ".cache"
    # By the specification, relative paths are ignored: https://specifications.freedesktop.org/basedir-spec/
    chosen = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (chosen if chosen.is_absolute() else base) / "lm-deluge"


def authorization(provider: ProviderRow, key: Secret | None) -> dict[str, str]:
    """Return the headers that authenticate a request with a key."""
    if key is None or provider.auth == "none":
        return {}
    if provider.auth in ("header", "google") and not isinstance(key, BearerToken):
        return {provider.key_header: key.reveal()}
    return {"authorization": f"Bearer {key.reveal()}"}


def check_headers(headers: Mapping[str, str]) -> None:
    """Refuse headers that could inject further headers.

    Raises:
        ConfigurationError: A name is not a header name, or a value is not text or has a line end.
    """
    for name, value in headers.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise ConfigurationError("extra_headers must map text to text")
        if not _HEADER_NAME.fullmatch(name):
            raise ConfigurationError(f"{name[:40]!r} is not a header name")
        if any(sign in value for sign in "\r\n\0") or any("\ud800" <= sign <= "\udfff" for sign in value):
            raise ConfigurationError(f"the header {name[:40]!r} has a line end, or is not text")


def secrets_of(key: Secret | None, headers: Mapping[str, str], proxy: Secret | None) -> tuple[Secret, ...]:
    """Return the texts that no message may contain: the key, the values of headers, the password of a proxy.

    The value of a field within a header (`Signature=...`) is a secret, too.
    """
    if not headers and proxy is None:
        return () if key is None or len(key.reveal()) < _SHORTEST_SECRET else (key,)
    words = [] if key is None else [key.reveal()]
    for value in headers.values():
        words += value.split()
        words += [word.strip(",").partition("=")[2].partition("/")[0] for word in value.split() if "=" in word]
    password = None if proxy is None else urlsplit(proxy.reveal()).password
    return tuple(Secret(word) for word in (*words, password) if word and len(word) >= _SHORTEST_SECRET)


def hide(error: DelugeError, secrets: tuple[Secret, ...]) -> None:
    """Replace the secrets in an error and its causes: providers quote the keys that they refuse, pages echo headers."""
    each: BaseException | None = error
    seen: set[int] = set()
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        for name, value in vars(each).items():
            setattr(each, name, without_secrets(value, secrets))
        each.args = tuple(without_secrets(value, secrets) for value in each.args)
        each = each.__cause__


def without_secrets(value: Any, secrets: tuple[Secret, ...]) -> Any:
    """Return a value, with the secrets replaced if it is text or bytes."""
    for secret in secrets:
        if isinstance(value, str):
            value = value.replace(secret.reveal(), "...")
        elif isinstance(value, bytes):
            value = value.replace(secret.reveal().encode(), b"...")
    return value
