"""Build request bodies of Ollama's native chat API.

https://docs.ollama.com/api/chat. Fields without a parameter here, such as `keep_alive` and the option `num_ctx`, go
into `extra_body`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from lm_deluge.adapters.adapter import Call
from lm_deluge.adapters.capabilities import (
    cannot_place,
    cannot_take,
    check_capabilities,
    check_tool_choice,
    result_text,
)
from lm_deluge.adapters.openai_chat.request import tool_fields
from lm_deluge.adapters.text_files import with_inline_files
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

# `think` is a boolean or, for gpt-oss, one of three levels. Other models treat a level as true.
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
    """Return the JSON body for `call`. Parameters that the call does not set are omitted; `stream` is always sent.

    Raises:
        UnsupportedParameterError: The model or the API does not support a parameter or a part.
    """
    call = with_inline_files(call)
    check_capabilities(call)
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
    """Return the call with the body's options merged into the `options` of `extra_body`, which would replace them."""
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
    """Return the tools, or None. The API has no `tool_choice`; for "none" the tools are omitted."""
    choice = check_tool_choice(call)
    if choice not in (None, "auto", "none"):
        raise cannot_take(call, f"tool_choice={choice!r}")
    return tool_fields(call, may_be_optional=True) if call.tools and choice != "none" else None


def _messages(call: Call) -> list[JSON]:
    names: dict[str, str] = {}
    messages: list[JSON] = []
    for message in call.conversation:
        if message.name is not None and message.role != "tool":
            raise cannot_take(call, "name of a message", hint="Put the name into the text.")
        names |= {part.id: part.name for part in message.tool_calls}
        if message.role == "tool":
            messages += _tool_results(call, message, names)
        else:
            messages.append(_BUILDERS[message.role](call, message))
    return messages


def _system(call: Call, message: Message) -> JSON:
    for part in message.parts:
        if not isinstance(part, TextPart):
            raise cannot_place(part, message.role)
    return {"role": "system", "content": message.completion}


def _user(call: Call, message: Message) -> JSON:
    for part in message.parts:
        if not isinstance(part, TextPart | ImagePart | FilePart | AudioPart):
            raise cannot_place(part, "user")
    body: JSON = {"role": "user", "content": message.completion}
    return _with_images(call, body, [part for part in message.parts if not isinstance(part, TextPart)])


def _with_images(call: Call, body: JSON, media: list[Any]) -> JSON:
    """Return a message with its images in a separate field; the API has no position of an image within the text."""
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
    """Return a tool call. The API accepts only an object as arguments; other values become its field `input`."""
    arguments, _ = (None, None) if part.custom else parse_arguments(part.arguments_text)
    if not isinstance(arguments, dict):
        arguments = {"input": part.arguments_text}
    return {"id": part.id, "type": "function", "function": {"name": part.name, "arguments": arguments}}


def _tool_results(call: Call, message: Message, names: Mapping[str, str]) -> list[JSON]:
    results: list[JSON] = []
    for part in message.parts:
        if not isinstance(part, ToolResultPart):
            raise cannot_place(part, "tool")
        result: JSON = {"role": "tool", "content": result_text(part), "tool_call_id": part.tool_call_id}
        name = message.name or names.get(part.tool_call_id)
        if name is not None:
            result["tool_name"] = name
        results.append(_with_images(call, result, list(part.media)))
    return results


_BUILDERS: dict[str, Callable[[Call, Message], JSON]] = {
    "system": _system,
    "developer": _system,  # OpenAI's newer name for the same role
    "user": _user,
    "assistant": _assistant,
}
