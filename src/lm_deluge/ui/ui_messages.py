"""The messages of `useChat` -> our messages.

https://ai-sdk.dev/docs/reference/ai-sdk-core/ui-message (2026-11); `ai` 7.0.173. An answer with tools is one message,
with `step-start` between the rounds: it becomes several of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from lm_deluge.errors import ChatRequestError
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import Part, TextPart, ToolCallPart, ToolResultPart
from lm_deluge.ui.approvals import DENIED
from lm_deluge.ui.request_files import file_part

__all__ = ["read_ui_messages"]

JSON = dict[str, Any]

_SKIPPED = ("reasoning", "reasoning-file", "source-url", "source-document", "custom")


def read_ui_messages(messages: Sequence[JSON], max_file_bytes: int, open_ids: Collection[str] = ()) -> list[Message]:
    """Return the messages of a request. Calls without results are left out, except those with `open_ids`.

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
        reader = _ROLES[message["role"]](parts, at, max_file_bytes, open_ids)
        found += [each for each in reader if each.parts]
    return found


Reader = Callable[[list[JSON], str, int, Collection[str]], Iterator[Message]]


def _read_plain(role: Any) -> Reader:
    def read(parts: list[JSON], at: str, max_file_bytes: int, open_ids: Collection[str]) -> Iterator[Message]:
        found = [_content(part, f"{at}.parts[{index}]", max_file_bytes) for index, part in enumerate(parts)]
        yield Message(role, [part for part in found if part is not None])

    return read


def _read_answer(parts: list[JSON], at: str, max_file_bytes: int, open_ids: Collection[str]) -> Iterator[Message]:
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
            yield from _read_plain("user")(inner, place, max_file_bytes, ())
        elif kind == "dynamic-tool" or kind.startswith("tool-"):
            call_id, result = _text(part, "toolCallId", place), _result(part, place)
            if result is not None or call_id in open_ids:  # providers do not accept other calls without a result
                content.append(_call(part, kind, place))
            results += [] if result is None else [result]
        elif kind != "step-start":
            found = _content(part, place, max_file_bytes)
            if found is not None:
                content.append(found)
    yield from ended()


_ROLES: Mapping[str, Reader] = {
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


def _call(part: JSON, kind: str, at: str) -> ToolCallPart:
    call_id = _text(part, "toolCallId", at)
    name = _text(part, "toolName", at) if kind == "dynamic-tool" else kind.removeprefix("tool-")
    arguments = part.get("input", part.get("rawInput"))
    text = arguments if isinstance(arguments, str) else msgspec.json.encode(arguments or {}).decode()
    if isinstance(arguments, str) and part.get("inputEncoding") == "text":
        return ToolCallPart(call_id, name, text, custom=True)
    return ToolCallPart(call_id, name, text, None if isinstance(arguments, str) else arguments or {}, None)


def _result(part: JSON, at: str) -> ToolResultPart | None:
    call_id, state = _text(part, "toolCallId", at), part.get("state")
    if state == "output-available" and part.get("preliminary") is not True:
        output = part.get("output")
        text = output if isinstance(output, str) else msgspec.json.encode(output).decode()
        return ToolResultPart(call_id, text)
    if state == "output-error":
        return ToolResultPart(call_id, _text(part, "errorText", at), is_error=True)
    return ToolResultPart(call_id, DENIED, is_error=True) if state == "output-denied" else None
