"""Short ways to write bodies of Anthropic's Messages, and to read them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, TypeVar

import pytest

import recordings
from lm_deluge.errors import DelugeError
from lm_deluge.events import Event
from lm_deluge.response import APIResponse
from lm_deluge.testing.decode import decode_body, decode_events

API = "anthropic-messages"
OWNER = "recording"  # whose answers `decode_events` reads

E = TypeVar("E", bound=DelugeError)


def event(kind: str, **fields: Any) -> bytes:
    """Return an event as the API frames it."""
    data = json.dumps({"type": kind, **fields}, ensure_ascii=False)
    return f"event: {kind}\ndata: {data}\n\n".encode()


def start(**fields: Any) -> bytes:
    """Return the head of an answer."""
    usage = {"input_tokens": 10, "output_tokens": 1}
    return event("message_start", message={"id": "msg_1", "model": "claude", "content": [], "usage": usage, **fields})


def delta(index: int, kind: str, **fields: Any) -> bytes:
    """Return a piece of a block."""
    return event("content_block_delta", index=index, delta={"type": kind, **fields})


def block(index: int, data: dict[str, Any], *deltas: dict[str, Any]) -> bytes:
    """Return a whole block."""
    pieces = b"".join(event("content_block_delta", index=index, delta=each) for each in deltas)
    head = event("content_block_start", index=index, content_block=data)
    return head + pieces + event("content_block_stop", index=index)


def text(index: int, *pieces: str) -> bytes:
    """Return a block of text."""
    return block(index, {"type": "text", "text": ""}, *({"type": "text_delta", "text": piece} for piece in pieces))


def call(index: int, name: str, *pieces: str, **fields: Any) -> bytes:
    """Return a call of a tool."""
    data = {"type": "tool_use", "id": f"toolu_{index}", "name": name, "input": {}, **fields}
    return block(index, data, *({"type": "input_json_delta", "partial_json": piece} for piece in pieces))


def end(reason: str | None = "end_turn", **fields: Any) -> bytes:
    """Return why the answer ends."""
    fields = {"usage": {"output_tokens": 5}, **fields}
    return event("message_delta", delta={"stop_reason": reason, "stop_sequence": None}, **fields)


STOP = event("message_stop")


def answer(*blocks: bytes, reason: str = "end_turn") -> bytes:
    """Return a whole answer."""
    return start() + b"".join(blocks) + end(reason) + STOP


def read(body: bytes | Iterable[bytes]) -> APIResponse:
    """Return the answer."""
    return decode_body(API, body)


def events_of(body: bytes) -> list[Event]:
    """Return the events of a success."""
    return list(decode_events(API, body))


def outcome_of(body: bytes | Iterable[bytes]) -> tuple[APIResponse, DelugeError | None]:
    """Return the answer and None, or what came of it and the error."""
    return recordings.outcome_of(API, body)


def failure_of(body: bytes | Iterable[bytes], kind: type[E]) -> E:
    """Return the error that a body ends with; it must be of exactly this class and hold what came before."""
    with pytest.raises(DelugeError) as caught:
        read(body)
    assert type(caught.value) is kind
    assert isinstance(caught.value.partial, APIResponse)
    return caught.value
