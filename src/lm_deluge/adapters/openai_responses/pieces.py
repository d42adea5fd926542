"""Read the texts and the arguments in a finished item of the Responses API."""

from __future__ import annotations

from typing import Any

import msgspec

from lm_deluge.adapters.openai_responses.frames import Piece
from lm_deluge.wire.tolerant_json import SkipReport, convert_tolerantly

__all__ = ["ARGUMENTS", "arguments_of", "content_of", "field_of", "pieces_of", "report_wrong_types", "string_of"]

# Types of items that are tool calls for the client, with the field that contains their arguments.
ARGUMENTS = {"function_call": "arguments", "custom_tool_call": "input"}

_FIELDS = {"refusal": "refusal", "reasoning_text": "reasoning", "summary_text": "summary"}


def string_of(value: Any) -> str:
    """Return a string unchanged, and "" for anything else."""
    return value if isinstance(value, str) else ""


def arguments_of(data: dict[str, Any]) -> str:
    """Return the arguments of a call as text; some hosts send them as an object."""
    value = data.get(ARGUMENTS.get(str(data.get("type")), "arguments"))
    return msgspec.json.encode(value).decode() if isinstance(value, dict) else string_of(value)


def field_of(piece: Piece) -> str:
    """Return which kind of text a piece is: text, refusal, summary or reasoning."""
    return _FIELDS.get(piece.type or "", "text")


def content_of(piece: Piece) -> str:
    """Return the text of a piece."""
    return (piece.refusal if piece.type == "refusal" else piece.text) or ""


def pieces_of(data: dict[str, Any]) -> list[tuple[str, int, Piece]]:
    """Return the pieces of a finished message or finished reasoning: their field, index and content."""
    is_reasoning = data.get("type") == "reasoning"
    found = []
    for name in ("summary", "content") if is_reasoning else ("content",):
        raw_pieces = data.get(name)
        for index, raw in enumerate(raw_pieces if isinstance(raw_pieces, list) else ()):
            piece = convert_tolerantly(raw, Piece)
            if piece is not None:
                field = {"summary": "summary", "content": "reasoning"}[name] if is_reasoning else field_of(piece)
                found.append((field, index, piece))
    return found


def report_wrong_types(data: dict[str, Any], report: SkipReport) -> None:
    """Report the values of an item that cannot be read because of their type. Items of other kinds are kept whole."""
    if data.get("type") not in ("message", "reasoning", *ARGUMENTS):
        return
    for name in ("id", "call_id", "name", "arguments", "input"):
        value = data.get(name)
        if not isinstance(value, str | None) and not (name == "arguments" and isinstance(value, dict)):
            report.skip_value(value)
    for name in ("summary", "content"):
        raw_pieces = data.get(name)
        if isinstance(raw_pieces, list):
            for raw in raw_pieces:
                convert_tolerantly(raw, Piece, report)
        elif raw_pieces is not None:
            report.skip_value(raw_pieces)
