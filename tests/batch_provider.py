"""A provider in its own process that counts how often each row of a batch was requested.

`python batch_provider.py PORT DELAY_S [LIMIT]` prints its port and serves the chat API; a prompt is `ID anything`. The
token counts of a row follow from its id. `GET /bill` returns the counts as JSON, `GET /times` when requests came, and
`GET /count` how many. Above LIMIT requests in any 60 seconds it answers with the status 429, counted as "refused".
A prompt `ID json` is answered with a JSON object, and `ID fail` with the status 400.
"""

import asyncio
import bisect
import contextlib
import json
import math
import sys
import time
from collections import Counter
from pathlib import Path

WINDOW_S = 60.0
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"

REFUSED = b'{"error": {"message": "no such thing", "type": "invalid_request_error"}}'
REFUSAL = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(REFUSED)
) + REFUSED
TOO_MANY = b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 1\r\ncontent-length: 2\r\n\r\n{}"


def tokens_of(name: str) -> tuple[int, int]:
    number = sum(name.encode())
    return 10 + number % 17, 1 + number % 5


def answer_of(name: str) -> str:
    return f"answer to {name}"


def body_of(name: str, kind: str = "please") -> bytes:
    read, written = tokens_of(name)
    text = json.dumps({"name": name, "size": len(name)}) if kind == "json" else answer_of(name)
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    events = [
        {"id": "c1", "model": "gpt-4o", "choices": [choice]},
        {"id": "c1", "model": "gpt-4o", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        {"id": "c1", "choices": [], "usage": {"prompt_tokens": read, "completion_tokens": written}},
    ]
    data = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events) + b"data: [DONE]\n\n"
    return b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data)


class Provider:
    def __init__(self, delay_s: float, limit: float) -> None:
        self.delay_s = delay_s
        self.limit = limit
        self.asked: Counter[str] = Counter()
        self.times: list[float] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lines = head.decode().lower().split("\r\n")
                length = next((int(line[16:]) for line in lines if line.startswith("content-length: ")), 0)
                body = await reader.readexactly(length)
                if head.startswith(b"GET "):
                    page = json.dumps(self.page(lines[0].split()[1])).encode()
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(page), page))
                    continue
                if self.is_too_many():
                    self.asked["refused"] += 1
                    writer.write(TOO_MANY)
                    continue
                name, kind = json.loads(body)["messages"][-1]["content"].split()[:2]
                self.asked[name] += 1
                await asyncio.sleep(self.delay_s)
                writer.write(REFUSAL if kind == "fail" else HEAD + body_of(name, kind))
                await writer.drain()
        writer.close()

    def page(self, path: str) -> object:
        return {"/bill": self.asked, "/times": self.times, "/count": len(self.times)}[path]

    def is_too_many(self) -> bool:
        now = time.monotonic()
        if len(self.times) - bisect.bisect(self.times, now - WINDOW_S) >= self.limit:
            return True
        self.times.append(now)
        return False


async def main(port: int, delay_s: float, limit: float = math.inf) -> None:
    server = await asyncio.start_server(Provider(delay_s, limit).serve, "127.0.0.1", port, backlog=1_000)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), *map(float, sys.argv[2:])))

PROGRAM = str(Path(__file__).resolve())
