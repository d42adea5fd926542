"""The request body that OpenAI-like chat APIs share. Functions, no class."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from lm_deluge.config import SamplingParams
from lm_deluge.errors import InvalidPromptError, UnsupportedParameterError
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import (
    AudioPart,
    FilePart,
    ImagePart,
    ProviderDataPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from lm_deluge.prompt.tool import ProviderTool, Tool
from lm_deluge.providers.adapter import Call
from lm_deluge.providers.chat_quirks import apply_quirks, check_quirks, reasoning_fields
from lm_deluge.providers.fit import cannot_stand, cannot_take, check_fit, check_tool_choice

__all__ = ["build_chat_body", "build_messages"]

JSON = dict[str, Any]


def build_chat_body(call: Call) -> JSON:
    """Return the request's JSON. What was not asked for is not sent.

    Raises:
        UnsupportedParameterError: The model or the API cannot take a parameter or a part.
    """
    check_fit(call)
    check_quirks(call)
    body: JSON = {"model": call.model.name, "messages": build_messages(call)}
    if call.is_streamed:
        body["stream"] = True
        if call.provider.quirks.usage_option:
            body["stream_options"] = {"include_usage": True}
    body |= _sampling(call.params, call.provider.quirks.max_tokens_field)
    if call.tools:
        body["tools"] = [tool.data if isinstance(tool, ProviderTool) else _tool(tool) for tool in call.tools]
    choice = _tool_choice(call)
    if choice is not None:
        body["tool_choice"] = choice
    if call.output is not None:
        body["response_format"] = _json_schema(call.output)
    elif call.params.json_mode:
        body["response_format"] = {"type": "json_object"}
    apply_quirks(call, body)
    return body


def _sampling(params: SamplingParams, max_tokens_field: str) -> JSON:
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


def _tool(tool: Tool) -> JSON:
    function: JSON = {"name": tool.name, "parameters": tool.parameters or {"type": "object", "properties": {}}}
    if tool.description:
        function["description"] = tool.description
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _tool_choice(call: Call) -> str | JSON | None:
    choice = check_tool_choice(call)
    if choice in (None, "auto", "none", "required"):
        return choice
    return {"type": "function", "function": {"name": choice}}


def _json_schema(schema: JSON) -> JSON:
    name = re.sub(r"[^A-Za-z0-9_-]", "_", str(schema.get("title") or "output"))[:64]
    return {
        "type": "json_schema",
        "json_schema": {"name": name, "schema": schema, "strict": _is_strict(schema)},
    }


def _is_strict(schema: Any) -> bool:
    """Whether OpenAI would take the schema as strict: every object closed, every property required.

    https://platform.openai.com/docs/guides/structured-outputs#supported-schemas
    """
    if isinstance(schema, list):
        return all(_is_strict(item) for item in schema)
    if not isinstance(schema, dict):
        return True
    if schema.get("type") == "object" or "properties" in schema:
        names = set(schema.get("properties", {}))
        if schema.get("additionalProperties") is not False or set(schema.get("required", ())) != names:
            return False
    return all(_is_strict(value) for value in schema.values())


def build_messages(call: Call) -> list[JSON]:
    """Return the conversation as the API's messages."""
    messages: list[JSON] = []
    for message in call.conversation:
        messages.extend(_BUILDERS[message.role](call, message))
    return messages


def _plain(call: Call, message: Message) -> list[JSON]:
    for part in message.parts:
        if not isinstance(part, TextPart):
            raise cannot_stand(part, message.role)
    return [_named(message, {"role": message.role, "content": message.completion})]


def _user(call: Call, message: Message) -> list[JSON]:
    if len(message.parts) == 1 and isinstance(message.parts[0], TextPart):
        return [_named(message, {"role": "user", "content": message.parts[0].text})]
    content = []
    for part in message.parts:
        build = _CONTENT.get(type(part))
        if build is None:
            raise cannot_stand(part, "user")
        content.append(build(call, part))
    return [_named(message, {"role": "user", "content": content})]


def _assistant(call: Call, message: Message) -> list[JSON]:
    body: JSON = {"role": "assistant", "content": message.completion or None}
    if message.refusal:
        body["refusal"] = message.refusal
    calls = [_call_of(part) for part in message.parts if isinstance(part, ToolCallPart)]
    if calls:
        body["tool_calls"] = calls
    for part in message.parts:
        if isinstance(part, AudioPart) and part.media.file_id:
            body["audio"] = {"id": part.media.file_id}
        elif isinstance(part, ProviderDataPart) and part.kind == "reasoning_details":
            if part.provider == call.provider.opaque_owner:
                body["reasoning_details"] = part.data
    if body["content"] is None and len(body) == 2:  # noqa: PLR2004 - the API wants content where nothing else is
        body["content"] = ""
    if "reasoning_details" not in body:
        body |= reasoning_fields(call, message)
    return [_named(message, body)]


def _call_of(part: ToolCallPart) -> JSON:
    if part.custom:
        return {"id": part.id, "type": "custom", "custom": {"name": part.name, "input": part.arguments_text}}
    arguments = part.arguments_text or "{}"
    return {"id": part.id, "type": "function", "function": {"name": part.name, "arguments": arguments}}


def _tool_results(call: Call, message: Message) -> list[JSON]:
    results: list[JSON] = []
    for part in message.parts:
        if not isinstance(part, ToolResultPart):
            raise cannot_stand(part, "tool")
        if part.media:
            raise cannot_take(call, "media in a tool result", hint="Put it into a message of the user behind it.")
        results.append({"role": "tool", "tool_call_id": part.tool_call_id, "content": part.content})
    return results


def _named(message: Message, body: JSON) -> JSON:
    return body if message.name is None else {**body, "name": message.name}


def _text_content(call: Call, part: Any) -> JSON:
    return {"type": "text", "text": part.text}


def _image_content(call: Call, part: Any) -> JSON:
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
        raise InvalidPromptError("audio cannot be passed on by URL", hint="Pass the path or the bytes instead.")
    return {
        "type": "input_audio",
        "input_audio": {"data": media.base64(), "format": _AUDIO_FORMATS.get(media.media_type or "", "wav")},
    }


_CONTENT: dict[type, Callable[[Call, Any], JSON]] = {
    TextPart: _text_content,
    ImagePart: _image_content,
    FilePart: _file_content,
    AudioPart: _audio_content,
}

_BUILDERS: dict[str, Callable[[Call, Message], list[JSON]]] = {
    "system": _plain,
    "developer": _plain,
    "user": _user,
    "assistant": _assistant,
    "tool": _tool_results,
}
