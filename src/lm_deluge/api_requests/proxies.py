"""The HTTP proxy of a request: the user's, else that of the environment."""

from __future__ import annotations

import ipaddress
import os
from functools import lru_cache
from urllib.parse import urlsplit

from lm_deluge.config import Secret
from lm_deluge.errors import ConfigurationError

__all__ = ["find_proxy"]

_PORTS = {"http": 80, "https": 443}
_VARIABLES = ("all_proxy", "no_proxy", "http_proxy", "https_proxy")


def find_proxy(url: str, explicit: Secret | None) -> Secret | None:
    """Return the proxy for a URL: the explicit one, else that of the environment.

    `HTTPS_PROXY` or `HTTP_PROXY`, by the scheme of the URL, goes before `ALL_PROXY`. `NO_PROXY` lists exceptions,
    separated by commas: `*`, names (with their subdomains), addresses and networks (`10.0.0.0/8`), each with a port or
    without. The proxy is a secret, as it may contain a password.

    Raises:
        ConfigurationError: It is not the URL of an HTTP proxy.
    """
    found = explicit or _proxy_of_environment(url)
    if found is not None and not _is_http(found.reveal()):
        raise ConfigurationError("the proxy is not an HTTP proxy", hint="Write it as http://host:port.")
    return found


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in _PORTS and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of the port
        return False


def _proxy_of_environment(url: str) -> Secret | None:
    parts = urlsplit(url)
    get = os.environ.get
    # The proxy is looked up again only after one of these variables changed: that takes longer than sending a request.
    state = tuple(get(spelled) for name in _VARIABLES for spelled in (name, name.upper()))
    try:
        port = parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError:
        port = 0
    return _proxy_of(parts.scheme, parts.hostname or "", port, state, get("REQUEST_METHOD"))


@lru_cache(maxsize=256)
def _proxy_of(scheme: str, host: str, port: int, state: tuple[str | None, ...], method: str | None) -> Secret | None:
    """Return the proxy of the environment; `state` and `method` are the variables that it depends on."""
    import urllib.request  # its import takes longer than that of the whole library

    proxies = urllib.request.getproxies()
    proxy = proxies.get(scheme) or proxies.get("all")
    if not proxy or urllib.request.proxy_bypass(host) or _is_exception(host, port, proxies.get("no", "")):
        return None
    return Secret(proxy if "://" in proxy else f"http://{proxy}")


def _is_exception(host: str, port: int, listed: str) -> bool:
    """Whether a value of `NO_PROXY` excepts a host."""
    return any(_matches(host.lower(), port, entry.strip().lower()) for entry in listed.split(","))


def _matches(host: str, port: int, entry: str) -> bool:
    if entry == "*":
        return True
    name, wanted_port = _split_port(entry)
    if not name or wanted_port not in (None, port):
        return False
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == name.removeprefix(".") or host.endswith("." + name.removeprefix(".").removeprefix("*."))
    try:
        return address in ipaddress.ip_network(name, strict=False)
    except (ValueError, TypeError):
        return False


def _split_port(entry: str) -> tuple[str, int | None]:
    """Split `host:port`; an IPv6 address with a port is in brackets."""
    if entry.startswith("["):
        name, _, rest = entry[1:].partition("]")
        return name, _port_of(rest.removeprefix(":"))
    if entry.count(":") != 1:
        return entry, None  # no port, or an IPv6 address
    name, _, digits = entry.partition(":")
    return name, _port_of(digits)


def _port_of(digits: str) -> int | None:
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 5 else None  # noqa: PLR2004 - 65535
