"""A small HTTP/1.1 server side: requests read strictly, answers written byte by byte.

Strict in what it reads (RFC 9112), as a server that takes everything would hide a client's mistakes. What it
writes is left to the caller entirely: the faults lie below what a web framework can be made to send.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import parse_qsl, urlsplit

__all__ = ["LAST_CHUNK", "HttpError", "Limits", "Request", "encode_chunk", "encode_head", "read_request"]

LAST_CHUNK = b"0\r\n\r\n"

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_REQUEST_LINE = re.compile(r"([A-Z]+) (\S+) HTTP/1\.([01])")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})(?:[ \t]*;[^\r\n]*)?\r\n")


class HttpError(Exception):
    """A request that cannot be read; `status` is what to answer, after which the connection is closed."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass(frozen=True, slots=True)
class Limits:
    """What a request may be.

    Attributes:
        header_bytes: Request line and headers together.
        body_bytes: The body, after chunks were joined.
        header_s: Seconds from the first byte to the end of the headers.
        body_s: Seconds for the body.
    """

    header_bytes: int = 64 * 2**10
    body_bytes: int = 32 * 2**20
    header_s: float = 10.0
    body_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it came; names of headers are in lower case, repeated ones joined with a comma."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str] = field(repr=False)
    body: bytes = field(repr=False, default=b"")
    is_http_11: bool = True

    @property
    def keeps_alive(self) -> bool:
        """Whether the client wants to use the connection again."""
        options = self.headers.get("connection", "").lower()
        return "close" not in options and (self.is_http_11 or "keep-alive" in options)


async def read_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limits: Limits) -> Request | None:
    """Return the next request; None where the client closed the connection before a whole one.

    A connection may stay idle for as long as it wants; the clocks run from the first byte.

    Raises:
        HttpError: What came is no request, larger than the limits, or too slow.
    """
    try:
        first = await reader.read(1)
        if not first:
            return None
        async with asyncio.timeout(limits.header_s):
            head = first + await reader.readuntil(b"\r\n\r\n")
        request = _parse_head(head)
        async with asyncio.timeout(limits.body_s):
            body = await _read_body(reader, writer, request, limits)
    except asyncio.IncompleteReadError:
        return None
    except asyncio.LimitOverrunError as error:
        raise HttpError(431, f"The headers are larger than {limits.header_bytes} bytes.") from error
    except TimeoutError as error:
        raise HttpError(408, "The request did not come in time.") from error
    return Request(request.method, request.path, request.query, request.headers, body, request.is_http_11)


def _parse_head(head: bytes) -> Request:
    first, *lines = head[:-4].decode("latin-1").split("\r\n")
    found = _REQUEST_LINE.fullmatch(first)
    if found is None:
        raise HttpError(400, "The request line cannot be read.")
    method, target, minor = found.groups()
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not _TOKEN.fullmatch(name):
            raise HttpError(400, "A header cannot be read.")
        name, value = name.lower(), value.strip(" \t")
        if name == "content-length" and headers.get(name, value) != value:
            raise HttpError(400, "There are two lengths.")
        headers[name] = f"{headers[name]}, {value}" if name in headers and name != "content-length" else value
    try:
        parts = urlsplit(target)
    except ValueError as error:
        raise HttpError(400, "The target cannot be read.") from error
    return Request(method, parts.path or "/", dict(parse_qsl(parts.query)), headers, is_http_11=minor == "1")


async def _read_body(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: Request, limits: Limits
) -> bytes:
    length, coding = request.headers.get("content-length"), request.headers.get("transfer-encoding")
    if length is not None and coding is not None:
        raise HttpError(400, "A body has a length or is sent in chunks, not both.")
    if coding is not None and coding.lower() != "chunked":
        raise HttpError(501, "This transfer coding is not known.")
    if length is not None and not (length.isascii() and length.isdigit()):
        raise HttpError(400, "The length is no number.")
    if length is not None and int(length) > limits.body_bytes:
        raise _too_large(limits)
    if request.headers.get("expect", "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    if coding is not None:
        return await _read_chunks(reader, limits)
    return await reader.readexactly(int(length)) if length else b""


async def _read_chunks(reader: asyncio.StreamReader, limits: Limits) -> bytes:
    body = bytearray()
    while True:
        found = _CHUNK_SIZE.fullmatch(await reader.readuntil(b"\r\n"))
        if found is None:
            raise HttpError(400, "The size of a chunk cannot be read.")
        size = int(found.group(1), 16)
        if len(body) + size > limits.body_bytes:
            raise _too_large(limits)
        if size == 0:
            while await reader.readuntil(b"\r\n") != b"\r\n":
                pass  # trailers say nothing here
            return bytes(body)
        body += await reader.readexactly(size)
        if await reader.readexactly(2) != b"\r\n":
            raise HttpError(400, "A chunk is longer than it says.")


def _too_large(limits: Limits) -> HttpError:
    return HttpError(413, f"The body is larger than {limits.body_bytes} bytes.")


def encode_head(status: int, headers: Iterable[tuple[str, str]], *, version: str = "HTTP/1.1") -> bytes:
    """Write status line and headers as they are given: repeated, huge or contradictory ones too."""
    known = {each.value: each.phrase for each in HTTPStatus}
    lines = [f"{version} {status} {known.get(status, 'Unknown')}", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def encode_chunk(data: bytes) -> bytes:
    """Write one chunk of a chunked body; nothing for no data, as an empty chunk would end the body."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""
