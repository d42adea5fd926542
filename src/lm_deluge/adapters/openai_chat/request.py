"""Build request bodies of Chat Completions. Adapters of similar APIs (Mistral, Cohere, Ollama) reuse the functions."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import msgspec

from lm_deluge.adapters.adapter import Call
from lm_deluge.adapters.capabilities import cannot_place, check_capabilities, check_tool_choice, result_text
from lm_deluge.adapters.openai_chat.json_schema import is_strict, strict_tool_schema, tool_schema
from lm_deluge.adapters.openai_chat.opaque_fields import add_opaque_fields
from lm_deluge.adapters.openai_chat.quirks import (
    apply_quirks,
    check_quirks,
    reasoning_fields,
    sign_foreign_calls,
)
from lm_deluge.adapters.text_files import with_inline_files
from lm_deluge.config import SamplingParams
from lm_deluge.errors import InvalidPromptError, UnsupportedParameterError
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import (
    AudioPart,
    FilePart,
    ImagePart,
    Part,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from lm_deluge.prompt.tool import ProviderTool, Tool

__all__ = [
    "CHAT_CONTENT",
    "CHAT_MESSAGES",
    "ContentTable",
    "MessageTable",
    "build_chat_body",
    "build_content",
    "build_messages",
    "call_fields",
    "function_call_fields",
    "response_format",
    "sampling_fields",
    "tool_choice_field",
    "tool_fields",
]

JSON = dict[str, Any]
ContentTable: TypeAlias = Mapping[type[Part], Callable[[Call, Any], JSON]]
"""The function that builds a piece of content, for each type of part that the API accepts in a message."""
MessageTable: TypeAlias = Mapping[str, Callable[[Call, Message], list[JSON]]]
"""The function that builds the API's messages, for each role of ours."""

_NO_PARAMS = SamplingParams()


def build_chat_body(call: Call) -> JSON:
    """Return the JSON body for `call`. Parameters that the call does not set are omitted.

    Raises:
        UnsupportedParameterError: The model or the API does not support a parameter or a part.
        InvalidPromptError: Media are referred to in a form that the API does not accept, or a tool call has no
            result.
    """
    is_text = call.conversation.is_text
    if not is_text:
        call = with_inline_files(call)  # the API takes PDF only: https://platform.openai.com/docs/guides/pdf-files
    check_capabilities(call, pairs="next_message")
    quirks = call.provider.quirks
    if quirks.rejects or not quirks.forces_tools_while_reasoning or call.model.capabilities.needs_responses:
        check_quirks(call)
    body: JSON = {"model": call.model.name, "messages": build_messages(call)}
    if not is_text:
        sign_foreign_calls(call, body["messages"])
    if call.is_streamed:
        body["stream"] = True
        if quirks.usage_option:
            body["stream_options"] = {"include_usage": True}
    body |= sampling_fields(call.params, quirks.max_tokens_field)
    if call.tools:
        body["tools"] = tool_fields(call)
    choice = tool_choice_field(call)
    if choice is not None:
        body["tool_choice"] = choice
    wanted = response_format(call)
    if wanted is not None:
        body["response_format"] = wanted
    if not quirks.developer_role or "reasoning_effort" in body or call.cache is not None:
        apply_quirks(call, body)
    return body


def sampling_fields(params: SamplingParams, max_tokens_field: str) -> JSON:
    """Return the parameters that are set, under their names in Chat Completions."""
    if params == _NO_PARAMS:
        return {}
    fields: JSON = {
        "temperature": params.temperature,
        "top_p": params.top_p,
        max_tokens_field: params.max_new_tokens,
        "stop": list(params.stop) if params.stop else None,
        "seed": params.seed,
        "presence_penalty": params.presence_penalty,
        "frequency_penalty": params.frequency_penalty,
        "reasoning_effort": params.reasoning_effort,
        "logprobs": True if params.logprobs or params.top_logprobs is not None else None,
        "top_logprobs": params.top_logprobs,
        "parallel_tool_calls": params.parallel_tool_calls,
        "service_tier": params.service_tier,
        "verbosity": params.verbosity,
    }
    return {name: value for name, value in fields.items() if value is not None}


