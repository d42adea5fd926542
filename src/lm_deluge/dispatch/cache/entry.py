"""Keys and values of a local cache. Pure.

The key is a hash of everything that shapes an answer, and of the API key: a request with another provider, base URL,
model, body, header or API key has another key, so no account gets an answer of another account. The value is the events
of the answer, as JSON; a value that cannot be decoded is a miss.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal

import msgspec

from lm_deluge.adapters.adapter import Call
from lm_deluge.config import Secret
from lm_deluge.dispatch.cache.acceptance import is_accepted
from lm_deluge.events import Attempt, Event, ResponseFinished, ResponseStarted
from lm_deluge.response import APIResponse
from lm_deluge.usage import Usage
from lm_deluge.wire.http import HttpRequest

__all__ = ["CACHED_FINISH_REASONS", "CachedAnswer", "build_key", "decode_answer", "encode_answer"]

_VERSION = 1  # part of each key: a new version makes all older values misses
CACHED_FINISH_REASONS = ("stop", "length", "tool_calls", "refusal")
"""Answers with another finish reason are not cached: a content filter may decide otherwise the next time, and a paused
turn continues at the provider."""
_HARMLESS_WARNINGS = ("no_done",)
_TRANSPORT_WARNINGS = ("buffered_upstream",)


class CachedAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer in a cache.

    Attributes:
        events: The events of the answer, without those of failed attempts.
        usage: The usage of the original call, reported or estimated.
        warnings: Warnings about the answer; warnings about the request are not stored.
    """

    version: Literal[1] = 1
    events: tuple[Event, ...]
    usage: Usage | None = None
    warnings: tuple[str, ...] = ()


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(CachedAnswer)


def build_key(api: str, call: Call, request: HttpRequest, key: Secret | None, filters: str = "") -> str:
    """Return the key of a request of the wire API `api`: 64 hexadecimal digits.

    Args:
        api: Name of the wire API.
        call: The call.
        request: Its request.
        key: The API key.
        filters: Digest of the filters of the answer; empty without any.
    """
    digest = hashlib.sha256()
    account = b"" if key is None else hashlib.sha256(key.reveal().encode()).digest()
    names = (api, call.provider.id, call.base_url, call.model.id, call.model.name, request.method, request.url)
    headers = [text for header in sorted(request.headers.items()) for text in header]
    headers += [filters] if filters else []  # nothing is hashed without filters, so that older keys stay valid
    for part in (b"%d" % _VERSION, account, request.body, *(text.encode() for text in (*names, *headers))):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()


def encode_answer(events: Sequence[Event], response: APIResponse, call: Call) -> bytes | None:
    """Return the value of an answer.

    None if the answer is incomplete, failed, of another form than the call asked for, or changes when it is decoded.
    """
    finished = events[-1] if events else None
    if not isinstance(finished, ResponseFinished) or not isinstance(events[0], ResponseStarted):
        return None
    if finished.finish_reason not in CACHED_FINISH_REASONS or response.is_error:
        return None
    if response.model_internal != call.model.id or set(finished.warnings) - set(_HARMLESS_WARNINGS):
        return None
    if not is_accepted(response, call):
        return None
    own = response.warnings[len(call.warnings) :]
    answer = CachedAnswer(
        events=tuple(_without_failed_attempts(events)),
        usage=response.usage,
        warnings=tuple(warning for warning in own if warning not in _TRANSPORT_WARNINGS),
    )
    try:
        value = _encoder.encode(answer)
        return value if _decoder.decode(value) == answer else None
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError):
        return None  # a lone surrogate, for example


def _without_failed_attempts(events: Sequence[Event]) -> list[Event]:
    """Return the events without those of failed attempts and of answers that were started again."""
    kept: list[Event] = []
    for event in events:
        if not isinstance(event, Attempt):
            kept.append(event)
        elif not event.goes_on:
            del kept[1:]
    return kept


def decode_answer(value: bytes) -> CachedAnswer | None:
    """Return the answer of a value; None if the value is damaged or of another version."""
    try:
        answer = _decoder.decode(value)
    except (msgspec.MsgspecError, TypeError, ValueError, RecursionError):
        return None
    events = answer.events
    is_whole = len(events) > 1 and isinstance(events[0], ResponseStarted) and isinstance(events[-1], ResponseFinished)
    return answer if is_whole else None
