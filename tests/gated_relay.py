"""A relay that holds back the middle of a server's stream until the test opens its gate."""

import asyncio
from typing import Self

_FRAMES_BEFORE_THE_GATE = 4


class GatedRelay:
    """Forwards bytes, but only the first frames of each response until `open_gate` is called."""

    def __init__(self, upstream_port: int) -> None:
        self._upstream_port = upstream_port
        self._gate = asyncio.Event()
        self.bodies: list[bytes] = []

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"

    def open_gate(self) -> None:
        self._gate.set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._gate.set()
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self._upstream_port)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._upload(reader, upstream_writer))
                both.create_task(self._download(upstream_reader, writer))
        except* OSError:
            pass

    async def _upload(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(2**16):
            self.bodies.append(data)
            writer.write(data)
            await writer.drain()
        writer.close()

    async def _download(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen = 0
        while data := await reader.read(64):
            seen += data.count(b"data: ")
            if seen > _FRAMES_BEFORE_THE_GATE:
                await self._gate.wait()
            writer.write(data)
            await writer.drain()
        writer.close()
