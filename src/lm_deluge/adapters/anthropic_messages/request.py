"""The request body of Anthropic's Messages, for whoever serves them. Functions, no class.

https://platform.claude.com/docs/en/api/messages

The API has one place for what the system says: such messages are joined there, in order, wherever they stand. All other
messages of the same side are one message: so results of parallel calls come back together, as the API wants it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from lm_deluge.adapters.adapter import Call
from lm_deluge.adapters.anthropic_messages.cache_control import mark
from lm_deluge.adapters.capabilities import cannot_place, cannot_take, check_capabilities, check_tool_choice
from lm_deluge.errors import UnsupportedParameterError
from lm_deluge.prompt.media import Media
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import (
    AudioPart,
    FilePart,
    ImagePart,
    Part,
    ProviderDataPart,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from lm_deluge.prompt.tool import ProviderTool, Tool

__all__ = ["ECHOES", "SENDS", "build_messages_body", "build_thinking"]

JSON = dict[str, Any]

SENDS: frozenset[type[Part]] = frozenset({TextPart, RefusalPart, ToolCallPart})
"""What of the model's own messages is sent back; thoughts go with their signatures."""

ECHOES: frozenset[str] = frozenset({"signature", "citations", "tool_use", "block", "container"})
"""The kinds of opaque data; `anthropic_stream` says what they are."""

# The API wants a limit. This one is what every model takes since Claude 3.7; the rows of older ones say less.
# https://platform.claude.com/docs/en/about-claude/models/overview
_MAX_TOKENS = 32_000

# Models that are told how long to think, not how hard. The least is the API's; the rest is ours, as Anthropic has no
# table: each step about doubles. https://platform.claude.com/docs/en/build-with-claude/extended-thinking
_LEAST_BUDGET = 1_024
_BUDGETS = {
    "minimal": _LEAST_BUDGET,
    "low": 2_048,
    "medium": 8_192,
    "high": 16_384,
    "xhigh": 32_768,
    "max": 63_999,
}
_THINKING_SHARE = 0.8  # of the limit: the answer needs the rest

_NOT_TAKEN = ("seed", "presence_penalty", "frequency_penalty", "logprobs", "top_logprobs", "verbosity")


def build_messages_body(call: Call, *, version: str = "", says_stream: bool = True) -> JSON:
    """Return the request's JSON. What was not asked for is not sent.

    Args:
        call: What is asked.
        version: What goes into `anthropic_version`, where the model's name is in the URL and not in the body.
        says_stream: Whether the body says that the answer is to be streamed, or something else does.

    Raises:
        UnsupportedParameterError: The model or the API cannot take a parameter or a part.
    """
    check_capabilities(call)
    choice = check_tool_choice(call)
    _check_parameters(call)
    body: JSON = {"anthropic_version": version} if version else {"model": call.model.name}
    body["max_tokens"] = _max_tokens(call)
    if call.is_streamed and says_stream:
        body["stream"] = True
    system = _system(call)
    if system:
        body["system"] = system
    body["messages"] = _messages(call)
    if call.tools:
        body["tools"] = [dict(tool.data) if isinstance(tool, ProviderTool) else _tool(tool) for tool in call.tools]
    body |= _tool_choice(call, choice) | _sampling(call) | build_thinking(call, body["max_tokens"])
    if call.output is not None:
        form = {"type": "json_schema", "schema": _closed(call.output)}
        body["output_config"] = {**body.get("output_config", {}), "format": form}
    container = _container(call)
    if container is not None:
        body["container"] = container
    if call.cache is not None:
        mark(body, call.cache)
    return body


def _check_parameters(call: Call) -> None:
    params = call.params
    for name in _NOT_TAKEN:
        value = getattr(params, name)
        if value is not None and value is not False:
            raise cannot_take(call, name)
    if params.json_mode:
        raise cannot_take(call, "json_mode", hint="Pass a JSON schema as `output`.")
    if params.temperature is not None and params.temperature > 1:
        raise cannot_take(call, "temperature above 1", hint="Choose one from 0 to 1.")


def _max_tokens(call: Call) -> int:
    return call.params.max_new_tokens or call.model.max_output_tokens or _MAX_TOKENS


def _sampling(call: Call) -> JSON:
    params = call.params
    fields = {
        "temperature": params.temperature,
        "top_p": params.top_p,
        "stop_sequences": list(params.stop) if params.stop else None,
        "service_tier": params.service_tier,
    }
    return {name: value for name, value in fields.items() if value is not None}


