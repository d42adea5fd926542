"""Build request bodies of Mistral's chat completions.

https://docs.mistral.ai/api/#tag/chat

The API rejects unknown fields, so fields that only OpenAI's API has are not sent.
"""

from __future__ import annotations

import hashlib
import re
import string
from typing import Any

from lm_deluge.adapters.adapter import Call
from lm_deluge.adapters.capabilities import cannot_place, cannot_take, check_capabilities, result_text
from lm_deluge.adapters.openai_chat.request import (
    CHAT_CONTENT,
    ContentTable,
    MessageTable,
    build_content,
    build_messages,
    function_call_fields,
    response_format,
    sampling_fields,
    tool_choice_field,
    tool_fields,
)
from lm_deluge.adapters.text_files import with_inline_files
from lm_deluge.errors import InvalidPromptError
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

__all__ = ["MISTRAL_MESSAGES", "SIGNATURE", "build_body", "valid_call_id"]

JSON = dict[str, Any]

SIGNATURE = "signature"
"""Kind of opaque data with the signature of a thought, which Mistral verifies when the thought is sent back."""

# The API rejects other ids: "Tool call id was ... but must be a-z, A-Z, 0-9, with a length of 9".
_ID_LENGTH = 9
_ID = re.compile(f"[A-Za-z0-9]{{{_ID_LENGTH}}}")
_ID_CHARACTERS = string.digits + string.ascii_letters


def build_body(call: Call) -> JSON:
    """Return the JSON body for `call`. Parameters that the call does not set are omitted.

    Raises:
        UnsupportedParameterError: The model or the API does not support a parameter or a part.
        InvalidPromptError: Media are referred to in a form that the API does not accept, or a tool call has no
            result.
    """
    call = with_inline_files(call)
    check_capabilities(call, pairs="next_message")
    body: JSON = {"model": call.model.name, "messages": build_messages(call, MISTRAL_MESSAGES, results_have_media=True)}
    if body["messages"] and body["messages"][-1]["role"] == "assistant":
        # Without `prefix` the API rejects a final assistant message: 400, "Expected last role User or Tool".
        body["messages"][-1]["prefix"] = True
    if call.is_streamed:
        body["stream"] = True
    body |= _sampling(call)
    if call.tools:
        body["tools"] = tool_fields(call, may_be_optional=True)
    choice = tool_choice_field(call)
    if choice is not None:
        body["tool_choice"] = "any" if choice == "required" else choice
    wanted = response_format(call)
    if wanted is not None:
        body["response_format"] = wanted
    return body


def _sampling(call: Call) -> JSON:
    fields = sampling_fields(call.params, "max_tokens")
    if "verbosity" in fields:
        raise cannot_take(call, "verbosity")
    if "seed" in fields:
        fields["random_seed"] = fields.pop("seed")
    return fields


def valid_call_id(call_id: str) -> str:
    """Return the id of a tool call if Mistral accepts it, else nine characters of its hash.

    Ids of other providers' calls have other formats. The hash is deterministic, so a call and its result still match.
    """
    if _ID.fullmatch(call_id):
        return call_id
    number = int.from_bytes(hashlib.sha256(call_id.encode("utf-8", "surrogatepass")).digest())
    characters = []
    for _ in range(_ID_LENGTH):
        number, position = divmod(number, len(_ID_CHARACTERS))
        characters.append(_ID_CHARACTERS[position])
    return "".join(characters)


def _system(call: Call, message: Message) -> list[JSON]:
    for part in message.parts:
        if not isinstance(part, TextPart):
            raise cannot_place(part, message.role)
    return [{"role": "system", "content": _unnamed(call, message).completion}]


def _user(call: Call, message: Message) -> list[JSON]:
    return [{"role": "user", "content": build_content(call, _unnamed(call, message), _CONTENT)}]


def _unnamed(call: Call, message: Message) -> Message:
    if message.name is not None:
        raise cannot_take(call, "name of a message", hint="Put the name into the text.")
    return message


def _assistant(call: Call, message: Message) -> list[JSON]:
    calls = [
        {**function_call_fields(part), "id": valid_call_id(part.id)}
        for part in _unnamed(call, message).parts
        if isinstance(part, ToolCallPart)
    ]
    content: str | list[JSON] = message.completion
    if message.thinking:
        content = _pieces(call, message.parts)
    body: JSON = {"role": "assistant", "content": content}
    return [{**body, "tool_calls": calls} if calls else body]


def _pieces(call: Call, parts: list[Part]) -> list[JSON]:
    pieces: list[JSON] = []
    for part in parts:
        if isinstance(part, TextPart):
            pieces.append({"type": "text", "text": part.text})
        elif isinstance(part, ReasoningPart):
            pieces.append({"type": "thinking", "thinking": [{"type": "text", "text": part.text}]})
        elif isinstance(part, ProviderDataPart) and part.kind == SIGNATURE:
            if part.provider == call.provider.opaque_owner and pieces and pieces[-1]["type"] == "thinking":
                pieces[-1][SIGNATURE] = part.data
    return pieces


def _tool_results(call: Call, message: Message) -> list[JSON]:
    results: list[JSON] = []
    for part in message.parts:
        if not isinstance(part, ToolResultPart):
            raise cannot_place(part, "tool")
        text = result_text(part)
        content: str | list[JSON] = text
        if part.media:
            content = [{"type": "text", "text": text}] if text else []
            content += [_CONTENT[type(each)](call, each) for each in part.media]
        result: JSON = {"role": "tool", "tool_call_id": valid_call_id(part.tool_call_id), "content": content}
        results.append(result if message.name is None else {**result, "name": message.name})
    return results


def _file_content(call: Call, part: Any) -> JSON:
    media = part.media
    if media.file_id is not None:
        return {"type": "file", "file_id": media.file_id}
    piece = {"type": "document_url", "document_url": media.url or media.data_url()}
    return piece if media.filename is None else {**piece, "document_name": media.filename}


def _audio_content(call: Call, part: Any) -> JSON:
    media = part.media
    if media.data is None and media.url is None:
        raise InvalidPromptError("audio cannot be sent by its file id", hint="Pass the path, the bytes or a URL.")
    return {"type": "input_audio", "input_audio": media.url or media.base64()}


_CONTENT: ContentTable = {
    TextPart: CHAT_CONTENT[TextPart],
    ImagePart: CHAT_CONTENT[ImagePart],
    FilePart: _file_content,
    AudioPart: _audio_content,
}

MISTRAL_MESSAGES: MessageTable = {
    "system": _system,
    "developer": _system,  # OpenAI's newer name for the same role
    "user": _user,
    "assistant": _assistant,
    "tool": _tool_results,
}
