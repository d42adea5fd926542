"""Tools in a `namespace` of the Responses API, for providers of other APIs, which have plain functions only.

https://platform.openai.com/docs/api-reference/responses/create#responses_create-tools

Codex (0.171) sends some of its tools in a namespace, and executes a call of one only if the call has the bare name of
the function and the field `namespace`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from lm_deluge.errors import InvalidPromptError
from lm_deluge.events import Event, ProviderPart, ToolCallFinished, ToolCallStarted
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import Part, ProviderDataPart, ToolCallPart
from lm_deluge.prompt.tool import ProviderTool, Tool

__all__ = ["ToolNamespaces"]

JSON = dict[str, Any]

_OWNER = "openai-responses"
_CALLS = ("function_call", "custom_tool_call")
_LONGEST_NAME = 64  # of OpenAI's functions, the shortest of all APIs
_DIGEST = 8  # characters that keep shortened names apart


class _InNamespace(NamedTuple):
    """A function in a namespace."""

    namespace: str
    name: str


class ToolNamespaces:
    """The functions and custom tools of one request that stand in namespaces, with a name of its own for each.

    Args:
        tools: The tools of the request.
    """

    def __init__(self, tools: Iterable[Tool | ProviderTool]) -> None:
        tools = list(tools)
        self._taken = {tool.name for tool in tools if isinstance(tool, Tool)}
        self._names: dict[_InNamespace, str] = {}
        self._found: dict[str, _InNamespace] = {}
        self._tools: list[Tool | ProviderTool] = []
        for tool in tools:
            self._tools += self._flat_tools(tool)

    def flat_tools(self) -> tuple[Tool | ProviderTool, ...]:
        """Return the tools of the request, each function of a namespace as a plain function.

        Tools of other kinds stay as they are, also those in a namespace.
        """
        return tuple(self._tools)

    def flat_conversation(self, conversation: Conversation) -> Conversation:
        """Return the conversation with the plain names in its calls."""
        if not self._names:
            return conversation
        return Conversation(
            msgspec.structs.replace(message, parts=self._flat_parts(message))
            if message.role == "assistant"
            else message
            for message in conversation.messages
        )

    def restored(self, events: list[Event]) -> list[Event]:
        """Return events with the bare names in their calls, and with the namespace of each call."""
        if not self._names:
            return events
        restored: list[Event] = []
        for event in events:
            found = self._found.get(event.name) if isinstance(event, ToolCallStarted | ToolCallFinished) else None
            if found is None:
                restored.append(event)
                continue
            restored.append(msgspec.structs.replace(event, name=found.name))
            if isinstance(event, ToolCallFinished):
                restored.append(ProviderPart(_OWNER, _CALLS[event.custom], {"namespace": found.namespace}))
        return restored

    def _flat_tools(self, tool: Tool | ProviderTool) -> list[Tool | ProviderTool]:
        if not isinstance(tool, ProviderTool) or tool.data.get("type") != "namespace":
            return [tool]
        namespace, inner = tool.data.get("name"), tool.data.get("tools")
        if not isinstance(namespace, str) or not isinstance(inner, list):
            return [tool]
        return [self._flat_tool(namespace, each) for each in inner if isinstance(each, dict)]

    def _flat_tool(self, namespace: str, data: JSON) -> Tool | ProviderTool:
        name = data.get("name")
        if not isinstance(name, str):
            return ProviderTool(data)
        if data.get("type") != "function":
            is_custom = data.get("type") == "custom"
            return ProviderTool({**data, "name": self._flat_name(_InNamespace(namespace, name))} if is_custom else data)
        known = {key: data[key] for key in ("description", "parameters", "strict") if data.get(key) is not None}
        try:
            return Tool(name=self._flat_name(_InNamespace(namespace, name)), **known)
        except InvalidPromptError:
            return ProviderTool(data)

    def _flat_name(self, function: _InNamespace) -> str:
        known = self._names.get(function)
        if known is not None:
            return known
        flat = f"{function.namespace.rstrip('_')}__{function.name}"
        if len(flat) > _LONGEST_NAME or flat in self._taken:
            digest = hashlib.sha256("\0".join(function).encode()).hexdigest()[:_DIGEST]
            flat = f"{flat[: _LONGEST_NAME - _DIGEST - 1]}_{digest}"
        self._taken.add(flat)
        self._names[function], self._found[flat] = flat, function
        return flat

    def _flat_parts(self, message: Message) -> list[Part]:
        parts: list[Part] = []
        for part in message.parts:
            namespace = _namespace_in(part)
            last = parts[-1] if parts else None
            if namespace is not None and isinstance(last, ToolCallPart):
                # The fields of a call that `ToolCallPart` lacks stand after it.
                parts[-1] = msgspec.structs.replace(last, name=self._flat_name(_InNamespace(namespace, last.name)))
            parts.append(part)
        return parts


def _namespace_in(part: Part) -> str | None:
    if not isinstance(part, ProviderDataPart) or part.provider != _OWNER or part.kind not in _CALLS:
        return None
    namespace = part.data.get("namespace") if isinstance(part.data, dict) else None
    return namespace if isinstance(namespace, str) else None
