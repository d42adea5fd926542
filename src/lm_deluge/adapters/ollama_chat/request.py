"""Requests of Ollama's own chat API.

https://docs.ollama.com/api/chat. `keep_alive`, and options that have no parameter here (`num_ctx`, say), go into
`extra_body`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from lm_deluge.adapters.adapter import Call
from lm_deluge.adapters.capabilities import cannot_stand, cannot_take, check_fit, check_tool_choice
from lm_deluge.adapters.openai_chat.request import tool_fields
from lm_deluge.adapters.tool_call_fragments import parse_arguments
from lm_deluge.config import SamplingParams
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import (
    AudioPart,
    FilePart,
    ImagePart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)

__all__ = ["build_body", "with_merged_options"]

JSON = dict[str, Any]

# `think` is a truth value, or one of three words for the models that know them (gpt-oss); others take these for true.
_THINK: dict[str, bool | str] = {
    "none": False,
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "high",
    "max": "high",
}


def build_body(call: Call) -> JSON:
    """Return the request's JSON. What was not asked for is not sent, but that the answer is to be streamed or not.

    Raises:
        UnsupportedParameterError: The model or the API cannot take a parameter or a part.
    """
    check_fit(call)
    params = call.params
    for name in ("parallel_tool_calls", "service_tier", "verbosity"):
        if getattr(params, name) is not None:
            raise cannot_take(call, name)
    fields: JSON = {
        "model": call.model.name,
        "messages": _messages(call),
        "stream": call.is_streamed,
        "tools": _tools(call),
        "format": call.output if call.output is not None else ("json" if params.json_mode else None),
        "options": _options(params) or None,
        "think": None if params.reasoning_effort is None else _THINK[params.reasoning_effort],
        "logprobs": True if params.logprobs or params.top_logprobs is not None else None,
        "top_logprobs": params.top_logprobs,
    }
    return {name: value for name, value in fields.items() if value is not None}


def with_merged_options(call: Call, body: JSON) -> Call:
    """Return the call with options in its `extra_body` added to those of the body: they are not to replace them."""
    more = call.extra_body.get("options")
    if not isinstance(more, Mapping) or "options" not in body:
        return call
    extra = {**call.extra_body, "options": {**body["options"], **more}}
    return msgspec.structs.replace(call, extra_body=extra)


def _options(params: SamplingParams) -> JSON:
    options: JSON = {
        "temperature": params.temperature,
        "top_p": params.top_p,
        "num_predict": params.max_new_tokens,
        "stop": list(params.stop) if params.stop else None,
        "seed": params.seed,
        "presence_penalty": params.presence_penalty,
        "frequency_penalty": params.frequency_penalty,
    }
    return {name: value for name, value in options.items() if value is not None}


def _tools(call: Call) -> list[JSON] | None:
    """Return the tools. The API has no choice of tools: none are offered where none is to be called."""
    choice = check_tool_choice(call)
    if choice not in (None, "auto", "none"):
        raise cannot_take(call, f"tool_choice={choice!r}")
    return tool_fields(call) if call.tools and choice != "none" else None


def _messages(call: Call) -> list[JSON]:
    names: dict[str, str] = {}
    messages: list[JSON] = []
    for message in call.conversation:
        if message.name is not None and message.role != "tool":
            raise cannot_take(call, "names of who speaks", hint="Say it in the text.")
        names |= {part.id: part.name for part in message.tool_calls}
        if message.role == "tool":
            messages += _tool_results(call, message, names)
        else:
            messages.append(_BUILDERS[message.role](call, message))
    return messages


def _system(call: Call, message: Message) -> JSON:
    for part in message.parts:
        if not isinstance(part, TextPart):
            raise cannot_stand(part, message.role)
    return {"role": "system", "content": message.completion}


def _user(call: Call, message: Message) -> JSON:
    for part in message.parts:
        if not isinstance(part, TextPart | ImagePart | FilePart | AudioPart):
            raise cannot_stand(part, "user")
    body: JSON = {"role": "user", "content": message.completion}
    return _with_images(call, body, [part for part in message.parts if not isinstance(part, TextPart)])


def _with_images(call: Call, body: JSON, media: list[Any]) -> JSON:
    """Return a message with its images, which stand beside the text: their place in it is lost."""
    images = []
    for part in media:
        if not isinstance(part, ImagePart):
            raise cannot_take(call, "files" if isinstance(part, FilePart) else "audio")
        if part.media.data is None:
            raise cannot_take(call, "images by URL", hint="Pass the path or the bytes instead.")
        images.append(part.media.base64())
    return {**body, "images": images} if images else body


def _assistant(call: Call, message: Message) -> JSON:
    body: JSON = {"role": "assistant", "content": message.completion}
    if message.thinking:
        body["thinking"] = message.thinking
    calls = [_call_fields(part) for part in message.parts if isinstance(part, ToolCallPart)]
    return {**body, "tool_calls": calls} if calls else body


def _call_fields(part: ToolCallPart) -> JSON:
    """Return a call. Its arguments must be an object: what is none becomes its field `input`."""
    arguments, _ = (None, None) if part.custom else parse_arguments(part.arguments_text)
    if not isinstance(arguments, dict):
        arguments = {"input": part.arguments_text}
    return {"id": part.id, "type": "function", "function": {"name": part.name, "arguments": arguments}}


def _tool_results(call: Call, message: Message, names: Mapping[str, str]) -> list[JSON]:
    results: list[JSON] = []
    for part in message.parts:
        if not isinstance(part, ToolResultPart):
            raise cannot_stand(part, "tool")
        result: JSON = {"role": "tool", "content": part.content, "tool_call_id": part.tool_call_id}
        name = message.name or names.get(part.tool_call_id)
        if name is not None:
            result["tool_name"] = name
        results.append(_with_images(call, result, list(part.media)))
    return results


_BUILDERS: dict[str, Callable[[Call, Message], JSON]] = {
    "system": _system,
    "developer": _system,  # OpenAI's newer word for the same
    "user": _user,
    "assistant": _assistant,
}
