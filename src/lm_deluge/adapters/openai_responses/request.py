"""Build request bodies of the Responses API.

https://platform.openai.com/docs/api-reference/responses/create

Requests are stateless: each contains the whole conversation, `store` is false, and reasoning is returned encrypted and
sent back (https://platform.openai.com/docs/guides/reasoning#encrypted-reasoning-items). Only background mode needs
`store` (https://platform.openai.com/docs/guides/background#limits).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from lm_deluge.adapters.adapter import Call
from lm_deluge.adapters.capabilities import (
    cannot_place,
    cannot_take,
    check_capabilities,
    check_tool_choice,
    parts_in_pairs,
    result_text,
)
from lm_deluge.adapters.openai_chat.json_schema import is_strict, strict_tool_schema
from lm_deluge.adapters.openai_chat.routing import ABSENT_PARAMETERS, chat_only, find_need
from lm_deluge.adapters.openai_responses.items import ECHOED
from lm_deluge.adapters.text_files import with_inline_files
from lm_deluge.prompt.media import Media
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import (
    AudioPart,
    FilePart,
    ImagePart,
    ProviderDataPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from lm_deluge.prompt.tool import ProviderTool, Tool

__all__ = ["build_input", "build_responses_body", "wanted_extras"]

JSON = dict[str, Any]

# Suffixes of text files that the API accepts by the file's name; other text is sent as text of the message. Tables are
# among the latter, because the API shows the model only a summary of them and the first 1,000 rows.
# https://developers.openai.com/api/docs/guides/file-inputs (2026-11)
_TEXT_SUFFIXES = frozenset({"txt", "md", "json", "html", "xml", "py", "js", "css", "c", "cpp", "java", "sql", "sh"})

# Kinds of opaque data with additional fields of a message or a call; they are merged into the item before the data.
_MERGED = ("message", "function_call", "custom_tool_call")


def build_responses_body(call: Call) -> JSON:
    """Return the JSON body for `call`. Parameters that the call does not set are omitted.

    Raises:
        UnsupportedParameterError: The model or the API does not support a parameter or a part.
        InvalidPromptError: A tool call has no result.
    """
    call = with_inline_files(call, lambda media: call.model.capabilities.file_input and _is_known_text(media))
    # Items of an earlier response that the provider stored are not in the conversation.
    is_stored = any(call.extra_body.get(name) for name in ("previous_response_id", "conversation"))
    check_capabilities(call, takes_background=True, pairs=None if is_stored else "later")
    _check_absent(call)
    body: JSON = {"model": call.model.name, "input": build_input(call), "store": call.background}
    if call.is_streamed:
        body["stream"] = True
    if call.background:
        body["background"] = True
    body |= _sampling(call)
    if call.tools:
        body["tools"] = [_own_tool(tool) if isinstance(tool, ProviderTool) else _tool(tool) for tool in call.tools]
    choice = _tool_choice(call)
    if choice is not None:
        body["tool_choice"] = choice
    text = _text_config(call)
    if text:
        body["text"] = text
    return body


def _check_absent(call: Call) -> None:
    """Check that the call has nothing that the API lacks.

    Raises:
        UnsupportedParameterError: It has; for a call that Chat Completions would take otherwise, the hint has both.
    """
    need = find_need(call) if call.provider.has_responses else None
    found = None if need is None else chat_only(call)
    if need is not None and found is not None:
        hint = f"The Responses API lacks it, and {need.what} needs that API: leave one of the two out."
        raise cannot_take(call, found, hint=hint)
    for name in ABSENT_PARAMETERS:
        if getattr(call.params, name) is not None:
            raise cannot_take(call, name)


def _sampling(call: Call) -> JSON:
    params = call.params
    fields: JSON = {
        "temperature": params.temperature,
        "top_p": params.top_p,
        "max_output_tokens": params.max_new_tokens,
        "top_logprobs": params.top_logprobs,
        "parallel_tool_calls": params.parallel_tool_calls,
        "service_tier": params.service_tier,
        "include": wanted_extras(call) or None,
        "reasoning": _reasoning(call),
    }
    return {name: value for name, value in fields.items() if value is not None}


def _is_reasoning(call: Call) -> bool:
    """Whether the model is known to reason. Other models reject a request for encrypted reasoning (gpt-4o, 2026-11)."""
    effort = call.params.reasoning_effort
    return bool(call.model.capabilities.reasoning) or effort not in (None, "none")


def wanted_extras(call: Call) -> list[str]:
    """Return the values of `include`: optional fields of the response that the library uses."""
    wanted = ["reasoning.encrypted_content"] if _is_reasoning(call) else []
    if call.params.logprobs or call.params.top_logprobs is not None:
        wanted.append("message.output_text.logprobs")
    return wanted


def _reasoning(call: Call) -> JSON | None:
    effort = call.params.reasoning_effort
    fields: JSON = {} if effort is None else {"effort": effort}
    if _is_reasoning(call):
        fields["summary"] = "auto"  # by default the API returns no readable reasoning
    return fields or None


def _text_config(call: Call) -> JSON:
    config: JSON = {}
    if call.output is not None:
        title = re.sub(r"[^A-Za-z0-9_-]", "_", str(call.output.get("title") or "output"))[:64]
        strict = is_strict(call.output)
        config["format"] = {"type": "json_schema", "name": title, "schema": call.output, "strict": strict}
    elif call.params.json_mode:
        config["format"] = {"type": "json_object"}
    if call.params.verbosity is not None:
        config["verbosity"] = call.params.verbosity
    return config


def _tool(tool: Tool) -> JSON:
    """Return a function tool. `strict` is always sent: the API's default is true, which rejects many schemas."""
    schema, strict = strict_tool_schema(tool)
    function: JSON = {"type": "function", "name": tool.name, "parameters": schema, "strict": bool(strict)}
    if tool.description:
        function["description"] = tool.description
    return function


