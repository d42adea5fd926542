"""CPU to decode a long answer, for every wire API, against the shortest loop that parses each frame's JSON.

The answer is written by our own encoder: 20,000 pieces of text. The bare loop knows neither faults nor types; for the
binary Amazon event stream it does not check what is in a frame either.
"""

import statistics
import time
from collections.abc import Callable, Iterable

import msgspec

from lm_deluge.adapters.catalog import adapter_names
from lm_deluge.encoders.catalog import find_encoder
from lm_deluge.events import ResponseFinished, ResponseStarted, TextDelta, UsageReported
from lm_deluge.testing import decode_events
from lm_deluge.usage import Usage

COUNT = 20_000
TURNS = 5


def frames_of(api: str) -> list[bytes]:
    events = [
        ResponseStarted("id-1", "some-model"),
        *(TextDelta(f"word{number} ") for number in range(COUNT)),
        UsageReported(Usage(input_tokens=5, output_tokens=COUNT)),
        ResponseFinished("stop"),
    ]
    return list(find_encoder(api).encode_stream(events))


def read_bare(chunks: Iterable[bytes]) -> int:
    """Cut at line ends, parse what looks like JSON."""
    decode = msgspec.json.decode
    count, rest = 0, b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            start = line.find(b"{")
            if 0 <= start < 8 and line.endswith((b"}", b"}\r")):
                decode(line[start:])
                count += 1
    return count


def read_bare_binary(chunks: Iterable[bytes]) -> int:
    """Cut by the lengths in the frames, parse their payloads."""
    decode = msgspec.json.decode
    count, rest = 0, b""
    for chunk in chunks:
        rest += chunk
        at = 0
        while len(rest) - at >= 12:
            total = int.from_bytes(rest[at : at + 4])
            head = int.from_bytes(rest[at + 4 : at + 8])
            if len(rest) - at < total:
                break
            decode(rest[at + 12 + head : at + total - 4])
            at += total
            count += 1
        rest = rest[at:]
    return count


def cpu(read: Callable[[Iterable[bytes]], object], chunks: list[bytes]) -> float:
    taken = []
    for _ in range(TURNS):
        begun = time.process_time()
        read(chunks)
        taken.append(time.process_time() - begun)
    return statistics.median(taken)


def decoders() -> None:
    """Print a row for each wire API, with one frame to a read and with twenty."""
    print(f"\ndecoding {COUNT} pieces of text, per piece, and against the bare loop: one frame a read / twenty")
    for api in adapter_names():
        frames = frames_of(api)
        packed = [b"".join(frames[at : at + 20]) for at in range(0, len(frames), 20)]
        bare = read_bare if find_encoder(api).stream_type.find("amazon") < 0 else read_bare_binary
        cells = []
        for chunks in (frames, packed):
            assert bare(chunks) >= COUNT, "the bare loop does not read it"
            own = cpu(lambda chunks, api=api: [*decode_events(api, chunks)], chunks)
            cells.append(f"{own / COUNT * 1e6:6.2f} us {own / cpu(bare, chunks):5.2f}")
        print(f"  {api:20} {' / '.join(cells)}")


if __name__ == "__main__":
    decoders()
