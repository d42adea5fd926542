"""Memory stays small for answers of any size, measured in a separate process."""

import asyncio
import gzip
import os
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path

import brotli
import pytest
import zstandard

import lm_deluge
from lm_deluge.adapters.adapter import Call
from lm_deluge.adapters.openai_chat.adapter import OpenAIChat
from lm_deluge.models.rows import ModelRow, ProviderRow
from lm_deluge.prompt.conversation import Conversation
from loopback import END, HEAD, HELLO, NEXT, Loopback, Step, answer, chunk, text

MOST_GROWTH = 48 * 2**20
MOST_GROWTH_OF_A_DOCUMENT = 112 * 2**20
"""A plain answer is buffered until it is complete, and may be four times as large as the largest event: 64 MiB."""
PIECE = 2**20

# After one answer in order: what follows is not the memory of imports. VmHWM is the most that the process ever held.
ASK = """
import asyncio, gc, sys
from lm_deluge import LLMClient
from lm_deluge.errors import DelugeError

def memory(name):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(name))

async def main():
    headers = {"accept-encoding": "gzip, deflate, br, zstd"}
    options = dict(api_key="k", base_url=sys.argv[1], max_attempts=1, extra_headers=headers)
    async with LLMClient("gpt-4o", **options) as client:
        await client.stream("hi", echo=None)
        gc.collect()
        before = memory("VmRSS")
        try:
            await client.stream("hi", echo=None)
            print("no error")
        except DelugeError as error:
            print(type(error).__name__, memory("VmHWM") - before)

asyncio.run(main())
"""


def bomb(piece: bytes) -> list[Step]:
    """300 MB of `piece`, compressed as far as possible."""
    head = HEAD.replace(b"\r\n\r\n", b"\r\ncontent-encoding: gzip\r\n\r\n")
    body = gzip.compress(piece * (PIECE // len(piece))) * 300
    assert len(body) < 2 * PIECE
    return [head, chunk(body), END, NEXT]


def coded_bomb(coding: str, body: bytes) -> list[Step]:
    assert len(body) < 2 * PIECE
    return [
        HEAD.replace(b"\r\n\r\n", b"\r\ncontent-encoding: " + coding.encode() + b"\r\n\r\n"),
        chunk(body),
        END,
        NEXT,
    ]


def endless(first: bytes, piece: bytes) -> list[Step]:
    """200 MB that start with `first`, without an end."""
    return [HEAD, chunk(first), *[chunk(piece * (PIECE // len(piece)))] * 200, END, NEXT]


TOO_MUCH = {
    "a line of 200 MB": lambda: endless(b"data: ", b"x"),
    "an event of short lines": lambda: endless(b"data: x\n", b"data: " + b"x" * 58),
    "a comment of 200 MB": lambda: endless(b": ", b"x"),
    "a document of 200 MB": lambda: endless(b'{"a": "', b"x"),
    "a bomb of one line": lambda: bomb(b"data"),
    "a bomb of blank lines": lambda: bomb(b"\n\n\n\n"),
    "a bomb of comments": lambda: bomb(b": x\n"),
    "a bomb of brotli": lambda: coded_bomb("br", brotli.compress(b"\n" * (300 * PIECE), quality=5)),
    "a bomb of deflate": lambda: coded_bomb("deflate", zlib.compress(b"\n" * (300 * PIECE), 9)),
    "a bomb of zstandard": lambda: coded_bomb("zstd", zstandard.compress(b"\n" * (300 * PIECE))),
}


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
@pytest.mark.parametrize("name", TOO_MUCH)
async def test_too_much_is_an_error_and_little_memory(name: str) -> None:
    async with Loopback(answer(HELLO), TOO_MUCH[name]()) as server, asyncio.timeout(90):
        process = await asyncio.create_subprocess_exec(
            *[sys.executable, "-c", ASK, server.url],
            env={**os.environ, "PYTHONPATH": str(Path(lm_deluge.__file__).parents[1])},
            stdout=subprocess.PIPE,
        )
        out, _ = await process.communicate()
    kind, growth = out.decode().split()
    assert kind == "ResponseLimitError"
    assert int(growth) < (MOST_GROWTH_OF_A_DOCUMENT if "document" in name else MOST_GROWTH)


def allocated(pieces: Iterator[bytes]) -> int:
    """Return the total of all bytes that a decoder allocates for the pieces, which includes every copy."""
    row = ProviderRow(id="p", otel_name="p", adapter="openai-chat", base_url="")
    model = ModelRow(id="m", name="m", provider="p")
    decoder = OpenAIChat().decoder(Call(model=model, provider=row, conversation=Conversation()))
    total = 0
    tracemalloc.start()
    try:
        for piece in pieces:
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            decoder.feed(piece)
            total += tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert decoder.error is None
    return total


def cut(body: bytes, size: int) -> Iterator[bytes]:
    return (body[start : start + size] for start in range(0, len(body), size))


SHAPES = {
    "one long line": lambda size: text("x" * size),
    "many lines": lambda size: (
        b"data: {\n" + b'data: "a": "0123456789",\n' * (size // 24) + b'data: "choices": []}\n\n'
    ),
    "a document": lambda size: b'{"a": "' + b"x" * size,
    "a comment": lambda size: b": " + b"x" * size + b"\n\n",
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize(("size", "piece"), [(8 * 2**10, 1), (128 * 2**10, 61)])
def test_twice_the_bytes_are_twice_the_work(name: str, size: int, piece: int) -> None:
    once, twice = (allocated(cut(SHAPES[name](n * size), piece)) for n in (1, 2))
    assert twice < 2.6 * once


def test_the_measure_sees_what_is_not_linear() -> None:
    """The same total for a buffer that is copied for each piece, to check that the measurement detects it."""
    sums = []
    for size in (32 * 2**10, 64 * 2**10):
        held, total = b"", 0
        tracemalloc.start()
        for piece in cut(b"x" * size, 61):
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            longer = held + piece
            held = longer
            total += tracemalloc.get_traced_memory()[1] - before
            del longer
        tracemalloc.stop()
        sums.append(total)
    assert sums[1] > 3.5 * sums[0]