def _own_tool(tool: ProviderTool) -> JSON:
    """Return a tool in the provider's JSON; a custom tool in the form of Chat Completions is converted."""
    inner = tool.data.get("custom") if tool.data.get("type") == "custom" else None
    if not isinstance(inner, dict):
        return tool.data
    form = inner.get("format")
    if isinstance(form, dict) and isinstance(form.get("grammar"), dict):
        inner = {**inner, "format": {"type": "grammar", **form["grammar"]}}
    return {"type": "custom", **inner}


def _tool_choice(call: Call) -> str | JSON | None:
    choice = check_tool_choice(call)
    if choice in (None, "auto", "none", "required"):
        return choice
    tool = next(tool for tool in call.tools if tool.name == choice)
    if isinstance(tool, Tool) or tool.data.get("type") == "function":
        return {"type": "function", "name": choice}
    data = tool.data
    kind = data.get("type")
    if kind == "mcp":
        return {"type": "mcp", "server_label": data.get("server_label")}
    return {"type": kind, "name": choice} if kind == "custom" else {"type": kind}


# --- the conversation ---


def build_input(call: Call) -> list[JSON]:
    """Return the conversation as input items.

    System messages stay in their position. The field `instructions` could contain only the first system message, and
    some hosts do not have the field (xAI, 2026-11).
    """
    results = _results_of(call)
    items: list[JSON] = []
    for message in call.conversation:
        if message.name is not None:
            raise cannot_take(call, "name of a message")
        if message.role == "assistant":
            items += _assistant(call, message)
        elif message.role == "tool":
            items += _tool_results(call, message, results)
        else:
            items += _input_message(call, message)
    return items


def _results_of(call: Call) -> dict[str, JSON]:
    """Return the additional fields of each tool result, by the id of its call.

    The result of a custom tool has its own type, and the result of a call made by a program names the program as
    `caller` (https://platform.openai.com/docs/guides/tools, programmatic tool calling).
    """
    found: dict[str, JSON] = {}
    for message in call.conversation:
        for part, after in parts_in_pairs(message):
            if not isinstance(part, ToolCallPart):
                continue
            fields: JSON = {"type": "custom_tool_call_output"} if part.custom else {}
            if isinstance(after, ProviderDataPart) and after.provider == call.provider.opaque_owner:
                caller = after.data.get("caller") if isinstance(after.data, dict) else None
                fields |= {"caller": caller} if after.kind in _MERGED and caller else {}
            found[part.id] = fields
    return found


def _input_message(call: Call, message: Message) -> Iterator[JSON]:
    """Yield the items of a user, system or developer message; opaque data of this provider is an item already."""
    parts = message.parts
    if len(parts) == 1 and isinstance(parts[0], TextPart):
        yield {"role": message.role, "content": parts[0].text}
        return
    content: list[JSON] = []
    for part in parts:
        if isinstance(part, ProviderDataPart) and part.provider == call.provider.opaque_owner:
            yield part.data
            continue
        build = _CONTENT.get(type(part))
        if build is None or (message.role != "user" and not isinstance(part, TextPart)):
            raise cannot_place(part, message.role)
        content.append(build(call, part))
    if content or not parts:
        yield {"role": message.role, "content": content}


