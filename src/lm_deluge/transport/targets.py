"""Where a request goes, and its bytes on the wire."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from lm_deluge.transport.content_coding import ACCEPTED_CODINGS
from lm_deluge.wire.http import HttpRequest

__all__ = ["Target", "is_usual", "maybe_target", "new_target", "unchanged_url", "write_request"]

# Headers that change how a request is framed or routed: aiohttp knows how.
_SPECIAL = frozenset(
    name
    for header in ("Host", "Connection", "Content-Length", "Transfer-Encoding", "Content-Encoding", "Expect", "Cookie")
    for name in (header, header.lower())
)
_ACCEPTED = f"accept-encoding: {ACCEPTED_CODINGS}\r\n"
_METHODS = ("GET", "POST", "DELETE", "PUT", "PATCH")
_MOST_JOINED = 64 * 2**10  # bytes of a body that are copied after the head: a copy costs less than a second send


class Target(NamedTuple):
    """What all requests with the same method and URL have in common.

    Attributes:
        request: For aiohttp's connector, which takes the address from it. It is never sent itself.
        head: The request line and the `Host` header.
        authority: Host and port, for messages.
    """

    request: aiohttp.ClientRequest
    head: str
    authority: str


def maybe_target(session: aiohttp.ClientSession, method: str, url: str) -> Target | None:
    """Return the target of a URL; None if only aiohttp's session can send to it, or refuse it."""
    try:
        target = new_target(session, method, url)
    except ValueError:
        return None
    head = target.head
    is_plain = head.isascii() and head.count("\r") == head.count("\n") == 2  # noqa: PLR2004 - the two lines
    return target if is_plain and method in _METHODS else None


def new_target(session: aiohttp.ClientSession, method: str, url: str, proxy: str | None = None) -> Target:
    """Return the target of a URL.

    Raises:
        ValueError: It is not the URL of an HTTP server, or has a user name or a password.
    """
    parsed = unchanged_url(url)
    if parsed.scheme not in ("http", "https") or not parsed.raw_host or parsed.raw_user or parsed.raw_password:
        raise ValueError("not the URL of an HTTP server")
    request = aiohttp.ClientRequest(
        method,
        parsed,
        loop=asyncio.get_running_loop(),
        session=session,
        proxy=None if proxy is None else URL(proxy),
    )
    head = f"{method} {request.url.raw_path_qs} HTTP/1.1\r\nHost: {request.headers['Host']}\r\n"
    return Target(request, head, parsed.raw_authority)


def is_usual(headers: Mapping[str, str]) -> bool:
    """Whether the headers can be written as they are."""
    return _SPECIAL.isdisjoint(headers)


def write_request(transport: asyncio.Transport | None, target: Target, request: HttpRequest) -> None:
    """Write a request to a connection. No frame that an error may pass through keeps the bytes, which have the key.

    Raises:
        ConnectionError: The connection was closed.
        ValueError: A header has a line break.
    """
    if transport is None or transport.is_closing():
        raise aiohttp.ClientConnectionResetError("the connection was closed")
    body = request.body
    head = head_of(target, request)
    if len(body) > _MOST_JOINED:
        transport.write(head)
        transport.write(body)
    else:
        transport.write(head + body)


def head_of(target: Target, request: HttpRequest) -> bytes:
    """Return the head of a request.

    Raises:
        ValueError: A header has a line break or a null byte.
    """
    headers = request.headers
    lines = [f"{name}: {value}\r\n" for name, value in headers.items()]
    if "accept-encoding" not in headers:
        lines.append(_ACCEPTED)
    if request.body or request.method != "GET":
        lines.append(f"content-length: {len(request.body)}\r\n")
    text = "".join(lines)
    if text.count("\r") != len(lines) or text.count("\n") != len(lines) or "\0" in text:
        raise ValueError("a header has a line break or a null byte")
    return f"{target.head}{text}\r\n".encode()


def unchanged_url(url: str) -> URL:
    """Return the URL with path and query unchanged, as signatures cover their bytes.

    By default yarl decodes percent escapes that it considers redundant: `%3A` in a path (1.20, 2026-11).

    Raises:
        ValueError: The text is not a URL.
    """
    parsed = URL(url)
    if "%" not in url or not url.isascii() or not url.isprintable() or " " in url:
        return parsed
    parts = urlsplit(url)
    return URL.build(
        scheme=parsed.scheme,
        authority=parsed.raw_authority,
        path=parts.path or "/",
        query_string=parts.query,
        encoded=True,
    )
