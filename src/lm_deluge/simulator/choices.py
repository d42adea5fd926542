"""Several choices in one answer: `n` of OpenAI and Mistral, `candidateCount` of Gemini. All have the same content.

https://platform.openai.com/docs/api-reference/chat/create#chat-create-n
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import msgspec

from lm_deluge.encoders.encoder import Encoder, ParsedRequest
from lm_deluge.errors import BadRequestError
from lm_deluge.events import Event, UsageReported
from lm_deluge.usage import Usage

__all__ = ["with_choices"]

JSON = dict[str, Any]

_DATA = b"data: "


class _Form(NamedTuple):
    """The fields of an API that has choices.

    Attributes:
        settings: Names of the object with the setting; empty if it is a field of the request.
        names: Names of the setting: Google's APIs take both spellings.
        most: The largest number of choices that the API allows.
        answer: The field of the answer with the choices.
    """

    settings: tuple[str, ...]
    names: tuple[str, ...]
    most: int
    answer: str


_CHAT = _Form((), ("n",), 128, "choices")
_FORMS = {
    "openai-chat": _CHAT,
    "mistral-chat": _CHAT,
    "gemini-generate": _Form(
        ("generationConfig", "generation_config"), ("candidateCount", "candidate_count"), 8, "candidates"
    ),
}


def with_choices(encoder: Encoder, request: ParsedRequest) -> Encoder:
    """Return the encoder, or one that writes each answer as many times as the request wants choices.

    Raises:
        BadRequestError: The number of choices is outside the limits of the API.
    """
    form = _FORMS.get(encoder.name)
    count = 1 if form is None else _count(form, request.raw)
    if form is None or count == 1:
        return encoder

    def encode_stream(events: Iterable[Event], *, created: int = 0, include_usage: bool = True) -> Iterator[bytes]:
        multiplied = _multiplied(events, count)
        for frame in encoder.encode_stream(multiplied, created=created, include_usage=include_usage):
            yield from _copied(frame, form.answer, count)

    def encode_response(events: Iterable[Event], *, created: int = 0) -> bytes:
        document: JSON = msgspec.json.decode(encoder.encode_response(_multiplied(events, count), created=created))
        choices = [_numbered(choice, number) for number in range(count) for choice in document[form.answer]]
        return msgspec.json.encode({**document, form.answer: choices})

    return replace(encoder, encode_stream=encode_stream, encode_response=encode_response)


def _count(form: _Form, raw: JSON) -> int:
    settings: JSON = next((raw[name] for name in form.settings if isinstance(raw.get(name), dict)), {})
    name, count = next(
        ((name, fields[name]) for fields in (settings, raw) for name in form.names if fields.get(name) is not None),
        ("", 1),
    )
    if type(count) is not int or not 1 <= count <= form.most:
        message = f"Invalid value for '{name}': expected an integer from 1 to {form.most}."
        raise BadRequestError(message, status_code=400, type="invalid_request_error")
    return count


def _multiplied(events: Iterable[Event], count: int) -> Iterator[Event]:
    """Yield the events with the usage of all choices together; the prompt is read once."""
    for event in events:
        yield UsageReported(_of_all(event.usage, count)) if isinstance(event, UsageReported) else event


def _of_all(usage: Usage, count: int) -> Usage:
    reasoning = usage.reasoning_tokens
    return msgspec.structs.replace(
        usage,
        output_tokens=usage.output_tokens * count,
        reasoning_tokens=None if reasoning is None else reasoning * count,
    )


def _copied(frame: bytes, field: str, count: int) -> Iterator[bytes]:
    """Yield the frame once for each choice; a frame without choices, such as the end mark, is yielded once."""
    text = frame.removeprefix(_DATA).rstrip()
    chunk = msgspec.json.decode(text) if text.startswith(b"{") else {}
    choices = chunk.get(field)
    if not choices:
        yield frame
        return
    end = frame[len(_DATA) + len(text) :]
    for number in range(count):
        copy = {**chunk, field: [_numbered(choice, number) for choice in choices]}
        yield _DATA + msgspec.json.encode(copy) + end


def _numbered(choice: JSON, number: int) -> JSON:
    """Return the choice with its number; the ids of tool calls are different in each choice."""
    numbered = {**choice, "index": number}
    for name in ("delta", "message"):
        calls = choice[name].get("tool_calls") if number and isinstance(choice.get(name), dict) else None
        if calls:
            renamed = [{**call, "id": f"{call['id']}_{number}"} if call.get("id") else call for call in calls]
            numbered[name] = {**choice[name], "tool_calls": renamed}
    return numbered
