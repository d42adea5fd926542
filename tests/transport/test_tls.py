"""TLS on the loopback, with a certificate and a key that are trusted in these tests only."""

import asyncio
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from lm_deluge import LLMClient
from lm_deluge import errors as e
from loopback import HELLO, RST, Loopback, answer

FOLDER = Path(__file__).parent / "tls"

ASK = """
import asyncio, sys
from lm_deluge import LLMClient

async def main():
    async with LLMClient("gpt-4o", api_key="sk-test", base_url=sys.argv[1], max_attempts=1) as client:
        async for token in client.stream("hi"):
            print(token, end="")
            if len(sys.argv) > 2:
                break

asyncio.run(main())
"""


class SecureLoopback(Loopback):
    async def __aenter__(self) -> Loopback:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(FOLDER / "certificate.pem", FOLDER / "key.pem")
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}/v1"


async def run_asking(server: Loopback, *arguments: str) -> str:
    command = [sys.executable, "-X", "dev", "-c", ASK, server.url, *arguments]
    environment = {"SSL_CERT_FILE": str(FOLDER / "certificate.pem")}
    process = await asyncio.create_subprocess_exec(
        *command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode()


async def test_a_certificate_that_nobody_trusts_is_refused_once_and_for_all() -> None:
    async with SecureLoopback(answer(HELLO)) as server:
        async with LLMClient("gpt-4o", api_key="sk-test", base_url=server.url, max_attempts=5) as client:
            with pytest.raises(e.CertificateError) as caught:
                await client.stream("hi", echo=None)
        assert caught.value.attempts == 1
        assert caught.value.billed == "no"
        assert not server.requests


async def test_a_trusted_certificate_is_enough() -> None:
    async with SecureLoopback(answer(HELLO)) as server:
        assert await run_asking(server) == "Hello world"


async def test_a_stream_that_is_left_takes_no_leave_of_tls() -> None:
    async with SecureLoopback(answer(HELLO)) as server:
        assert await run_asking(server, "leave") == "Hello"
        await server.settle()


@pytest.mark.parametrize("steps", [[RST], [b"HTTP/1.1 400 Bad Request\r\n\r\n"]], ids=["reset", "plain HTTP"])
async def test_a_handshake_that_fails_is_a_failed_connection(steps: list[bytes | str]) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        seen += 1
        await reader.read(1)
        if isinstance(steps[0], bytes):
            writer.write(steps[0])
            await writer.drain()
            writer.close()
        else:
            writer.transport.abort()

    seen = 0
    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    async with server, LLMClient("gpt-4o", api_key="sk-test", base_url=url, max_attempts=2) as client:
        with pytest.raises(e.ConnectError) as caught:
            await client.stream("hi", echo=None)
    assert not isinstance(caught.value, e.CertificateError)
    assert caught.value.attempts == seen == 2
    assert caught.value.billed == "no"
