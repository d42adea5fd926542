"""Convert a conversation into Gemini's `contents`.

Since Gemini 3 the API rejects a function call of the current turn without a thought signature. Calls of other models
get the signature that Google documents for them.

https://ai.google.dev/api/caching#Content, https://ai.google.dev/gemini-api/docs/thought-signatures (read 2026-11)
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec

from lm_deluge.adapters.adapter import Call
from lm_deluge.adapters.capabilities import cannot_place, cannot_take, parts_in_pairs
from lm_deluge.adapters.gemini_generate.signatures import NO_SIGNATURE, is_older_gemini
from lm_deluge.errors import InvalidPromptError
from lm_deluge.prompt.media import Media
from lm_deluge.prompt.message import Message
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

__all__ = [
    "ECHOES",
    "INSTRUCTION_ROLES",
    "build_contents",
    "build_instruction",
    "leading_instructions",
    "sign_foreign_calls",
]

JSON = dict[str, Any]

_SIGNATURE = "thought_signature"
_WHOLE_PARTS = ("executable_code", "code_execution_result", "tool_call", "tool_response", "thought_media")
# Search suggestions are listed so that they do not count as dropped, but Google does not want them back.
ECHOES = frozenset({_SIGNATURE, *_WHOLE_PARTS, "search_suggestions"})

# Ids that we generate for calls to which Gemini gives none; they are not sent.
_GENERATED_ID = re.compile(r"call_\d+")
INSTRUCTION_ROLES = ("system", "developer")
_RESOLUTIONS = {"low": "MEDIA_RESOLUTION_LOW", "high": "MEDIA_RESOLUTION_HIGH"}
# Vertex requires the media type of a URL.
# Text types that the API accepts; other text is sent as plain text.
# https://ai.google.dev/gemini-api/docs/document-processing (2026-11)
_TEXT_TYPES = frozenset({"text/plain", "text/html", "text/css", "text/csv", "text/markdown", "text/xml"})
_TYPES_BY_ENDING = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
    "gif": "image/gif",
    "pdf": "application/pdf",
    "txt": "text/plain",
    "mp3": "audio/mpeg",
    "wav": "audio/wav",
    "mp4": "video/mp4",
}


def leading_instructions(call: Call) -> list[str]:
    """Return the texts of the system messages at the start of the conversation.

    Raises:
        UnsupportedParameterError: A system message follows another message, or has a part that is not text.
    """
    texts: list[str] = []
    is_leading = True
    for message in call.conversation:
        if message.role not in INSTRUCTION_ROLES:
            is_leading = False
            continue
        if not is_leading:
            raise cannot_take(call, "system message after other messages", hint="Put it first.")
        for part in message.parts:
            if not isinstance(part, TextPart):
                raise cannot_place(part, message.role)
            texts.append(part.text)
    return texts


def build_instruction(call: Call) -> JSON | None:
    """Return the system messages as a content of Google's, or None without any."""
    parts = [{"text": text} for text in leading_instructions(call)]
    return {"parts": parts} if parts else None


def build_contents(call: Call) -> list[JSON]:
    """Return the contents; consecutive messages of the same role are merged."""
    contents: list[JSON] = []
    names: dict[str, str] = {}  # call id -> name of the function
    is_older = is_older_gemini(call.model.name)
    for message in call.conversation:
        if message.role in INSTRUCTION_ROLES:
            continue
        if message.name is not None:
            raise cannot_take(call, "name of a message")
        role = "model" if message.role == "assistant" else "user"
        parts = _BUILDERS[message.role](call, message, names)
        if contents and contents[-1]["role"] == role:
            contents[-1]["parts"] += parts
        elif parts:
            contents.append({"role": role, "parts": parts})
    if is_older:
        for content in contents:  # media of results, which older models take beside them, must not stand between them
            content["parts"].sort(key=lambda part: "functionResponse" not in part)
    else:
        sign_foreign_calls(contents)
    return contents


def sign_foreign_calls(contents: list[JSON]) -> None:
    """Add a signature to the first call of each content in the current turn that has none.

    The turn starts after the last content of the user with anything but the results of functions.
    """
    for content in reversed(contents):
        parts = content.get("parts") or []
        if content.get("role") != "model" and not all("functionResponse" in part for part in parts):
            return
        first = next((part for part in parts if "functionCall" in part), None)
        if first is not None:
            first.setdefault("thoughtSignature", NO_SIGNATURE)


