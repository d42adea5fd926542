"""Parse the parts of requests that chat APIs share: fields, tools, calls and content parts.

A request that cannot be answered raises `BadRequestError`. Media are accepted inline or by http(s) URL only: a path in
a request must never make a server read its own files. `at` is the JSON path of a value, for the error message.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import msgspec

from lm_deluge.encoders.tool_pairs import PairWording, check_tool_pairs, joined_ids
from lm_deluge.errors import BadRequestError
from lm_deluge.prompt.media import load_media
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import ImagePart, Part, TextPart, ToolCallPart
from lm_deluge.prompt.tool import ProviderTool, Tool
from lm_deluge.prompt.tool_pairs import OpenCalls, Orphans

__all__ = [
    "PieceReaders",
    "RoleReaders",
    "bad_request",
    "checked_source",
    "missing_field",
    "need_field",
    "parse_object",
    "read_call",
    "read_content",
    "read_image",
    "read_message",
    "read_messages",
    "read_output_schema",
    "read_text",
    "read_tool_choice",
    "read_tools",
    "required_content",
    "take_field",
    "unknown_value",
    "unpaired_tools",
    "wrong_type",
]

JSON = dict[str, Any]
PieceReaders: TypeAlias = Mapping[str, Callable[[JSON, str], Part | list[Part]]]
"""The parser of each type of content part; its arguments are the part and its JSON path."""
RoleReaders: TypeAlias = Mapping[str, Callable[[JSON, str], list[Part]]]
"""The parser of the messages of each role; its arguments are the message and its JSON path."""

_TOOL_FIELDS = ("name", "description", "parameters", "strict")

_KINDS: dict[type, str] = {
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a decimal",
    list: "an array",
    dict: "an object",
    type(None): "null",
}


def parse_object(body: bytes) -> JSON:
    """Return the JSON object in a body.

    Raises:
        BadRequestError: The body is not a JSON object.
    """
    try:
        raw = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        message = "We could not parse the JSON body of your request: the API expects a JSON payload."
        raise bad_request(message) from error
    if not isinstance(raw, dict):
        raise wrong_type("body", dict, raw)
    return raw


def bad_request(message: str, code: str | None = None) -> BadRequestError:
    """Return the error of a request that cannot be answered."""
    return BadRequestError(message, status_code=400, code=code, type="invalid_request_error")


def wrong_type(name: str, expected: type, value: Any) -> BadRequestError:
    """Return the error of a value of a wrong type."""
    actual = _KINDS.get(type(value), "something else")
    return bad_request(
        f"Invalid type for '{name}': expected {_KINDS[expected]}, but got {actual} instead.", "invalid_type"
    )


def missing_field(name: str) -> BadRequestError:
    """Return the error of a missing required field."""
    return bad_request(f"Missing required parameter: '{name}'.", "missing_required_parameter")


def unknown_value(name: str, value: Any, known: Any) -> BadRequestError:
    """Return the error of a value that is not one of those in `known`."""
    values = ", ".join(f"'{each}'" for each in known)
    return bad_request(
        f"Invalid value: '{str(value)[:50]}' for '{name}'. Supported values are: {values}.", "invalid_value"
    )


def take_field(fields: JSON, name: str, kind: type, default: Any = None, *, at: str = "") -> Any:
    """Return a field of type `kind`, or `default` if the field is absent or null.

    Raises:
        BadRequestError: The field has another type.
    """
    value = fields.get(name)
    if value is None:
        return default
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise wrong_type(f"{at}{name}", kind, value)
    return value


def need_field(fields: JSON, name: str, kind: type, *, at: str = "") -> Any:
    """Return a required field of type `kind`.

    Raises:
        BadRequestError: The field is missing or has another type.
    """
    value = take_field(fields, name, kind, at=at)
    if value is None:
        raise missing_field(f"{at}{name}")
    return value


def read_tool_choice(choice: Any) -> str | None:
    """Return the value of `tool_choice`: a mode such as "auto", or the name of a tool."""
    if choice is None or isinstance(choice, str):
        return choice
    if not isinstance(choice, dict):
        raise wrong_type("tool_choice", dict, choice)
    kind = "custom" if choice.get("type") == "custom" else "function"
    inner = need_field(choice, kind, dict, at="tool_choice.")
    name: str = need_field(inner, "name", str, at=f"tool_choice.{kind}.")
    return name


def read_tools(raw: JSON) -> tuple[Tool | ProviderTool, ...]:
    """Return the tools; a tool that is not a function becomes a `ProviderTool`."""
    tools: list[Tool | ProviderTool] = []
    for position, tool in enumerate(take_field(raw, "tools", list, ())):
        at = f"tools[{position}]"
        if not isinstance(tool, dict):
            raise wrong_type(at, dict, tool)
        if tool.get("type") != "function":
            need_field(tool, "type", str, at=f"{at}.")
            tools.append(ProviderTool(tool))
            continue
        inner = need_field(tool, "function", dict, at=f"{at}.")
        need_field(inner, "name", str, at=f"{at}.function.")
        tools.append(Tool(**{name: inner[name] for name in _TOOL_FIELDS if inner.get(name) is not None}))
    return tuple(tools)


def read_output_schema(raw: JSON) -> JSON | None:
    """Return the JSON schema that the response must follow, or None."""
    response_format = take_field(raw, "response_format", dict, {})
    if response_format.get("type") != "json_schema":
        return None
    inner = need_field(response_format, "json_schema", dict, at="response_format.")
    schema: JSON = take_field(inner, "schema", dict, {}, at="response_format.json_schema.")
    return schema


def read_messages(raw: JSON, roles: RoleReaders, wording: PairWording | None) -> list[Message]:
    """Return the messages of a request, parsed by `roles`.

    Raises:
        BadRequestError: A message is malformed, or with `wording` a tool call has no result or a result no call.
    """
    messages = need_field(raw, "messages", list)
    if not messages:
        raise bad_request("Invalid 'messages': empty array. Expected at least one message.", "empty_array")
    found = [read_message(message, f"messages[{position}]", roles) for position, message in enumerate(messages)]
    if wording is not None:
        check_tool_pairs(found, "next_message", wording)
    return found


def unpaired_tools(found: OpenCalls | Orphans) -> BadRequestError:
    """Return OpenAI's error for tool calls without results, or results without calls."""
    if isinstance(found, Orphans):
        return bad_request(
            "Invalid parameter: messages with role 'tool' must be a response to a preceeding message with 'tool_calls'."
        )
    return bad_request(
        "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. "
        f"The following tool_call_ids did not have response messages: {joined_ids(found)}"
    )


