"""Ollama's API for a single prompt, as another form of its chat API: https://docs.ollama.com/api/generate.

A request becomes one of the chat API, and each line of its response one of this API. There are no tools and no earlier
turns. The encoder is for servers only: the library itself asks Ollama by the chat API.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from lm_deluge.encoders.encoder import Encoder, Endpoint, ParsedRequest, StreamWriter
from lm_deluge.encoders.ollama_chat import request as chat
from lm_deluge.encoders.ollama_chat import response as chat_response
from lm_deluge.encoders.ollama_chat.load import read_generate_load
from lm_deluge.encoders.openai_chat.request_fields import bad_request, parse_object, take_field
from lm_deluge.events import Event

__all__ = ["ENCODER", "parse_request"]

JSON = dict[str, Any]

_OWN_FIELDS = ("prompt", "system", "images", "raw", "context", "template", "suffix")
_REFUSED = ("context", "template", "suffix")  # an earlier answer as tokens, a format of prompts, text after the answer


def parse_request(body: bytes, *, model: str | None = None, is_streamed: bool | None = None) -> ParsedRequest:
    """Parse the body of a request, as `ollama_chat.parse_request`.

    Raises:
        BadRequestError: The body is not a JSON object, has no prompt, or has a field that only Ollama can follow.
    """
    raw = parse_object(body)
    prompt = take_field(raw, "prompt", str, "")
    images = take_field(raw, "images", list, [])
    system = take_field(raw, "system", str, "")
    for name in _REFUSED:
        if raw.get(name):
            raise bad_request(f"{name} cannot be served here: use /api/chat", "unsupported_value")
    if take_field(raw, "raw", bool, default=False):
        raise bad_request("raw cannot be served here: the prompt has no template", "unsupported_value")
    if not prompt and not images:
        raise bad_request("there is no prompt", "missing_required_parameter")
    user = {"role": "user", "content": prompt, **({"images": images} if images else {})}
    messages = [*([{"role": "system", "content": system}] if system else []), user]
    asked = {name: value for name, value in raw.items() if name not in _OWN_FIELDS}
    return chat.parse_request(
        msgspec.json.encode({**asked, "messages": messages}), model=model, is_streamed=is_streamed
    )


def _line_of(chat_line: bytes) -> bytes:
    """Return a line of the chat API as one of this API: the message becomes the fields `response` and `thinking`."""
    fields: JSON = msgspec.json.decode(chat_line)
    message = fields.pop("message", None)
    if message is None:  # an error
        return chat_line
    fields["response"] = message.get("content", "")
    if "thinking" in message:
        fields["thinking"] = message["thinking"]
    return msgspec.json.encode(fields) + b"\n"


def encode_stream(events: Iterable[Event], *, created: int = 0, include_usage: bool = True) -> Iterator[bytes]:
    """Yield the lines of a streamed response."""
    return map(_line_of, chat_response.encode_stream(events, created=created))


def encode_response(events: Iterable[Event], *, created: int = 0) -> bytes:
    """Return the response as one JSON document."""
    return _line_of(chat_response.encode_response(events, created=created)).rstrip()


class _GenerateWriter(StreamWriter):
    """Writes one streamed response: the lines of the chat API in the form of this one."""

    def write(self, events: Iterable[Event]) -> bytes:
        return b"".join(map(_line_of, super().write(events).splitlines(keepends=True)))


def open_stream(*, created: int, include_usage: bool) -> StreamWriter:
    """Return a writer of one streamed response."""
    return _GenerateWriter(chat_response.line_writer(created), bytes, chat_response.encode_stream_error)


ENCODER = Encoder(
    name="ollama-generate",
    parse_request=parse_request,
    encode_stream=encode_stream,
    encode_response=encode_response,
    encode_error=chat_response.encode_error,
    encode_stream_error=chat_response.encode_stream_error,
    open_stream=open_stream,
    routes=(Endpoint(r"/api/generate"),),
    stream_type="application/x-ndjson",
    is_sse=False,
    read_load=read_generate_load,
)
