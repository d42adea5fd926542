"""Protects a server on the loopback address from pages of other sites in a browser on the same machine.

A page can send requests to 127.0.0.1, and through a name of its own that resolves to 127.0.0.1 it can read the answers
(DNS rebinding). Both show in the headers, which a page cannot choose.
"""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

import msgspec

from lm_deluge.gateway.http_body import Send

__all__ = ["foreign_page", "is_loopback", "refuse_page"]

_FORBIDDEN = 403  # the status of a refusal that no key changes


def is_loopback(host: str) -> bool:
    """Whether a host is this machine: `localhost`, or a loopback address."""
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


def foreign_page(headers: Mapping[str, str]) -> str | None:
    """Return why a request comes from a page of another site; None if it does not."""
    named = _host_of(f"//{headers.get('host', '')}")
    if named and not is_loopback(named):
        return f"this server is not {named}"
    origin = headers.get("origin")
    if origin is not None and not is_loopback(_host_of(origin)):
        return "pages of other sites may not use this server"
    return None


def _host_of(url: str) -> str:
    with contextlib.suppress(ValueError):
        return urlsplit(url).hostname or ""
    return ""


async def refuse_page(send: Send, reason: str) -> None:
    """Answer a request of a page of another site."""
    body = msgspec.json.encode({"error": {"message": reason, "type": "invalid_request_error", "code": "forbidden"}})
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": _FORBIDDEN, "headers": headers})
    await send({"type": "http.response.body", "body": body})
