"""CPU time of a typed answer that arrives in pieces of five bytes, one event a read, with a partial object after each.

The whole client runs: stream, decoder, parser, validation by Pydantic. Only the network is replaced, by reads from
memory. A growth of 1.0 means time in proportion to the size.
"""

import asyncio
import json
import time
from collections.abc import Callable, Coroutine
from typing import Any

from pydantic import BaseModel

from bench.partial_json import PIECE, SIZES, TURNS, document
from lm_deluge import LLMClient
from lm_deluge.config import Secret
from lm_deluge.transport.base import ConnectionSlot, Exchange
from lm_deluge.wire.http import HttpHead, HttpRequest

__all__ = ["typed_answers"]


class Line(BaseModel):
    name: str
    price: float
    count: int
    tags: list[str | bool | None]
    note: str


class Invoice(BaseModel):
    title: str
    lines: list[Line]


class Numbers(BaseModel):
    numbers: list[int]


class Article(BaseModel):
    text: str


class Memory:
    """A transport whose responses are read from memory."""

    def __init__(self, reads: list[bytes]) -> None:
        self._reads = reads

    async def connection_slot(self) -> ConnectionSlot:
        return Slot()

    async def open(self, request: HttpRequest, *, connect_timeout_s: float | None, proxy: Secret | None) -> Exchange:
        return Reads(self._reads)

    async def close(self) -> None: ...


class Slot:
    async def wait_again(self) -> None: ...

    def give_back(self) -> None: ...


class Reads:
    """A response with one read for each piece."""

    def __init__(self, reads: list[bytes]) -> None:
        self.head = HttpHead(200, {"content-type": "text/event-stream"})
        self.bytes_received = 0
        self._reads = iter(reads)

    def keep(self, slot: ConnectionSlot) -> None: ...

    async def read(self) -> bytes:
        return next(self._reads, b"")

    async def release(self, wait_s: float) -> int:
        return 0

    def abort(self) -> None: ...


def reads_of(text: str) -> list[bytes]:
    def event(delta: dict[str, str], reason: str | None = None) -> bytes:
        chunk = {"id": "1", "model": "gpt-4o", "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}
        return b"data: " + json.dumps(chunk).encode() + b"\n\n"

    pieces = [text[at : at + PIECE] for at in range(0, len(text), PIECE)]
    return [*(event({"content": piece}) for piece in pieces), event({}, "stop"), b"data: [DONE]\n\n"]


async def read_text(client: LLMClient, kind: type[BaseModel]) -> int:
    return sum([1 async for _ in client.stream("x")])


async def read_partials(client: LLMClient, kind: type[BaseModel]) -> int:
    stream = client.stream("x", output=kind)
    count = 0
    async for _ in stream.partials():
        count += 1
    assert isinstance(stream.response.output, kind)
    return count


Read = Callable[[LLMClient, type[BaseModel]], Coroutine[Any, Any, int]]


def seconds(read: Read, kind: type[BaseModel], text: str) -> float:
    """Return the CPU seconds of the best turn, after a check that each piece has been delivered."""
    reads = reads_of(text)

    async def run() -> int:
        async with LLMClient("gpt-4o", api_key="none") as client:
            client.dispatcher.transport = Memory(reads)
            return await read(client, kind)

    taken = []
    for _ in range(TURNS):
        started = time.process_time()
        count = asyncio.run(run())
        taken.append(time.process_time() - started)
        assert count >= len(reads) - 10
    return min(taken)


def numbers(size: int) -> str:
    return json.dumps({"numbers": list(range(100_000, 100_000 + size // 8))})


def article(size: int) -> str:
    return json.dumps({"text": "One word after the other. " * (size // 26)})


CASES: dict[str, tuple[Read, type[BaseModel], Callable[[int], str]]] = {
    "text only": (read_text, Invoice, document),
    "invoice": (read_partials, Invoice, document),
    "a list": (read_partials, Numbers, numbers),
    "one string": (read_partials, Article, article),
}


def typed_answers() -> None:
    print(
        f"\nTyped answers in pieces of {PIECE} bytes, a partial object after each: CPU seconds, and growth of the time"
    )
    print("  " + " " * 12 + "".join(f"{size // 1000:>9} kB" for size in SIZES) + "    growth of time / of size")
    for name, (read, kind, write) in CASES.items():
        taken = [seconds(read, kind, write(size)) for size in SIZES]
        growth = taken[-1] / taken[0] / (SIZES[-1] / SIZES[0])
        print(f"  {name:12}" + "".join(f"{each:12.4f}" for each in taken) + f"{growth:10.2f}")


if __name__ == "__main__":
    typed_answers()
