"""The native API: complete with the stop reason of the model's family; Nova's input excludes cached tokens."""

import base64
import json
from typing import Any

from oracles import Oracle, Usage
from oracles.bedrock_converse import frame_ends as message_ends

API = "bedrock-invoke"


def frame_ends(body: bytes) -> list[tuple[int, bytes]]:
    """Return the end offset of each message, and the data in its chunk, or its payload without a chunk."""
    return [(end, unwrap(payload)) for end, payload in message_ends(body)]


def unwrap(payload: bytes) -> bytes:
    found = json.loads(payload)
    return base64.b64decode(found["bytes"]) if "bytes" in found else payload


def is_terminal(data: bytes) -> bool:
    chunk = json.loads(data)
    words = ("completionReason", "stop_reason", "finish_reason", "totalOutputTextTokenCount")
    return (
        any(chunk.get(word) is not None for word in words)
        or "messageStop" in chunk
        or (chunk.get("type") == "message_delta" and bool(chunk["delta"].get("stop_reason")))
    )


def is_error(data: bytes) -> bool:
    return set(json.loads(data)) <= {"message", "originalStatusCode", "originalMessage"}


def usage(expected: dict[str, Any], raw: dict[str, Any]) -> Usage:
    return {**expected, "input": expected["input"] + (expected["cache_read"] or 0) + (expected["cache_write"] or 0)}


def overlooked(frames: list[bytes]) -> dict[str, Any]:
    """Return the text in Cohere's `text` fields, which the recorder did not know."""
    chunks = [json.loads(data) for data in frames]
    pieces = [chunk["text"] for chunk in chunks if "is_finished" in chunk and chunk.get("text")]
    return {"text": "".join(pieces), "n_text_deltas": len(pieces)} if pieces else {}


ORACLE = Oracle(frame_ends, is_terminal, is_error, usage, overlooked=overlooked)
