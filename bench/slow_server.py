"""A server for thousands of streams that flow slowly: at every tick each gets the same event, with the time in it."""

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
EVENT_CHARACTERS = 18


class SlowAnswers(asyncio.Protocol):
    """One connection; a request is answered from the next tick on."""

    def __init__(self, flowing: dict["SlowAnswers", int]) -> None:
        self._flowing = flowing
        self._held = b""
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        self._flowing.pop(self, None)

    def data_received(self, data: bytes) -> None:
        self._held += data
        head, found, body = self._held.partition(b"\r\n\r\n")
        if found and len(body) >= int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]):
            self._held = b""
            self.transport.write(_HEAD)
            self._flowing[self] = 0


async def flow(flowing: dict[SlowAnswers, int], per_second: float, events: int) -> None:
    loop = asyncio.get_running_loop()
    due = loop.time()
    while True:
        due = max(due + 1 / per_second, loop.time() - 1)
        await asyncio.sleep(max(due - loop.time(), 0))
        event = http_chunk(_EVENT % time.monotonic())
        for answer, sent in list(flowing.items()):
            if sent < events:
                flowing[answer] = sent + 1
                answer.transport.write(event)
            else:
                del flowing[answer]
                answer.transport.write(_LAST)


async def main(per_second: float, events: int) -> None:
    flowing: dict[SlowAnswers, int] = {}
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SlowAnswers(flowing), "127.0.0.1", 0, backlog=8192)
    print(server.sockets[0].getsockname()[1], flush=True)
    flowing_on = asyncio.create_task(flow(flowing, per_second, events))
    await loop.run_in_executor(None, sys.stdin.read)
    flowing_on.cancel()


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]), int(sys.argv[2])))
