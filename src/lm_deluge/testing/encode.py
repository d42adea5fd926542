"""Bodies in a provider's wire format, made from events: the inverse of `decode_events`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lm_deluge.encoders.catalog import find_encoder
from lm_deluge.events import Event

__all__ = ["encode_events"]


def encode_events(api: str, events: Iterable[Event]) -> Iterator[bytes]:
    """Yield the frames of a streamed answer in the wire format of `api`.

    Raises:
        ConfigurationError: There is no such API.
    """
    yield from find_encoder(api).encode_stream(events)
