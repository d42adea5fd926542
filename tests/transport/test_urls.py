"""The URL as the server gets it: path and query unchanged, the host normalized."""

from __future__ import annotations

import pytest

from lm_deluge import errors as e
from lm_deluge.config import Secret
from lm_deluge.transport.http import AiohttpTransport
from lm_deluge.transport.targets import unchanged_url
from lm_deluge.wire.http import HttpRequest
from loopback import Loopback, plain


async def first_line(path: str) -> str:
    """Return the request line that a server receives."""
    async with Loopback(plain("200 OK", b"{}")) as server:
        transport = AiohttpTransport()
        url = server.url.removesuffix("/v1") + path
        exchange = await transport.open(HttpRequest(url, {}, b""), connect_timeout_s=5, proxy=None)
        exchange.abort()
        await transport.close()
        line, headers, _ = server.requests[0]
        assert headers["host"] == f"127.0.0.1:{server.port}"
    return line


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("/model/a%3Ab%2Fc/x", "/model/a%3Ab%2Fc/x"),
        ("/model/a%3ab%7E%41/x", "/model/a%3ab%7E%41/x"),
        ("/a%20b%C3%BC?q=%3A%2F&r=a%2Bb+c", "/a%20b%C3%BC?q=%3A%2F&r=a%2Bb+c"),
        ("/model/a:b/c", "/model/a:b/c"),
        ("/ü b", "/%C3%BC%20b"),
        ("", "/"),
        ("?api-version=%31", "/?api-version=%31"),
    ],
)
async def test_the_server_gets_the_bytes_that_were_written(path: str, sent: str) -> None:
    assert await first_line(path) == f"POST {sent} HTTP/1.1"


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("https://AWS.test/%3A", "aws.test", 443),
        ("http://[::1]:8080/%3A", "::1", 8080),
        ("https://aws.test:443/%3A", "aws.test", 443),
        ("https://bücher.test/a", "xn--bcher-kva.test", 443),
    ],
)
def test_the_host_is_as_http_wants_it(url: str, host: str, port: int) -> None:
    found = unchanged_url(url)
    assert (found.raw_host, found.port) == (host, port)
    if "%" in url:
        assert found.raw_path == "/%3A"


@pytest.mark.parametrize("url", ["http://[::1/%3A", "http://a:99999/%3A", "http:///%3A"])
async def test_what_is_no_url(url: str) -> None:
    transport = AiohttpTransport()
    with pytest.raises(e.ConfigurationError, match="the base URL is invalid"):
        await transport.open(HttpRequest(url, {}, b""), connect_timeout_s=5, proxy=None)
    await transport.close()


async def test_a_proxy_that_cannot_be_reached_is_named_as_the_proxy() -> None:
    async with Loopback(plain("200 OK", b"{}")) as server:
        closed = server.url.removesuffix("/v1")
    transport = AiohttpTransport()
    for url in ("https://api.test/v1", "http://api.test/v1"):
        with pytest.raises(e.ConnectError, match=r"no connection to the proxy 127\.0\.0\.1:"):
            await transport.open(HttpRequest(url, {}, b""), connect_timeout_s=5, proxy=Secret(closed))
    await transport.close()


@pytest.mark.parametrize("status", ["407 Proxy Authentication Required", "503 Service Unavailable"])
async def test_a_proxy_that_refuses_the_connection_is_named_with_its_status(status: str) -> None:
    async with Loopback(plain(status, b"no")) as server:
        transport = AiohttpTransport()
        proxy = Secret(server.url.removesuffix("/v1"))
        message = f"the proxy rejected the connection with status {status[:3]}"
        with pytest.raises(e.ConnectError, match=message):
            await transport.open(HttpRequest("https://api.test/v1", {}, b""), connect_timeout_s=5, proxy=proxy)
        await transport.close()
