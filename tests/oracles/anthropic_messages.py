"""Messages: complete with the stop reason, which may be in `message_start`, or with `message_stop`."""

import json
from typing import Any

from oracles import Oracle, Usage, sse_frame_ends

API = "anthropic-messages"


def is_terminal(data: bytes) -> bool:
    event = json.loads(data)
    if event["type"] == "message_stop":
        return True
    return bool((event.get("delta") or event.get("message") or {}).get("stop_reason"))


def usage(expected: dict[str, Any], raw: dict[str, Any]) -> Usage:
    """Add the cached tokens, which the input on the wire excludes."""
    cached = (expected["cache_read"] or 0) + (expected["cache_write"] or 0)
    return {**expected, "input": expected["input"] + cached}


ORACLE = Oracle(
    sse_frame_ends,
    is_terminal,
    is_error=lambda data: json.loads(data)["type"] == "error",
    usage=usage,
    by_hand={
        "anthropic--vercel-ai--anthropic-spliced-message-start.0": "restarts; the first part is discarded",
    },
)
