"""Change the JSON in encoded bodies, in every framing of the wire APIs."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from typing import Any

import msgspec

from lm_deluge.wire.eventstream import EventStreamDecoder, encode_event_message

Edit = Callable[[bytes], bytes]
_NATIVE = re.compile(rb'\{"bytes":"([^"]*)"\}')


def edited(body: bytes, edit: Edit) -> bytes:
    """Return the body with `edit` applied to the text of its frames, or of the document."""
    if body[:1] != b"\0":
        return edit(body)
    messages = []
    for frame in EventStreamDecoder().feed(body):
        native = _NATIVE.fullmatch(frame.data)
        data = (
            edit(frame.data)
            if native is None
            else b'{"bytes":"%b"}' % base64.b64encode(edit(base64.b64decode(native[1])))
        )
        headers = {":event-type": frame.event, ":content-type": "application/json", ":message-type": "event"}
        messages.append(encode_event_message(data, headers))
    return b"".join(messages)


def replaced(body: bytes, old: bytes, new: bytes) -> bytes:
    """Return the body with bytes of its JSON replaced; they must occur."""
    found = 0

    def edit(text: bytes) -> bytes:
        nonlocal found
        found += text.count(old)
        return text.replace(old, new)

    changed = edited(body, edit)
    assert found, old
    return changed


def as_json(value: Any) -> bytes:
    return msgspec.json.encode(value)
