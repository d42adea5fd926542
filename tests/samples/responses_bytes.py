"""Builders of streams of the Responses API, and shortcuts to decode them."""

from __future__ import annotations

import json
from typing import Any

from lm_deluge.events import Event
from lm_deluge.response import APIResponse
from lm_deluge.testing import decode_body, decode_events

API = "openai-responses"

JSON = dict[str, Any]


def frame(kind: str, **fields: Any) -> bytes:
    """Return one frame."""
    data = json.dumps({"type": f"response.{kind}", **fields}, ensure_ascii=False)
    return f"event: response.{kind}\ndata: {data}\n\n".encode()


def created(**fields: Any) -> bytes:
    """Return the first frame, `response.created`."""
    response = {"id": "resp_1", "model": "gpt-5-2025", "status": "in_progress", "output": [], **fields}
    return frame("created", response=response, sequence_number=0)


def text(delta: str, *, item: int = 0, content: int = 0, **fields: Any) -> bytes:
    """Return a text delta."""
    return frame("output_text.delta", delta=delta, output_index=item, content_index=content, **fields)


def added(item: JSON, index: int = 0) -> bytes:
    """Return the frame that starts an item."""
    return frame("output_item.added", output_index=index, item=item)


def done(item: JSON, index: int = 0) -> bytes:
    """Return the frame that finishes an item."""
    return frame("output_item.done", output_index=index, item=item)


def message(*content: JSON, **fields: Any) -> JSON:
    """Return a message item."""
    return {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": content, **fields}


def piece(content: str, **fields: Any) -> JSON:
    """Return a text piece of a message."""
    return {"type": "output_text", "text": content, "annotations": [], **fields}


def completed(*output: JSON, **fields: Any) -> bytes:
    """Return the last frame, `response.completed`."""
    return frame("completed", response=whole(*output, **fields))


def whole(*output: JSON, **fields: Any) -> JSON:
    """Return the JSON of a plain response."""
    return {
        "object": "response",
        "id": "resp_1",
        "model": "gpt-5-2025",
        "status": "completed",
        "output": output,
        **fields,
    }


def events_of(*frames: bytes) -> list[Event]:
    """Return the events of a stream."""
    return list(decode_events(API, b"".join(frames)))


def read(*frames: bytes) -> APIResponse:
    """Return the decoded response of a stream or a plain body."""
    return decode_body(API, b"".join(frames))