def _user(call: Call, message: Message, names: dict[str, str]) -> list[JSON]:
    parts = []
    for part in message.parts:
        if isinstance(part, TextPart):
            parts.append({"text": part.text})
        elif isinstance(part, ImagePart | FilePart | AudioPart):
            parts.append(_media_part(part))
        else:
            raise cannot_place(part, "user")
    return parts


def _media_part(part: ImagePart | FilePart | AudioPart) -> JSON:
    built = _blob(part.media)
    if isinstance(part, ImagePart) and part.detail in _RESOLUTIONS:
        built["mediaResolution"] = {"level": _RESOLUTIONS[part.detail]}
    return built


def _blob(media: Media) -> JSON:
    if media.data is not None:
        is_other_text = media.media_type not in _TEXT_TYPES and media.text is not None
        media_type = "text/plain" if is_other_text else media.media_type
        return {"inlineData": {"mimeType": media_type, "data": media.base64()}}
    uri = media.file_id or media.url or ""
    ending = uri.partition("?")[0].rpartition(".")[2].lower()
    media_type = media.media_type or _TYPES_BY_ENDING.get(ending)
    return {"fileData": {"fileUri": uri} | ({"mimeType": media_type} if media_type else {})}


def _tool_results(call: Call, message: Message, names: dict[str, str]) -> list[JSON]:
    parts: list[JSON] = []
    for part in message.parts:
        if not isinstance(part, ToolResultPart):
            raise cannot_place(part, "tool")
        if part.tool_call_id not in names:
            raise InvalidPromptError(
                "a tool result belongs to a call that is not in the conversation",
                hint="Gemini identifies results by the function's name: add the assistant message with the call.",
            )
        response: JSON = {"name": names[part.tool_call_id], "response": _response(part)}
        if not _GENERATED_ID.fullmatch(part.tool_call_id):
            response["id"] = part.tool_call_id
        media = [_blob(each.media) for each in part.media]
        if media and not is_older_gemini(call.model.name):
            response["parts"] = media
            media = []
        parts += [{"functionResponse": response}, *media]
    return parts


def _response(part: ToolResultPart) -> JSON:
    """Return the result as the object that the API requires; Google documents the keys `output` and `error`."""
    if part.is_error:
        return {"error": part.content}
    if part.content.lstrip().startswith("{"):
        try:
            return msgspec.json.decode(part.content, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            pass
    return {"output": part.content}


def _assistant(call: Call, message: Message, names: dict[str, str]) -> list[JSON]:
    parts: list[JSON] = []
    for part, after in parts_in_pairs(message):
        if isinstance(part, ProviderDataPart):
            _echo(call, part, parts)
        elif isinstance(part, ToolCallPart):
            names[part.id] = part.name
            parts.append({"functionCall": _function_call(part)})
        elif isinstance(part, ImagePart):
            parts.append(_blob(part.media))
        else:
            parts += _text_parts(part, is_signed=_signature(call, after) is not None)
    return parts


def _text_parts(part: Part, *, is_signed: bool) -> list[JSON]:
    if isinstance(part, ReasoningPart):
        # Reasoning without a signature may be another model's, so it is not sent.
        return [{"text": part.text, "thought": True}] if is_signed else []
    return [{"text": part.text}] if isinstance(part, TextPart) and part.text else []


def _function_call(part: ToolCallPart) -> JSON:
    arguments = part.arguments
    if not isinstance(arguments, dict):
        arguments = {"input": part.arguments_text} if part.arguments_text else {}
    found: JSON = {"name": part.name, "args": arguments}
    return found if _GENERATED_ID.fullmatch(part.id) else {"id": part.id, **found}


def _signature(call: Call, part: Any) -> Any:
    is_own = isinstance(part, ProviderDataPart) and part.provider == call.provider.opaque_owner
    return part.data if is_own and part.kind == _SIGNATURE and isinstance(part.data, str) else None


def _echo(call: Call, part: ProviderDataPart, parts: list[JSON]) -> None:
    """Append opaque data: a signature to the part that it belongs to, other data as a part of its own."""
    if part.provider != call.provider.opaque_owner:
        return
    signature = _signature(call, part)
    if signature is None:
        if part.kind in (*_WHOLE_PARTS, _SIGNATURE) and isinstance(part.data, dict):
            parts.append(dict(part.data))
    elif parts and "thoughtSignature" not in parts[-1]:
        parts[-1]["thoughtSignature"] = signature


_BUILDERS: dict[str, Callable[[Call, Message, dict[str, str]], list[JSON]]] = {
    "user": _user,
    "assistant": _assistant,
    "tool": _tool_results,
}
