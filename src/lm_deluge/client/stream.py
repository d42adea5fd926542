"""`Stream`: the answer of one call, which can be awaited, iterated over, or entered with `async with`.

The connection is closed at once at the end of the block, on `break`, an exception, a cancellation of the task, or when
the last reference is dropped. `break` needs no garbage collection: a loop iterates over an object that nothing else
refers to, and its finaliser closes the stream.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from typing import Any, Literal, Protocol

from lm_deluge.client.batch.fed_iterator import AsyncOnly
from lm_deluge.client.echo import Echo, EchoWriter, check_echo
from lm_deluge.client.notebook.answer import AnswerCell
from lm_deluge.client.notebook.cell import is_notebook
from lm_deluge.client.sentences import SentenceSplitter
from lm_deluge.client.typed_views import Pick, pick_fields, pick_items, pick_partials
from lm_deluge.dispatch.attempts.attempt import PendingRetry
from lm_deluge.dispatch.hooks import unexpected_error
from lm_deluge.dispatch.running_call import RunningCall
from lm_deluge.errors import DelugeError, StreamConsumedError
from lm_deluge.events import Event, TextDelta
from lm_deluge.outputs.typed_call import TypedCall
from lm_deluge.response import APIResponse, StreamStats

__all__ = ["Echo", "Stream"]


def texts_of(events: list[Event]) -> list[str]:
    """Return the texts of the answer among the events."""
    return [event.text for event in events if type(event) is TextDelta and event.text]


class _Batches:
    """Iterator over the items of a stream, for one loop; its finaliser ends the stream."""

    __slots__ = ("_call", "_finish", "_items", "_pick", "_position")

    def __init__(self, call: RunningCall, pick: Pick, finish: Callable[[], list[Any]] = list) -> None:
        self._call = call
        self._pick = pick
        self._finish = finish  # returns the items that are certain only at the end
        self._items: list[Any] = []
        self._position = 0

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        position = self._position
        if position == len(self._items):
            await self._fill()
            position = 0
        self._position = position + 1
        return self._items[position]

    async def _fill(self) -> None:
        self._items = []
        self._position = 0
        events: list[Event] = []
        while not self._items:
            try:
                events = await self._call.next_batch()
                if not events:
                    await self._call.close()
            except DelugeError:
                raise
            except Exception as error:
                raise _of_ours(error, self._call) from error
            self._items = self._pick(events) if events else self._finish()
            if not events and not self._items:
                raise StopAsyncIteration

    async def aclose(self) -> None:
        """End the stream, as closing a generator would."""
        self._call.abort()

    def __del__(self) -> None:
        self._call.abort_from_anywhere()


class _Sink(Protocol):
    """Where the events of a stream are shown. It raises nothing but KeyboardInterrupt."""

    def feed(self, events: list[Event]) -> None:
        """Show the events of one read."""
        ...

    def end(self, error: BaseException | None) -> None:
        """Show the end of the stream."""
        ...

    def return_response(self, response: APIResponse) -> APIResponse:
        """Return the response."""
        ...


class Stream(AsyncOnly, Coroutine[Any, Any, APIResponse]):
    """An answer as it is generated. Nothing is sent until the stream is used, and it is used once.

    `await` it to print the answer and get the response; iterate over it for text; enter it with `async with` for
    everything else. It is a coroutine, so `asyncio.run`, `asyncio.create_task` and task groups take it, too.
    `LLMClient.stream_sync` is the same without asyncio.

    Args:
        call: The call; `LLMClient.stream` makes it.
        echo: Where the awaited stream prints.

    Raises:
        ConfigurationError: `echo` is neither a text file nor None.

    Example:
        >>> async with client.stream("Hello") as stream:
        ...     async for event in stream.events():
        ...         print(event)
    """

    _SYNC_FORM = "Use `async for` or `async with`; without asyncio, call client.stream_sync(...) instead."

    def __init__(self, call: RunningCall, echo: Echo = "stdout") -> None:
        if echo is not None and echo != "stdout":
            check_echo(echo)
        self._call = call
        self._coroutine: Coroutine[Any, Any, APIResponse] | None = None  # of a task that runs the stream
        self.__name__ = type(self).__name__  # shown by the task
        self._echo: Echo = echo
        self._is_entered = False
        self._use: Literal["loop", "batches"] | None = None

    @property
    def call(self) -> RunningCall:
        """The call of the stream. For code that extends the client."""
        return self._call

    def take(self) -> RunningCall:
        """Return the call for code that reads it itself; the stream cannot be used in another way from now on.

        Raises:
            StreamConsumedError: The stream was used already.

        Example:
            >>> call = client.stream("Hello").take()
            >>> events = await call.next_batch()
        """
        if self._use is not None:
            raise _consumed()
        self._use = "loop"
        return self._call

    def __await__(self) -> Generator[Any, None, APIResponse]:
        return self._print().__await__()

    def send(self, value: Any) -> Any:
        """Run the stream to its next wait, as `await` does. For event loops."""
        try:
            return self._running().send(value)
        except BaseException:
            self._coroutine = None  # it has ended: another task gets an error
            raise

    def throw(self, kind: Any, value: Any = None, traceback: Any = None, /) -> Any:
        """Raise an exception where the stream waits. For event loops."""
        error = kind if value is None else value
        try:
            return self._running().throw(error if traceback is None else error.with_traceback(traceback))
        except BaseException:
            self._coroutine = None
            raise

    def close(self) -> None:
        """End the stream at once, as closing a coroutine does; `cancel` also returns the response so far."""
        self._use = self._use or "loop"
        if self._coroutine is not None:
            self._coroutine.close()
        self._call.abort_from_anywhere()

    def _running(self) -> Coroutine[Any, Any, APIResponse]:
        if self._coroutine is None:
            self._coroutine = self._print()
        return self._coroutine

    async def _print(self) -> APIResponse:
        return await self._deliver(lambda _: EchoWriter(self._echo))

    async def _deliver(self, make_sink: Callable[[RunningCall], _Sink]) -> APIResponse:
        """Read the stream into a sink, which raises nothing, and return the response."""
        call = self.take()
        sink = make_sink(call)
        failure: BaseException | None = None
        try:
            while events := await call.next_batch():
                sink.feed(events)
            await call.close()
        except DelugeError as error:
            failure = error
            raise
        except Exception as error:
            failure = _of_ours(error, call)
            raise failure from error
        except BaseException as error:
            failure = error
            raise
        finally:
            call.abort()
            sink.end(failure)
        return sink.return_response(call.response())

    async def display(self) -> APIResponse:
        """Show the answer as Markdown in a notebook while it arrives; elsewhere print it, as `await` does.

        The cell gets one output, which is updated at most ten times a second. It has reasoning (folded), tool calls and
        their results, and why an answer is incomplete. HTML, images and links to anything but web pages have no effect.

        Returns:
            The response. The cell that displays it does not show it once more as its result.

        Raises:
            StreamConsumedError: The stream was used already.
            DelugeError: The call failed; `partial` is the response so far, which stays in the cell.

        Example:
            >>> response = await client.stream("Compare three sorting algorithms in a table.").display()
        """
        if is_notebook():
            return await self._deliver(lambda call: AnswerCell(is_json=isinstance(call, TypedCall)))
        echo = "stdout" if self._echo is None else self._echo
        return await self._deliver(lambda _: EchoWriter(echo))

    def __aiter__(self) -> AsyncIterator[str]:
        return _Batches(self.take(), texts_of)

    async def __aenter__(self) -> Stream:
        if self._is_entered or self._use is not None:
            raise _consumed()
        self._is_entered = True
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        if kind is None:
            await self._call.close()
        self._call.abort()
        if kind is None or issubclass(kind, Exception):
            await self._call.settle()
        self._use = self._use or "loop"

    def events(self) -> AsyncIterator[Event]:
        """Return an iterator over all events, for one loop.

        Returns:
            The events of `lm_deluge.events`, from `ResponseStarted` to `ResponseFinished`.

        Raises:
            StreamConsumedError: The stream was used already.
            DelugeError: The call failed; `partial` is the response so far.

        Example:
            >>> async for event in stream.events():
            ...     print(event)
        """
        return _Batches(self.take(), list)

    def partials(self) -> AsyncIterator[Any]:
        """Return an iterator over the object so far of a call with `output=`, for one loop.

        Returns:
            The object as plain data (dict, list, str, ...), a new one for each read that changed it; the last one is
            complete. Earlier ones do not change; they share their complete parts, so do not modify them.

        Raises:
            StreamConsumedError: The stream was used already.
            ConfigurationError: The call has no `output`.
            OutputError: While iterating: the answer is not such an object.
            DelugeError: The call failed; the `output` of its `partial` is the object so far.

        Example:
            >>> async for invoice in client.stream(prompt, output=Invoice).partials():
            ...     print(len(invoice.get("lines", [])), "lines")
        """
        return self._view(pick_partials(self._call))

    def fields(self) -> AsyncIterator[tuple[tuple[str | int, ...], Any]]:
        """Return an iterator over the values in the object of a call with `output=`, for one loop.

        Returns:
            Path and value of each, once it is complete and valid, as an instance of its type: first those inside an
            object or list, then the object or list. The whole object is `response.output`. After an `Attempt` that
            starts again, the paths come again.

        Raises:
            StreamConsumedError: The stream was used already.
            ConfigurationError: The call has no `output`.
            OutputError: While iterating: the answer is not such an object.

        Example:
            >>> async for path, value in client.stream(prompt, output=Invoice).fields():
            ...     print(path, value)  # ('lines', 0, 'price') 9.5
        """
        return self._view(pick_fields(self._call))

    def items(self, path: str | tuple[str | int, ...] = ()) -> AsyncIterator[Any]:
        """Return an iterator over the elements of a list in the object of a call with `output=`, for one loop.

        Args:
            path: Where the list is: `"lines"`, `"order.lines"`, or a tuple of keys and indexes. By default the answer
                itself is the list.

        Returns:
            The elements, each once it is complete and valid, as an instance of its type.

        Raises:
            StreamConsumedError: The stream was used already.
            ConfigurationError: The call has no `output`, or its type has no such list.
            OutputError: While iterating: the answer is not such an object.

        Example:
            >>> async for line in client.stream(prompt, output=Invoice).items("lines"):
            ...     print(line.name, line.price)
        """
        return self._view(pick_items(self._call, path))

    def _view(self, pick: Pick) -> AsyncIterator[Any]:
        return _Batches(self.take(), pick)

    def sentences(self) -> AsyncIterator[str]:
        """Return an iterator over the sentences of the answer, for one loop: for speech or translation.

        Returns:
            Each sentence once it is complete, without the white space around it; a block of code is one sentence.

        Raises:
            StreamConsumedError: The stream was used already.
            DelugeError: The call failed; `partial` is the response so far.

        Example:
            >>> async for sentence in client.stream("Tell me a story").sentences():
            ...     print(sentence)
        """
        splitter = SentenceSplitter()
        return _Batches(self.take(), lambda events: splitter.feed("".join(texts_of(events))), splitter.close)

    async def next_batch(self) -> list[Event]:
        """Return the events of the next read: one list for each read costs less than one step for each event.

        Returns:
            The events, at least one; an empty list at the end.

        Raises:
            StreamConsumedError: The stream is used in another way already.
            DelugeError: The call failed; `partial` is the response so far.

        Example:
            >>> while events := await stream.next_batch():
            ...     print(events)
        """
        if self._use == "loop":
            raise _consumed()
        self._use = "batches"
        try:
            return await self._call.next_batch()
        except DelugeError:
            raise
        except Exception as error:
            raise _of_ours(error, self._call) from error

    async def read_to_end(self) -> APIResponse:
        """Read the stream, or the rest of it, to its end, without printing.

        Returns:
            The response; after `cancel` the part that arrived.

        Raises:
            DelugeError: The call failed; `partial` is the response so far.

        Example:
            >>> response = await client.stream("Hello").read_to_end()
        """
        self._use = "batches"
        try:
            while await self._call.next_batch():
                pass
            await self._call.close()
        except DelugeError:
            raise
        except Exception as error:
            raise _of_ours(error, self._call) from error
        finally:
            self._call.abort()
        return self._call.response()

    async def cancel(self) -> APIResponse:
        """Stop the stream and close its connection. A pending read of the stream ends as at the end of the answer.

        Returns:
            The response so far. Its usage is reported by the provider or estimated (`usage.estimated`): providers bill
            what they generated.

        Example:
            >>> partial = await stream.cancel()
            >>> partial.completion
        """
        self._use = self._use or "loop"
        self._call.abort()
        await self._call.settle()
        return self._call.response()

    def abandon(self) -> None:
        """Stop the stream without waiting, from any thread or from a finaliser.

        Example:
            >>> stream.abandon()
            >>> stream.response.completion
        """
        self._call.abort_from_anywhere()

    @property
    def response(self) -> APIResponse:
        """The response so far; complete after the end of the stream."""
        return self._call.response()

    @property
    def stats(self) -> StreamStats:
        """Timing of the stream so far."""
        return self._call.stats()

    @property
    def pending_retry(self) -> PendingRetry | None:
        """The next attempt while the stream waits for it: after which error, and from when on; else None."""
        return self._call.pending_retry


def _of_ours(error: Exception, call: RunningCall) -> DelugeError:
    """Return an error of ours for an unexpected exception of a call, with the response so far."""
    failure = unexpected_error(error)
    with contextlib.suppress(Exception):
        failure.partial = call.response()
    return failure


def _consumed() -> StreamConsumedError:
    return StreamConsumedError("this stream was used already", hint="Call client.stream(...) again for another answer.")
