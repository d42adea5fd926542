"""Parse requests of Gemini's `generateContent`: the inverse of the adapter's request builder.

https://ai.google.dev/api/generate-content

`generationConfig`, `toolConfig` and `tools` are also passed on whole in `extra` if they contain settings without a
counterpart. A call without an id gets a generated id, which is never sent to this API; a result belongs to the first
call of the same name that has no result yet.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterator
from itertools import count, groupby
from typing import Any

import msgspec

from lm_deluge.config import SamplingParams
from lm_deluge.encoders.encoder import ParsedRequest
from lm_deluge.encoders.gemini_generate.fields import JSON, bad_request, camel, lower_types, need, parse_object, take
from lm_deluge.encoders.tool_pairs import check_tool_pairs
from lm_deluge.errors import ConfigurationError
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.media import Media
from lm_deluge.prompt.message import Message, Role
from lm_deluge.prompt.parts import (
    AudioPart,
    FilePart,
    ImagePart,
    Part,
    ProviderDataPart,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from lm_deluge.prompt.tool import ProviderTool, Tool

__all__ = ["parse_request"]

_OWNER = "gemini-generate"
_PARSED_FIELDS = {"contents", "systemInstruction", "tools", "toolConfig", "generationConfig", "serviceTier", "model"}
_OPAQUE = {
    "executableCode": "executable_code",
    "codeExecutionResult": "code_execution_result",
    "toolCall": "tool_call",
    "toolResponse": "tool_response",
}
_CHOICES = {"AUTO": "auto", "NONE": "none", "ANY": "required"}
_DETAILS = {"MEDIA_RESOLUTION_LOW": "low", "MEDIA_RESOLUTION_HIGH": "high"}
_MEDIA: dict[str, type[ImagePart | AudioPart]] = {"image": ImagePart, "audio": AudioPart}

# Field of `generationConfig` -> sampling parameter.
_PARAMETERS = {
    "temperature": "temperature",
    "topP": "top_p",
    "maxOutputTokens": "max_new_tokens",
    "stopSequences": "stop",
    "seed": "seed",
    "presencePenalty": "presence_penalty",
    "frequencyPenalty": "frequency_penalty",
    "responseLogprobs": "logprobs",
    "logprobs": "top_logprobs",
}
# Gemini allows names that `Tool` does not: with dots or colons, or of 65 to 128 characters.
# https://ai.google.dev/api/caching#FunctionDeclaration
_WIDER_NAME = re.compile(r"(?=.*[.:]|.{65})[A-Za-z_][A-Za-z0-9_.:-]{0,127}")
_UNPAIRED = (
    "Please ensure that the number of function response parts is equal to the number of function call parts of the "
    "function call turn."
)
_TOOL_FIELDS = {"name", "description", "parameters", "parametersJsonSchema"}
_JSON_FIELDS = ("responseMimeType", "responseJsonSchema")


def parse_request(body: bytes, *, model: str | None = None, is_streamed: bool | None = None) -> ParsedRequest:
    """Parse the body of a request; the model and the streaming mode are in the path, so they are arguments.

    Raises:
        BadRequestError: The body is not a JSON object, has no contents, or has a value of a wrong type.
    """
    raw = parse_object(body)
    fields = camel(raw)
    name = (model or str(fields.get("model") or "")).removeprefix("models/")
    if not name:
        raise bad_request("The model is missing.")
    settings = camel(take(fields, "generationConfig", dict, {}))
    extra = {name: value for name, value in fields.items() if name not in _PARSED_FIELDS}
    if set(settings) - set(_PARAMETERS) - set(_JSON_FIELDS):
        extra["generationConfig"] = settings
    choice, is_complete = _tool_choice(take(fields, "toolConfig", dict, {}))
    if not is_complete:
        extra["toolConfig"] = fields["toolConfig"]
    if _has_other_fields(fields):
        extra["tools"] = fields["tools"]
    schema = settings.get("responseJsonSchema") or settings.get("responseSchema")
    try:
        return ParsedRequest(
            model=name,
            conversation=Conversation([*_instruction(fields), *_ConversationParser().messages(fields)]),
            params=_params(settings, choice, fields, has_schema=schema is not None),
            is_streamed=bool(is_streamed),
            wants_usage=True,
            tools=tuple(_tools(fields)),
            output=lower_types(schema) if isinstance(schema, dict) else None,
            extra=extra,
            raw=raw,
        )
    except ConfigurationError as error:
        raise bad_request(error.message) from error


def _params(settings: JSON, choice: str | None, fields: JSON, *, has_schema: bool) -> SamplingParams:
    read = {ours: settings[name] for name, ours in _PARAMETERS.items() if settings.get(name) is not None}
    is_json = settings.get("responseMimeType") == "application/json"
    return SamplingParams(
        **{"stop": None, **read, "logprobs": bool(read.get("logprobs"))},
        json_mode=is_json and not has_schema,
        reasoning_effort=_effort(camel(take(settings, "thinkingConfig", dict, {}))),
        tool_choice=choice,
        service_tier=take(fields, "serviceTier", str),
    )


def _effort(thinking: JSON) -> Any:
    """Return the closest reasoning effort, as information: `extra` passes `thinkingConfig` on unchanged."""
    level = str(thinking.get("thinkingLevel") or "").lower()
    if level in ("minimal", "low", "medium", "high"):
        return level
    return "medium" if thinking.get("thinkingBudget") or thinking.get("includeThoughts") else None


def _tool_choice(config: JSON) -> tuple[str | None, bool]:
    """Return the tool choice, and whether it represents the settings completely."""
    calling = camel(take(camel(config), "functionCallingConfig", dict, {}))
    names = take(calling, "allowedFunctionNames", list, [])
    choice = _CHOICES.get(str(calling.get("mode")))
    if choice == "required" and len(names) == 1:
        choice, names = str(names[0]), []
    is_all = set(camel(config)) <= {"functionCallingConfig"} and not names and (choice is not None or not calling)
    return choice, is_all


def _tools(fields: JSON) -> Iterator[Tool | ProviderTool]:
    for position, entry in enumerate(take(fields, "tools", list, [])):
        if not isinstance(entry, dict):
            raise bad_request(f"Invalid value at 'tools[{position}]': it must be an object.")
        for name, value in camel(entry).items():
            if name != "functionDeclarations":
                yield ProviderTool({name: value})
                continue
            for each in take({name: value}, name, list, []):
                yield _tool(each, f"tools[{position}].{name}.")


def _has_other_fields(fields: JSON) -> bool:
    """Whether a declaration has a field that `Tool` lacks, for example the schema of its results."""
    entries = [camel(entry) for entry in take(fields, "tools", list, []) if isinstance(entry, dict)]
    declared = [each for entry in entries for each in take(entry, "functionDeclarations", list, [])]
    return any(isinstance(each, dict) and set(camel(each)) - _TOOL_FIELDS for each in declared)


def _tool(raw: Any, at: str) -> Tool | ProviderTool:
    if not isinstance(raw, dict):
        raise bad_request(f"Invalid value at '{at}': it must be an object.")
    fields = camel(raw)
    name = need(fields, "name", str, at=at)
    schema = fields.get("parametersJsonSchema") or fields.get("parameters") or {}
    description = take(fields, "description", str, "", at=at)
    try:
        return Tool(name=name, description=description, parameters=lower_types(schema))
    except ConfigurationError:
        if not _WIDER_NAME.fullmatch(name):
            raise
        return ProviderTool({"functionDeclarations": [raw]})


def _instruction(fields: JSON) -> list[Message]:
    instruction = fields.get("systemInstruction")
    if instruction is None:
        return []
    content = take(fields, "systemInstruction", dict)
    parts = take(content, "parts", list, [], at="systemInstruction.")
    texts = [TextPart(need(_object(part, "systemInstruction.parts"), "text", str)) for part in parts]
    return [Message("system", tuple(texts))]


def _object(value: Any, at: str) -> JSON:
    if not isinstance(value, dict):
        raise bad_request(f"Invalid value at '{at}': it must be an object.")
    return camel(value)


class _ConversationParser:
    """Parser of the turns of a conversation, which matches results to calls by name."""

    def __init__(self) -> None:
        self._numbers = count()
        self._calls: list[tuple[str, str]] = []  # name and id of calls without a result

    def messages(self, fields: JSON) -> list[Message]:
        contents = need(fields, "contents", list)
        if not contents:
            raise bad_request("* GenerateContentRequest.contents: contents is not specified")
        messages: list[Message] = []
        for position, raw in enumerate(contents):
            content = _object(raw, f"contents[{position}]")
            role = take(content, "role", str, "user", at=f"contents[{position}].")
            if role not in ("user", "model", "function"):
                raise bad_request("Please use a valid role: user, model.")
            parts: list[Part] = []
            for number, part in enumerate(take(content, "parts", list, [])):
                at = f"contents[{position}].parts[{number}]"
                parts += self._parts(_object(part, at), at, is_model=role == "model")
            messages += _grouped(parts, "assistant" if role == "model" else "user")
        check_tool_pairs(messages, "next_turn", lambda _: bad_request(_UNPAIRED))
        return messages

    def _parts(self, part: JSON, at: str, *, is_model: bool) -> list[Part]:
        if "thoughtSignature" in part and not part.get("text") and set(part) <= {"text", "thought", "thoughtSignature"}:
            return [ProviderDataPart(_OWNER, "thought_signature", part)]
        field = next((name for name in _PARTS if part.get(name) is not None), None)
        if field is None or (is_model and field == "functionResponse"):
            raise bad_request(f"Invalid value at '{at}': contents.parts must not be empty.")
        found: list[Part] = [_PARTS[field](self, part, f"{at}.")]
        signature = take(part, "thoughtSignature", str, at=f"{at}.")
        return found if signature is None else [*found, ProviderDataPart(_OWNER, "thought_signature", signature)]

    def text(self, part: JSON, at: str) -> Part:
        text = take(part, "text", str, at=at)
        return ReasoningPart(text) if part.get("thought") else TextPart(text)

    def call(self, part: JSON, at: str) -> Part:
        call = take(part, "functionCall", dict, at=at)
        name = need(call, "name", str, at=f"{at}functionCall.")
        arguments = take(call, "args", dict, {}, at=f"{at}functionCall.")
        call_id = take(call, "id", str, at=f"{at}functionCall.") or f"call_{next(self._numbers)}"
        self._calls.append((name, call_id))
        return ToolCallPart(call_id, name, msgspec.json.encode(arguments).decode(), arguments)

    def result(self, part: JSON, at: str) -> Part:
        result = take(part, "functionResponse", dict, at=at)
        name = need(result, "name", str, at=f"{at}functionResponse.")
        call_id = take(result, "id", str, at=f"{at}functionResponse.")
        found = next((each for each in self._calls if call_id in (None, each[1]) and each[0] == name), None)
        if found is None:
            raise bad_request(_UNPAIRED)
        self._calls.remove(found)
        response = take(result, "response", dict, {}, at=f"{at}functionResponse.")
        media = [_media(_object(each, at), at) for each in take(result, "parts", list, [], at=at)]
        if set(response) == {"error"} and isinstance(response["error"], str):
            return ToolResultPart(found[1], response["error"], tuple(media), is_error=True)
        output = response.get("output") if set(response) == {"output"} else None
        is_text = isinstance(output, str) and not output.lstrip().startswith("{")
        content = output if is_text else msgspec.json.encode(response).decode()
        return ToolResultPart(found[1], str(content), tuple(media))

    def media(self, part: JSON, at: str) -> Part:
        return ProviderDataPart(_OWNER, "thought_media", part) if part.get("thought") else _media(part, at)

    def opaque(self, part: JSON, at: str) -> Part:
        field, kind = next((field, kind) for field, kind in _OPAQUE.items() if part.get(field) is not None)
        return ProviderDataPart(_OWNER, kind, {field: part[field]})


_PARTS: dict[str, Callable[[_ConversationParser, JSON, str], Part]] = {
    "functionCall": _ConversationParser.call,
    "functionResponse": _ConversationParser.result,
    "inlineData": _ConversationParser.media,
    "fileData": _ConversationParser.media,
    **dict.fromkeys(_OPAQUE, _ConversationParser.opaque),
    "text": _ConversationParser.text,
}


def _grouped(parts: list[Part], role: Role) -> Iterator[Message]:
    """Yield the parts as messages: each run of tool results becomes a message with the role `tool`."""
    for is_result, group in groupby(parts, lambda part: isinstance(part, ToolResultPart)):
        yield Message("tool" if is_result else role, tuple(group))


def _media(part: JSON, at: str) -> ImagePart | FilePart | AudioPart:
    """Return an inline medium, or one by URL or file id, which Google fetches itself. No local path is ever read."""
    inline = camel(take(part, "inlineData", dict, {}, at=at))
    if inline:
        media_type = need(inline, "mimeType", str, at=f"{at}inlineData.")
        media = Media(media_type=media_type, data=_decoded(need(inline, "data", str, at=f"{at}inlineData."), at))
    else:
        file = camel(need(part, "fileData", dict, at=at))
        media_type = take(file, "mimeType", str, "", at=f"{at}fileData.")
        uri = need(file, "fileUri", str, at=f"{at}fileData.")
        is_url = uri.startswith(("http://", "https://"))
        media = Media(media_type=media_type or None, url=uri if is_url else None, file_id=None if is_url else uri)
    kind = _MEDIA.get(media_type.partition("/")[0], FilePart)
    if kind is ImagePart:
        level = take(take(part, "mediaResolution", dict, {}, at=at), "level", str, "")
        return ImagePart(media, _DETAILS.get(level))
    return kind(media)


def _decoded(data: str, at: str) -> bytes:
    try:
        # Google accepts both base64 alphabets, and its SDK writes the URL-safe one.
        return base64.b64decode(data.replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise bad_request(f"Invalid value at '{at}inlineData.data': Base64 decoding failed.") from error
