"""A server of Chat Completions whose answers are encoded once, streamed and plain.

Paths begin with `/TOKENS/EVENTS_PER_CHUNK/`; with `json` in place of a number the answer is an object of 20 kB,
whose pieces are sent one after the other, as a model generates them.
"""

import asyncio
import json
import sys
from functools import lru_cache

from bench.short_server import http_chunk

_ID = "chatcmpl-D8EA5nZ0hOZP7LH1T8J9NNIiYa8n1"
_GAP_S = 0.001  # between two pieces: long enough that each is read alone
_JSON_BYTES = 20_000  # an answer with a table of some hundred rows


def _chunk(choices: object, **more: object) -> bytes:
    head = {"id": _ID, "object": "chat.completion.chunk", "created": 1770853433, "model": "gpt-4o-mini"}
    return b"data: " + json.dumps({**head, "choices": choices, **more}).encode() + b"\n\n"


def _texts(what: str) -> list[str]:
    if what != "json":
        return [f" word{number % 100}" for number in range(int(what))]
    from bench.partial_json import document, pieces_of

    return pieces_of(document(_JSON_BYTES))


@lru_cache(maxsize=16)
def streamed(what: str, per_chunk: int, *, has_usage: bool) -> list[bytes]:
    """Return the writes of a streamed response, with so many events in each HTTP chunk."""
    texts = _texts(what)
    events = [_chunk([{"index": 0, "delta": {"content": text}, "finish_reason": None}]) for text in texts]
    usage = {"prompt_tokens": 12, "completion_tokens": len(texts), "total_tokens": 12 + len(texts)}
    events.append(_chunk([{"index": 0, "delta": {}, "finish_reason": "stop"}]))
    events += [_chunk([], usage=usage)] if has_usage else []
    events.append(b"data: [DONE]\n\n")
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    groups = (b"".join(events[start : start + per_chunk]) for start in range(0, len(events), per_chunk))
    writes = [head, *map(http_chunk, groups), b"0\r\n\r\n"]
    return writes if what == "json" else [b"".join(writes)]


@lru_cache(maxsize=16)
def plain(what: str) -> bytes:
    """Return the same answer as one JSON document."""
    texts = _texts(what)
    message = {"role": "assistant", "content": "".join(texts), "refusal": None}
    usage = {"prompt_tokens": 12, "completion_tokens": len(texts), "total_tokens": 12 + len(texts)}
    choices = [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}]
    head = {"id": _ID, "object": "chat.completion", "created": 1770853433, "model": "gpt-4o-mini"}
    body = json.dumps({**head, "choices": choices, "usage": usage}).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            request = await reader.readexactly(length)
            _, what, per_chunk, *_ = head.decode("latin-1").split("/")
            is_streamed = b'"stream":true' in request.replace(b" ", b"")
            if is_streamed:
                for data in streamed(what, int(per_chunk), has_usage=b"include_usage" in request):
                    writer.write(data)
                    await asyncio.sleep(_GAP_S if what == "json" else 0)
            else:
                writer.write(plain(what))
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def main() -> None:
    server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
