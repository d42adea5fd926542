"""Decode the bytes of a response body as a live call would."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lm_deluge.adapters.adapter import Call
from lm_deluge.adapters.catalog import find_adapter
from lm_deluge.errors import DelugeError
from lm_deluge.events import Event
from lm_deluge.models.rows import ModelRow, ProviderRow
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.response import APIResponse, ResponseBuilder

__all__ = ["decode_body", "decode_events"]


def decode_events(api: str, chunks: bytes | Iterable[bytes]) -> Iterator[Event]:
    """Yield the events of a body in the wire format of `api`.

    Args:
        api: Name of the wire API, `openai-chat` for example.
        chunks: The body, whole or in pieces of any size, decompressed.

    Raises:
        DelugeError: The error that a live stream would raise, after the events before it were yielded.
        ConfigurationError: The API is unknown.
    """
    row = ProviderRow(id="recording", otel_name="recording", adapter=api, base_url="")
    call = Call(
        model=ModelRow(id="recording", name="recording", provider=row.id), provider=row, conversation=Conversation()
    )
    decoder = find_adapter(api).decoder(call)
    for chunk in (chunks,) if isinstance(chunks, bytes | bytearray | memoryview) else chunks:
        yield from decoder.feed(bytes(chunk))
        if decoder.error is not None:
            raise decoder.error
    yield from decoder.close()
    if decoder.error is not None:
        raise decoder.error


def decode_body(api: str, chunks: bytes | Iterable[bytes]) -> APIResponse:
    """Return the response in a body.

    Args:
        api: Name of the wire API, `openai-chat` for example.
        chunks: The body, whole or in pieces of any size, decompressed.

    Raises:
        DelugeError: The error that a live stream would raise; its `partial` is the response so far.
        ConfigurationError: The API is unknown.

    Example:
        >>> body = Path("recorded.sse").read_bytes()
        >>> assert decode_body("openai-chat", body).completion == "Hello"
    """
    builder = ResponseBuilder()
    try:
        for event in decode_events(api, chunks):
            builder.add(event)
    except DelugeError as error:
        error.partial = builder.response()
        raise
    return builder.response()
