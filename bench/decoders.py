"""CPU time to decode a long answer, for every wire API, as a ratio to a minimal loop that parses the JSON of frames.

The answer has 20,000 text deltas and comes from the library's own encoder. The minimal loop handles no faults and
builds no types; for the binary Amazon event stream it also skips the checksums of frames.
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

COUNT = 20_000  # text deltas: a run takes long enough to measure, and a table of all APIs a minute
TURNS = 5  # runs per measurement, of which the median counts


def frames_of(api: str) -> list[bytes]:
    events = [
        ResponseStarted("id-1", "some-model"),
        *(TextDelta(f"word{number} ") for number in range(COUNT)),
        UsageReported(Usage(input_tokens=5, output_tokens=COUNT)),
        ResponseFinished("stop"),
    ]
    return list(find_encoder(api).encode_stream(events))


def read_bare(chunks: Iterable[bytes]) -> int:
    """Split at line ends and parse the JSON of data lines."""
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
    """Split by the lengths in the frames and parse their payloads."""
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
    seconds = []
    for _ in range(TURNS):
        started = time.process_time()
        read(chunks)
        seconds.append(time.process_time() - started)
    return statistics.median(seconds)


def decoders() -> None:
    """Print a row for each wire API, with one frame per read and with twenty."""
    print(f"\ndecoding {COUNT} text deltas, per delta, and ratio to the bare loop: one frame per read / twenty")
    for api in adapter_names():
        frames = frames_of(api)
        packed = [b"".join(frames[at : at + 20]) for at in range(0, len(frames), 20)]
        bare = read_bare if find_encoder(api).stream_type.find("amazon") < 0 else read_bare_binary
        cells = []
        for chunks in (frames, packed):
            assert bare(chunks) >= COUNT, "the bare loop has missed frames"
            own = cpu(lambda chunks, api=api: [*decode_events(api, chunks)], chunks)
            cells.append(f"{own / COUNT * 1e6:6.2f} us {own / cpu(bare, chunks):5.2f}")
        print(f"  {api:20} {' / '.join(cells)}")


if __name__ == "__main__":
    decoders()
