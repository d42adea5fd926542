"""Builders of response bodies of Chat Completions, and shortcuts to decode them."""

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

E = TypeVar("E", bound=DelugeError)


def frames(*objects: Any) -> bytes:
    """Return each object as one server-sent event."""
    return b"".join(b"data: %b\n\n" % json.dumps(each, ensure_ascii=False).encode() for each in objects)


def chunk(delta: dict[str, Any], finish_reason: str | None = None, **fields: Any) -> bytes:
    """Return a chunk with one choice; `fields` are added to the choice."""
    return frames({"id": "1", "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason, **fields}]})


def text(content: str) -> bytes:
    """Return a chunk with text."""
    return chunk({"content": content})


def read(body: bytes | Iterable[bytes]) -> APIResponse:
    """Return the decoded response."""
    return decode_body("openai-chat", body)


def events_of(body: bytes) -> list[Event]:
    """Return the events of a body that must not fail."""
    return list(decode_events("openai-chat", body))


def outcome_of(body: bytes | Iterable[bytes]) -> tuple[APIResponse, DelugeError | None]:
    """Return the response and None, or the partial response and the error."""
    return recordings.outcome_of("openai-chat", body)


def failure_of(body: bytes | Iterable[bytes], kind: type[E]) -> E:
    """Return the error of a body. Its class must be exactly `kind`, and its `partial` a response."""
    with pytest.raises(DelugeError) as caught:
        read(body)
    assert type(caught.value) is kind
    assert isinstance(caught.value.partial, APIResponse)
    return caught.value