def build_thinking(call: Call, max_tokens: int) -> JSON:
    """Return how hard to think: an effort, or for older models a number of tokens.

    https://platform.claude.com/docs/en/build-with-claude/effort, https://platform.claude.com/docs/en/build-with-claude/adaptive-thinking
    """
    effort = call.params.reasoning_effort
    if effort is None:
        return {}
    if effort == "none":
        return {"thinking": {"type": "disabled"}}
    if not call.model.capabilities.reasoning_budget:
        word = "low" if effort == "minimal" else effort
        return {"thinking": {"type": "adaptive"}, "output_config": {"effort": word}}
    budget = min(_BUDGETS[effort], max(_LEAST_BUDGET, int(max_tokens * _THINKING_SHARE)))
    if budget >= max_tokens:
        raise UnsupportedParameterError(
            f"{call.model.id} thinks with {_LEAST_BUDGET} tokens or more, and max_new_tokens is {max_tokens}",
            parameter="reasoning_effort",
            hint="Raise max_new_tokens, or ask for no reasoning.",
        )
    return {"thinking": {"type": "enabled", "budget_tokens": budget}}


def _tool(tool: Tool) -> JSON:
    fields: JSON = {"name": tool.name}
    if tool.description:
        fields["description"] = tool.description
    fields["input_schema"] = {"type": "object", **(tool.parameters or {"properties": {}})}
    if tool.strict is not None:
        fields["strict"] = tool.strict
    return fields


_CHOICES = {None: "auto", "auto": "auto", "none": "none", "required": "any"}


def _tool_choice(call: Call, choice: str | None) -> JSON:
    is_single = bool(call.tools) and call.params.parallel_tool_calls is False and choice != "none"
    if choice is None and not is_single:
        return {}
    fields: JSON = {"type": _CHOICES[choice]} if choice in _CHOICES else {"type": "tool", "name": choice}
    if is_single:
        fields["disable_parallel_tool_use"] = True
    return {"tool_choice": fields}


def _closed(schema: Any) -> Any:
    """Return the schema with objects closed that do not say what else they hold: the API takes closed ones only.

    https://platform.claude.com/docs/en/build-with-claude/structured-outputs#json-schema-limitations
    """
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: value if name in _PLAIN else _closed(value) for name, value in schema.items()}
    if schema.get("type") == "object" and "additionalProperties" not in schema:
        closed["additionalProperties"] = False
    return closed


_PLAIN = {"enum", "const", "default", "examples"}  # values, not schemas


def _container(call: Call) -> str | None:
    """Return where code of the last answer runs, if that answer goes on: a new question has a place of its own."""
    for message in reversed(call.conversation.messages):
        if message.role == "assistant":
            found = [data for part in message.parts if (data := _echo(call, part, "container")) is not None]
            return found[-1].get("id") if found and isinstance(found[-1], dict) else None
        if message.role == "user":
            return None
    return None


def _echo(call: Call, part: Part, kind: str) -> Any:
    """Return the data of a part of that kind that came from whom it would go to, or None."""
    if isinstance(part, ProviderDataPart) and (part.provider, part.kind) == (call.provider.opaque_owner, kind):
        return part.data
    return None


def _system(call: Call) -> str | list[JSON]:
    blocks: list[JSON] = []
    for message in call.conversation:
        if message.role in ("system", "developer"):
            for part in message.parts:
                if not isinstance(part, TextPart):
                    raise cannot_place(part, message.role)
                blocks += _text(call, part)
    return _plain(blocks)


def _plain(blocks: list[JSON]) -> str | list[JSON]:
    """Return the text where it is all there is."""
    is_text = len(blocks) == 1 and blocks[0].keys() == {"type", "text"}
    return str(blocks[0]["text"]) if is_text else blocks


def _messages(call: Call) -> list[JSON]:
    sides: list[tuple[str, list[JSON]]] = []
    for message in call.conversation:
        if message.role in ("system", "developer"):
            continue
        is_own = message.role == "assistant"
        if message.name is not None and not is_own:
            raise cannot_take(call, "name of a message")
        role = "assistant" if is_own else "user"
        blocks = _assistant(call, message) if is_own else _said(call, message)
        if sides and sides[-1][0] == role:
            sides[-1][1].extend(blocks)
        elif blocks:
            sides.append((role, blocks))
    if sides and sides[-1][0] == "assistant" and sides[-1][1][-1].get("type") == "text":
        # Words in the model's mouth must not end with a blank; the API refuses them.
        last = sides[-1][1][-1]
        sides[-1][1][-1] = {**last, "text": last["text"].rstrip()}
    return [{"role": role, "content": _plain(blocks)} for role, blocks in sides]


def _said(call: Call, message: Message) -> list[JSON]:
    blocks: list[JSON] = []
    for part in message.parts:
        build = _CONTENT.get(type(part))
        if build is None or isinstance(part, ToolResultPart) != (message.role == "tool"):
            raise cannot_place(part, message.role)
        blocks += build(call, part)
    return blocks


