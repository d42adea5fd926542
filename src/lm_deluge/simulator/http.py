"""The server side of HTTP/1.1: it parses requests strictly and writes answers exactly as the caller gives them.

Parsing follows RFC 9112 strictly, because a lenient server would hide the mistakes of a client. The writer checks
nothing, because the faults need bytes that no web framework can send.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import parse_qsl, urlsplit

from lm_deluge.errors import BadRequestError

__all__ = [
    "LAST_CHUNK",
    "HttpError",
    "Limits",
    "Request",
    "encode_chunk",
    "encode_head",
    "parse_number",
    "read_request",
]

LAST_CHUNK = b"0\r\n\r\n"

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_REQUEST_LINE = re.compile(r"([A-Z]+) (\S+) HTTP/1\.([01])")
_NUMBER = re.compile("[0-9]{1,18}")  # fits into 64 bits, and is far below the 4,300 digits that `int` takes
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})(?:[ \t]*;[^\r\n]*)?\r\n")


class HttpError(Exception):
    """A request that cannot be parsed. The connection closes after an answer with `status`.

    Attributes:
        request: The request without its body, or None if the headers cannot be parsed.
    """

    def __init__(self, status: int, message: str, request: Request | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.request = request


@dataclass(frozen=True, slots=True)
class Limits:
    """Size and time limits of a request. A larger request gets status 413 or 431, a slower request status 408.

    Attributes:
        header_bytes: Largest size of request line and headers together.
        body_bytes: Largest size of the body, without the framing of chunks.
        header_s: Longest time, in seconds, from the first byte to the end of the headers.
        body_s: Longest time, in seconds, for the body.
    """

    header_bytes: int = 64 * 2**10
    body_bytes: int = 32 * 2**20
    header_s: float = 10.0
    body_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Request:
    """A parsed request. Header names are in lower case; the values of a repeated header are joined with a comma."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str] = field(repr=False)
    body: bytes = field(repr=False, default=b"")
    is_http_11: bool = True

    @property
    def keeps_alive(self) -> bool:
        """Whether the client wants to reuse the connection for another request."""
        options = self.headers.get("connection", "").lower()
        return "close" not in options and (self.is_http_11 or "keep-alive" in options)

    def query_number(self, name: str, default: int) -> int:
        """Return the number in a query parameter, or `default` without it.

        Raises:
            BadRequestError: The value is not a number of 1 to 18 digits.
        """
        text = self.query.get(name)
        if text is None:
            return default
        number = parse_number(text)
        if number is None:
            message = f"Invalid value for '{name}': expected a number of at most 18 digits."
            raise BadRequestError(message, status_code=400, type="invalid_request_error")
        return number


def parse_number(text: str) -> int | None:
    """Return a number of 1 to 18 decimal digits, or None for any other text."""
    return int(text) if _NUMBER.fullmatch(text) else None


async def read_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limits: Limits) -> Request | None:
    """Return the next request, or None if the client closed the connection before the end of a request.

    A connection may stay idle without limit; the time limits start with the first byte of the request.

    Raises:
        HttpError: The request is malformed, larger than the limits, or too slow.
    """
    request: Request | None = None
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
        raise HttpError(431, f"The headers are larger than {limits.header_bytes} bytes.", request) from error
    except TimeoutError as error:
        raise HttpError(408, "The request did not arrive in time.", request) from error
    except HttpError as error:
        error.request = request
        raise
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
            raise HttpError(400, "There are two different content-length headers.")
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
        raise HttpError(400, "The request has both content-length and transfer-encoding.")
    if coding is not None and coding.lower() != "chunked":
        raise HttpError(501, "This transfer-encoding is not supported.")
    if length is not None and not (length.isascii() and length.isdigit()):
        raise HttpError(400, "The content-length is not a number.")
    size = parse_number((length or "").lstrip("0") or "0")
    if size is None or size > limits.body_bytes:
        raise _too_large(limits)
    if request.headers.get("expect", "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    if coding is not None:
        return await _read_chunks(reader, limits)
    return await reader.readexactly(size)


async def _read_chunks(reader: asyncio.StreamReader, limits: Limits) -> bytes:
    body = bytearray()
    while True:
        found = _CHUNK_SIZE.fullmatch(await reader.readuntil(b"\r\n"))
        if found is None:
            raise HttpError(400, "The size of a chunk is not a hexadecimal number.")
        size = int(found.group(1), 16)
        if len(body) + size > limits.body_bytes:
            raise _too_large(limits)
        if size == 0:
            while await reader.readuntil(b"\r\n") != b"\r\n":
                pass  # trailers are read and ignored
            return bytes(body)
        body += await reader.readexactly(size)
        if await reader.readexactly(2) != b"\r\n":
            raise HttpError(400, "A chunk is longer than its size.")


def _too_large(limits: Limits) -> HttpError:
    return HttpError(413, f"The body is larger than {limits.body_bytes} bytes.")


def encode_head(status: int, headers: Iterable[tuple[str, str]], *, version: str = "HTTP/1.1") -> bytes:
    """Encode status line and headers without checks: headers may be repeated, huge or contradictory.

    A character outside Latin-1 becomes a question mark.
    """
    phrases = {each.value: each.phrase for each in HTTPStatus}
    lines = [f"{version} {status} {phrases.get(status, 'Unknown')}", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace")


def encode_chunk(data: bytes) -> bytes:
    """Encode a chunk of a chunked body. Empty data gives no bytes, because an empty chunk ends the body."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""
