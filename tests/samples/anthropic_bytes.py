"""Builders of response bodies of Anthropic's Messages API, and shortcuts to decode them."""

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
OWNER = "recording"  # the provider id that `decode_events` uses

E = TypeVar("E", bound=DelugeError)


def event(kind: str, **fields: Any) -> bytes:
    """Return a server-sent event."""
    data = json.dumps({"type": kind, **fields}, ensure_ascii=False)
    return f"event: {kind}\ndata: {data}\n\n".encode()


def start(**fields: Any) -> bytes:
    """Return `message_start`."""
    usage = {"input_tokens": 10, "output_tokens": 1}
    return event("message_start", message={"id": "msg_1", "model": "claude", "content": [], "usage": usage, **fields})


def delta(index: int, kind: str, **fields: Any) -> bytes:
    """Return `content_block_delta`."""
    return event("content_block_delta", index=index, delta={"type": kind, **fields})


def block(index: int, data: dict[str, Any], *deltas: dict[str, Any]) -> bytes:
    """Return the events of a whole content block."""
    pieces = b"".join(event("content_block_delta", index=index, delta=each) for each in deltas)
    head = event("content_block_start", index=index, content_block=data)
    return head + pieces + event("content_block_stop", index=index)


def text(index: int, *pieces: str) -> bytes:
    """Return the events of a text block."""
    return block(index, {"type": "text", "text": ""}, *({"type": "text_delta", "text": piece} for piece in pieces))


def call(index: int, name: str, *pieces: str, **fields: Any) -> bytes:
    """Return the events of a tool call."""
    data = {"type": "tool_use", "id": f"toolu_{index}", "name": name, "input": {}, **fields}
    return block(index, data, *({"type": "input_json_delta", "partial_json": piece} for piece in pieces))


def end(reason: str | None = "end_turn", **fields: Any) -> bytes:
    """Return `message_delta`, with the stop reason and usage."""
    fields = {"usage": {"output_tokens": 5}, **fields}
    return event("message_delta", delta={"stop_reason": reason, "stop_sequence": None}, **fields)


STOP = event("message_stop")


def answer(*blocks: bytes, reason: str = "end_turn") -> bytes:
    """Return the body of a whole response."""
    return start() + b"".join(blocks) + end(reason) + STOP


def read(body: bytes | Iterable[bytes]) -> APIResponse:
    """Return the decoded response."""
    return decode_body(API, body)


def events_of(body: bytes) -> list[Event]:
    """Return the events of a body that must not fail."""
    return list(decode_events(API, body))


def outcome_of(body: bytes | Iterable[bytes]) -> tuple[APIResponse, DelugeError | None]:
    """Return the response and None, or the partial response and the error."""
    return recordings.outcome_of(API, body)


def failure_of(body: bytes | Iterable[bytes], kind: type[E]) -> E:
    """Return the error of a body. Its class must be exactly `kind`, and its `partial` a response."""
    with pytest.raises(DelugeError) as caught:
        read(body)
    assert type(caught.value) is kind
    assert isinstance(caught.value.partial, APIResponse)
    return caught.value
