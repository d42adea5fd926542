"""How a model is asked for an answer that follows a JSON schema: the rows of the model and its host decide. Pure.

`schema`: the structured output of the API. `tool`: a tool with the schema, which the model must call; its arguments
are delivered as the text of the answer. `json`: the JSON mode of the API, with the schema in the system message.
`text`: the schema in the system message only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias, cast

import msgspec

from lm_deluge.adapters.adapter import Adapter, Call, Decoder, Resumable, SendsByModel
from lm_deluge.adapters.bedrock_converse.models import find_family, find_vendor
from lm_deluge.adapters.capabilities import is_reasoning
from lm_deluge.adapters.changed_decoder import ChangedDecoder
from lm_deluge.errors import APIError
from lm_deluge.events import (
    Event,
    ResponseFinished,
    TextDelta,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
)
from lm_deluge.models.rows import ModelRow
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import Part, TextPart
from lm_deluge.prompt.tool import Tool
from lm_deluge.schemas.claude_form import claude_form
from lm_deluge.schemas.strict_form import strict_form
from lm_deluge.schemas.subschemas import JSON
from lm_deluge.wire.http import HttpRequest

__all__ = ["ANSWER_TOOL", "OutputForm", "find_output_form", "with_output_form"]

OutputForm: TypeAlias = Literal["schema", "tool", "json", "text"]

ANSWER_TOOL = "final_answer"
"""Name of the tool whose arguments are the answer."""

_INSTRUCTION = (
    "Answer with a single JSON object that follows this JSON schema, and with nothing else: no introduction, no code"
    " fence."
)
_TOOL_DESCRIPTION = "Gives the final answer. Its arguments are the answer."

_BEDROCK_INVOKE = "bedrock-invoke"
# Families of Bedrock's native format with structured output, with tools, and with a single text as prompt.
_INVOKE_SCHEMAS = ("claude", "chat")
_INVOKE_TOOLS = ("claude", "chat", "nova")
_INVOKE_SINGLE = ("titan", "command")
# Vendors whose models take a forced tool through Converse (2026-11):
# https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ToolChoice.html
_CONVERSE_FORCED = ("anthropic", "amazon", "mistral")
_WITH_TOOL_CHOICE = frozenset(
    {
        *("openai-chat", "openai-responses", "anthropic-messages", "gemini-generate", "gemini-interactions"),
        *("mistral-chat", "cohere-v2"),
    }
)
_WITH_JSON_MODE = frozenset(
    {
        *("openai-chat", "openai-responses", "gemini-generate", "gemini-interactions", "mistral-chat", "cohere-v2"),
        "ollama-chat",
    }
)
# APIs that enforce a schema only if all properties are required, and objects are closed.
_STRICT = frozenset({"openai-chat", "openai-responses", "mistral-chat"})
_CLAUDE = frozenset({"anthropic-messages", "bedrock-converse"})


def find_output_form(call: Call) -> OutputForm:
    """Return how the model of a call is asked for its `output`."""
    api, capabilities = call.provider.adapter, call.model.capabilities
    rejects = call.provider.quirks.rejects
    family = find_family(call.model.name) if api == _BEDROCK_INVOKE else ""
    has_schema = capabilities.json_schema and capabilities.output_form != "object" and "output" not in rejects
    if has_schema and (not family or family in _INVOKE_SCHEMAS) and _can_enforce(call):
        return "schema"
    if _can_force_tool(call, family):
        return "tool"
    return "json" if api in _WITH_JSON_MODE and "json_mode" not in rejects else "text"


def _can_enforce(call: Call) -> bool:
    """Whether the API can enforce the schema of the call; those that cannot enforce one all the same take it."""
    return _fit_of(call) is not claude_form or call.output is None or claude_form(call.output) is not None


def _fit_of(call: Call) -> Callable[[JSON], JSON | None] | None:
    """Return the function that makes the form of a schema that the API requires; None: the API takes any."""
    api = call.provider.adapter
    family = find_family(call.model.name) if api == _BEDROCK_INVOKE else ""
    if api in _CLAUDE or family == "claude":
        return claude_form
    return strict_form if api in _STRICT or family == "chat" else None


def _can_force_tool(call: Call, family: str) -> bool:
    """Whether a tool call can be required: the call has no other tools, and the model is known to take it."""
    api, capabilities, quirks = call.provider.adapter, call.model.capabilities, call.provider.quirks
    if call.tools or not capabilities.tools or not {"tools", "tool_choice"}.isdisjoint(quirks.rejects):
        return False
    is_forcible = capabilities.forced_tool_choice
    if is_forcible == "without_reasoning":
        is_forcible = capabilities.reasons(call.params.reasoning_effort) is False
    if not is_forcible or (not quirks.forces_tools_while_reasoning and is_reasoning(call)):
        return False
    if "tools_while_reasoning" in capabilities.needs_responses and is_reasoning(call):
        return False
    if family:
        return family in _INVOKE_TOOLS
    if api == "bedrock-converse":
        return find_vendor(call.model.name) in _CONVERSE_FORCED
    return api in _WITH_TOOL_CHOICE


def with_output_form(adapter: Adapter, call: Call) -> Adapter:
    """Return an adapter that asks for the `output` of calls as the model of this call takes it.

    Args:
        adapter: The adapter of the wire API; returned unchanged if it sends the schema as it is.
        call: A call; others with the same model and options take the same adapter.
    """
    if call.output is None:
        return adapter
    form, schema = find_output_form(call), call.output
    if form == "schema":
        fit = _fit_of(call)
        if fit is None:
            return adapter
        schema = fit(schema) or schema
    changed: type[_OutputAdapter] = _OutputAdapter
    if isinstance(adapter, Resumable):
        changed = _ResumableAdapter
    elif isinstance(adapter, SendsByModel):
        changed = _ByModelAdapter
    return cast(
        "Adapter", changed(adapter, form, schema)
    )  # the class attributes of an adapter are attributes of the object


class _OutputAdapter:
    """An adapter that changes how another one asks for the output of a call.

    Args:
        inner: The other adapter.
        form: How the model is asked.
        schema: The schema that is sent.
    """

    def __init__(self, inner: Adapter, form: OutputForm, schema: JSON) -> None:
        self.name = inner.name
        self.sends = inner.sends
        self.echoes = inner.echoes
        self._inner = inner
        self._form: OutputForm = form
        self._schema = schema

    def build_request(self, call: Call) -> HttpRequest:
        """Return the HTTP request for `call`."""
        return self._inner.build_request(_BUILDERS[self._form](call, self._schema))

    def decoder(self, call: Call) -> Decoder:
        """Return a new decoder for the response to `call`."""
        decoder = self._inner.decoder(call)
        return _AnswerToolDecoder(decoder) if self._form == "tool" else decoder

    def parse_response(self, call: Call, body: bytes) -> list[Event]:
        """Return the events of a plain response."""
        events = self._inner.parse_response(call, body)
        return _AnswerText().read(events) if self._form == "tool" else events

    def classify_error(self, status: int, headers: Mapping[str, str], body: bytes) -> APIError:
        """Return the error of a response whose status is not a success."""
        return self._inner.classify_error(status, headers, body)


class _ResumableAdapter(_OutputAdapter):
    """The same for an API with a background mode."""

    def build_resume(self, call: Call, response_id: str, cursor: int) -> HttpRequest:
        """Return the request that streams the rest of a response."""
        assert isinstance(self._inner, Resumable)  # noqa: S101 - as `with_output_form` has it
        return self._inner.build_resume(call, response_id, cursor)

    def build_cancel(self, call: Call, response_id: str) -> HttpRequest:
        """Return the request that cancels a response."""
        assert isinstance(self._inner, Resumable)  # noqa: S101 - as `with_output_form` has it
        return self._inner.build_cancel(call, response_id)


class _ByModelAdapter(_OutputAdapter):
    """The same for an API whose format depends on the model."""

    def sends_to(self, model: ModelRow) -> tuple[frozenset[type[Part]], frozenset[str]]:
        """Return the types of parts that a model accepts."""
        assert isinstance(self._inner, SendsByModel)  # noqa: S101 - as `with_output_form` has it
        return self._inner.sends_to(model)


# The call in each form


def _as_schema(call: Call, schema: JSON) -> Call:
    return msgspec.structs.replace(call, output=schema)


def _as_tool(call: Call, schema: JSON) -> Call:
    tool = Tool(name=ANSWER_TOOL, description=_TOOL_DESCRIPTION, parameters={"type": "object", **schema})
    params = msgspec.structs.replace(call.params, tool_choice="required", json_mode=False)
    return msgspec.structs.replace(call, tools=(tool,), params=params, output=None)


def _as_json(call: Call, schema: JSON) -> Call:
    params = msgspec.structs.replace(call.params, json_mode=True)
    return msgspec.structs.replace(_as_text(call, schema), params=params)


def _as_text(call: Call, schema: JSON) -> Call:
    text = f"{_INSTRUCTION}\n{msgspec.json.encode(schema).decode()}"
    is_single = call.provider.adapter == _BEDROCK_INVOKE and find_family(call.model.name) in _INVOKE_SINGLE
    instruct = _with_last_text if is_single else _with_system_text
    params = msgspec.structs.replace(call.params, json_mode=False)
    conversation = Conversation(instruct(call.conversation.messages, text))
    return msgspec.structs.replace(call, conversation=conversation, params=params, output=None)


def _with_system_text(messages: list[Message], text: str) -> list[Message]:
    first = messages[0] if messages and messages[0].role in ("system", "developer") else None
    if first is None:
        return [Message.system(text), *messages]
    return [Message(first.role, (*first.parts, TextPart(f"\n\n{text}")), first.name), *messages[1:]]


def _with_last_text(messages: list[Message], text: str) -> list[Message]:
    """Return the messages with a text at the end, for models without system messages."""
    *before, last = messages
    return [*before, Message(last.role, (*last.parts, TextPart(f"\n\n{text}")), last.name)]


_BUILDERS: dict[OutputForm, Callable[[Call, JSON], Call]] = {
    "schema": _as_schema,
    "tool": _as_tool,
    "json": _as_json,
    "text": _as_text,
}


# The answer as arguments of a tool


class _AnswerText:
    """Turns the call of the answer tool into text. A second call of it, and calls of other tools, are left out."""

    def __init__(self) -> None:
        self._index: int | None = None
        self._length = 0  # characters of the arguments so far

    def read(self, events: list[Event]) -> list[Event]:
        """Return the events with text in place of the call."""
        found: list[Event] = []
        for event in events:
            if isinstance(event, ToolCallStarted):
                if self._index is None and event.name == ANSWER_TOOL:
                    self._index = event.index
            elif isinstance(event, ToolCallDelta):
                self._add(event.index, event.arguments, found)
            elif isinstance(event, ToolCallFinished):
                self._add(event.index, event.arguments_text[self._length :], found)
            elif isinstance(event, ResponseFinished) and event.finish_reason == "tool_calls":
                found.append(msgspec.structs.replace(event, finish_reason="stop"))
            else:
                found.append(event)
        return found

    def _add(self, index: int, text: str, found: list[Event]) -> None:
        if index == self._index and text:
            self._length += len(text)
            found.append(TextDelta(text))


class _AnswerToolDecoder(ChangedDecoder):
    """A `Decoder` that delivers the arguments of the answer tool as text."""

    def __init__(self, inner: Decoder) -> None:
        super().__init__(inner)
        self._text = _AnswerText()

    def change(self, events: list[Event]) -> list[Event]:
        """Return the events with text in place of the call."""
        return self._text.read(events)
