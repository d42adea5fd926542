"""The HTTP proxy that the environment sets for an address, and the exceptions that it lists."""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from urllib.parse import urlsplit

from lm_deluge.config import Secret

__all__ = ["PORTS", "VARIABLES", "is_http_url", "proxy_of"]

PORTS = {"http": 80, "https": 443}
"""The port of a URL without one, by scheme."""
_MOST_PORT_DIGITS = 5  # of 65535
VARIABLES = ("all_proxy", "no_proxy", "http_proxy", "https_proxy")
"""The environment variables, in upper or lower case, that the proxy depends on."""


def is_http_url(url: str) -> bool:
    """Whether a proxy of this URL can be used."""
    try:
        parts = urlsplit(url)
        return parts.scheme in PORTS and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of the port
        return False


@lru_cache(maxsize=256)
def proxy_of(scheme: str, host: str, port: int, state: tuple[str | None, ...]) -> Secret | None:
    """Return the proxy of the environment and the operating system for an address, or None.

    The scheme's own proxy goes before `ALL_PROXY`. `NO_PROXY` lists exceptions, separated by commas: `*`, names (with
    their subdomains), addresses and networks (`10.0.0.0/8`), each with a port or without.

    Args:
        scheme: `http` or `https`.
        host: Name or address.
        port: The port.
        state: The environment's values that the proxy depends on: it is looked up again only after one of them
            changed, as that takes longer than sending a request.
    """
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
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= _MOST_PORT_DIGITS else None