def _assistant(call: Call, message: Message) -> list[JSON]:
    blocks: list[JSON] = []
    thought = ""
    for part in message.parts:
        if isinstance(part, ProviderDataPart):
            echo = _ECHO.get(part.kind)
            if echo is not None and _echo(call, part, part.kind) is not None:
                echo(blocks, part.data, thought)
        elif type(part) in _OWN:
            blocks += _OWN[type(part)](call, part)
        thought = part.text if isinstance(part, ReasoningPart) else ""
    return blocks


def _text(call: Call, part: Any) -> list[JSON]:
    # Blank text is refused: "text content blocks must contain non-whitespace text".
    return [{"type": "text", "text": part.text}] if part.text.strip() else []


def _image(call: Call, part: Any) -> list[JSON]:
    if part.detail not in (None, "auto"):
        raise cannot_take(call, "detail of an image")
    return [{"type": "image", "source": _source(part.media)}]


def _source(media: Media) -> JSON:
    if media.file_id is not None:
        return {"type": "file", "file_id": media.file_id}
    if media.url is not None:
        return {"type": "url", "url": media.url}
    return {"type": "base64", "media_type": media.media_type, "data": media.base64()}


def _file(call: Call, part: Any) -> list[JSON]:
    media = part.media
    source = _source(media)
    if source["type"] == "base64" and media.media_type != "application/pdf":
        source = {"type": "text", "media_type": "text/plain", "data": _plain_text(call, media)}
    block: JSON = {"type": "document", "source": source}
    if media.filename:
        block["title"] = media.filename
    return [block]


def _plain_text(call: Call, media: Media) -> str:
    if str(media.media_type).startswith("text/") or media.media_type == "application/json":
        try:
            return (media.data or b"").decode()
        except UnicodeDecodeError:
            pass
    hint = "It takes PDF, and text in UTF-8; others go to its Files API and are named by their id."
    raise cannot_take(call, f"file of type {media.media_type}", hint=hint)


def _audio(call: Call, part: Any) -> list[JSON]:
    raise cannot_take(call, "audio")


def _result(call: Call, part: Any) -> list[JSON]:
    content: str | list[JSON] = part.content
    if part.media:
        content = [
            block for each in (TextPart(part.content), *part.media) for block in _CONTENT[type(each)](call, each)
        ]
    block: JSON = {"type": "tool_result", "tool_use_id": _call_id(part.tool_call_id), "content": content}
    return [{**block, "is_error": True}] if part.is_error else [block]


def _given(call: Call, part: Any) -> list[JSON]:
    """Return a block in Anthropic's own words: a search result, a file for a container, a document with options."""
    block = _echo(call, part, "block")
    if block is None:
        raise cannot_place(part, "user")
    return [block]


_CONTENT: dict[type, Callable[[Call, Any], list[JSON]]] = {
    TextPart: _text,
    ImagePart: _image,
    FilePart: _file,
    AudioPart: _audio,
    ToolResultPart: _result,
    ProviderDataPart: _given,
}


def _call_of(call: Call, part: Any) -> list[JSON]:
    arguments = part.arguments
    if part.custom:
        arguments = {"input": part.arguments_text}
    elif not isinstance(arguments, dict):
        # Objects only. What is none is kept under the name that Anthropic proposes for it.
        # https://platform.claude.com/docs/en/agents-and-tools/tool-use/fine-grained-tool-streaming
        arguments = {"INVALID_JSON": part.arguments_text}
    return [{"type": "tool_use", "id": _call_id(part.id), "name": part.name, "input": arguments}]


def _call_id(call_id: str) -> str:
    """Return an id that the API takes; other providers put other characters into theirs."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", call_id)


_OWN: dict[type, Callable[[Call, Any], list[JSON]]] = {TextPart: _text, RefusalPart: _text, ToolCallPart: _call_of}


def _sign(blocks: list[JSON], signature: Any, thought: str) -> None:
    blocks.append({"type": "thinking", "thinking": thought, "signature": signature})


def _cite(blocks: list[JSON], citations: Any, thought: str) -> None:
    if citations and blocks and blocks[-1].get("type") == "text":
        blocks[-1]["citations"] = citations


def _add_fields(blocks: list[JSON], fields: Any, thought: str) -> None:
    if blocks and blocks[-1].get("type") == "tool_use":
        blocks[-1] |= fields


def _add_block(blocks: list[JSON], block: Any, thought: str) -> None:
    blocks.append(block)


_ECHO: dict[str, Callable[[list[JSON], Any, str], None]] = {
    "signature": _sign,
    "citations": _cite,
    "tool_use": _add_fields,
    "block": _add_block,
}
