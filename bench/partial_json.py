"""CPU time to read JSON in pieces of five bytes with the value so far after each, for several sizes and parsers.

Compare the ratios; absolute times depend on the machine. A growth of 1.0 means time in proportion to the size.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable

import ijson
import jiter
from jsonriver import parse

from lm_deluge.wire.partial_json import IncrementalParser

SIZES = (10_000, 50_000, 200_000)  # bytes: an answer with a table, a long one, a document
PIECE = 5  # bytes: about a token
TURNS = 3  # the best of three counts, as interference only ever adds time
EVERY = 20  # pieces per measured one for a parser that starts from the beginning for each: all of them take a minute


def document(size: int) -> str:
    """Return an invoice of about `size` bytes: texts, numbers, nested lists, escapes."""
    lines = []
    length = 0
    while length < size:
        number = len(lines)
        line = {
            "name": f"Item {number} of the list, with \u00fcml\u00e4uts",
            "price": number * 1.37,
            "count": number,
            "tags": ["new", "sale", None, True],
            "note": 'first line\n"second" line of the note ' * 3,
        }
        lines.append(line)
        length += len(json.dumps(line)) + 2
    return json.dumps({"title": "Invoice", "lines": lines})


def pieces_of(text: str) -> list[str]:
    return [text[at : at + PIECE] for at in range(0, len(text), PIECE)]


def read_ours(text: str) -> object:
    parser = IncrementalParser()
    value = None
    for piece in pieces_of(text):
        parser.feed(piece)
        value = parser.value
    parser.close()
    return value


def read_jsonriver(text: str) -> object:
    async def stream() -> AsyncIterator[str]:
        for piece in pieces_of(text):
            yield piece

    async def read() -> object:
        value = None
        async for partial in parse(stream()):
            value = partial
        return value

    return asyncio.run(read())


def read_jiter(text: str) -> object:
    data = text.encode()
    value = None
    for number, end in enumerate(range(PIECE, len(data) + PIECE, PIECE)):
        if number % EVERY == 0:
            value = jiter.from_json(data[:end], partial_mode="trailing-strings")
    assert value is not None
    return json.loads(text)


def read_ijson(text: str) -> object:
    events = ijson.sendable_list()
    parser = ijson.basic_parse_coro(events)
    for piece in pieces_of(text):
        parser.send(piece.encode())
        del events[:]
    parser.close()
    return json.loads(text)


PEERS: dict[str, tuple[Callable[[str], object], int, str]] = {
    "ours": (read_ours, 1, ""),
    "jsonriver": (read_jsonriver, 1, "numbers are floats, surrogate pairs are divided"),
    "jiter": (read_jiter, EVERY, f"parses everything for each piece; measured for one of {EVERY}"),
    "ijson": (read_ijson, 1, "events only: no value so far, no string before its end"),
    "json.loads": (json.loads, 1, "once, at the end"),
}


def seconds(read: Callable[[str], object], text: str) -> float:
    """Return the CPU seconds of the best turn, after a check that the value is right."""
    assert read(text) == json.loads(text)
    taken = []
    for _ in range(TURNS):
        started = time.process_time()
        read(text)
        taken.append(time.process_time() - started)
    return min(taken)


def partial_json() -> None:
    print(f"\nJSON in pieces of {PIECE} bytes, the value so far after each: CPU seconds, and growth of the time")
    print("  " + " " * 12 + "".join(f"{size // 1000:>9} kB" for size in SIZES) + "    growth of time / of size")
    texts = [document(size) for size in SIZES]
    for peer, (read, scale, remark) in PEERS.items():
        taken = [seconds(read, text) * scale for text in texts]
        growth = taken[-1] / taken[0] / (len(texts[-1]) / len(texts[0]))
        print(f"  {peer:12}" + "".join(f"{each:12.4f}" for each in taken) + f"{growth:10.2f}    {remark}".rstrip())


if __name__ == "__main__":
    partial_json()
