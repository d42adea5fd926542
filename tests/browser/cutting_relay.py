"""A relay between the browser and the page that breaks connections in the middle of an answer."""

import asyncio

_PIECE = 256  # bytes, so that a cut falls between the frames of an answer, and into them


class CuttingRelay:
    """Forwards bytes. Connections on which the events of an answer are asked for break after `most` bytes of them.

    `cuts` is the number of connections that still break; `broken` counts those that did.
    """

    def __init__(self, upstream_port: int, *, most: int) -> None:
        self._upstream_port = upstream_port
        self._most = most
        self.cuts = 0
        self.broken = 0
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)

    async def close(self) -> None:
        self._server.close()

    async def drop(self) -> None:
        """Break all connections, and take no new ones."""
        self._server.close()
        for writer in [*self._writers]:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        upstream = await asyncio.open_connection("127.0.0.1", self._upstream_port)
        # Bytes that the connection may still pass; None: as many as there are.
        left: list[int | None] = [None]
        tasks = [
            asyncio.ensure_future(self._upload(reader, upstream[1], left)),
            asyncio.ensure_future(self._download(upstream[0], writer, left)),
        ]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._writers.discard(writer)
        writer.transport.abort()
        upstream[1].close()

    async def _upload(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, left: list[int | None]) -> None:
        while data := await reader.read(2**16):
            if b"/events" in data.partition(b"\r\n")[0] and self.cuts:
                self.cuts -= 1
                left[0] = self._most
            writer.write(data)
            await writer.drain()

    async def _download(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, left: list[int | None]
    ) -> None:
        while data := await reader.read(_PIECE):
            if left[0] is not None:
                data, left[0] = data[: left[0]], left[0] - len(data)
            writer.write(data)
            await writer.drain()
            if left[0] is not None and left[0] <= 0:
                self.broken += 1
                return
