"""Keys, base URLs, proxies, folders and the user's own rows: the only reader of the environment."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from lm_deluge.config import Secret
from lm_deluge.errors import ConfigurationError, DelugeError, MissingAPIKeyError
from lm_deluge.models.rows import ModelRow, ProviderRow

__all__ = [
    "Access",
    "authorization",
    "aws_environment",
    "check_headers",
    "find_access",
    "find_base_url",
    "find_cache_folder",
    "find_key",
    "find_place",
    "find_proxy",
    "google_environment",
    "has_key",
    "hide",
    "is_row_url",
    "read_rows_file",
    "secrets_of",
]

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_PLACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_KEYLESS = ("none", "optional", "sigv4", "google")
_ANY_INTERFACE = "0.0.0.0"  # noqa: S104 - where a server listens; nobody can call there on every system
_SHORTEST_SECRET = 8
"""A shorter value, "none" or "x" for a host that wants no key, is a word of its own and would garble messages."""


def _from_environment(names: tuple[str, ...]) -> str | None:
    return next((value for name in names if (value := os.environ.get(name, "").strip())), None)


def has_key(provider: ProviderRow) -> bool:
    """Whether the environment holds a key of the provider, or maybe something else to be known by."""
    # Whether AWS or Google have credentials only their own chains can tell, which may ask the network.
    return provider.auth in ("google", "sigv4") or _from_environment(provider.key_env) is not None


def find_key(provider: ProviderRow, model: ModelRow, base_url: str, explicit: str | None) -> Secret | None:
    """Return the key for the provider, None where it needs none, and where somebody else may serve its models.

    Raises:
        MissingAPIKeyError: It needs one and there is none.
        ConfigurationError: The key has characters that no header can carry.
    """
    if explicit is not None and not isinstance(explicit, str):
        raise ConfigurationError(f"api_key is not text, but {type(explicit).__name__}", provider=provider.id)
    key = explicit.strip() if explicit is not None else _from_environment(provider.key_env)
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
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigurationError(
            "the API key holds blanks, line ends or characters beyond ASCII",
            provider=provider.id,
            hint="Copy it again.",
        )
    return _secret_of(key)


class Access(NamedTuple):
    """The address of a provider, the key for it, and the proxy on the way."""

    base_url: str
    key: Secret | None
    proxy: Secret | None


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


# The same keys are looked up for every call; a new object for each would only be garbage.
_secret_of = lru_cache(maxsize=64)(Secret)


def find_base_url(provider: ProviderRow, explicit: str | None) -> str:
    """Return where the provider is, without a trailing slash.

    Raises:
        ConfigurationError: Nobody says where it is, or what is said is no URL.
    """
    said = _completed(_from_environment(provider.base_url_env), provider)
    url = explicit or said or _row_url(provider, must=True)
    url = url.strip().rstrip("/")
    if not url:
        raise ConfigurationError(
            f"nothing says where {provider.id} is", hint='Pass base_url=..., "http://localhost:8000/v1" for example.'
        )
    if not _is_url(url):
        raise ConfigurationError("the base URL is none", provider=provider.id, hint="Write it as https://host/v1.")
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise ConfigurationError(
            "the base URL holds a user name or a password", provider=provider.id, hint="Pass api_key or extra_headers."
        )
    if parts.query or parts.fragment:
        raise ConfigurationError("the base URL has a query or a fragment", provider=provider.id, hint="Leave it out.")
    return url


def _completed(url: str | None, provider: ProviderRow) -> str | None:
    """Return a URL as the environment has it, a host or port alone with what the row of a local server says beside it.

    Such a variable is the server's own too: `OLLAMA_HOST=0.0.0.0:11434` says where it listens.
    """
    local = urlsplit(provider.base_url) if "{" not in provider.base_url else None
    if not url or local is None or local.port is None or any(sign in url for sign in ("://", "@", "?", "#")):
        return url
    try:
        parts = urlsplit(f"{local.scheme}://{url}")
        port = parts.port or local.port
    except ValueError:
        return url  # and is refused
    host = local.hostname if parts.hostname in (None, _ANY_INTERFACE) else parts.hostname
    return f"{local.scheme}://{f'[{host}]' if ':' in (host or '') else host}:{port}{parts.path}"


def _row_url(provider: ProviderRow, *, must: bool = False) -> str:
    """Return the base URL of the row with its places filled in; empty where one is not known, unless it `must` be."""
    known = _known_places(provider, must=must)
    return "" if known is None else _filled(provider.base_url, known)


def is_row_url(provider: ProviderRow, base_url: str) -> bool:
    """Whether this is where the row says that the provider is, not where somebody else may serve its models."""
    return base_url == _row_url(provider)


def find_place(provider: ProviderRow, name: str) -> str:
    """Return the word for a place of the row, a region for example; empty where nobody says."""
    return (_known_places(provider, must=False) or {}).get(name, "")


def aws_environment() -> int:
    """Return a number that changes with the variables on which AWS credentials depend."""
    return hash(frozenset((name, value) for name, value in os.environ.items() if name.startswith("AWS_")))


def google_environment() -> tuple[tuple[str, str], ...]:
    """Return the variables that Google's credentials depend on."""
    names = ("GOOGLE_", "CLOUDSDK_", "GCE_METADATA_")
    return tuple(sorted((name, value) for name, value in os.environ.items() if name.startswith(names)))


