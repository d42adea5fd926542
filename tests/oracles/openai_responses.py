"""The Responses API: complete with `response.completed` or `response.incomplete`."""

import json
from typing import Any

from oracles import Oracle, Usage, sse_frame_ends

API = "openai-responses"


def kind_of(data: bytes) -> str:
    return "" if data.strip() == b"[DONE]" else json.loads(data).get("type", "")


def is_terminal(data: bytes) -> bool:
    return kind_of(data) in ("response.completed", "response.incomplete")


def is_error(data: bytes) -> bool:
    return kind_of(data) in ("error", "response.failed")


def usage(expected: dict[str, Any], raw: dict[str, Any]) -> Usage:
    reasoning = expected["reasoning"] or 0
    if reasoning and raw.get("total_tokens") == expected["input"] + expected["output"] + reasoning:
        # A host may report reasoning outside the output; `Usage` includes it.
        return {**expected, "output": expected["output"] + reasoning}
    return dict(expected)


ORACLE = Oracle(sse_frame_ends, is_terminal, is_error, usage)
