"""Interactions: complete with `interaction.completed`."""

import json
from typing import Any

from oracles import Oracle, Usage, sse_frame_ends

API = "gemini-interactions"


def is_terminal(data: bytes) -> bool:
    return data.strip() != b"[DONE]" and json.loads(data)["event_type"] == "interaction.completed"


def is_error(data: bytes) -> bool:
    return data.strip() != b"[DONE]" and json.loads(data)["event_type"] == "error"


def usage(expected: dict[str, Any], raw: dict[str, Any]) -> Usage:
    """Add thoughts to the output and results of server tools to the input."""
    return {
        **expected,
        "input": expected["input"] + raw["total_tool_use_tokens"],
        "output": expected["output"] + expected["reasoning"],
    }


ORACLE = Oracle(sse_frame_ends, is_terminal, is_error, usage)
