"""The messages of `useChat` -> our messages.

https://ai-sdk.dev/docs/reference/ai-sdk-core/ui-message (2026-11); `ai` 7.0.173. An answer with tools is one message,
with `step-start` between the rounds: it becomes several of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from lm_deluge.errors import ChatRequestError
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import Part, TextPart, ToolCallPart, ToolResultPart
from lm_deluge.ui.request_files import file_part

__all__ = ["read_ui_messages"]

JSON = dict[str, Any]

_DENIED = "The user denied this call."
_SKIPPED = ("reasoning", "reasoning-file", "source-url", "source-document", "custom")


def read_ui_messages(messages: Sequence[JSON], max_file_bytes: int) -> list[Message]:
    """Return the messages of a request.

    Raises:
        ChatRequestError: One of them is malformed.
    """
    found: list[Message] = []
    for position, message in enumerate(messages):
        at = f"messages[{position}]"
        parts = message.get("parts")
        if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
            raise ChatRequestError(f"{at}.parts is not a list of objects")
        if message["role"] not in _ROLES:
            raise ChatRequestError(f"{at}.role is none of {', '.join(_ROLES)}")
        found += [each for each in _ROLES[message["role"]](parts, at, max_file_bytes) if each.parts]
    return found


def _read_plain(role: Any) -> Callable[[list[JSON], str, int], Iterator[Message]]:
    def read(parts: list[JSON], at: str, max_file_bytes: int) -> Iterator[Message]:
        found = [_content(part, f"{at}.parts[{index}]", max_file_bytes) for index, part in enumerate(parts)]
        yield Message(role, [part for part in found if part is not None])

    return read


def _read_answer(parts: list[JSON], at: str, max_file_bytes: int) -> Iterator[Message]:
    """Yield the rounds of an answer: a message of the model, and the results of its calls."""
    content: list[Part] = []
    results: list[Part] = []

    def ended() -> Iterator[Message]:
        yield Message("assistant", content)
        yield Message("tool", results)
        content.clear()
        results.clear()

    for index, part in enumerate(parts):
        place = f"{at}.parts[{index}]"
        kind = _kind_of(part, place)
        if kind == "step-start" or (results and kind == "text"):
            yield from ended()
        if kind == "steering-message":  # typed by the user during the answer
            yield from ended()
            steered = part.get("parts")
            inner = [each for each in steered if isinstance(each, dict)] if isinstance(steered, list) else []
            yield from _read_plain("user")(inner, place, max_file_bytes)
        elif kind == "dynamic-tool" or kind.startswith("tool-"):
            _add_call(part, kind, place, content, results)
        elif kind != "step-start":
            found = _content(part, place, max_file_bytes)
            if found is not None:
                content.append(found)
    yield from ended()


_ROLES: Mapping[str, Callable[[list[JSON], str, int], Iterator[Message]]] = {
    "system": _read_plain("system"),
    "user": _read_plain("user"),
    "assistant": _read_answer,
}


def _kind_of(part: JSON, at: str) -> str:
    kind = part.get("type")
    if not isinstance(kind, str):
        raise ChatRequestError(f"{at}.type is not a text")
    return kind


def _content(part: JSON, at: str, max_file_bytes: int) -> Part | None:
    """Return a part with text or a file; None for parts that only the page uses."""
    kind = _kind_of(part, at)
    if kind == "text":
        return TextPart(_text(part, "text", at)) if _text(part, "text", at) else None
    if kind == "file":
        if part.get("providerReference"):
            raise ChatRequestError(f"{at} is stored at a provider, which is not allowed here")
        name = part.get("filename")
        return file_part(_text(part, "url", at), part.get("mediaType"), name, at=at, max_bytes=max_file_bytes)
    if kind in _SKIPPED or kind.startswith("data-"):
        return None
    raise ChatRequestError(f"{at}.type is not known: {kind[:50]!r}")


def _text(part: JSON, name: str, at: str) -> str:
    text = part.get(name)
    if not isinstance(text, str):
        raise ChatRequestError(f"{at}.{name} is not a text")
    return text


def _add_call(part: JSON, kind: str, at: str, content: list[Part], results: list[Part]) -> None:
    """Add a call and its result; a call without one is left out, as providers do not accept it."""
    result = _result(part, at)
    if result is None:
        return
    name = _text(part, "toolName", at) if kind == "dynamic-tool" else kind.removeprefix("tool-")
    arguments = part.get("input", part.get("rawInput"))
    text = arguments if isinstance(arguments, str) else msgspec.json.encode(arguments or {}).decode()
    is_custom = isinstance(arguments, str) and part.get("inputEncoding") == "text"
    content.append(
        ToolCallPart(result.tool_call_id, name, text, None if isinstance(arguments, str) else arguments or {}, None)
        if not is_custom
        else ToolCallPart(result.tool_call_id, name, text, custom=True)
    )
    results.append(result)


def _result(part: JSON, at: str) -> ToolResultPart | None:
    call_id, state = _text(part, "toolCallId", at), part.get("state")
    if state == "output-available" and part.get("preliminary") is not True:
        output = part.get("output")
        text = output if isinstance(output, str) else msgspec.json.encode(output).decode()
        return ToolResultPart(call_id, text)
    if state == "output-error":
        return ToolResultPart(call_id, _text(part, "errorText", at), is_error=True)
    return ToolResultPart(call_id, _DENIED, is_error=True) if state == "output-denied" else None
