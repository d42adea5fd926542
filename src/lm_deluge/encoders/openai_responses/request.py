"""Parse requests of the Responses API: the inverse of the adapter's request builder.

https://platform.openai.com/docs/api-reference/responses/create

A request that cannot be answered raises `BadRequestError` with OpenAI's wording. Media are accepted inline or by
http(s) URL only: a path in a request must never make a server read its own files. Items of other types, and fields of
messages and calls that no part of a message can hold, become opaque data of `openai-responses`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from lm_deluge.config import SamplingParams
from lm_deluge.encoders.encoder import ParsedRequest
from lm_deluge.encoders.openai_chat.request_fields import (
    bad_request,
    missing_field,
    need_field,
    parse_object,
    read_content,
    read_text,
    take_field,
    unknown_value,
    wrong_type,
)
from lm_deluge.encoders.tool_pairs import check_tool_pairs, joined_ids
from lm_deluge.errors import BadRequestError, ConfigurationError
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.media import Media, load_media
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import (
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
from lm_deluge.prompt.tool_pairs import OpenCalls, Orphans

__all__ = ["ITEMS", "PARSED_FIELDS", "WHOLE_ITEMS", "parse_request", "read_item"]

JSON = dict[str, Any]

_OWNER = "openai-responses"

_SAMPLING = ("temperature", "top_p", "top_logprobs", "parallel_tool_calls", "service_tier")
_PARSED_REQUEST_FIELDS = {
    *_SAMPLING,
    *("model", "input", "instructions", "stream", "tools", "max_output_tokens"),
}
_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
_TOOL_FIELDS = {"type", "name", "description", "parameters", "strict"}
_ROLES = ("system", "developer", "user", "assistant")

# The fields of an item that its part holds or that are ids and states; other fields become opaque data after the part.
PARSED_FIELDS = {
    "message": {"type", "id", "status", "role", "content"},
    "function_call": {"type", "id", "status", "call_id", "name", "arguments"},
    "custom_tool_call": {"type", "id", "status", "call_id", "name", "input"},
}


def parse_request(body: bytes, *, model: str | None = None, is_streamed: bool | None = None) -> ParsedRequest:
    """Parse the body of a request; `model` and `is_streamed` are defaults for a body that lacks them.

    Raises:
        BadRequestError: The body is not a JSON object, lacks `model` or `input`, or has a value of a wrong type.
    """
    raw = parse_object(body)
    model = raw.get("model") or model
    if not isinstance(model, str) or not model:
        raise bad_request("you must provide a model parameter")
    extra = {name: value for name, value in raw.items() if name not in _PARSED_REQUEST_FIELDS}
    try:
        return ParsedRequest(
            model=model,
            conversation=Conversation(_messages(raw)),
            params=_params(raw, extra),
            is_streamed=take_field(raw, "stream", bool, default=is_streamed or False),
            wants_usage=True,
            tools=_tools(raw, extra),
            output=_output_schema(raw, extra),
            extra=extra,
            raw=raw,
        )
    except ConfigurationError as error:
        raise bad_request(error.message, "invalid_value") from error


def _params(raw: JSON, extra: JSON) -> SamplingParams:
    """Return the parameters, and remove from `extra` the fields that they represent completely."""
    fields = {name: raw[name] for name in _SAMPLING if raw.get(name) is not None}
    text = take_field(raw, "text", dict, {})
    text_format = take_field(text, "format", dict, {}, at="text.")
    include = take_field(raw, "include", list, [])
    if include == ["message.output_text.logprobs"]:
        extra.pop("include")
    return SamplingParams(
        **fields,
        max_new_tokens=take_field(raw, "max_output_tokens", int),
        logprobs="message.output_text.logprobs" in include,
        json_mode=text_format.get("type") == "json_object",
        verbosity=take_field(text, "verbosity", str, at="text."),
        reasoning_effort=_effort(raw, extra),
        tool_choice=_tool_choice(raw, extra),
    )


def _effort(raw: JSON, extra: JSON) -> Any:
    reasoning = take_field(raw, "reasoning", dict, {})
    effort = take_field(reasoning, "effort", str, at="reasoning.")
    if effort is not None and effort not in _EFFORTS:
        raise unknown_value("reasoning.effort", effort, _EFFORTS)
    if effort is not None and {name for name, value in reasoning.items() if value is not None} == {"effort"}:
        extra.pop("reasoning")
    return effort


def _tool_choice(raw: JSON, extra: JSON) -> str | None:
    choice = raw.get("tool_choice")
    if choice is not None and not isinstance(choice, str | dict):
        raise wrong_type("tool_choice", dict, choice)
    if isinstance(choice, dict) and choice.get("type") not in ("function", "custom"):
        return None  # a tool of the API, or a set of tools: passed on unchanged in `extra`
    extra.pop("tool_choice", None)
    if isinstance(choice, dict):
        name: str = need_field(choice, "name", str, at="tool_choice.")
        return name
    return choice


def _tools(raw: JSON, extra: JSON) -> tuple[Tool | ProviderTool, ...]:
    tools: list[Tool | ProviderTool] = []
    for position, tool in enumerate(take_field(raw, "tools", list, ())):
        at = f"tools[{position}]"
        if not isinstance(tool, dict):
            raise wrong_type(at, dict, tool)
        if need_field(tool, "type", str, at=f"{at}.") != "function":
            tools.append(ProviderTool(tool))
            continue
        need_field(tool, "name", str, at=f"{at}.")
        if not _TOOL_FIELDS.issuperset(tool):
            extra["tools"] = raw["tools"]  # passed on unchanged: `Tool` lacks some of their fields
        known = {name: tool[name] for name in _TOOL_FIELDS - {"type"} if tool.get(name) is not None}
        tools.append(Tool.from_dict(known))
    return tuple(tools)


def _output_schema(raw: JSON, extra: JSON) -> JSON | None:
    text = take_field(raw, "text", dict, {})
    if {"format", "verbosity"}.issuperset(text):
        extra.pop("text", None)
    text_format = take_field(text, "format", dict, {}, at="text.")
    if text_format.get("type") != "json_schema":
        return None
    schema: JSON = take_field(text_format, "schema", dict, {}, at="text.format.")
    return schema


# --- the conversation ---


def _messages(raw: JSON) -> list[Message]:
    found: list[Message] = []
    instructions = raw.get("instructions")
    if isinstance(instructions, str):
        found.append(Message.system(instructions))
    given_input = raw.get("input")
    if isinstance(given_input, str):
        return [*found, Message.user(given_input)]
    items = need_field(raw, "input", list)
    if not items:
        raise bad_request("Invalid 'input': empty array. Expected at least one item.", "empty_array")
    for position, item in enumerate(items):
        read_item(item, f"input[{position}]", found)
    if not any(raw.get(name) for name in ("previous_response_id", "conversation")):
        check_tool_pairs(found, "later", _unpaired_tools)
    return found


def read_item(item: Any, at: str, found: list[Message]) -> None:
    """Append the item of `input` at the path `at` to the messages found so far.

    Raises:
        BadRequestError: The item is malformed.
    """
    if not isinstance(item, dict):
        raise wrong_type(at, dict, item)
    role, parts = _read_item(item, f"{at}.")
    if role in ("assistant", "tool") and found and found[-1].role == role:
        # Consecutive items of the model, or of tools, are one message.
        found[-1] = Message(found[-1].role, (*found[-1].parts, *parts))
    else:
        found.append(Message(role, tuple(parts)))


def _unpaired_tools(found: OpenCalls | Orphans) -> BadRequestError:
    if isinstance(found, Orphans):
        return bad_request(f"No tool call found for function call output with call_id {joined_ids(found)}.")
    return bad_request(f"No tool output found for function call {joined_ids(found)}.")


def _read_item(item: JSON, at: str) -> tuple[Any, list[Part]]:
    kind = take_field(item, "type", str, "message", at=at)
    read = ITEMS.get(kind)
    if read is None:
        return "assistant", [ProviderDataPart(_OWNER, kind if kind in WHOLE_ITEMS else "output_item", item)]
    return read(item, at)


def _other_fields(item: JSON, kind: str) -> list[Part]:
    other_fields = {name: value for name, value in item.items() if name not in PARSED_FIELDS[kind]}
    return [ProviderDataPart(_OWNER, kind, other_fields)] if other_fields else []


def _message(item: JSON, at: str) -> tuple[Any, list[Part]]:
    role = need_field(item, "role", str, at=at)
    if role not in _ROLES:
        raise unknown_value(f"{at}role", role, _ROLES)
    content = item.get("content")
    if content is None:
        raise missing_field(f"{at}content")
    parts = _content(content, f"{at}content", _ALLOWED[role])
    return role, [*parts, *(_other_fields(item, "message") if role == "assistant" else [])]


def _function_call(item: JSON, at: str) -> tuple[Any, list[Part]]:
    call_id, name = need_field(item, "call_id", str, at=at), need_field(item, "name", str, at=at)
    text = need_field(item, "arguments", str, at=at)
    try:
        call = ToolCallPart(call_id, name, text, msgspec.json.decode(text) if text.strip() else {})
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        # The model wrote the arguments, so invalid JSON is not the client's error: pass the text on.
        call = ToolCallPart(call_id, name, text, None, f"the arguments are not JSON: {error}"[:200])
    return "assistant", [call, *_other_fields(item, "function_call")]


def _custom_call(item: JSON, at: str) -> tuple[Any, list[Part]]:
    call_id, name = need_field(item, "call_id", str, at=at), need_field(item, "name", str, at=at)
    call = ToolCallPart(call_id, name, need_field(item, "input", str, at=at), custom=True)
    return "assistant", [call, *_other_fields(item, "custom_tool_call")]


def _result(item: JSON, at: str) -> tuple[Any, list[Part]]:
    call_id = need_field(item, "call_id", str, at=at)
    output = item.get("output")
    if output is None:
        raise missing_field(f"{at}output")
    parts = _content(output, f"{at}output", _ALLOWED["user"])
    text = "".join(part.text for part in parts if isinstance(part, TextPart))
    media = tuple(part for part in parts if isinstance(part, ImagePart | FilePart))
    return "tool", [ToolResultPart(call_id, text, media)]


def _reasoning(item: JSON, at: str) -> tuple[Any, list[Part]]:
    pieces = [*take_field(item, "summary", list, [], at=at), *take_field(item, "content", list, [], at=at)]
    text = "".join(piece["text"] for piece in pieces if isinstance(piece, dict) and isinstance(piece.get("text"), str))
    parts: list[Part] = [ReasoningPart(text)] if text else []
    return "assistant", [*parts, ProviderDataPart(_OWNER, "reasoning", item)]


ITEMS: dict[str, Callable[[JSON, str], tuple[Any, list[Part]]]] = {
    "message": _message,
    "function_call": _function_call,
    "custom_tool_call": _custom_call,
    "function_call_output": _result,
    "custom_tool_call_output": _result,
    "reasoning": _reasoning,
}

WHOLE_ITEMS = {
    "web_search_call",
    "file_search_call",
    "code_interpreter_call",
    "image_generation_call",
    "computer_call",
    "mcp_call",
    "mcp_list_tools",
    "mcp_approval_request",
    "local_shell_call",
    "shell_call",
    "shell_call_output",
    "apply_patch_call",
    "tool_search_call",
    "tool_search_output",
    "compaction",
    "program",
    "program_output",
}


def _content(content: Any, at: str, allowed: tuple[str, ...]) -> list[Part]:
    return read_content(content, at, {kind: _PIECES[kind] for kind in allowed})


def _refusal(piece: JSON, at: str) -> Part:
    return RefusalPart(need_field(piece, "refusal", str, at=at))


def _checked_url(url: str, at: str) -> str:
    if not url.startswith(("http://", "https://", "data:")):
        raise bad_request(f"Invalid '{at}': expected an http(s) or data URL.", "invalid_value")
    return url


def _image(piece: JSON, at: str) -> Part:
    detail = take_field(piece, "detail", str, at=at)
    detail = None if detail == "auto" else detail
    file_id = take_field(piece, "file_id", str, at=at)
    if file_id is not None:
        return ImagePart(Media(file_id=file_id), detail)
    url = _checked_url(need_field(piece, "image_url", str, at=at), f"{at}image_url")
    return ImagePart(load_media(url, kind="image"), detail)


def _file(piece: JSON, at: str) -> Part:
    file_id = take_field(piece, "file_id", str, at=at)
    if file_id is not None:
        return FilePart(Media(file_id=file_id))
    url = take_field(piece, "file_url", str, at=at)
    if url is not None and url.startswith(("http://", "https://")):
        return FilePart(Media(url=url))
    data = _checked_url(need_field(piece, "file_data", str, at=at), f"{at}file_data")
    filename = take_field(piece, "filename", str, at=at)
    return FilePart(load_media(data, kind="file", filename=filename))


_PIECES: dict[str, Callable[[JSON, str], Part]] = {
    "input_text": read_text,
    "output_text": read_text,
    "refusal": _refusal,
    "input_image": _image,
    "input_file": _file,
}

_TEXT_ONLY = ("input_text",)
_ALLOWED = {
    "system": _TEXT_ONLY,
    "developer": _TEXT_ONLY,
    "user": ("input_text", "input_image", "input_file"),
    "assistant": ("output_text", "refusal", "input_text"),
}
