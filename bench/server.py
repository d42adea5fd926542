"""A server that sends one long answer as fast as possible; the answer is encoded once, at the start."""

import asyncio
import sys

EVENTS = 20_000  # long enough that reading takes much longer than the connection
EVENT = (
    b'data: {"id":"chatcmpl-D8EA5nZ0hOZP7LH1T8J9NNIiYa8n1","object":"chat.completion.chunk","created":1770853433,'
    b'"model":"gpt-4o-2024-08-06","service_tier":"default","system_fingerprint":"fp_8b22347a3e","choices":[{"index":0,'
    b'"delta":{"content":" word%d"},"logprobs":null,"finish_reason":null}],"obfuscation":"AbCdEfGhIj"}\n\n'
)
LAST = b'data: {"id":"c","model":"gpt-4o-2024-08-06","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def http_chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def body(per_chunk: int) -> list[bytes]:
    events = [EVENT % number for number in range(EVENTS)] + [LAST, b"data: [DONE]\n\n"]
    groups = [b"".join(events[start : start + per_chunk]) for start in range(0, len(events), per_chunk)]
    return [HEAD, *map(http_chunk, groups), b"0\r\n\r\n"]


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, bodies: dict[bytes, list[bytes]]) -> None:
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            per_chunk = head.split(b"/", 2)[1]
            for piece in bodies[per_chunk]:
                writer.write(piece)
                await writer.drain()
                if per_chunk == b"1":
                    await asyncio.sleep(0)
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def main() -> None:
    bodies = {b"1": body(1), b"20": body(20)}
    server = await asyncio.start_server(lambda r, w: answer(r, w, bodies), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