def _tool_results(call: Call, message: Message, results: dict[str, JSON]) -> Iterator[JSON]:
    for part in message.parts:
        if isinstance(part, ProviderDataPart) and part.provider == call.provider.opaque_owner:
            yield part.data  # the output of a computer or shell call, or an approval
            continue
        if not isinstance(part, ToolResultPart):
            raise cannot_place(part, "tool")
        output: str | list[JSON] = result_text(part)
        if part.media:
            text = [{"type": "input_text", "text": output}] if output else []
            output = [*text, *(_CONTENT[type(each)](call, each) for each in part.media)]
        result = {"type": "function_call_output", "call_id": part.tool_call_id, "output": output}
        yield {**result, **results.get(part.tool_call_id, {})}


def _assistant(call: Call, message: Message) -> list[JSON]:
    """Return the items of an assistant message, including the opaque items of this provider, in order."""
    items: list[JSON] = []
    pieces: list[JSON] | None = None  # content of the message item that the next text part extends
    for part in message.parts:
        if isinstance(part, TextPart | RefusalPart):
            if pieces is None:
                pieces = []
                items.append({"role": "assistant", "content": pieces})
            pieces.append(_output_piece(part))
        elif isinstance(part, ToolCallPart):
            pieces = None
            items.append(_call_of(part))
        elif isinstance(part, ProviderDataPart):
            if part.provider == call.provider.opaque_owner and part.kind in ECHOED:
                pieces = None
                _echo(part, items, is_stored=call.background or call.extra_body.get("store") is True)
        # Reasoning and generated media need no item here: the opaque data after the part contains them.
    return [_simplified(item) for item in items]


def _output_piece(part: TextPart | RefusalPart) -> JSON:
    if isinstance(part, RefusalPart):
        return {"type": "refusal", "refusal": part.text}
    return {"type": "output_text", "text": part.text}


def _simplified(item: JSON) -> JSON:
    """Return a message of a single text in the short form, a plain string, which all hosts accept."""
    content = item.get("content")
    if item.get("role") == "assistant" and isinstance(content, list) and "id" not in item and len(content) == 1:
        piece = content[0]
        if isinstance(piece, dict) and piece.get("type") == "output_text":
            return {**item, "content": piece.get("text")}
    return item


def _echo(part: ProviderDataPart, items: list[JSON], *, is_stored: bool) -> None:
    data = part.data
    if not isinstance(data, dict):
        return
    if part.kind in _MERGED:
        last = items[-1] if items else {}
        if last.get("type", "message") == part.kind:
            items[-1] = {**data, **last}
    elif part.kind != "reasoning" or is_stored or data.get("encrypted_content") or data.get("content"):
        # Reasoning with only an id is left out: the provider did not store it, so it rejects the id.
        items.append(data)


def _call_of(part: ToolCallPart) -> JSON:
    if part.custom:
        return {"type": "custom_tool_call", "call_id": part.id, "name": part.name, "input": part.arguments_text}
    arguments = part.arguments_text or "{}"
    return {"type": "function_call", "call_id": part.id, "name": part.name, "arguments": arguments}


def _text(call: Call, part: Any) -> JSON:
    return {"type": "input_text", "text": part.text}


def _image(call: Call, part: Any) -> JSON:
    media = part.media
    image: JSON = {"type": "input_image", "detail": part.detail or "auto"}
    if media.file_id is not None:
        return {**image, "file_id": media.file_id}
    return {**image, "image_url": media.url or media.data_url()}


def _file(call: Call, part: Any) -> JSON:
    media = part.media
    if media.file_id is not None:
        return {"type": "input_file", "file_id": media.file_id}
    if media.url is not None:
        return {"type": "input_file", "file_url": media.url}
    filename = media.filename or ("document.txt" if media.text is not None else "document.pdf")
    return {"type": "input_file", "filename": filename, "file_data": media.data_url()}


def _is_known_text(media: Media) -> bool:
    return media.filename is None or media.filename.rpartition(".")[2].lower() in _TEXT_SUFFIXES


def _audio(call: Call, part: Any) -> JSON:
    raise cannot_take(call, "audio", hint="Use a model with audio input through Chat Completions.")


_CONTENT: dict[type, Callable[[Call, Any], JSON]] = {
    TextPart: _text,
    ImagePart: _image,
    FilePart: _file,
    AudioPart: _audio,
}
