"""What of a call a local cache keeps, and under which key. Pure.

The key is a hash over everything that shapes an answer and over who asks: another provider, address, model, body,
header or API key is another key, so that nobody is answered from somebody else's account. The value is the answer's
events, as JSON; a value that cannot be read is a miss.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal

import msgspec

from lm_deluge.adapters.adapter import Call
from lm_deluge.config import Secret
from lm_deluge.events import Attempt, Event, ResponseFinished, ResponseStarted
from lm_deluge.response import APIResponse
from lm_deluge.usage import Usage
from lm_deluge.wire.http import HttpRequest

__all__ = ["KEPT_ENDINGS", "CachedAnswer", "build_key", "decode_answer", "encode_answer"]

_VERSION = 1
KEPT_ENDINGS = ("stop", "length", "tool_calls", "refusal")
"""A filter may decide otherwise tomorrow, and a turn that pauses lives on at the provider's: both are asked anew."""
_HARMLESS = ("no_done",)
_OF_THE_WAY = ("buffered_upstream",)


class CachedAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer as a cache keeps it.

    Attributes:
        events: All of them but those of attempts that failed.
        usage: What the answer took, as reported or estimated then.
        warnings: Beside those of the call itself.
    """

    version: Literal[1] = 1
    events: tuple[Event, ...]
    usage: Usage | None = None
    warnings: tuple[str, ...] = ()


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(CachedAnswer)


def build_key(api: str, call: Call, request: HttpRequest, key: Secret | None) -> str:
    """Return the key of the answer to a request of the wire API `api`: 64 hexadecimal digits."""
    digest = hashlib.sha256()
    account = b"" if key is None else hashlib.sha256(key.reveal().encode()).digest()
    names = (api, call.provider.id, call.base_url, call.model.id, call.model.name, request.method, request.url)
    headers = [text for header in sorted(request.headers.items()) for text in header]
    for part in (b"%d" % _VERSION, account, request.body, *(text.encode() for text in (*names, *headers))):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()


def encode_answer(events: Sequence[Event], response: APIResponse, call: Call) -> bytes | None:
    """Return what a cache keeps of an answer; None where it is no whole success, or would not come back the same."""
    finished = events[-1] if events else None
    if not isinstance(finished, ResponseFinished) or not isinstance(events[0], ResponseStarted):
        return None
    if finished.finish_reason not in KEPT_ENDINGS or response.is_error:
        return None
    if response.model_internal != call.model.id or set(finished.warnings) - set(_HARMLESS):
        return None
    own = response.warnings[len(call.warnings) :]
    answer = CachedAnswer(
        events=tuple(_kept(events)),
        usage=response.usage,
        warnings=tuple(warning for warning in own if warning not in _OF_THE_WAY),
    )
    try:
        value = _encoder.encode(answer)
        return value if _decoder.decode(value) == answer else None
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError):
        return None  # half characters, say


def _kept(events: Sequence[Event]) -> list[Event]:
    """Return the events without the attempts that failed, and without what an answer said before it began anew."""
    kept: list[Event] = []
    for event in events:
        if not isinstance(event, Attempt):
            kept.append(event)
        elif not event.goes_on:
            del kept[1:]
    return kept


def decode_answer(value: bytes) -> CachedAnswer | None:
    """Return the answer; None where the value is none of this version."""
    try:
        answer = _decoder.decode(value)
    except (msgspec.MsgspecError, TypeError, ValueError, RecursionError):
        return None
    events = answer.events
    is_whole = len(events) > 1 and isinstance(events[0], ResponseStarted) and isinstance(events[-1], ResponseFinished)
    return answer if is_whole else None
