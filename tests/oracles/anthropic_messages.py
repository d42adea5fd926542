"""Messages: complete with the stop reason, which may be in `message_start`, or with `message_stop`."""

import json
from typing import Any

from oracles import Oracle, Usage, sse_frame_ends

API = "anthropic-messages"
COUNTS = {
    "input": "input_tokens",
    "output": "output_tokens",
    "cache_read": "cache_read_input_tokens",
    "cache_write": "cache_creation_input_tokens",
}


def is_terminal(data: bytes) -> bool:
    event = json.loads(data)
    if event["type"] == "message_stop":
        return True
    return bool((event.get("delta") or event.get("message") or {}).get("stop_reason"))


def usage(expected: dict[str, Any], raw: dict[str, Any]) -> Usage:
    """Add the cached tokens, which the input on the wire excludes, and iterations that the totals leave out."""
    found = dict(expected)
    for ours, theirs in COUNTS.items():
        counts = [each[theirs] for each in raw.get("iterations") or () if theirs in each]
        if counts:
            found[ours] = sum(counts)
    return {**found, "input": found["input"] + (found["cache_read"] or 0) + (found["cache_write"] or 0)}


ORACLE = Oracle(
    sse_frame_ends,
    is_terminal,
    is_error=lambda data: json.loads(data)["type"] == "error",
    usage=usage,
    by_hand={
        "anthropic--vercel-ai--anthropic-spliced-message-start.0": "restarts; the first part is discarded",
    },
)
