"""Build the request body of Anthropic's Messages, for every provider of the API.

https://platform.claude.com/docs/en/api/messages

The API has one `system` field: all system and developer messages are joined there, in order. Consecutive messages of
the same role are merged into one, because the API wants the results of parallel tool calls in one message.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from lm_deluge.adapters.adapter import Call
from lm_deluge.adapters.anthropic_messages.cache_control import add_cache_marks
from lm_deluge.adapters.capabilities import cannot_place, cannot_take, check_capabilities, check_tool_choice
from lm_deluge.adapters.openai_chat.json_schema import close_objects, tool_schema
from lm_deluge.adapters.text_files import takes_documents, with_inline_files
from lm_deluge.config import ReasoningEffort
from lm_deluge.errors import InvalidPromptError, UnsupportedParameterError
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
from lm_deluge.schemas.validity import is_recursive

__all__ = [
    "ECHOES",
    "SENDS",
    "build_messages_body",
    "build_system",
    "build_thinking",
    "build_turns",
    "effort_of_budget",
]

JSON = dict[str, Any]

SENDS: frozenset[type[Part]] = frozenset({TextPart, RefusalPart, ToolCallPart})
"""The parts of assistant messages that are sent back. Reasoning is sent only together with its signature."""

ECHOES: frozenset[str] = frozenset({"signature", "citations", "tool_use", "block", "container"})
"""The kinds of opaque data that are sent back; the docstring of `stream.py` describes them."""

# `max_tokens` is required. Every model since Claude 3.7 accepts this value; the rows of older models have lower limits.
# https://platform.claude.com/docs/en/about-claude/models/overview
_MAX_TOKENS = 32_000

# Thinking budgets in tokens, for models that take a budget and no effort. The minimum is the API's. Anthropic publishes
# no table of efforts, so the others are our choice: each step about doubles, up to a limit of 64,000 output tokens.
# https://platform.claude.com/docs/en/build-with-claude/extended-thinking
_LEAST_BUDGET = 1_024
_BUDGETS: dict[ReasoningEffort, int] = {
    "minimal": _LEAST_BUDGET,
    "low": 2_048,
    "medium": 8_192,
    "high": 16_384,
    "xhigh": 32_768,
    "max": 63_999,
}
_LEAST_TOP_P = 0.95  # while thinking: .../build-with-claude/extended-thinking#feature-compatibility (2026-11)

# Since Claude 4.7 the default of `display` is `omitted`: no thinking text arrives at all. Claude 5 and later think by
# default, so the field is sent without an effort, too; the value `adaptive` is their default.
# https://platform.claude.com/docs/en/models/sonnet-5-5/migration-guide (2026-11)
_ADAPTIVE = {"type": "adaptive", "display": "summarized"}
_GENERATION = re.compile(r"claude-[a-z]+-(\d{1,2})(?!\d)")
_FIRST_THINKING_BY_DEFAULT = 5  # .../models/sonnet-5/migration-guide: "adaptive thinking is on by default"
_THINKING_SHARE = 0.8  # of max_tokens at most: the visible answer needs the rest

_UNSUPPORTED = ("seed", "presence_penalty", "frequency_penalty", "logprobs", "top_logprobs", "verbosity")


def build_messages_body(call: Call, *, version: str = "", includes_stream: bool = True) -> JSON:
    """Return the request's JSON. Parameters that the caller did not set are not sent.

    Args:
        call: The call to send.
        version: Value of `anthropic_version`, for providers that have the model's name in the URL and not in the body.
        includes_stream: Whether a streamed call has `"stream": true` in its body; False if the URL selects streaming.

    Raises:
        UnsupportedParameterError: The model or the API cannot take a parameter or a part.
        InvalidPromptError: A tool call has no result.
    """
    call = with_inline_files(call, takes_documents(call))
    check_capabilities(call, pairs="next_turn")
    choice = check_tool_choice(call)
    _check_parameters(call)
    body: JSON = {"anthropic_version": version} if version else {"model": call.model.name}
    body["max_tokens"] = _max_tokens(call)
    if call.is_streamed and includes_stream:
        body["stream"] = True
    system = build_system(call)
    if system:
        body["system"] = system
    body["messages"] = build_turns(call)
    if call.tools:
        body["tools"] = [dict(tool.data) if isinstance(tool, ProviderTool) else _tool(tool) for tool in call.tools]
    body |= _tool_choice(call, choice) | _sampling(call) | build_thinking(call, body["max_tokens"])
    if call.output is not None:
        form = {"type": "json_schema", "schema": close_objects(call.output)}
        body["output_config"] = {**body.get("output_config", {}), "format": form}
    container = _container(call)
    if container is not None:
        body["container"] = container
    if call.cache is not None:
        add_cache_marks(body, call.cache)
    return body


def _check_parameters(call: Call) -> None:
    params = call.params
    for name in _UNSUPPORTED:
        value = getattr(params, name)
        if value is not None and value is not False:
            raise cannot_take(call, name)
    if params.json_mode:
        raise cannot_take(call, "json_mode", hint="Pass a JSON schema as `output`.")
    if params.temperature is not None and params.temperature > 1:
        raise cannot_take(call, "temperature above 1", hint="Set a temperature from 0 to 1.")


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
    """Return the fields for `reasoning_effort`: an effort, or for older models a budget in tokens.

    https://platform.claude.com/docs/en/build-with-claude/effort, https://platform.claude.com/docs/en/build-with-claude/adaptive-thinking

    Raises:
        UnsupportedParameterError: A parameter of the call cannot be combined with thinking.
    """
    effort = call.params.reasoning_effort
    if effort is None:
        # A forced tool call excludes thinking, so its request must not ask for thinking.
        is_forced = check_tool_choice(call) not in (None, "auto", "none")
        return {"thinking": dict(_ADAPTIVE)} if _thinks_by_default(call) and not is_forced else {}
    if effort == "none":
        return {"thinking": {"type": call.model.capabilities.thinking_off}}
    _check_thinking(call)
    if not call.model.capabilities.reasoning_budget:
        word = "low" if effort == "minimal" else effort
        return {"thinking": dict(_ADAPTIVE), "output_config": {"effort": word}}
    budget = min(_BUDGETS[effort], max(_LEAST_BUDGET, int(max_tokens * _THINKING_SHARE)))
    if budget >= max_tokens:
        raise UnsupportedParameterError(
            f"{call.model.id} needs {_LEAST_BUDGET} thinking tokens or more, but max_new_tokens is {max_tokens}",
            parameter="reasoning_effort",
            hint="Raise max_new_tokens, or set reasoning_effort to 'none'.",
        )
    return {"thinking": {"type": "enabled", "budget_tokens": budget}}


def effort_of_budget(tokens: int) -> ReasoningEffort:
    """Return the largest reasoning effort whose thinking budget is within `tokens`."""
    fitting: list[ReasoningEffort] = [effort for effort, budget in _BUDGETS.items() if budget <= tokens]
    return fitting[-1] if fitting else "minimal"


def _thinks_by_default(call: Call) -> bool:
    found = _GENERATION.search(call.model.name)
    is_new = found is not None and int(found[1]) >= _FIRST_THINKING_BY_DEFAULT
    return is_new and call.model.capabilities.reasoning is not False


def _check_thinking(call: Call) -> None:
    """Check the call for parameters that the API rejects together with thinking (status 400).

    https://platform.claude.com/docs/en/build-with-claude/extended-thinking#feature-compatibility
    """
    params = call.params
    if params.temperature not in (None, 1):
        raise _thinking_excludes(call, "temperature", "Leave the temperature out, or set reasoning_effort to 'none'.")
    if params.top_p is not None and params.top_p < _LEAST_TOP_P:
        raise _thinking_excludes(call, "top_p", f"Set top_p to {_LEAST_TOP_P} or more, or reasoning_effort to 'none'.")
    # Adaptive thinking, of the models since 4.6, depends on the model; the API decides.
    if call.model.capabilities.reasoning_budget and check_tool_choice(call) not in (None, "auto", "none"):
        raise _thinking_excludes(call, "tool_choice", "Set tool_choice to 'auto', or reasoning_effort to 'none'.")


def _thinking_excludes(call: Call, parameter: str, hint: str) -> UnsupportedParameterError:
    message = f"{call.model.id} does not take this {parameter} together with reasoning_effort"
    return UnsupportedParameterError(message, parameter=parameter, hint=hint)


def _tool(tool: Tool) -> JSON:
    if tool.strict and is_recursive(tool.parameters):
        raise InvalidPromptError(
            f"the JSON schema of the tool {tool.name} refers to itself, which Claude does not take of a strict tool",
            hint="Leave strict=None.",
        )
    fields: JSON = {"name": tool.name}
    if tool.description:
        fields["description"] = tool.description
    fields["input_schema"] = tool_schema(tool)
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


def _container(call: Call) -> str | None:
    """Return the id of the last response's code container, or None after a user message: a new turn gets a new one."""
    for message in reversed(call.conversation.messages):
        if message.role == "assistant":
            found = [data for part in message.parts if (data := _echo(call, part, "container")) is not None]
            return found[-1].get("id") if found and isinstance(found[-1], dict) else None
        if message.role == "user":
            return None
    return None