def _known_places(provider: ProviderRow, *, must: bool) -> dict[str, str] | None:
    """Return the words for all places of the row; None where one is not known, unless it `must` be."""
    known: dict[str, str] = {}
    for name, place in provider.places.items():
        value = place.values.get(known.get(place.of, "")) or _from_environment(place.env) or place.default
        # Some hosts' own tools want an address where the row wants its host: DATABRICKS_HOST may be either.
        known[name] = _filled(value, known).removeprefix("https://").rstrip("/")
        if not known[name]:
            if not must:
                return None
            raise ConfigurationError(
                f"nothing says which {name} to use", provider=provider.id, hint=f"Set {' or '.join(place.env)}."
            )
        if not _PLACE.fullmatch(known[name]):
            raise ConfigurationError(f"the {name} is none that fits into a URL", provider=provider.id)
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
    """Return name and text of the user's file of rows: that of DELUGE_MODELS, else the usual one if it is there.

    Raises:
        ConfigurationError: It cannot be read.
    """
    named = os.environ.get("DELUGE_MODELS", "").strip()
    path = Path(named) if named else _config_folder() / "lm_deluge" / "models.toml"
    try:
        return str(path), path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        if isinstance(error, FileNotFoundError | PermissionError) and not named:
            return None
        why = getattr(error, "strerror", None) or "it is no text in UTF-8"
        raise ConfigurationError(
            f"the file of models {path} was not read: {why}", hint="It is named by DELUGE_MODELS." if named else ""
        ) from error


def _config_folder() -> Path:
    # The specification wants relative paths ignored: https://specifications.freedesktop.org/basedir-spec/
    chosen = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    return chosen if chosen.is_absolute() else Path(os.path.expanduser("~")) / ".config"  # noqa: PTH111 - never raises


def find_proxy(url: str, explicit: Secret | None) -> Secret | None:
    """Return the proxy for a URL: the explicit one, else that of the environment (`HTTPS_PROXY` and its kin).

    It may hold a password, so it is a secret.

    Raises:
        ConfigurationError: It is no URL of an HTTP proxy.
    """
    found = explicit or _proxy_of_environment(url)
    if found is not None and not _is_url(found.reveal()):
        raise ConfigurationError("the proxy is no HTTP proxy", hint="Write it as http://host:port.")
    return found


def _proxy_of_environment(url: str) -> Secret | None:
    parts = urlsplit(url)
    says = os.environ.get
    # What is read below is read anew only when one of these has changed: reading takes longer than sending a request.
    state = (says(f"{parts.scheme}_proxy"), says(f"{parts.scheme}_proxy".upper()), says("no_proxy"), says("NO_PROXY"))
    return _proxy_of(parts.scheme, parts.hostname or "", state, says("REQUEST_METHOD"))


@lru_cache(maxsize=256)
def _proxy_of(scheme: str, host: str, state: tuple[str | None, ...], method: str | None) -> Secret | None:
    import urllib.request  # takes longer than all of this library to import

    proxy = urllib.request.getproxies().get(scheme)
    if not proxy or urllib.request.proxy_bypass(host):
        return None
    return Secret(proxy if "://" in proxy else f"http://{proxy}")


def find_cache_folder() -> Path:
    """Return where a user's caches of this library lie, as the platform wants it."""
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path.home() / ".cache"
    # The specification wants relative paths ignored: https://specifications.freedesktop.org/basedir-spec/
    chosen = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (chosen if chosen.is_absolute() else base) / "lm-deluge"


def authorization(provider: ProviderRow, key: Secret | None) -> dict[str, str]:
    """Return the headers by which the provider knows its customer."""
    if key is None or provider.auth == "none":
        return {}
    if provider.auth in ("header", "google"):
        return {provider.key_header: key.reveal()}
    return {"authorization": f"Bearer {key.reveal()}"}


def check_headers(headers: Mapping[str, str]) -> None:
    """Refuse headers that could smuggle others.

    Raises:
        ConfigurationError: A name is none, or a value is no text or has a line end in it.
    """
    for name, value in headers.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise ConfigurationError("extra_headers must map text to text")
        if not _HEADER_NAME.fullmatch(name):
            raise ConfigurationError(f"{name[:40]!r} is no name for a header")
        if any(sign in value for sign in "\r\n\0") or any("\ud800" <= sign <= "\udfff" for sign in value):
            raise ConfigurationError(f"the header {name[:40]!r} has a line end in it, or what is no text")


def secrets_of(key: Secret | None, headers: Mapping[str, str], proxy: Secret | None) -> tuple[Secret, ...]:
    """Return what must show up in no message: the key, what the user put into headers, a proxy's password.

    Of what a header names, `Signature=...` for example, the value alone is a secret too.
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
    """Blot the secrets out of an error and its causes: providers quote keys that they refuse, pages echo headers."""
    each: BaseException | None = error
    seen: set[int] = set()
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        for name, value in vars(each).items():
            setattr(each, name, _blotted(value, secrets))
        each.args = tuple(_blotted(value, secrets) for value in each.args)
        each = each.__cause__


def _blotted(value: Any, secrets: tuple[Secret, ...]) -> Any:
    for secret in secrets:
        if isinstance(value, str):
            value = value.replace(secret.reveal(), "...")
        elif isinstance(value, bytes):
            value = value.replace(secret.reveal().encode(), b"...")
    return value
