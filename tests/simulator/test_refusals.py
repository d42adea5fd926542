"""Requests that the providers refuse, and that the simulator refuses with the same words."""

from __future__ import annotations

import http.client
import json
from typing import Any

from lm_deluge.simulator import Simulator

OPEN = {"type": "object", "properties": {"city": {"type": "string"}}}
OPTIONAL = {**OPEN, "additionalProperties": False, "required": []}
CLOSED = {**OPEN, "additionalProperties": False, "required": ["city"]}
ASK = {"role": "user", "content": "Hi"}
PREFILL = [ASK, {"role": "assistant", "content": "Well"}]
CALL = {"id": "c", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
RESULT = {"role": "tool", "tool_call_id": "c", "content": "sunny"}


def chat(**fields: Any) -> dict[str, Any]:
    return {"model": "gpt-4o", "messages": [ASK], **fields}


def function(schema: Any, **fields: Any) -> dict[str, Any]:
    return {"name": "weather", "parameters": schema, **fields}


def turn(model: str, call: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": [ASK, {"role": "assistant", "tool_calls": [CALL], **call}, RESULT], **fields}


def gemini(*calls: dict[str, Any], again: bool = False) -> dict[str, Any]:
    contents = [{"role": "user", "parts": [{"text": "Hi"}]}]
    for call in calls:
        contents.append({"role": "model", "parts": [{"functionCall": {"name": "weather", "args": {}}, **call}]})
        result = {"functionResponse": {"name": "weather", "response": {"output": "sunny"}}}
        contents.append({"role": "user", "parts": [result]})
    return {"contents": [*contents, *([{"role": "user", "parts": [{"text": "And now?"}]}] if again else [])]}


def chat_tool(schema: Any, **fields: Any) -> dict[str, Any]:
    return chat(tools=[{"type": "function", "function": function(schema, **fields)}])


def responses_tool(schema: Any, **fields: Any) -> dict[str, Any]:
    return {"model": "gpt-4o", "input": "Hi", "tools": [{"type": "function", **function(schema, **fields)}]}


def formatted(schema: Any, *, strict: bool) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": strict}}


CHAT, RESPONSES, CLAUDE = "/v1/chat/completions", "/v1/responses", "/v1/messages"
NEW, OLD = (f"/v1beta/models/gemini-{version}:generateContent" for version in ("3-flash-preview", "2.5-flash"))
SCHEMA = "'additionalProperties' is required to be supplied and to be false"
THOUGHT = "reasoning_content is missing in assistant tool call message at index 1"
CASES: dict[str, tuple[str, dict[str, Any], str | None]] = {
    "an open tool": (CHAT, chat_tool(OPEN, strict=True), SCHEMA),
    "an optional property": (CHAT, chat_tool(OPTIONAL, strict=True), SCHEMA),
    "a closed tool": (CHAT, chat_tool(CLOSED, strict=True), None),
    "an open tool that is not strict": (CHAT, chat_tool(OPEN), None),
    "an open output": (CHAT, chat(response_format=formatted(OPEN, strict=True)), SCHEMA),
    "an open output that is not strict": (CHAT, chat(response_format=formatted(OPEN, strict=False)), None),
    "an open tool in Responses": (RESPONSES, responses_tool(OPEN), None),
    "an open tool in Responses that is not strict": (RESPONSES, responses_tool(OPEN, strict=False), None),
    "a closed tool in Responses": (RESPONSES, responses_tool(CLOSED, strict=True), None),
    "an open output in Responses": (
        RESPONSES,
        {
            "model": "gpt-4o",
            "input": "Hi",
            "text": {"format": {"type": "json_schema", "name": "a", "schema": OPEN, "strict": True}},
        },
        SCHEMA,
    ),
    "a prefill": (
        CLAUDE,
        {"model": "claude-opus-4-6", "max_tokens": 9, "messages": PREFILL},
        "assistant message prefill",
    ),
    "a prefill of an older model": (CLAUDE, {"model": "claude-haiku-4-5", "max_tokens": 9, "messages": PREFILL}, None),
    "a prefill of an unknown model": (CLAUDE, {"model": "simulator", "max_tokens": 9, "messages": PREFILL}, None),
    "a call without reasoning": (CHAT, turn("deepseek-reasoner", {}), THOUGHT),
    "a call with reasoning": (CHAT, turn("deepseek-reasoner", {"reasoning_content": ""}), None),
    "a call without reasoning, switched off": (
        CHAT,
        turn("deepseek-reasoner", {}, thinking={"type": "disabled"}),
        None,
    ),
    "a call of another host": (CHAT, turn("gpt-4o", {}), None),
    "a call without a signature": (
        NEW,
        gemini({}),
        "`weather` in the 2. content block is missing a `thought_signature`",
    ),
    "a second call without a signature": (NEW, gemini({"thoughtSignature": "s"}, {}), "in the 4. content block"),
    "a call with a signature": (NEW, gemini({"thought_signature": "s"}), None),
    "a call of an earlier turn": (NEW, gemini({}, again=True), None),
    "a call of an older Gemini": (OLD, gemini({}), None),
}


def post(sim: Simulator, path: str, body: dict[str, Any]) -> tuple[int, str]:
    headers = {"content-type": "application/json"} | ({"anthropic-version": "2023-06-01"} if path == CLAUDE else {})
    connection = http.client.HTTPConnection(sim.url.partition("//")[2], timeout=10)
    connection.request("POST", path, json.dumps(body), headers)
    response = connection.getresponse()
    found = response.status, response.read().decode()
    connection.close()
    return found


def test_what_a_provider_refuses_is_refused() -> None:
    with Simulator("hello").start_in_thread() as sim:
        for name, (path, body, message) in CASES.items():
            status, text = post(sim, path, body)
            assert status == (200 if message is None else 400), (name, text)
            if message is not None:
                error = json.loads(text)["error"]
                assert message in error["message"], (name, text)