def _echo(call: Call, part: Part, kind: str) -> Any:
    """Return the data of an opaque part of this kind, or None if another provider created it."""
    if isinstance(part, ProviderDataPart) and (part.provider, part.kind) == (call.provider.opaque_owner, kind):
        return part.data
    return None


def build_system(call: Call) -> str | list[JSON]:
    """Return the field `system`: all system and developer messages, empty without any."""
    blocks: list[JSON] = []
    for message in call.conversation:
        if message.role in ("system", "developer"):
            for part in message.parts:
                if not isinstance(part, TextPart):
                    raise cannot_place(part, message.role)
                blocks += _text(call, part)
    return _simplify(blocks)


def _simplify(blocks: list[JSON]) -> str | list[JSON]:
    """Return the string itself if the blocks are a single text without other fields."""
    is_text = len(blocks) == 1 and blocks[0].keys() == {"type", "text"}
    return str(blocks[0]["text"]) if is_text else blocks


def build_turns(call: Call) -> list[JSON]:
    """Return the field `messages`.

    Raises:
        UnsupportedParameterError: The API cannot take a part.
    """
    turns: list[tuple[str, list[JSON]]] = []
    for message in call.conversation:
        if message.role in ("system", "developer"):
            continue
        is_assistant = message.role == "assistant"
        if message.name is not None and not is_assistant:
            raise cannot_take(call, "name of a message")
        role = "assistant" if is_assistant else "user"
        blocks = _assistant_blocks(call, message) if is_assistant else _input_blocks(call, message)
        if turns and turns[-1][0] == role:
            turns[-1][1].extend(blocks)
        elif blocks:
            turns.append((role, blocks))
    if turns and turns[-1][0] == "assistant" and turns[-1][1][-1].get("type") == "text":
        # The API rejects a prefilled answer that ends with white space.
        last = turns[-1][1][-1]
        turns[-1][1][-1] = {**last, "text": last["text"].rstrip()}
    return [{"role": role, "content": _simplify(blocks)} for role, blocks in turns]


