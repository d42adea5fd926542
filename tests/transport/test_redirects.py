"""Redirects are followed within the same origin and with the same method only. No key is sent to another origin."""

import asyncio
import json
import os
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

import lm_deluge
from lm_deluge import LLMClient
from lm_deluge import errors as e
from loopback import HELLO, NEXT, Loopback, Step, answer

STATUSES = [301, 302, 303, 307, 308]
KEY = "sk-canary-of-the-key"
CREDENTIALS = {
    "authorization": "Bearer sk-canary-of-the-user",
    "x-api-key": "canary-x-api-key",
    "api-key": "canary-api-key",
    "x-goog-api-key": "canary-x-goog-api-key",
    "cookie": "session=canary-cookie",
    "x-of-the-user": "canary-of-the-user",
}
EACH_CREDENTIAL = [{}, *({name: value} for name, value in CREDENTIALS.items()), CREDENTIALS]
TLS = Path(__file__).parent / "tls"


def moved(status: int, location: str) -> list[Step]:
    return [f"HTTP/1.1 {status} Moved\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n".encode(), NEXT]


def client_of(server: Loopback, **options: object) -> LLMClient:
    return LLMClient("gpt-4o", **{"api_key": KEY, "base_url": server.url, "max_attempts": 3, **options})


async def refusal_of(client: LLMClient) -> e.RedirectRefusedError:
    async with client:
        with pytest.raises(e.RedirectRefusedError) as caught:
            await client.stream("hi", echo=None)
    assert caught.value.attempts == 1
    assert (caught.value.provider, caught.value.model) == ("openai", "gpt-4o")
    assert "canary" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("headers", EACH_CREDENTIAL, ids=lambda headers: "+".join(headers) or "key")
async def test_another_port_gets_nothing(status: int, headers: dict[str, str]) -> None:
    async with Loopback(answer(HELLO)) as other, Loopback(moved(status, f"{other.url}/x?a=b")) as server:
        error = await refusal_of(client_of(server, extra_headers=headers))
        assert "127.0.0.1" in error.message
        assert (other.connections, len(other.requests)) == (0, 0)
        assert len(server.requests) == 1


@pytest.mark.parametrize("status", STATUSES)
async def test_another_name_of_the_same_host_is_another_origin(status: int) -> None:
    async with Loopback(answer(HELLO)) as server:
        server.transcripts.insert(0, moved(status, f"http://localhost:{server.port}/v1/chat/completions"))
        error = await refusal_of(client_of(server, extra_headers=CREDENTIALS))
        assert "localhost" in error.message
        assert len(server.requests) == 1


# How readers of URLs are led astray: each names another origin, whatever it looks like. PORT is the other server's.
DISGUISES = [
    "//127.0.0.1:PORT/v1",
    "http://127.0.0.1:OWN@127.0.0.1:PORT/",
    "http://127.0.0.1:OWN@localhost:PORT/",
    "http://user:pass@127.0.0.1:PORT/",
    "http:\\\\127.0.0.1:PORT\\v1",
    "\\\\127.0.0.1:PORT\\v1",
    "http:///127.0.0.1:PORT/",
    "HTTP://127.0.0.1:PORT/",
    "http://0x7f000001:PORT/",
    "http://127.1:PORT/",
    "http://[::ffff:127.0.0.1]:PORT/",
    "http://127.0.0.1:PORT#@127.0.0.1:OWN/",
    "http://127.0.0.1:PORT\\@127.0.0.1:OWN/",
    "https://127.0.0.1:PORT/",
    "ftp://127.0.0.1:PORT/",
    "file:///etc/hostname",
    "javascript:alert(1)",
    "http://127.0.0.1:99999/",
    "http://127.0.0.1:nan/",
    "http://[::1/",
]


@pytest.mark.parametrize("location", DISGUISES)
@pytest.mark.parametrize("status", [302, 307])
async def test_no_disguise_leads_to_another_origin(status: int, location: str) -> None:
    async with Loopback(answer(HELLO)) as other, Loopback(answer(HELLO)) as server:
        target = location.replace("PORT", str(other.port)).replace("OWN", str(server.port))
        server.transcripts[:] = [moved(status, target)]
        async with client_of(server) as client:
            with pytest.raises(e.DelugeError):
                await client.stream("hi", echo=None)
        assert (other.connections, len(other.requests)) == (0, 0)


