"""Reads the body of a request within limits of size and time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, TypeAlias

from lm_deluge.errors import BadRequestError, RequestTooLargeError

__all__ = ["ABORT", "ClientLeftError", "Receive", "Scope", "Send", "header_map", "read_body"]

# The types of ASGI; https://asgi.readthedocs.io/en/latest/specs/main.html
Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]


ABORT = "lm_deluge.abort"
"""Name of the ASGI extension with the function that closes the connection at once."""


class ClientLeftError(Exception):
    """The client closed its connection before the request was complete."""


def header_map(scope: Scope) -> dict[str, str]:
    """Return the headers of a request, names in lower case; of equal names the last one."""
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}


async def read_body(receive: Receive, headers: Mapping[str, str], *, most_bytes: int, timeout_s: float) -> bytes:
    """Return the body of a request.

    Raises:
        RequestTooLargeError: It has more than `most_bytes`.
        BadRequestError: It did not arrive within `timeout_s`, or is compressed.
        ClientLeftError: The client closed its connection.
    """
    declared = headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > most_bytes:
        raise _too_large(most_bytes)
    if headers.get("content-encoding", "identity").lower() not in ("", "identity"):
        raise BadRequestError("compressed bodies are not accepted", status_code=415)
    body = bytearray()
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientLeftError
                body += message.get("body", b"")
                if len(body) > most_bytes:
                    raise _too_large(most_bytes)
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError:
        raise BadRequestError(f"the body did not arrive within {timeout_s:g} s", status_code=408) from None


def _too_large(most_bytes: int) -> RequestTooLargeError:
    return RequestTooLargeError(f"the body has more than {most_bytes:,} bytes", status_code=413)
