"""Judges of frames: the rules of the clients of `vercel-ui` and `ag-ui`, as those enforce them."""

from __future__ import annotations

import json
from typing import Any

from ag_ui.core import Event as AGUIEvent
from pydantic import TypeAdapter

AG_UI = TypeAdapter(AGUIEvent)
VERCEL_TYPES = frozenset(
    {
        *("start", "start-step", "finish-step", "reset-step", "message-metadata", "error", "abort", "finish"),
        *("text-start", "text-delta", "text-end", "reasoning-start", "reasoning-delta", "reasoning-end"),
        *("tool-input-start", "tool-input-delta", "tool-input-available", "tool-input-error"),
        *("tool-approval-request", "tool-approval-response", "tool-output-denied"),
        *("tool-output-available", "tool-output-error"),
        *("file", "source-url", "source-document"),
    }
)


def decoded(data: bytes) -> list[Any]:
    """Return the objects in server-sent events; `[DONE]` stays a text."""
    assert data.endswith(b"\n\n") or not data
    found = []
    for frame in data.decode().split("\n\n")[:-1]:
        assert frame.startswith("data: ")
        assert "\n" not in frame
        text = frame.removeprefix("data: ")
        found.append(text if text == "[DONE]" else json.loads(text))
    return found


class VercelJudge:
    """The message that `useChat` shows; raises AssertionError where `useChat` raises an error."""

    def __init__(self) -> None:
        self.parts: list[dict[str, Any]] = []
        self.end: str | None = None

    def read(self, data: bytes) -> VercelJudge:
        *chunks, last = decoded(data)
        assert last == "[DONE]"
        assert chunks[0]["type"] == "start"
        opened: dict[str, dict[str, Any]] = {}
        calls: dict[str, dict[str, Any]] = {}
        for chunk in chunks[1:]:
            assert self.end is None, "a frame follows the terminal one"
            self._take(chunk, opened, calls)
        assert self.end is not None
        if self.end == "finish":
            assert not opened
        return self

    def _take(self, chunk: dict[str, Any], opened: dict[str, Any], calls: dict[str, Any]) -> None:
        kind = chunk["type"]
        assert kind in VERCEL_TYPES or kind.startswith("data-"), kind
        if kind in ("finish", "error", "abort"):
            self.end = kind
        elif kind in ("text-start", "reasoning-start"):
            opened[kind[:4] + chunk["id"]] = part = {"type": kind.partition("-")[0], "text": ""}
            self.parts.append(part)
        elif kind in ("text-delta", "reasoning-delta"):
            opened[kind[:4] + chunk["id"]]["text"] += chunk["delta"]
        elif kind in ("text-end", "reasoning-end"):
            del opened[kind[:4] + chunk["id"]]
        elif kind == "start-step":
            self.parts.append({"type": "step"})
        elif kind == "reset-step":
            opened.clear()
            while self.parts[-1]["type"] != "step":
                self.parts.pop()
        else:
            self._take_call(chunk, kind, calls)

    def _take_call(self, chunk: dict[str, Any], kind: str, calls: dict[str, Any]) -> None:
        if kind in ("tool-input-start", "tool-input-available", "tool-input-error"):
            if chunk["toolCallId"] not in calls:
                calls[chunk["toolCallId"]] = part = {"type": "tool", "id": chunk["toolCallId"], "text": ""}
                self.parts.append(part)
            calls[chunk["toolCallId"]]["input"] = chunk.get("input")
        elif kind == "tool-input-delta":
            calls[chunk["toolCallId"]]["text"] += chunk["inputTextDelta"]
        elif kind.startswith("tool-output"):
            calls[chunk["toolCallId"]]["output"] = chunk.get("output", chunk.get("errorText"))
        elif kind in ("file", "source-url", "source-document") or (
            kind.startswith("data-") and not chunk.get("transient")
        ):
            self.parts.append(chunk)


_OPENERS = {
    "TEXT_MESSAGE_START": ("text", "messageId"),
    "REASONING_START": ("span", "messageId"),
    "REASONING_MESSAGE_START": ("reasoning", "messageId"),
    "TOOL_CALL_START": ("call", "toolCallId"),
    "STEP_STARTED": ("step", "stepName"),
}
_CLOSERS = {
    "TEXT_MESSAGE_END": ("text", "messageId"),
    "REASONING_END": ("span", "messageId"),
    "REASONING_MESSAGE_END": ("reasoning", "messageId"),
    "TOOL_CALL_END": ("call", "toolCallId"),
    "STEP_FINISHED": ("step", "stepName"),
}
_PIECES = {
    "TEXT_MESSAGE_CONTENT": ("text", "messageId"),
    "REASONING_MESSAGE_CONTENT": ("reasoning", "messageId"),
    "TOOL_CALL_ARGS": ("call", "toolCallId"),
}


class AGUIJudge:
    """The texts by message or call; raises AssertionError where AG-UI's client raises an error."""

    def __init__(self) -> None:
        self.texts: dict[tuple[str, str], str] = {}
        self.end: str | None = None

    def read(self, data: bytes) -> AGUIJudge:
        events = decoded(data)
        assert events[0]["type"] == "RUN_STARTED"
        opened: set[tuple[str, str]] = set()
        parents: dict[tuple[str, str], str] = {}
        for event in events:
            assert None not in event.values(), "an optional field is null"
            AG_UI.validate_python(event)
            assert self.end is None, "an event follows the terminal one"
            kind = event["type"]
            if kind == "TOOL_CALL_START":
                parents["call", event["toolCallId"]] = event["parentMessageId"]
            if kind == "CUSTOM" and event["name"] == "attempt":
                gone = event["value"].get("discards", ())
                self.texts = {key: text for key, text in self.texts.items() if parents.get(key, key[1]) not in gone}
            for table, is_open in ((_OPENERS, False), (_CLOSERS, True), (_PIECES, True)):
                if kind in table:
                    entity, field = table[kind]
                    key = entity, event[field]
                    assert (key in opened) == is_open, event
                    if table is _PIECES:
                        self.texts[key] = self.texts.get(key, "") + event["delta"]
                    elif table is _OPENERS:
                        opened.add(key)
                    else:
                        opened.remove(key)
            if kind in ("RUN_FINISHED", "RUN_ERROR"):
                assert kind == "RUN_ERROR" or not opened
                self.end = kind if kind == "RUN_ERROR" else event["outcome"]["type"]
        assert self.end is not None
        return self