def tool_fields(call: Call, *, may_be_optional: bool = False) -> list[JSON]:
    """Return the call's tools as JSON; a `ProviderTool` is JSON already and unchanged.

    Args:
        call: The call.
        may_be_optional: The API accepts strict tools with optional properties.
    """
    return [
        tool.data if isinstance(tool, ProviderTool) else _tool(tool, may_be_optional=may_be_optional)
        for tool in call.tools
    ]


def _tool(tool: Tool, *, may_be_optional: bool) -> JSON:
    schema, strict = (tool_schema(tool), tool.strict) if may_be_optional else strict_tool_schema(tool)
    function: JSON = {"name": tool.name, "parameters": schema}
    if tool.description:
        function["description"] = tool.description
    if strict is not None:
        function["strict"] = strict
    return {"type": "function", "function": function}


def tool_choice_field(call: Call) -> str | JSON | None:
    """Return the field `tool_choice`: a mode, the name of a tool as an object, or None if the call sets none."""
    choice = check_tool_choice(call)
    if choice in (None, "auto", "none", "required"):
        return choice
    return {"type": "function", "function": {"name": choice}}


def response_format(call: Call) -> JSON | None:
    """Return the field `response_format`, or None if the call does not restrict the output."""
    if call.output is not None:
        return _json_schema(call.output)
    return {"type": "json_object"} if call.params.json_mode else None


def _json_schema(schema: JSON) -> JSON:
    name = re.sub(r"[^A-Za-z0-9_-]", "_", str(schema.get("title") or "output"))[:64]
    return {
        "type": "json_schema",
        "json_schema": {"name": name, "schema": schema, "strict": is_strict(schema)},
    }


def build_messages(call: Call, builders: MessageTable | None = None, *, results_have_media: bool = False) -> list[JSON]:
    """Return the conversation as the API's messages.

    Args:
        call: The call.
        builders: Replaces `CHAT_MESSAGES`.
        results_have_media: Whether the API takes media in the results of tools; otherwise the media are sent in a user
            message after all results of the turn, because nothing may stand between results.
    """
    table = builders or CHAT_MESSAGES
    messages: list[JSON] = []
    media: list[Part] = []
    for message in call.conversation:
        if media and message.role != "tool":
            messages += table["user"](call, Message("user", tuple(media)))
            media = []
        messages.extend(table[message.role](call, message))
        if message.role == "tool" and not results_have_media:
            media += _media_of_results(message)
    return messages + (table["user"](call, Message("user", tuple(media))) if media else [])


def _media_of_results(message: Message) -> list[Part]:
    parts: list[Part] = []
    for part in message.parts:
        if isinstance(part, ToolResultPart) and part.media:
            parts += [TextPart(f"Media of the result of tool call {part.tool_call_id}:"), *part.media]
    return parts


def _plain(call: Call, message: Message) -> list[JSON]:
    for part in message.parts:
        if not isinstance(part, TextPart):
            raise cannot_place(part, message.role)
    return [_named(message, {"role": message.role, "content": message.completion})]


def _user(call: Call, message: Message) -> list[JSON]:
    return [_named(message, {"role": "user", "content": build_content(call, message)})]


def build_content(call: Call, message: Message, table: ContentTable | None = None) -> str | list[JSON]:
    """Return the content of a message: a string if it has one text part only, else a list of pieces.

    Args:
        call: The call that the message belongs to.
        message: The message.
        table: Builders of the pieces; replaces `CHAT_CONTENT`.

    Raises:
        UnsupportedParameterError: The table has no builder for the type of a part.
    """
    if len(message.parts) == 1 and isinstance(message.parts[0], TextPart):
        return message.parts[0].text
    content = []
    for part in message.parts:
        build = (table or CHAT_CONTENT).get(type(part))
        if build is None:
            raise cannot_place(part, message.role)
        content.append(build(call, part))
    return content


