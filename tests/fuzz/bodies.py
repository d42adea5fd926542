"""Bodies to mutate: recordings, if they are there, and the encoders' output; split into frames and joined again."""

from __future__ import annotations

import base64
import json
import re
import struct
import zlib
from functools import cache
from typing import Any, NamedTuple

import recordings
from lm_deluge.encoders.catalog import find_encoder
from lm_deluge.errors import ServerError
from lm_deluge.events import (
    Citation,
    Event,
    MediaDelta,
    ProviderPart,
    ReasoningDelta,
    RefusalDelta,
    ResponseFinished,
    ResponseStarted,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
    UsageReported,
)
from lm_deluge.usage import Usage
from oracles import find_oracles

ORACLES = find_oracles()
APIS = sorted(ORACLES)
MOST_BYTES = 12_000  # of a recording: larger ones have more of the same frames, and take longer
ERROR_MESSAGE = "an error of the fuzzer"

_BINARY = ("bedrock-converse", "bedrock-invoke")


class Frame(NamedTuple):
    """A frame: its JSON, mostly, and the bytes before it. Wrapped frames have their data as base64 in other JSON."""

    data: bytes
    head: bytes = b""
    is_wrapped: bool = False


class Body(NamedTuple):
    """A body, as frames. A plain document is one frame."""

    api: str
    name: str
    frames: tuple[Frame, ...]
    is_document: bool = False

    @property
    def bytes(self) -> bytes:
        return b"".join(join(self, frame) for frame in self.frames)


def join(body: Body, frame: Frame) -> bytes:
    """Return the bytes of a frame."""
    if body.is_document:
        return frame.data
    if body.api == "ollama-chat":
        return frame.data + b"\n"
    if body.api not in _BINARY:
        return frame.head + b"data: " + frame.data + b"\n\n"
    payload = json.dumps({"bytes": base64.b64encode(frame.data).decode()}).encode() if frame.is_wrapped else frame.data
    start = struct.pack(">II", 16 + len(frame.head) + len(payload), len(frame.head))
    start += struct.pack(">I", zlib.crc32(start))
    whole = start + frame.head + payload
    return whole + struct.pack(">I", zlib.crc32(whole))


def split(api: str, body: bytes) -> tuple[Frame, ...]:
    """Return the frames of a stream."""
    if api == "ollama-chat":
        return tuple(Frame(line) for line in body.split(b"\n") if line.strip())
    if api in _BINARY:
        return tuple(_messages(body))
    found = []
    for block in re.split(rb"(?:\r?\n){2,}", body):
        lines = re.split(rb"\r?\n", block)
        data = b"".join(line[5:].strip() for line in lines if line.startswith(b"data:"))
        head = b"".join(line + b"\n" for line in lines if line.startswith(b"event:"))
        if data:
            found.append(Frame(data, head))
    return tuple(found)


def _messages(body: bytes) -> list[Frame]:
    found, position = [], 0
    while position < len(body):
        total, size = struct.unpack_from(">II", body, position)
        head = body[position + 12 : position + 12 + size]
        payload = body[position + 12 + size : position + total - 4]
        inner = json.loads(payload).get("bytes")
        found.append(Frame(payload, head) if inner is None else Frame(base64.b64decode(inner), head, is_wrapped=True))
        position += total
    return found


def is_terminal(api: str, frame: Frame) -> bool:
    """Whether a frame completes the response."""
    if ORACLES[api].is_terminal(frame.data):
        return True
    value = {} if frame.data.strip() == b"[DONE]" else json.loads(frame.data)
    if value.get("type") == "message_stop":  # of Claude, over Bedrock
        return True
    nested = [each for name in ("choices", "outputs", "results", "generations") for each in value.get(name) or ()]
    return any(each.get(word) for each in nested for word in ("finish_reason", "stop_reason", "completionReason"))


def first_terminal(body: Body) -> int | None:
    """Return the number of the frame that completes the response, or None."""
    return next((number for number, frame in enumerate(body.frames) if is_terminal(body.api, frame)), None)


@cache
def error_frames(api: str) -> tuple[Frame, ...]:
    """Return the frames that report an error inside a stream."""
    return split(api, find_encoder(api).encode_stream_error(ServerError(ERROR_MESSAGE)))


@cache
def bodies(api: str) -> list[Body]:
    """Return all bodies of an API."""
    encoder = find_encoder(api)
    found = []
    for name, events in _ANSWERS.items():
        found.append(Body(api, f"own {name}", split(api, b"".join(encoder.encode_stream(events)))))
        found.append(Body(api, f"own plain {name}", (Frame(encoder.encode_response(events)),), is_document=True))
    for name in recordings.names(api):
        recording = recordings.load(api, name)
        if len(recording.body) <= MOST_BYTES and recording.body[:1] not in b"[<":
            found.append(Body(api, name, split(api, recording.body)))
    return found


def _call(index: int, arguments: str, value: Any, *, custom: bool = False) -> list[Event]:
    name, identity = ("sql", "call_x") if custom else ("weather", f"call_{index}")
    half = len(arguments) // 2
    return [
        ToolCallStarted(index, identity, name, custom),
        ToolCallDelta(index, arguments[:half]),
        ToolCallDelta(index, arguments[half:]),
        ToolCallFinished(index, identity, name, arguments, value, None, custom),
    ]


_USAGE = Usage(
    input_tokens=120,
    output_tokens=30,
    cache_read_tokens=20,
    cache_write_tokens=10,
    reasoning_tokens=8,
    input_audio_tokens=2,
    output_audio_tokens=1,
)
_START = ResponseStarted("resp_1", "model-1")
_ANSWERS: dict[str, list[Event]] = {
    "text": [_START, TextDelta("Grüße "), TextDelta("aus 世界 🙂"), UsageReported(_USAGE), ResponseFinished("stop")],
    "calls": [
        _START,
        ReasoningDelta("Hm, "),
        ReasoningDelta("so."),
        ProviderPart("recording", "reasoning", {"id": "rs_x", "type": "reasoning", "encrypted_content": "gA=="}),
        ProviderPart("recording", "signature", "c2ln"),
        TextDelta("Look:"),
        *_call(0, '{"city": "Rome", "n": [1, 2.5]}', {"city": "Rome", "n": [1, 2.5]}),
        *_call(1, "{}", {}),
        UsageReported(_USAGE),
        ResponseFinished("tool_calls"),
    ],
    "rich": [
        _START,
        TextDelta("A"),
        TextDelta("b", (TokenLogprob("b", -0.5, (98,)),)),
        Citation("https://example.org", "T", 0, 2),
        MediaDelta("image/png", "iVBORw0KGgo="),
        ProviderPart(
            "recording", "web_search_call", {"type": "web_search_call", "id": "ws_1", "action": {"query": "q"}}
        ),
        ProviderPart("recording", "block", {"type": "server_tool_use", "id": "s", "name": "web", "input": {"q": 1}}),
        *_call(0, "SELECT 1", None, custom=True),
        RefusalDelta("I cannot."),
        UsageReported(_USAGE),
        ResponseFinished("length"),
    ],
}
