"""`StreamResponse`: an answer as the response of a web application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any

from lm_deluge.client.stream import Stream
from lm_deluge.errors import ConfigurationError
from lm_deluge.ui.answer_source import open_source
from lm_deluge.ui.chat_requests import request_options
from lm_deluge.ui.encode import Protocol, frame_encoder
from lm_deluge.ui.encoded_answer import EncodedAnswer, OnEnd
from lm_deluge.ui.failures import web_status
from lm_deluge.ui.frame_encoder import UIEvent
from lm_deluge.ui.web_client import Receive, Scope, Send, WebClient

if TYPE_CHECKING:
    from starlette.responses import Response as _Response
else:
    try:
        from starlette.responses import Response as _Response
    except ImportError:  # another framework: any of them can call the response as an ASGI application
        _Response = object

__all__ = ["StreamResponse", "WebResponse"]

HEARTBEAT_S = 15.0  # proxies close connections after 60 s of silence, some after 30; the HTML standard names 15
_OK = 200  # the status of an answer that has started


class WebResponse(_Response):
    """Base of the responses: FastAPI takes subclasses of Starlette's class, and adds a background task and headers."""

    def __init__(self, status: int, headers: Mapping[str, str]) -> None:
        self.status_code = status
        self.background: Any = None
        self.body = b""
        self.raw_headers = [
            (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body})
        await self.run_background()

    async def run_background(self) -> None:
        """Run the task that FastAPI or the application has set."""
        if self.background is not None:
            await self.background()


class StreamResponse(WebResponse):
    """The response of a web application that streams an answer: for Starlette, FastAPI, or any ASGI server.

    The last frame is always a terminal one, and reports a success only if the answer is complete. The call is cancelled
    as soon as the client disconnects. Sending waits while the client does not read, and so does the provider.

    Args:
        stream: `client.stream(...)`, also with `run_tools=True` or `output=...`; or an async iterator of events, for
            example a generator that yields the events of several streams. `DataPart` values may be among them.
        protocol: `vercel-ui` (the AI SDK's `useChat`, assistant-ui), `ag-ui`, `openai-chat` or `text`.
        request: The body of the request: the ids in the frames are those of the request.
        on_end: Function, also async, that is called once with the response when the answer is over: with `usage` and
            `cost`, and with `error` if it failed. `finish_reason` is None if the client left before its end. If the
            function fails, there is a `RuntimeWarning`.
        heartbeat_s: Seconds of silence after which a comment is sent; 15 by default.
        headers: More headers of the response.
        options: Those of `frame_encoder`: `error_text`, `message_id`, `static_tools` ...

    Raises:
        ConfigurationError: The stream is no stream, or there is no such protocol or option.
        StreamConsumedError: The stream was used already.

    Example:
        >>> @app.post("/api/chat")
        ... async def chat(body: dict):
        ...     return StreamResponse(client.stream(conversation_from(body)), protocol="vercel-ui")
    """

    def __init__(
        self,
        stream: Stream | AsyncIterator[UIEvent],
        protocol: Protocol = "vercel-ui",
        *,
        request: Mapping[str, Any] | None = None,
        on_end: OnEnd | None = None,
        heartbeat_s: float = HEARTBEAT_S,
        headers: Mapping[str, str] | None = None,
        **options: Any,
    ) -> None:
        if heartbeat_s <= 0:
            raise ConfigurationError("heartbeat_s must be greater than 0")
        encoder = frame_encoder(
            protocol, **{**request_options(protocol, request, options.get("approval_key")), **options}
        )
        self._answer = EncodedAnswer(open_source(stream), encoder, on_end)
        self._heartbeat_s = heartbeat_s
        super().__init__(_OK, {**encoder.headers, **(headers or {})})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer.

        Raises:
            DelugeError: The answer broke after its start, and the protocol has no frame for that: the server closes the
                connection, which clients notice.
        """
        # In a task of its own: each read would pass all the coroutines of the framework that wait for the response.
        delivery = asyncio.create_task(self._deliver(receive, send))
        try:
            await delivery
        except asyncio.CancelledError:
            delivery.cancel()
            await asyncio.wait({delivery})
            raise
        await self.run_background()

    async def _deliver(self, receive: Receive, send: Send) -> None:
        answer, encoder = self._answer, self._answer.encoder
        is_broken = False
        client = WebClient(receive, send, self.raw_headers, heartbeat=encoder.heartbeat, heartbeat_s=self._heartbeat_s)
        try:
            async with client.watched(answer.source.abort):
                if encoder.opens_early:
                    await client.write(encoder.start())
                last = await answer.run(client.write)
                is_broken = answer.error is not None and not encoder.can_fail
                if answer.error is not None and encoder.is_empty and not client.has_started:
                    is_broken = False
                    await self._refuse(client, answer.error)
                else:
                    await client.write(last, is_last=not is_broken)
        finally:
            await answer.finish()
        if is_broken and answer.error is not None and not client.has_left:
            raise answer.error

    async def _refuse(self, client: WebClient, error: BaseException) -> None:
        """Send an error that came before the answer with its HTTP status."""
        content_type, body = self._answer.encoder.refusal(error)
        headers = [(b"content-type", content_type.encode()), (b"content-length", str(len(body)).encode())]
        await client.start(web_status(error), headers)
        await client.write(body, is_last=True)
