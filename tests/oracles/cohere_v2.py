"""Cohere: complete with `message-end`; the `[DONE]` after it is optional."""

import json
from typing import Any

from oracles import Oracle, Usage, sse_frame_ends

API = "cohere-v2"


def is_terminal(data: bytes) -> bool:
    return data.strip() != b"[DONE]" and json.loads(data).get("type") == "message-end"


def usage(expected: dict[str, Any], raw: dict[str, Any]) -> Usage:
    # Reasoning is next to the other counts, where the SDK does not read it (seen 2025-12).
    return {**expected, "reasoning": raw["tokens"].get("reasoning_tokens")}


ORACLE = Oracle(sse_frame_ends, is_terminal, usage=usage)
