"""Requests without a prompt: Ollama loads the model, or unloads it with `keep_alive` 0, and answers at once.

https://github.com/ollama/ollama/blob/main/docs/api.md#load-a-model (2026-11). A gateway has nothing to load: its
clients send such a request to prepare for the first prompt, or to check the name of a model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from lm_deluge.encoders.encoder import LoadRequest

__all__ = ["read_chat_load", "read_generate_load", "time_of"]

JSON = dict[str, Any]

_NO_TIME = re.compile(r"0+(\.0*)?[a-z]*")  # of Go's durations: "0", "0s", "0m"


def time_of(created: int) -> str:
    """Return a time as Ollama writes it."""
    return datetime.fromtimestamp(created, UTC).isoformat().replace("+00:00", "Z")


def read_chat_load(body: bytes, *, created: int) -> LoadRequest | None:
    """Return what a request to `/api/chat` without messages loads, and the answer; None for any other request."""
    raw = _object(body)
    if raw.get("messages") not in (None, []):
        return None
    return _load(raw, {"message": {"role": "assistant", "content": ""}}, created)


def read_generate_load(body: bytes, *, created: int) -> LoadRequest | None:
    """Return what a request to `/api/generate` without a prompt loads, and the answer; None for any other request."""
    raw = _object(body)
    if raw.get("prompt") not in (None, "") or raw.get("images"):
        return None
    return _load(raw, {"response": ""}, created)


def _object(body: bytes) -> JSON:
    """Return the body; without a model, which no request is, if it is no JSON object."""
    try:
        raw = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return raw if isinstance(raw, dict) else {}


def _load(raw: Mapping[str, Any], empty: JSON, created: int) -> LoadRequest | None:
    model, kept = raw.get("model"), raw.get("keep_alive")
    if not isinstance(model, str) or not model:
        return None
    is_unload = kept is not None and kept is not False and _NO_TIME.fullmatch(str(kept)) is not None
    answer = {
        "model": model,
        "created_at": time_of(created),
        **empty,
        "done": True,
        "done_reason": "unload" if is_unload else "load",
    }
    return LoadRequest(model, msgspec.json.encode(answer))
