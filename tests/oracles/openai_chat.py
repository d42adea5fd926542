"""Chat Completions: complete with the finish reason of the first choice, or with `[DONE]`."""

import json
from typing import Any

from oracles import Oracle, Usage, sse_frame_ends

API = "openai-chat"


def is_terminal(data: bytes) -> bool:
    if data.strip() == b"[DONE]":
        return True
    choices = json.loads(data).get("choices") or ()
    return any(choice.get("finish_reason") and not choice.get("index") for choice in choices)


def usage(expected: dict[str, Any], raw: dict[str, Any]) -> Usage:
    reasoning = expected["reasoning"] or 0
    if reasoning and raw.get("total_tokens") == expected["input"] + expected["output"] + reasoning:
        # xAI reports reasoning outside the output; `Usage` includes it.
        return {**expected, "output": expected["output"] + reasoning}
    return dict(expected)


ORACLE = Oracle(sse_frame_ends, is_terminal, usage=usage)
