"""Ollama: complete with the line that has `done`. A line is complete with its JSON, even without a line end."""

import json
import re

from oracles import Oracle

API = "ollama-chat"


def frame_ends(body: bytes) -> list[tuple[int, bytes]]:
    return [(found.end(1), found[1]) for found in re.finditer(rb"([^\n]+)", body)]


def is_terminal(data: bytes) -> bool:
    return json.loads(data).get("done") is True


def is_error(data: bytes) -> bool:
    return "error" in json.loads(data)


ORACLE = Oracle(frame_ends, is_terminal, is_error)
