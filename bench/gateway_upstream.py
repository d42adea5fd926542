"""A provider for `bench.gateway`: a document at once, or a stream, as fast as possible or at a steady pace."""

import asyncio
import json
import sys

EVENT = (
    b'data: {"id":"chatcmpl-D8EA5nZ0hOZP7LH1T8J9NNIiYa8n1","object":"chat.completion.chunk","created":1770853433,'
    b'"model":"gpt-4o-2024-08-06","choices":[{"index":0,"delta":{"content":" word%d"},"logprobs":null,'
    b'"finish_reason":null}]}\n\n'
)
LAST = (
    b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"gpt-4o-2024-08-06","choices":[{"index":0,'
    b'"delta":{},"finish_reason":"stop"}]}\n\n'
    b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"gpt-4o-2024-08-06","choices":[],"usage":'
    b'{"prompt_tokens":9,"completion_tokens":9,"total_tokens":18}}\n\ndata: [DONE]\n\n'
)
DOCUMENT = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1770853433,
        "model": "gpt-4o-2024-08-06",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "Yes."}, "logprobs": None, "finish_reason": "stop"}
        ],
        "usage": {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11},
    }
).encode()
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
PLAIN = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(DOCUMENT), DOCUMENT)


def http_chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            if b"content-length:" not in head.lower():  # LiteLLM asks for the models
                writer.write(PLAIN)
                continue
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            body = json.loads(await reader.readexactly(length))
            if not body.get("stream"):
                writer.write(PLAIN)
                await writer.drain()
                continue
            events, pause_s, *first_s = map(float, body["messages"][0]["content"].split())
            await asyncio.sleep(sum(first_s))
            writer.write(HEAD)
            for number in range(int(events)):
                writer.write(http_chunk(EVENT % number))
                await writer.drain()
                await asyncio.sleep(pause_s)
            writer.write(http_chunk(LAST) + b"0\r\n\r\n")
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def main() -> None:
    server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
