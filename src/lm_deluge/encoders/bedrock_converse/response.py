"""Encode responses of Bedrock's Converse: the inverse of the adapter of the same name.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from lm_deluge.encoders.bedrock_converse.blocks import ConverseWriter, build_answer
from lm_deluge.encoders.bedrock_converse.errors import encode_error, encode_event, encode_stream_error
from lm_deluge.encoders.bedrock_converse.request import parse_request
from lm_deluge.encoders.encoder import Encoder, Endpoint
from lm_deluge.events import Event
from lm_deluge.wire.eventstream import MEDIA_TYPE

__all__ = ["ENCODER", "encode_response", "encode_stream"]


def encode_stream(events: Iterable[Event], *, created: int = 0, include_usage: bool = True) -> Iterator[bytes]:
    """Yield the frames of a streamed response, each as soon as the events that complete it are read.

    Usage is always reported; `include_usage` and `created` have no effect.
    """
    for name, fields in ConverseWriter().write_all(events):
        yield encode_event(name, msgspec.json.encode(fields))


def encode_response(events: Iterable[Event], *, created: int = 0) -> bytes:
    """Return the response as one JSON document; a truncated response has no stop reason."""
    return msgspec.json.encode(build_answer(events))


ENCODER = Encoder(
    name="bedrock-converse",
    parse_request=parse_request,
    encode_stream=encode_stream,
    encode_response=encode_response,
    encode_error=encode_error,
    encode_stream_error=encode_stream_error,
    routes=(
        Endpoint(r"/model/(?P<model>[^/]+)/converse-stream", is_streamed=True),
        Endpoint(r"/model/(?P<model>[^/]+)/converse", is_streamed=False),
    ),
    stream_type=MEDIA_TYPE,
    is_sse=False,
)
