"""Gemini: complete with the finish reason of the first candidate; there is no end mark."""

import json
from typing import Any

from oracles import Oracle, Usage, sse_frame_ends

API = "gemini-generate"


def is_terminal(data: bytes) -> bool:
    candidates = json.loads(data).get("candidates") or ()
    return any(candidate.get("finishReason") and not candidate.get("index") for candidate in candidates)


def is_error(data: bytes) -> bool:
    return "error" in json.loads(data)


def usage(expected: dict[str, Any], raw: dict[str, Any]) -> Usage:
    """Add thoughts to the output and results of server tools to the input; counts of 0 are absent on the wire."""
    return {
        **expected,
        "input": (expected["input"] or 0) + raw.get("toolUsePromptTokenCount", 0),
        "output": (expected["output"] or 0) + (expected["reasoning"] or 0),
    }


ORACLE = Oracle(sse_frame_ends, is_terminal, is_error, usage)
