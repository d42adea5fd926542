"""Encode responses of Bedrock's native API, each in the format of its model's family.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModelWithResponseStream.html

A response without a model, or with a model of no known family, gets OpenAI's format. The encoder of each format
documents what the format cannot express; those of text-completion models hold only text, finish reason and usage.
"""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any

import msgspec

from lm_deluge.encoders.anthropic_messages import response as anthropic
from lm_deluge.encoders.bedrock_converse.blocks import ConverseWriter, build_answer
from lm_deluge.encoders.bedrock_converse.errors import encode_error, encode_event, encode_stream_error
from lm_deluge.encoders.bedrock_invoke.model_families import find_form
from lm_deluge.encoders.bedrock_invoke.request import parse_request
from lm_deluge.encoders.bedrock_invoke.text_models import TEXT_FORMS, build_text_answer, metrics, write_text
from lm_deluge.encoders.encoder import Encoder, Endpoint
from lm_deluge.encoders.openai_chat import response as openai_chat
from lm_deluge.events import Event, ResponseStarted, UsageReported
from lm_deluge.usage import Usage
from lm_deluge.wire.eventstream import MEDIA_TYPE

__all__ = ["ENCODER", "encode_response", "encode_stream"]

JSON = dict[str, Any]


def encode_stream(events: Iterable[Event], *, created: int = 0, include_usage: bool = True) -> Iterator[bytes]:
    """Yield the frames of a streamed response, each as soon as the events that complete it are read.

    Usage is always reported; `include_usage` has no effect.
    """
    form, events = _find_format(iter(events))
    for data in _STREAMS.get(form, _write_text)(form, _UsageRecorder(events), created):
        yield encode_event("chunk", b'{"bytes":"%b"}' % b2a_base64(data, newline=False))


def encode_response(events: Iterable[Event], *, created: int = 0) -> bytes:
    """Return the response as one JSON document."""
    events = list(events)
    form, _ = _find_format(iter(events))
    if form in TEXT_FORMS:
        return msgspec.json.encode(build_text_answer(TEXT_FORMS[form], events))
    return _DOCUMENTS[form](events, created)


def _find_format(events: Iterator[Event]) -> tuple[str, Iterator[Event]]:
    """Return the format for the response's model, and an iterator over all of the events."""
    first = next(events, None)
    model = first.model if isinstance(first, ResponseStarted) else None
    return find_form(model), chain(() if first is None else (first,), events)


class _UsageRecorder:
    """Iterable over events that keeps the last usage among those already read."""

    def __init__(self, events: Iterable[Event]) -> None:
        self._events = events
        self.usage: Usage | None = None

    def __iter__(self) -> Iterator[Event]:
        for event in self._events:
            if isinstance(event, UsageReported):
                self.usage = event.usage
            yield event


def _write_text(form: str, events: _UsageRecorder, created: int) -> Iterator[bytes]:
    for chunk in write_text(TEXT_FORMS[form], events):
        yield msgspec.json.encode(chunk)


def _write_nova(form: str, events: _UsageRecorder, created: int) -> Iterator[bytes]:
    for name, fields in ConverseWriter().write_all(events):
        metrics_fields = metrics(events.usage) if name == "metadata" else {}
        yield msgspec.json.encode({name: fields, **metrics_fields})


def _write_claude(form: str, events: _UsageRecorder, created: int) -> Iterator[bytes]:
    for event in anthropic.write_events(events):
        metrics_fields = metrics(events.usage) if event["type"] == "message_stop" else {}
        yield msgspec.json.encode({**event, **metrics_fields})


def _write_chat(form: str, events: _UsageRecorder, created: int) -> Iterator[bytes]:
    for frame in openai_chat.encode_stream(events, created=created):
        data = _data_of(frame)
        if data.startswith(b"{"):
            # The chunk with the usage is the last one.
            is_last = b'"choices":[],' in data and events.usage is not None
            yield _with_metrics(data, events.usage) if is_last else data


def _data_of(frame: bytes) -> bytes:
    """Return the data of a server-sent event that has one data line."""
    return frame.partition(b"data: ")[2].strip()


def _with_metrics(data: bytes, usage: Usage | None) -> bytes:
    metrics_fields = msgspec.json.encode(metrics(usage))
    return data if metrics_fields == b"{}" else data[:-1] + b"," + metrics_fields[1:]


_STREAMS: dict[str, Callable[[str, _UsageRecorder, int], Iterator[bytes]]] = {
    "claude": _write_claude,
    "nova": _write_nova,
    "chat": _write_chat,
}

_DOCUMENTS: dict[str, Callable[[list[Event], int], bytes]] = {
    "claude": lambda events, created: anthropic.encode_response(events, created=created),
    "nova": lambda events, _: msgspec.json.encode(build_answer(events)),
    "chat": lambda events, created: openai_chat.encode_response(events, created=created),
}


ENCODER = Encoder(
    name="bedrock-invoke",
    parse_request=parse_request,
    encode_stream=encode_stream,
    encode_response=encode_response,
    encode_error=encode_error,
    encode_stream_error=encode_stream_error,
    routes=(
        Endpoint(r"/model/(?P<model>[^/]+)/invoke-with-response-stream", is_streamed=True),
        Endpoint(r"/model/(?P<model>[^/]+)/invoke", is_streamed=False),
    ),
    stream_type=MEDIA_TYPE,
    is_sse=False,
)
