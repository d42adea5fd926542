"""The frames of one answer, as the client's dialect has them: passed on as received, or written from the events."""

from __future__ import annotations

import msgspec

from lm_deluge.errors import APIError
from lm_deluge.events import Event, ResponseFinished, ResponseStarted
from lm_deluge.gateway.answers.relay import RELAY_ENDS, Relay
from lm_deluge.gateway.dialects import Dialect, open_writer

__all__ = ["AnswerFrames", "translated"]


def translated(events: list[Event], dialect: Dialect, request_id: str) -> list[Event]:
    """Return events for another API: without its provider's words for the end, and with an id if it has none."""
    first, last = events[0], events[-1]
    if type(first) is ResponseStarted and not first.response_id:
        named = dialect.encoder.id_prefix + request_id.removeprefix("req_")
        events = [msgspec.structs.replace(first, response_id=named), *events[1:]]
    if type(last) is ResponseFinished and last.raw_finish_reason is not None:
        events = [*events[:-1], msgspec.structs.replace(last, raw_finish_reason=None, finish_details=None)]
    return events


class AnswerFrames:
    """The frames of one streamed answer.

    Args:
        dialect: The API of the client.
        request_id: The id of the request.
        created: When the request arrived, in seconds since 1970.
        wants_usage: Whether the client asked for the usage.

    Attributes:
        response_id: The id of the response, once it has started.
    """

    def __init__(self, dialect: Dialect, request_id: str, *, created: int, wants_usage: bool) -> None:
        self._dialect = dialect
        self._request_id = request_id
        self._writer = open_writer(dialect, created=created, include_usage=wants_usage)
        keeps_usage = wants_usage or dialect.name != "openai-chat"
        self._relay = Relay(RELAY_ENDS.get(dialect.name), is_sse=dialect.encoder.is_sse, keeps_usage=keeps_usage)
        self._relayed_start: Event | None = None
        self._is_relayed = False
        self.response_id: str | None = None

    def add(self, events: list[Event], data: bytes | None) -> bytes:
        """Return the frames for the events of a read, and its bytes if they are passed on."""
        first = events[0]
        self._is_relayed = data is not None
        if data is not None:
            if type(first) is ResponseStarted:
                self._relayed_start, self.response_id = first, first.response_id
            return self._relay.feed(data, is_complete=type(events[-1]) is ResponseFinished)
        events = translated(events, self._dialect, self._request_id)
        if type(events[0]) is ResponseStarted:
            self.response_id = events[0].response_id
        return self._writer.write(events)

    def end(self, rest: bytes | None) -> bytes:
        """Return the last frames of a complete answer, after the rest of its bytes."""
        return self._relay.feed(rest or b"", is_complete=True) + self._relay.close() if self._is_relayed else b""

    def fail(self, error: APIError) -> bytes:
        """Return the frames that end the answer with an error."""
        if self._relayed_start is not None:
            self._writer.write([self._relayed_start])  # the client has it: what follows is the end of that response
        return self._writer.fail(error)
