"""CPU time to decode a long answer, for every wire API, as a ratio to a minimal loop that parses the JSON of frames.

The answer has 20,000 text deltas and comes from the library's own encoder. In two variants each frame with text also
has usage, or citations: in Chat Completions the same ten, as Perplexity repeats them, in other APIs one. Where an API
has frames of their own for these, every second frame is one. The minimal loop handles no faults and builds no types;
for the binary Amazon event stream it also skips the checksums of frames.
"""

import statistics
import time
from base64 import b64decode, b64encode
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from lm_deluge.adapters.catalog import adapter_names
from lm_deluge.encoders.bedrock_converse.errors import encode_event
from lm_deluge.encoders.catalog import find_encoder
from lm_deluge.events import ResponseFinished, ResponseStarted, TextDelta, UsageReported
from lm_deluge.testing import decode_events
from lm_deluge.usage import Usage
from lm_deluge.wire.eventstream import EventStreamDecoder

COUNT = 20_000  # text deltas: a run takes long enough to measure, and a table of all APIs a minute
TURNS = 5  # runs per measurement, of which the median counts
SOURCES = 10  # citations in each chunk: as many as Perplexity repeats

Edit = Callable[[dict[str, Any]], None]


def frames_of(api: str) -> list[bytes]:
    events = [
        ResponseStarted("id-1", "some-model"),
        *(TextDelta(f"word{number} ") for number in range(COUNT)),
        UsageReported(Usage(input_tokens=5, output_tokens=COUNT)),
        ResponseFinished("stop"),
    ]
    return list(find_encoder(api).encode_stream(events))


# --- variants


def _urls() -> list[str]:
    return [f"https://example.com/page-{number}" for number in range(SOURCES)]


def _chat_usage(frame: dict[str, Any]) -> None:
    frame["usage"] = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}


def _chat_citations(frame: dict[str, Any]) -> None:
    frame["citations"] = _urls()


def _ollama_usage(frame: dict[str, Any]) -> None:
    frame |= {"prompt_eval_count": 5, "eval_count": 7}


def _gemini_usage(frame: dict[str, Any]) -> None:
    details = [{"modality": "TEXT", "tokenCount": 5}]
    counts = {"promptTokenCount": 5, "candidatesTokenCount": 7, "totalTokenCount": 12, "thoughtsTokenCount": 3}
    frame["usageMetadata"] = {**counts, "promptTokensDetails": details}


def _gemini_citations(frame: dict[str, Any]) -> None:
    chunks = [{"web": {"uri": _urls()[0], "title": "t"}}]
    support = {"segment": {"startIndex": 0, "endIndex": 4, "text": "word"}, "groundingChunkIndices": [0]}
    frame["candidates"][0]["groundingMetadata"] = {"groundingChunks": chunks, "groundingSupports": [support]}


def _interactions_usage(frame: dict[str, Any]) -> None:
    frame["usage"] = {"total_input_tokens": 5, "total_output_tokens": 7, "total_tokens": 12}


def _interactions_citations(frame: dict[str, Any]) -> None:
    source = {"type": "url_citation", "start_index": 0, "end_index": 4, "url": _urls()[0], "title": "t"}
    frame["delta"]["annotations"] = [source]


def _mistral_citations(frame: dict[str, Any]) -> None:
    delta = frame["choices"][0]["delta"]
    reference = {"type": "reference", "url": _urls()[0], "title": "t"}
    delta["content"] = [{"type": "text", "text": delta["content"]}, reference]


# The variants in which an API can report usage and citations in a frame with text. Other APIs report them in frames of
# their own, or once.
VARIANTS: dict[str, dict[str, Edit]] = {
    "openai-chat": {"usage": _chat_usage, "citations": _chat_citations},
    "mistral-chat": {"usage": _chat_usage, "citations": _mistral_citations},
    "bedrock-invoke": {"usage": _chat_usage, "citations": _chat_citations},
    "ollama-chat": {"usage": _ollama_usage},
    "gemini-generate": {"usage": _gemini_usage, "citations": _gemini_citations},
    "gemini-interactions": {"usage": _interactions_usage, "citations": _interactions_citations},
}


def _edited_json(data: bytes, edit: Edit) -> bytes:
    frame = msgspec.json.decode(data)
    edit(frame)
    return msgspec.json.encode(frame)


