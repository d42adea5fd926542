"""A server for thousands of slow streams: at every tick each stream gets the same event, which holds the time."""

import asyncio
import sys
import time

from bench.short_server import http_chunk

_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_EVENT = (
    b'data: {"id":"chatcmpl-D8EA5nZ0hOZP7LH1T8J9NNIiYa8n1","object":"chat.completion.chunk","created":1770853433,'
    b'"model":"gpt-4o-mini","service_tier":"default","system_fingerprint":"fp_8b22347a3e","choices":[{"index":0,'
    b'"delta":{"content":"%017.6f "},"logprobs":null,"finish_reason":null}]}\n\n'
)
_FINISH = b'data: {"id":"c","model":"gpt-4o-mini","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
_USAGE = b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":12,"completion_tokens":24,"total_tokens":36}}\n\n'
_LAST = http_chunk(_FINISH) + http_chunk(_USAGE) + http_chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
EVENT_CHARACTERS = 18  # of text in an event: 17 digits of the time, and a space


class SlowAnswers(asyncio.Protocol):
    """A connection whose answer starts at the next tick."""

    def __init__(self, streams: dict["SlowAnswers", int]) -> None:
        self._streams = streams
        self._buffered = b""
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        self._streams.pop(self, None)

    def data_received(self, data: bytes) -> None:
        self._buffered += data
        head, found, body = self._buffered.partition(b"\r\n\r\n")
        if found and len(body) >= int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]):
            self._buffered = b""
            self.transport.write(_HEAD)
            self._streams[self] = 0


async def flow(streams: dict[SlowAnswers, int], per_second: float, events: int) -> None:
    loop = asyncio.get_running_loop()
    due = loop.time()
    while True:
        due = max(due + 1 / per_second, loop.time() - 1)
        await asyncio.sleep(max(due - loop.time(), 0))
        event = http_chunk(_EVENT % time.monotonic())
        for answer, sent in list(streams.items()):
            if sent < events:
                streams[answer] = sent + 1
                answer.transport.write(event)
            else:
                del streams[answer]
                answer.transport.write(_LAST)


async def main(per_second: float, events: int) -> None:
    streams: dict[SlowAnswers, int] = {}
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SlowAnswers(streams), "127.0.0.1", 0, backlog=8192)
    print(server.sockets[0].getsockname()[1], flush=True)
    ticks = asyncio.create_task(flow(streams, per_second, events))
    await loop.run_in_executor(None, sys.stdin.read)
    ticks.cancel()


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]), int(sys.argv[2])))
