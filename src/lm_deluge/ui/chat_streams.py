"""Answers of chats that go on without their page: it can come back to one, or stop it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

from lm_deluge.client.stream import Stream
from lm_deluge.errors import ResponseLimitError
from lm_deluge.ui.answer_source import open_source
from lm_deluge.ui.chat_requests import request_options
from lm_deluge.ui.encode import Protocol, frame_encoder
from lm_deluge.ui.encoded_answer import EncodedAnswer, OnEnd
from lm_deluge.ui.frame_encoder import UIEvent
from lm_deluge.ui.stream_log import StreamLog, StreamLogs
from lm_deluge.ui.stream_response import HEARTBEAT_S, WebResponse
from lm_deluge.ui.web_client import Receive, Scope, Send, WebClient

__all__ = ["ChatStreams"]

_OK, _NO_CONTENT = 200, 204  # statuses of an answer, and of a chat without a running one
_KEPT_S = 0.0  # a finished answer is in the application's store, and a page that resumes it would show it twice


class _RunningAnswer:
    """One answer: its frames so far, and the task that writes them."""

    def __init__(self, answer: EncodedAnswer, log: StreamLog) -> None:
        self.answer = answer
        self.log = log

    async def fill(self) -> None:
        """Write the frames of the whole answer, and report its end."""
        answer, log = self.answer, self.log
        try:
            log.start(_OK, answer.encoder.headers, is_stream=True)
            await self._write(answer.encoder.start())
            await self._write(await answer.run(self._write))
        finally:
            log.end()
            await answer.finish()

    async def _write(self, data: bytes) -> None:
        if data and not self.log.add(data):
            raise ResponseLimitError("the answer is larger than a stream that can be resumed", reason="limit")


class _LogResponse(WebResponse):
    """Sends the frames of a running answer from its start, then those that arrive; the answer goes on without it."""

    def __init__(self, running: _RunningAnswer, heartbeat_s: float, headers: Mapping[str, str] | None = None) -> None:
        self._running = running
        self._heartbeat_s = heartbeat_s
        super().__init__(_OK, {**running.answer.encoder.headers, **(headers or {})})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        log, heartbeat = self._running.log, self._running.answer.encoder.heartbeat
        client = WebClient(receive, send, self.raw_headers, heartbeat=heartbeat, heartbeat_s=self._heartbeat_s)
        async with client.watched(log.wake):
            position = 0
            while not client.has_left:
                version, end, is_over = log.version, len(log.frames), log.is_over
                if position < end or is_over:
                    await client.write(b"".join(log.frames[position:end]), is_last=is_over)
                    position = end
                if is_over:
                    break
                await log.wait(version)
        await self.run_background()


class ChatStreams:
    """The running answers of an application: pages resume and stop them. One object for the whole application.

    An answer goes on when its page disconnects, and is billed once, however many pages read it. A chat has one running
    answer: the next one stops it. A chat is found only with the owner that started its answer.

    Args:
        heartbeat_s: Seconds of silence after which a comment is sent; 15 by default.

    Example:
        >>> streams = ChatStreams()
        >>> streams.respond(chat_id, user, client.stream(prompt), on_end=save)
    """

    def __init__(self, *, heartbeat_s: float = HEARTBEAT_S) -> None:
        self._heartbeat_s = heartbeat_s
        self._logs = StreamLogs(_KEPT_S)
        self._running: dict[tuple[str, str], _RunningAnswer] = {}

    def respond(
        self,
        chat_id: str,
        owner: str,
        stream: Stream | AsyncIterator[UIEvent],
        protocol: Protocol = "vercel-ui",
        *,
        request: Mapping[str, Any] | None = None,
        on_end: OnEnd | None = None,
        headers: Mapping[str, str] | None = None,
        **options: Any,
    ) -> WebResponse:
        """Start an answer, and return the response that streams it.

        Args:
            chat_id: The id of the chat, as the page names it.
            owner: Whose chat it is: a name that the application has checked.
            stream: As for `StreamResponse`; so are the other arguments.
            protocol: The protocol of the page.
            request: The body of the request.
            on_end: Called once with the response when the answer is over.
            headers: More headers of the response.
            options: Those of `frame_encoder`.

        Returns:
            The response.

        Raises:
            ConfigurationError: The stream is no stream, or there is no such protocol or option.
            StreamConsumedError: The stream was used already.

        Example:
            >>> return streams.respond(body["id"], user, client.stream(conversation_from(body)), request=body)
        """
        encoder = frame_encoder(
            protocol, **{**request_options(protocol, request, options.get("approval_key")), **options}
        )
        answer = EncodedAnswer(open_source(stream), encoder, on_end)
        earlier = self._running.get((owner, chat_id))
        if earlier is not None:
            earlier.answer.source.abort()
        log = self._logs.open(owner)
        running = self._running[owner, chat_id] = _RunningAnswer(answer, log)
        self._logs.run(log, self._fill(chat_id, owner, running))
        return _LogResponse(running, self._heartbeat_s, headers)

    async def _fill(self, chat_id: str, owner: str, running: _RunningAnswer) -> None:
        try:
            await running.fill()
        finally:
            if self._running.get((owner, chat_id)) is running:
                del self._running[owner, chat_id]

    def resume(self, chat_id: str, owner: str) -> WebResponse:
        """Return the response for a page that comes back: the running answer from its start, or 204 if there is none.

        Args:
            chat_id: The id of the chat.
            owner: Whose chat it is; of another owner's chat there is no answer.

        Returns:
            The response.

        Example:
            >>> return streams.resume(chat_id, user)
        """
        running = self._running.get((owner, chat_id))
        if running is None or running.log.is_over:
            return WebResponse(_NO_CONTENT, {})
        return _LogResponse(running, self._heartbeat_s)

    async def stop(self, chat_id: str, owner: str) -> dict[str, Any] | None:
        """Stop the running answer of a chat: its call is cancelled, and its pages get what there is.

        Args:
            chat_id: The id of the chat.
            owner: Whose chat it is.

        Returns:
            The receipt: `text`, `usage` (JSON data) and `cost` in US dollars, None where unknown. None if no answer is
            running.

        Example:
            >>> receipt = await streams.stop(chat_id, user)
        """
        running = self._running.get((owner, chat_id))
        if running is None:
            return None
        running.answer.source.abort()
        while not running.log.is_over:
            await running.log.wait(running.log.version)
        return running.answer.receipt()

    async def close(self, drain_s: float = 0.0) -> None:
        """Wait for the running answers, then cancel those that are left. For the end of the application.

        Args:
            drain_s: Seconds to wait; by default the answers are cancelled at once.

        Example:
            >>> await streams.close(drain_s=10)
        """
        if not drain_s:
            for running in self._running.values():
                running.answer.source.abort()
        with contextlib.suppress(asyncio.CancelledError):
            await self._logs.drain(max(drain_s, _LEAST_DRAIN_S))


_LEAST_DRAIN_S = 1.0  # for the last frames, and for `on_end`