def read_message(message: Any, at: str, roles: RoleReaders) -> Message:
    """Parse one message; `at` is its JSON path.

    Raises:
        BadRequestError: The message is malformed.
    """
    if not isinstance(message, dict):
        raise wrong_type(at, dict, message)
    role = need_field(message, "role", str, at=f"{at}.")
    if role not in roles:
        raise unknown_value(f"{at}.role", role, roles)
    name = take_field(message, "name", str, at=f"{at}.")
    own_role: Any = "tool" if role == "function" else role  # the deprecated role of a result
    return Message(own_role, tuple(roles[role](message, f"{at}.")), name)


def required_content(message: JSON, at: str) -> Any:
    """Return the content of a message, which is required."""
    if message.get("content") is None:
        raise missing_field(f"{at}content")
    return message["content"]


def read_call(call: Any, at: str) -> ToolCallPart:
    """Parse a tool call of an assistant message."""
    if not isinstance(call, dict):
        raise wrong_type(at, dict, call)
    call_id = need_field(call, "id", str, at=f"{at}.")
    custom = take_field(call, "custom", dict, at=f"{at}.")
    if custom is not None:
        name = need_field(custom, "name", str, at=f"{at}.custom.")
        return ToolCallPart(call_id, name, need_field(custom, "input", str, at=f"{at}.custom."), custom=True)
    function = need_field(call, "function", dict, at=f"{at}.")
    name = need_field(function, "name", str, at=f"{at}.function.")
    text = need_field(function, "arguments", str, at=f"{at}.function.")
    try:
        return ToolCallPart(call_id, name, text, msgspec.json.decode(text) if text.strip() else {})
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        # The model wrote the arguments, so invalid JSON is not the client's error: pass the text on.
        return ToolCallPart(call_id, name, text, None, f"the arguments are not JSON: {error}"[:200])


def read_content(content: Any, at: str, readers: PieceReaders) -> list[Part]:
    """Parse content: a text, or a list of content parts whose types are in `readers`."""
    if isinstance(content, str):
        return [TextPart(content)]
    if not isinstance(content, list):
        raise wrong_type(at, str, content)
    parts: list[Part] = []
    for position, piece in enumerate(content):
        part_path = f"{at}[{position}]"
        if not isinstance(piece, dict):
            raise wrong_type(part_path, dict, piece)
        kind = need_field(piece, "type", str, at=f"{part_path}.")
        if kind not in readers:
            raise unknown_value(f"{part_path}.type", kind, readers)
        found = readers[kind](piece, f"{part_path}.")
        parts += found if isinstance(found, list) else [found]
    return parts


def read_text(piece: JSON, at: str) -> Part:
    """Parse a text part."""
    return TextPart(need_field(piece, "text", str, at=at))


def read_image(piece: JSON, at: str) -> Part:
    """Parse an image part; `image_url` is an object with the URL, or the URL itself."""
    image = piece.get("image_url")
    if not isinstance(image, str):
        image = need_field(piece, "image_url", dict, at=at)
    else:
        image = {"url": image}
    source = checked_source(need_field(image, "url", str, at=f"{at}image_url."), f"{at}image_url.url")
    return ImagePart(load_media(source, kind="image"), take_field(image, "detail", str, at=f"{at}image_url."))


def checked_source(source: str, at: str, kinds: str = "an http(s) or data URL") -> str:
    """Return the URL of a medium if it is an http(s) or data URL.

    Raises:
        BadRequestError: The URL has another scheme, or is a path.
    """
    if not source.startswith(("http://", "https://", "data:")):
        raise bad_request(f"Invalid '{at}': expected {kinds}.", "invalid_value")
    return source
