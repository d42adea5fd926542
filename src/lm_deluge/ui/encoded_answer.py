"""One answer on its way to its readers: events of the source -> frames, and the report at its end."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import msgspec

from lm_deluge.dispatch.hooks import failure_of as failure_of_hook
from lm_deluge.dispatch.hooks import is_interruption, response_or_failed, warn_of_hook
from lm_deluge.response import APIResponse
from lm_deluge.ui.answer_source import AnswerSource, failure_of
from lm_deluge.ui.frame_encoder import FrameEncoder

__all__ = ["EncodedAnswer", "OnEnd"]

OnEnd: TypeAlias = Callable[[APIResponse], Awaitable[object] | object]
"""Called once with the response of each answer, also of one that failed or was abandoned."""


class EncodedAnswer:
    """The frames of one answer, read by read.

    Args:
        source: The answer.
        encoder: Writes its frames.
        on_end: Called with the response once the answer is over.
    """

    def __init__(self, source: AnswerSource, encoder: FrameEncoder, on_end: OnEnd | None) -> None:
        self.source = source
        self.encoder = encoder
        self._on_end = on_end
        self._is_finished = False

    @property
    def error(self) -> BaseException | None:
        """What the answer ended with; None as long as it did not fail."""
        outcome = self.encoder.outcome
        return None if outcome is None else outcome.error

    async def run(self, write: Callable[[bytes], Awaitable[object]]) -> bytes:
        """Write the frames of all events; return the last frames, once the answer has ended in any way.

        Args:
            write: Takes the frames of one read, and waits while its reader does not read.
        """
        source, encoder = self.source, self.encoder
        next_batch, frames = source.next_batch, encoder.frames
        try:
            while events := await next_batch():
                data = frames(events)
                if data:
                    await write(data)
                if encoder.is_over:  # the protocol cannot express how the answer goes on
                    return b""
            await source.close()
            last = encoder.end(source.response())
        except BaseException as error:
            if is_interruption(error):
                raise
            return encoder.end(failure_of(error, source))
        if encoder.outcome is not None and encoder.outcome.pending:
            await self.finish()  # a decision may follow the last frame at once, and finds what `on_end` has stored
        return last

    async def finish(self) -> None:
        """End the call, and report its response. An answer that was not read to its end is cancelled."""
        if self._is_finished:
            return
        self._is_finished = True
        source = self.source
        source.abort()
        with contextlib.suppress(Exception):
            await source.settle()
        if self._on_end is None:
            return
        failure = await failure_of_hook(self._on_end, self.response())
        if failure is not None:
            warn_of_hook("on_end", failure)

    def receipt(self) -> dict[str, Any]:
        """Return text, usage and cost so far, as JSON data."""
        response = self.response()
        usage = None if response.usage is None else msgspec.to_builtins(response.usage)
        return {"text": response.completion, "usage": usage, "cost": response.cost}

    def response(self) -> APIResponse:
        """Return the response so far, with the error that ended the answer."""
        response = response_or_failed(self.source.response)
        if response.error is None and self.error is not None:
            response.error = self.error
        return response
