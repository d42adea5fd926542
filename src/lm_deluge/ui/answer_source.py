"""Where the events of an answer come from: a stream of the client, or an iterator of the application."""

from __future__ import annotations

import builtins
import contextlib
from collections.abc import AsyncIterator
from typing import Any, Protocol

from lm_deluge.api_requests.timeouts import Deadline, Interruptible
from lm_deluge.client.stream import Stream
from lm_deluge.dispatch.hooks import is_interruption, unexpected_error, warn_of_hook
from lm_deluge.errors import ConfigurationError, DelugeError, TruncatedError
from lm_deluge.outputs.answer_type import Path
from lm_deluge.outputs.typed_call import TypedCall
from lm_deluge.response import APIResponse, ResponseBuilder
from lm_deluge.ui.frame_encoder import DataPart, UIEvent

__all__ = ["AnswerSource", "failure_of", "open_source"]


class AnswerSource(Protocol):
    """The part of `RunningCall` that a response needs; its lists may contain data of the application, too."""

    async def next_batch(self) -> list[Any]:
        """Return the next events, at least one; empty at the end, and after an abort."""
        ...

    async def close(self) -> None:
        """End the call after its last event."""
        ...

    async def settle(self) -> None:
        """Wait, for seconds at most, until what an abort started has ended."""
        ...

    def abort(self) -> None:
        """End the call now; a pending `next_batch` returns []."""
        ...

    def response(self) -> APIResponse:
        """Return the response so far."""
        ...


def open_source(stream: Stream | AsyncIterator[UIEvent]) -> AnswerSource:
    """Return the source of a stream, which cannot be used in another way from now on.

    Raises:
        ConfigurationError: The argument is neither a stream of the client nor an async iterator.
        StreamConsumedError: The stream was used already.
    """
    if isinstance(stream, Stream):
        call = stream.take()
        return _TypedSource(call) if isinstance(call, TypedCall) else call
    if isinstance(stream, AsyncIterator):
        return _IteratorSource(stream)
    raise ConfigurationError(
        f"a response streams client.stream(...) or an async iterator of events, not {type(stream).__name__}",
        hint="Pass client.stream(...) itself: not awaited, and not stream_sync.",
    )


class _TypedSource:
    """A call whose answer is an object: the values in it follow the events that completed them, as data."""

    def __init__(self, call: TypedCall) -> None:
        self._call = call
        self.close = call.close
        self.settle = call.settle
        self.abort = call.abort
        self.response = call.response

    async def next_batch(self) -> list[UIEvent]:
        """Return the next events, and the values that they complete."""
        events: list[UIEvent] = [*await self._call.next_batch()]
        if events:
            events += [_field(path, value) for path, value in self._call.fields]
        return events


def _field(path: Path, value: Any) -> DataPart:
    """Return a value in the object of an answer as data; the id names its place, so that a later value replaces it."""
    return DataPart("field", {"path": list(path), "value": value}, ".".join(map(str, path)))


class _IteratorSource:
    """An async iterator of events, or of lists of events."""

    def __init__(self, iterator: AsyncIterator[Any]) -> None:
        self.scope: Deadline | None = None
        self._iterator = iterator
        self._builder = ResponseBuilder()
        self._is_over = False
        self._is_aborted = False

    async def next_batch(self) -> list[UIEvent]:
        """Return the next events; empty at the end.

        Raises:
            TruncatedError: The iterator ended without `ResponseFinished`.
        """
        if self._is_over:
            return []
        try:
            with Interruptible(self):
                found = await anext(self._iterator, _END)
        except BaseException as error:
            self._is_over = True
            if self._is_aborted and isinstance(error, builtins.TimeoutError):
                return []
            raise
        if self._is_aborted:
            return []
        if found is _END:
            self._is_over = True
            if self._builder.finished is None:
                raise TruncatedError("the events ended before the answer was complete", billed="maybe")
            return []
        events: list[Any] = list(found) if isinstance(found, list | tuple) else [found]
        self._builder.add_all([event for event in events if type(event) is not DataPart])
        return events or await self.next_batch()

    async def close(self) -> None:
        """End the iterator; a failing one has ended, too."""
        close = getattr(self._iterator, "aclose", None)
        if close is not None:
            try:
                await close()
            except BaseException as error:
                if is_interruption(error):
                    raise
                warn_of_hook("the iterator of a response", error)

    settle = close

    def abort(self) -> None:
        """End the iterator now."""
        self._is_over = self._is_aborted = True
        if self.scope is not None:
            self.scope.pass_now()

    def response(self) -> APIResponse:
        """Return the response so far; its usage is what the events report."""
        return self._builder.response()


_END = object()


def failure_of(error: BaseException, source: AnswerSource) -> DelugeError:
    """Return an error of ours for what ended an answer, with the response so far."""
    failure = unexpected_error(error)
    if failure.partial is None:
        with contextlib.suppress(Exception):
            failure.partial = source.response()
    return failure