@pytest.mark.parametrize("status", [307, 308])
@pytest.mark.parametrize("location", ["/elsewhere", "../elsewhere?x=1", "HTTP://127.0.0.1:OWN/v2"])
async def test_the_same_origin_is_followed_with_method_and_body(status: int, location: str) -> None:
    async with Loopback(answer(HELLO)) as server:
        server.transcripts.insert(0, moved(status, location.replace("OWN", str(server.port))))
        async with client_of(server, extra_headers=CREDENTIALS) as client:
            response = await client.stream("hi", echo=None)
        assert response.completion == "Hello world"
        assert response.stats.attempts == 1
        (first, first_headers, first_body), (second, headers, body) = server.requests
        assert first.startswith("POST /v1/chat/completions ")
        assert second.startswith("POST /")
        assert second != first
        assert (body, headers) == (first_body, first_headers)
        assert json.loads(body)["model"] == "gpt-4o"


@pytest.mark.parametrize("status", [301, 302, 303])
async def test_what_would_drop_the_body_is_refused_even_at_home(status: int) -> None:
    async with Loopback(moved(status, "/v2")) as server:
        error = await refusal_of(client_of(server))
        assert str(status) in error.message
        assert len(server.requests) == 1


@pytest.mark.parametrize("status", [307, 308])
async def test_three_redirects_are_followed_and_no_more(status: int) -> None:
    chain = [moved(status, f"/v{n}") for n in (2, 3, 4)]
    async with Loopback(*chain, answer(HELLO)) as server, client_of(server) as client:
        assert (await client.stream("hi", echo=None)).completion == "Hello world"
        assert len(server.requests) == 4
    async with Loopback(moved(status, "/v1/chat/completions")) as server:
        error = await refusal_of(client_of(server))
        assert "more than 3" in error.message
        assert len(server.requests) == 4


async def test_a_chain_that_leaves_home_at_its_end_is_refused_there() -> None:
    async with Loopback(answer(HELLO)) as other:
        async with Loopback(moved(307, "/v2"), moved(307, f"{other.url}/v3")) as server:
            await refusal_of(client_of(server))
            assert len(server.requests) == 2
        assert other.connections == 0


async def test_a_redirect_to_nowhere_is_an_error_of_the_provider() -> None:
    bare: list[Step] = [b"HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n", NEXT]
    async with Loopback(bare) as server, client_of(server) as client:
        with pytest.raises(e.APIError) as caught:
            await client.stream("hi", echo=None)
        assert caught.value.status_code == 302
        assert len(server.requests) == 1


class SecureLoopback(Loopback):
    async def __aenter__(self) -> Loopback:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(TLS / "certificate.pem", TLS / "key.pem")
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self


ASK = """
import asyncio, json, sys
from lm_deluge import LLMClient
from lm_deluge.errors import DelugeError

async def main():
    headers = json.loads(sys.argv[2])
    async with LLMClient("gpt-4o", api_key=sys.argv[3], base_url=sys.argv[1], extra_headers=headers) as client:
        for _ in range(5):
            try:
                await client.stream("hi", echo=None)
            except DelugeError as error:
                print(type(error).__name__)

asyncio.run(main())
"""


async def test_https_never_becomes_http() -> None:
    """Runs in a separate process, as the trusted certificates are loaded at its start."""
    async with Loopback(answer(HELLO)) as other:
        downgrades = [moved(status, f"{other.url}/chat/completions") for status in STATUSES]
        async with SecureLoopback(*downgrades) as server:
            address = f"https://127.0.0.1:{server.port}/v1"
            process = await asyncio.create_subprocess_exec(
                *[sys.executable, "-c", ASK, address, json.dumps(CREDENTIALS), KEY],
                env={
                    **os.environ,
                    "SSL_CERT_FILE": str(TLS / "certificate.pem"),
                    "PYTHONPATH": str(Path(lm_deluge.__file__).parents[1]),
                },
                stdout=subprocess.PIPE,
            )
            async with asyncio.timeout(60):
                out, _ = await process.communicate()
            assert out.decode().split() == ["RedirectRefusedError"] * 5
            assert len(server.requests) == 5
        assert (other.connections, len(other.requests)) == (0, 0)


@pytest.mark.parametrize("place", ["canary:canary@", "canary@", ":canary@"])
async def test_a_redirect_to_a_url_with_a_password_is_refused(place: str) -> None:
    async with Loopback() as server:
        host = server.url.removeprefix("http://")
        server.transcripts.append(moved(307, f"http://{place}{host}/v1/chat/completions"))
        error = await refusal_of(client_of(server))
        assert "user name or a password" in error.message
        assert len(server.requests) == 1