def _input_blocks(call: Call, message: Message) -> list[JSON]:
    blocks: list[JSON] = []
    for part in message.parts:
        build = _CONTENT.get(type(part))
        if build is None or isinstance(part, ToolResultPart) != (message.role == "tool"):
            raise cannot_place(part, message.role)
        blocks += build(call, part)
    return blocks


def _assistant_blocks(call: Call, message: Message) -> list[JSON]:
    blocks: list[JSON] = []
    thought = ""
    for part in message.parts:
        if isinstance(part, ProviderDataPart):
            echo = _ECHO.get(part.kind)
            if echo is not None and _echo(call, part, part.kind) is not None:
                echo(blocks, part.data, thought)
        elif type(part) in _ASSISTANT_CONTENT:
            blocks += _ASSISTANT_CONTENT[type(part)](call, part)
        thought = part.text if isinstance(part, ReasoningPart) else ""
    return blocks


def _text(call: Call, part: Any) -> list[JSON]:
    # The API rejects blank text: "text content blocks must contain non-whitespace text".
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
    text = media.text
    if text is not None:
        return text
    hint = "Send PDF or UTF-8 text, or upload the file through the Files API and pass its id."
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


def _opaque_block(call: Call, part: Any) -> list[JSON]:
    """Return a block that the user wrote in Anthropic's own format, such as a search result or a container upload."""
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
    ProviderDataPart: _opaque_block,
}


def _tool_use(call: Call, part: Any) -> list[JSON]:
    arguments = part.arguments
    if part.custom:
        arguments = {"input": part.arguments_text}
    elif not isinstance(arguments, dict):
        # The API takes objects only. Anthropic proposes this key for arguments that are not valid JSON.
        # https://platform.claude.com/docs/en/agents-and-tools/tool-use/fine-grained-tool-streaming
        arguments = {"INVALID_JSON": part.arguments_text}
    return [{"type": "tool_use", "id": _call_id(part.id), "name": part.name, "input": arguments}]


def _call_id(call_id: str) -> str:
    """Return the id with the characters replaced that the API rejects; ids of other providers may contain them."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", call_id)


_ASSISTANT_CONTENT: dict[type, Callable[[Call, Any], list[JSON]]] = {
    TextPart: _text,
    RefusalPart: _text,
    ToolCallPart: _tool_use,
}


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
