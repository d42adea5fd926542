"""Encode events as a body in a provider's wire format, the inverse of `decode_events`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lm_deluge.encoders.catalog import find_encoder
from lm_deluge.events import Event

__all__ = ["encode_events"]


def encode_events(api: str, events: Iterable[Event]) -> Iterator[bytes]:
    """Yield the frames of a streamed answer in the wire format of `api`.

    Args:
        api: Name of the wire API, `openai-chat` for example.
        events: The events of one answer, from `ResponseStarted` to `ResponseFinished`.

    Raises:
        ConfigurationError: The API is unknown.

    Example:
        >>> events = [ResponseStarted(), TextDelta("Hello"), ResponseFinished("stop")]
        >>> body = b"".join(encode_events("openai-chat", events))
    """
    yield from find_encoder(api).encode_stream(events)
