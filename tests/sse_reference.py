"""A slow event stream parser that follows the WHATWG standard literally, as an oracle for the fast parser.

https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Interpretation:
    """The result of a stream: events as (type, data, last event ID), and the final state of the parser."""

    events: list[tuple[str, str, str]] = field(default_factory=list)
    last_event_id: str = ""
    retry_ms: int | None = None


def interpret(stream: bytes) -> Interpretation:
    """Interpret a complete stream: decode as UTF-8, strip one BOM, split into lines, follow the standard's steps."""
    text = stream.decode("utf-8", "replace").removeprefix("\ufeff")
    result = Interpretation()
    data, event_type, id_buffer = "", "", ""
    for line in _lines(text):
        if line == "":
            result.last_event_id = id_buffer
            if data != "":
                result.events.append((event_type, data.removesuffix("\n"), id_buffer))
            data, event_type = "", ""
            continue
        if line[0] == ":":
            continue
        name, value = line.split(":", 1) if ":" in line else (line, "")
        value = value[1:] if value[:1] == " " else value
        if name == "event":
            event_type = value
        elif name == "data":
            data += value + "\n"
        elif name == "id" and "\0" not in value:
            id_buffer = value
        elif name == "retry" and value != "" and all(character in "0123456789" for character in value):
            result.retry_ms = int(value)
    return result


def _lines(text: str) -> list[str]:
    """Return the terminated lines; text after the last line end is ignored."""
    lines, line, position = [], "", 0
    while position < len(text):
        character = text[position]
        position += 1
        if character not in "\r\n":
            line += character
            continue
        if character == "\r" and text[position : position + 1] == "\n":
            position += 1
        lines.append(line)
        line = ""
    return lines
