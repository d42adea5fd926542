"""Recorded requests, built again: what a client sent is what this library would send."""

from __future__ import annotations

import json
from typing import Any

import pytest

import recordings
from chat_calls import body_of
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import Part, TextPart, ToolCallPart, ToolResultPart
from lm_deluge.prompt.tool import Tool

API = "openai-chat"


def has_messages(name: str) -> bool:
    return bool((recordings.load(API, name).about.get("request") or {}).get("messages"))


NAMES = [name for name in recordings.names(API) if has_messages(name)]
pytestmark = pytest.mark.skipif(not NAMES, reason=recordings.REASON)

# Requests that break the API's own rules, which this library does not help to break.
EXCEPTIONS = {
    "a tool message without tool_call_id": lambda message: message["role"] == "tool" and "tool_call_id" not in message,
    "tool calls said by the user": lambda message: message["role"] == "user" and "tool_calls" in message,
}


def part_of(piece: dict[str, Any]) -> Part:
    assert piece["type"] == "text"
    return TextPart(piece["text"])


def message_of(raw: dict[str, Any]) -> Message:
    """Return a message of the API as one of ours."""
    content = raw.get("content")
    if raw["role"] == "tool":
        return Message("tool", (ToolResultPart(raw["tool_call_id"], content),))
    pieces = content if isinstance(content, list) else [{"type": "text", "text": content}] if content else []
    calls = [
        ToolCallPart(call["id"], call["function"]["name"], call["function"]["arguments"])
        for call in raw.get("tool_calls") or ()
    ]
    return Message(raw["role"], (*map(part_of, pieces), *calls), raw.get("name"))


def normal(raw: dict[str, Any]) -> dict[str, Any]:
    """Return a message without what makes no difference to the API.

    Absent, null and empty content are the same; text in pieces is that text; reasoning is not sent back to Chat
    Completions; empty arguments are sent as an empty object; fields of a call that are null are left out.
    """
    content = raw.get("content")
    if isinstance(content, list):
        content = "".join(piece["text"] for piece in content)
    found: dict[str, Any] = {"role": raw["role"], "content": content or None}
    for name in ("name", "tool_call_id"):
        if raw.get(name):
            found[name] = raw[name]
    found["calls"] = [
        (call["id"], call.get("type") or "function", call["function"]["name"], call["function"]["arguments"] or "{}")
        for call in raw.get("tool_calls") or ()
    ]
    return found


def normal_tool(raw: dict[str, Any]) -> dict[str, Any]:
    """Return a tool without what makes no difference: empty descriptions, an absent schema, a null `strict`."""
    if "function" not in raw:
        return raw
    function = {name: value for name, value in raw["function"].items() if value not in (None, "")}
    return {"parameters": {"type": "object", "properties": {}}, **function}


@pytest.mark.parametrize("name", NAMES)
def test_a_recorded_request_is_built_again(name: str) -> None:
    request = recordings.load(API, name).about["request"]
    for reason, applies in EXCEPTIONS.items():
        if any(map(applies, request["messages"])):
            pytest.skip(reason)
    sent = request.get("tools") or []
    tools = tuple(Tool.from_dict(tool) for tool in sent if "function" in tool)
    # Tools that the host runs itself (OpenRouter's) have no class here; they go through extra_body.
    extra = {} if len(tools) == len(sent) else {"tools": sent}
    body = body_of(Conversation(map(message_of, request["messages"])), tools=tools, extra_body=extra)
    assert [normal(raw) for raw in body["messages"]] == [normal(raw) for raw in request["messages"]]
    assert [normal_tool(raw) for raw in body.get("tools", ())] == [normal_tool(raw) for raw in sent]
    assert body["stream"] is True


def test_the_exceptions_are_few() -> None:
    broken = [
        name
        for name in NAMES
        if any(
            applies(raw)
            for raw in recordings.load(API, name).about["request"]["messages"]
            for applies in EXCEPTIONS.values()
        )
    ]
    assert len(broken) <= 2, json.dumps(broken)
