"""Mistral: complete with the finish reason, which is in one chunk with the usage, or with `[DONE]`."""

import json

from oracles import Oracle, sse_frame_ends

API = "mistral-chat"


def is_terminal(data: bytes) -> bool:
    if data.strip() == b"[DONE]":
        return True
    return any(choice.get("finish_reason") for choice in json.loads(data).get("choices") or ())


ORACLE = Oracle(sse_frame_ends, is_terminal)