def edited(api: str, frame: bytes, edit: Edit) -> bytes:
    """Return a frame with text after `edit` changed its JSON; other frames unchanged."""
    if b'"word' not in frame and api != "bedrock-invoke":
        return frame
    if api == "bedrock-invoke":
        (message,) = EventStreamDecoder().feed(frame)
        inner = b64decode(msgspec.json.decode(message.data)["bytes"])
        if b'"word' not in inner:
            return frame
        return encode_event("chunk", b'{"bytes":"%b"}' % b64encode(_edited_json(inner, edit)))
    start, end = frame.index(b"{"), frame.rindex(b"}") + 1
    return frame[:start] + _edited_json(frame[start:end], edit) + frame[end:]


# --- the frames that follow a text delta in APIs that report usage or citations in frames of their own


def _sse(kind: str, fields: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), msgspec.json.encode({"type": kind, **fields}))


def _anthropic_usage() -> bytes:
    usage = {"input_tokens": 5, "output_tokens": 7, "cache_read_input_tokens": 3}
    return _sse("message_delta", {"delta": {}, "usage": usage})


def _anthropic_citations() -> bytes:
    citation = {"type": "web_search_result_location", "cited_text": "", "url": _urls()[0], "title": "t"}
    return _sse("content_block_delta", {"index": 0, "delta": {"type": "citations_delta", "citation": citation}})


def _cohere_citations() -> bytes:
    sources = [{"type": "document", "id": url, "document": {"url": url, "title": url}} for url in _urls()[:1]]
    citation = {"start": 0, "end": 4, "text": "word", "sources": sources}
    return _sse("citation-start", {"index": 0, "delta": {"message": {"citations": citation}}})


def _converse_usage() -> bytes:
    usage = {"inputTokens": 5, "outputTokens": 7, "totalTokens": 12}
    return encode_event("metadata", msgspec.json.encode({"usage": usage}))


def _converse_citations() -> bytes:
    citation = {"title": "t", "location": {"web": {"url": _urls()[0]}}}
    fields = {"contentBlockIndex": 0, "delta": {"citation": citation}}
    return encode_event("contentBlockDelta", msgspec.json.encode(fields))


def _responses_citations() -> bytes:
    annotation = {"type": "url_citation", "url": _urls()[0], "title": "t", "start_index": 0, "end_index": 4}
    return _sse("response.output_text.annotation.added", {"output_index": 0, "annotation": annotation})


FOLLOWING: dict[str, dict[str, Callable[[], bytes]]] = {
    "anthropic-messages": {"usage": _anthropic_usage, "citations": _anthropic_citations},
    "bedrock-converse": {"usage": _converse_usage, "citations": _converse_citations},
    "cohere-v2": {"citations": _cohere_citations},
    "openai-responses": {"citations": _responses_citations},
}


def variants_of(api: str) -> dict[str, tuple[list[bytes], int]]:
    """Return the frames of each variant, and the number of frames to divide by."""
    frames = frames_of(api)
    found = {"text": (frames, COUNT)}
    for name, edit in VARIANTS.get(api, {}).items():
        found[name] = [edited(api, frame, edit) for frame in frames], COUNT
    for name, make in FOLLOWING.get(api, {}).items():
        extra = make()
        start = next(number for number, frame in enumerate(frames) if b"word" in frame)
        texts = frames[start : start + COUNT // 2]
        found[name] = (
            [*frames[:start], *(each for text in texts for each in (text, extra)), *frames[start + COUNT :]],
            COUNT,
        )
    return found


# --- measuring


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
    """Print a row for each wire API and variant, with one frame per read and with twenty."""
    print(f"\ndecoding {COUNT} text deltas, per delta, and ratio to the bare loop: one frame per read / twenty")
    for api in adapter_names():
        bare = read_bare if find_encoder(api).stream_type.find("amazon") < 0 else read_bare_binary
        for variant, (frames, count) in variants_of(api).items():
            packed = [b"".join(frames[at : at + 20]) for at in range(0, len(frames), 20)]
            cells = []
            for chunks in (frames, packed):
                assert bare(chunks) >= COUNT, "the bare loop has missed frames"
                own = cpu(lambda chunks, api=api: deque(decode_events(api, chunks), maxlen=0), chunks)
                cells.append(f"{own / count * 1e6:6.2f} us {own / cpu(bare, chunks):5.2f}")
            print(f"  {api:20} {variant:10} {' / '.join(cells)}")


if __name__ == "__main__":
    decoders()
