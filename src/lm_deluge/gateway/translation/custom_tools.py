"""Custom tools of OpenAI's APIs, whose input is free text, for providers of other APIs, which have functions only.

https://platform.openai.com/docs/guides/function-calling#custom-tools

Each becomes a function with the argument `input`, and a call of it becomes a call of the custom tool again. Codex edits
files by such a tool, `apply_patch`, and executes its calls only as `custom_tool_call`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from lm_deluge.errors import DelugeError, InvalidPromptError
from lm_deluge.events import Event, ToolCallDelta, ToolCallFinished, ToolCallStarted
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.parts import Part, ToolCallPart
from lm_deluge.prompt.tool import ProviderTool, Tool
from lm_deluge.wire.partial_json import IncrementalParser

__all__ = ["CustomTools"]

JSON = dict[str, Any]

_FIELD = "input"  # as the adapters of APIs without custom tools name it in earlier calls
_SCHEMA: JSON = {
    "type": "object",
    "properties": {_FIELD: {"type": "string", "description": "The input of the tool, as plain text."}},
    "required": [_FIELD],
    "additionalProperties": False,
}


class CustomTools:
    """The custom tools of one request.

    Args:
        tools: The tools of the request.

    Attributes:
        lost: What the functions lack, for the warning to the client.
    """

    def __init__(self, tools: Iterable[Tool | ProviderTool]) -> None:
        self.lost: list[str] = []
        self._names: set[str] = set()
        self._tools = tuple(self._flat_tool(tool) for tool in tools)
        self._inputs: dict[int, _InputText] = {}  # of the calls that arrive, by index

    def flat_tools(self) -> tuple[Tool | ProviderTool, ...]:
        """Return the tools of the request, each custom tool as a function."""
        return self._tools

    def flat_conversation(self, conversation: Conversation) -> Conversation:
        """Return the conversation with its calls of custom tools as calls of functions."""
        if not any(_is_custom(part) for message in conversation.messages for part in message.parts):
            return conversation
        return Conversation(
            msgspec.structs.replace(message, parts=[_flat_part(part) for part in message.parts])
            for message in conversation.messages
        )

    def restored(self, events: list[Event]) -> list[Event]:
        """Return events with calls of custom tools in place of calls of their functions."""
        if not self._names:
            return events
        restored: list[Event] = []
        for event in events:
            if isinstance(event, ToolCallStarted) and event.name in self._names:
                self._inputs[event.index] = _InputText()
                restored.append(msgspec.structs.replace(event, custom=True))
            elif isinstance(event, ToolCallDelta) and event.index in self._inputs:
                text = self._inputs[event.index].feed(event.arguments)
                restored += [ToolCallDelta(event.index, text)] if text else []
            elif isinstance(event, ToolCallFinished) and event.name in self._names:
                restored.append(_finished(event, self._inputs.pop(event.index, _InputText())))
            else:
                restored.append(event)
        return restored

    def _flat_tool(self, tool: Tool | ProviderTool) -> Tool | ProviderTool:
        if not isinstance(tool, ProviderTool) or tool.data.get("type") != "custom":
            return tool
        inner = tool.data.get("custom")  # the form of Chat Completions
        data = inner if isinstance(inner, dict) else tool.data
        name, grammar = data.get("name"), _grammar_in(data.get("format"))
        texts = [data.get("description"), grammar]
        try:
            flat = Tool(name=name, description="\n\n".join(filter(None, texts)), parameters=_SCHEMA)  # type: ignore[arg-type]
        except (InvalidPromptError, TypeError):
            return tool
        self._names.add(flat.name)
        if grammar:
            self.lost.append(f"format of tool {flat.name}")  # the model is asked to follow it, and not forced to
        return flat


class _InputText:
    """The input of a call that arrives as the JSON of a function's arguments.

    Attributes:
        text: What has arrived of it.
    """

    def __init__(self) -> None:
        self.text = ""
        self._parser: IncrementalParser | None = IncrementalParser()

    def feed(self, fragment: str) -> str:
        """Return the text that a fragment of the JSON adds."""
        if self._parser is None:
            return ""
        try:
            self._parser.feed(fragment)
        except DelugeError:
            self._parser = None  # not JSON: the end of the call has the text
            return ""
        value = self._parser.value
        known = value.get(_FIELD) if isinstance(value, dict) else None
        if not isinstance(known, str) or not known.startswith(self.text):
            return ""
        added, self.text = known[len(self.text) :], known
        return added


def _finished(event: ToolCallFinished, arrived: _InputText) -> ToolCallFinished:
    """Return the end of a call of a custom tool. A model that writes no such JSON means its text as the input."""
    whole = event.arguments.get(_FIELD) if isinstance(event.arguments, dict) else None
    text = whole if isinstance(whole, str) else arrived.text or event.arguments_text
    return msgspec.structs.replace(event, arguments_text=text, arguments=None, arguments_error=None, custom=True)


def _grammar_in(form: Any) -> str:
    """Return the instruction to follow the grammar of a tool; empty if it has none."""
    if not isinstance(form, dict) or form.get("type") != "grammar":
        return ""
    inner = form.get("grammar")  # the form of Chat Completions
    given = inner if isinstance(inner, dict) else form
    return f"The input follows this grammar ({given.get('syntax', 'lark')}):\n{given.get('definition', '')}"


def _is_custom(part: Part) -> bool:
    return isinstance(part, ToolCallPart) and part.custom


def _flat_part(part: Part) -> Part:
    if not isinstance(part, ToolCallPart) or not part.custom:
        return part
    arguments = {_FIELD: part.arguments_text}
    text = msgspec.json.encode(arguments).decode()
    return ToolCallPart(part.id, part.name, text, arguments)
