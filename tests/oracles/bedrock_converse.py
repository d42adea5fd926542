"""Converse: complete with the stop reason; the input excludes cached tokens."""

import json
import struct
from typing import Any

from oracles import Oracle, Usage

API = "bedrock-converse"


def frame_ends(body: bytes) -> list[tuple[int, bytes]]:
    """Return the end offset and the payload of each message of an AWS event stream, without checking checksums."""
    found, position = [], 0
    while position < len(body):
        total, headers = struct.unpack_from(">II", body, position)
        found.append((position + total, body[position + 12 + headers : position + total - 4]))
        position += total
    return found


def is_terminal(data: bytes) -> bool:
    return "stopReason" in json.loads(data)


def is_error(data: bytes) -> bool:
    return set(json.loads(data)) <= {"message", "originalStatusCode", "originalMessage"}


def usage(expected: dict[str, Any], raw: dict[str, Any]) -> Usage:
    return {**expected, "input": expected["input"] + (expected["cache_read"] or 0) + (expected["cache_write"] or 0)}


ORACLE = Oracle(frame_ends, is_terminal, is_error, usage)
