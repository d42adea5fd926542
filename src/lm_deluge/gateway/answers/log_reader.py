"""Sends the log of a stream to a client: what is there, and then what arrives."""

from __future__ import annotations

import asyncio
import contextlib

import msgspec

from lm_deluge.gateway.answers.responder import Responder
from lm_deluge.ui.stream_log import StreamLog

__all__ = ["send_first", "send_log"]


async def send_first(log: StreamLog, responder: Responder) -> None:
    """Send the response object once the stream has started, for a response in the background that is not streamed."""
    await log.wait_for_start()
    while log.is_stream and not log.frames and not log.is_over:
        await log.wait(log.version)
    body = msgspec.json.encode(log.response_object()) if log.is_stream else b"".join(log.frames)
    headers = {**log.headers, "content-type": "application/json", "content-length": str(len(body))}
    await responder.start(log.status or _FAILED, headers)
    await responder.write(body, is_last=True)


_FAILED = 500  # the status of a stream that ended without one


async def send_log(log: StreamLog, responder: Responder, *, start: int, heartbeat: bytes, heartbeat_s: float) -> None:
    """Send a stream from a frame on, until its end or until the client has left. The stream goes on without it.

    Args:
        log: The stream.
        responder: Sends to the client.
        start: Position of the first frame.
        heartbeat: What is sent after each silence; empty: nothing.
        heartbeat_s: Seconds of silence.
    """
    left = asyncio.get_running_loop().create_task(responder.wait_until_left())
    try:
        while not responder.has_left:
            version = log.version
            if log.status is not None and not responder.has_started:
                headers = {**log.headers, "x-deluge-stream": log.id}
                await responder.start(log.status, headers, is_stream=log.is_stream)
            if responder.has_started:
                start = await _send_frames(log, responder, start)
            if log.is_over and (start >= len(log.frames) or log.status is None):
                if responder.has_started:
                    await responder.write(b"", is_last=True)
                return
            is_silent = not await _changed(log, version, left, heartbeat_s)
            if is_silent and heartbeat and responder.has_started and log.is_stream:
                await responder.write(heartbeat)
    finally:
        left.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await left


async def _send_frames(log: StreamLog, responder: Responder, start: int) -> int:
    """Send the frames from a position on; return the next position."""
    end = len(log.frames)
    if start < end:
        frames = log.frames[start:end] if not log.is_stream else [log.numbered(at) for at in range(start, end)]
        await responder.write(b"".join(frames))
    return max(start, end)


async def _changed(log: StreamLog, version: int, left: asyncio.Task[None], seconds: float) -> bool:
    """Wait for a change of the log, or until the client has left; return whether anything happened in time."""
    change = asyncio.get_running_loop().create_task(log.wait(version))
    try:
        done, _ = await asyncio.wait({change, left}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        return bool(done)
    finally:
        change.cancel()