def _assistant(call: Call, message: Message) -> list[JSON]:
    body: JSON = {"role": "assistant", "content": message.completion or None}
    if message.refusal:
        body["refusal"] = message.refusal
    calls = [call_fields(part) for part in message.parts if isinstance(part, ToolCallPart)]
    if calls:
        body["tool_calls"] = calls
    for part in message.parts:
        if isinstance(part, AudioPart) and part.media.file_id:
            body["audio"] = {"id": part.media.file_id}
    add_opaque_fields(call, message, body)
    if body["content"] is None and len(body) == 2:  # noqa: PLR2004 - the API wants content where nothing else is
        body["content"] = ""
    if "reasoning_details" not in body:
        body |= reasoning_fields(call, message)
    return [_named(message, body)]


def call_fields(part: ToolCallPart) -> JSON:
    """Return a tool call of an assistant message as JSON."""
    if part.custom:
        return {"id": part.id, "type": "custom", "custom": {"name": part.name, "input": part.arguments_text}}
    return function_call_fields(part)


def function_call_fields(part: ToolCallPart) -> JSON:
    """Return a tool call as a function call, for APIs without custom tools: free text becomes the argument `input`."""
    arguments = part.arguments_text or "{}"
    if part.custom:
        arguments = msgspec.json.encode({"input": part.arguments_text}).decode()
    return {"id": part.id, "type": "function", "function": {"name": part.name, "arguments": arguments}}


def _tool_results(call: Call, message: Message) -> list[JSON]:
    results: list[JSON] = []
    for part in message.parts:
        if not isinstance(part, ToolResultPart):
            raise cannot_place(part, "tool")
        results.append({"role": "tool", "tool_call_id": part.tool_call_id, "content": result_text(part)})
    return results


def _named(message: Message, body: JSON) -> JSON:
    return body if message.name is None else {**body, "name": message.name}


def _text_content(call: Call, part: Any) -> JSON:
    return {"type": "text", "text": part.text}


def _image_content(call: Call, part: Any) -> JSON:
    if part.media.url is None and part.media.data is None:
        raise InvalidPromptError("an image cannot be sent by its file id", hint="Pass the path, the bytes or a URL.")
    image: JSON = {"url": part.media.url or part.media.data_url()}
    if part.detail is not None:
        image["detail"] = part.detail
    return {"type": "image_url", "image_url": image}


def _file_content(call: Call, part: Any) -> JSON:
    media = part.media
    if media.file_id is not None:
        return {"type": "file", "file": {"file_id": media.file_id}}
    if media.url is not None:
        if not call.provider.quirks.file_urls:
            raise UnsupportedParameterError(
                f"{call.provider.id} takes no documents by URL through Chat Completions",
                parameter="file",
                hint="Pass the path or the bytes instead.",
            )
        data = media.url
    else:
        data = media.data_url()
    return {"type": "file", "file": {"filename": media.filename or "document.pdf", "file_data": data}}


_AUDIO_FORMATS = {"audio/wav": "wav", "audio/mpeg": "mp3", "audio/ogg": "ogg", "audio/flac": "flac"}


def _audio_content(call: Call, part: Any) -> JSON:
    media = part.media
    if media.data is None:
        raise InvalidPromptError("audio cannot be sent by URL", hint="Pass the path or the bytes instead.")
    return {
        "type": "input_audio",
        "input_audio": {"data": media.base64(), "format": _AUDIO_FORMATS.get(media.media_type or "", "wav")},
    }


CHAT_CONTENT: ContentTable = {
    TextPart: _text_content,
    ImagePart: _image_content,
    FilePart: _file_content,
    AudioPart: _audio_content,
}

CHAT_MESSAGES: MessageTable = {
    "system": _plain,
    "developer": _plain,
    "user": _user,
    "assistant": _assistant,
    "tool": _tool_results,
}
