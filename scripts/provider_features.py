"""What each provider takes, found out by trying: its adapter is asked to build requests, and may refuse."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from importlib import resources
from typing import Any

import msgspec

from lm_deluge.errors import DelugeError
from lm_deluge.models.registry import list_models
from lm_deluge.models.rows import Capabilities, ModelRow, ProviderRow
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.media import Media
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import AudioPart, FilePart, ImagePart, Part, ProviderDataPart, ReasoningPart, TextPart
from lm_deluge.prompt.tool import Tool
from lm_deluge.providers.adapter import Adapter, Call
from lm_deluge.providers.catalog import adapter_names, find_adapter

__all__ = ["HEADS", "feature_lines"]

HEADS = (
    "provider",
    "wire API",
    "key",
    "base URL",
    "streams",
    "plain",
    "tools",
    "images",
    "PDFs",
    "audio",
    "JSON schema",
    "reasoning sent back",
    "prompt cache",
)

_HI = Conversation([Message.user("Hi")])
_PNG, _PDF, _WAV = b"\x89PNG\r\n\x1a\n", b"%PDF-1.7", b"RIFF\0\0\0\0WAVEfmt "
_SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}
_TRIES: tuple[dict[str, Any], ...] = (
    {"is_streamed": True},
    {"is_streamed": False},
    {"tools": (Tool(name="add"),)},
    {"conversation": Conversation([Message("user", (ImagePart(Media(data=_PNG, media_type="image/png")),))])},
    {"conversation": Conversation([Message("user", (FilePart(Media(data=_PDF, media_type="application/pdf")),))])},
    {"conversation": Conversation([Message("user", (AudioPart(Media(data=_WAV, media_type="audio/wav")),))])},
    {"output": _SCHEMA},
)
_CACHES = {"automatic": "by itself", "none": ""}
_THOUGHT, _SEAL = "a thought sent back", "c2VhbGVk"


def feature_lines() -> Iterator[tuple[str, ...]]:
    """Yield a line for each provider whose wire API has an adapter."""
    tables = tomllib.loads(resources.files("lm_deluge.models").joinpath("providers.toml").read_text("utf-8"))
    for name in sorted(tables):
        row = msgspec.convert({"id": name, **tables[name]}, ProviderRow)
        if row.adapter in adapter_names() and row.base_url:
            adapter = find_adapter(row.adapter)
            taken = ("yes" if _body(adapter, row, **fields) is not None else "" for fields in _TRIES)
            key = f"`{row.key_env[0]}`" if row.key_env else ""
            address = f"`{row.base_url}`"
            yield (
                f"`{row.id}`",
                f"`{row.adapter}`",
                key,
                address,
                *taken,
                _reasoning(adapter, row),
                _cache(adapter, row),
            )


def _body(adapter: Adapter, row: ProviderRow, **fields: Any) -> str | None:
    """Return the body of a request as text, None where the adapter refuses."""
    listed = list_models(provider=row.id)
    name = listed[0].name if listed else "model"
    call = Call(
        model=ModelRow(id=name, name=name, provider=row.id, capabilities=Capabilities()),
        provider=row,
        base_url="https://host.test",
        **{"conversation": _HI, **fields},
    )
    try:
        return json.dumps(json.loads(adapter.build_request(call).body))
    except DelugeError:
        return None


def _reasoning(adapter: Adapter, row: ProviderRow) -> str:
    """Return what of earlier reasoning is in the next request: its text, and what the provider sealed."""
    sent = []
    for kind in (None, *sorted(adapter.echoes)):
        parts: tuple[Part, ...] = (ReasoningPart(_THOUGHT),)
        if kind is not None:
            parts += (ProviderDataPart(row.opaque_owner, kind, _SEAL),)
        answer = Message("assistant", (*parts, TextPart("Yes.")))
        body = _body(adapter, row, conversation=Conversation([*_HI, answer, Message.user("And?")])) or ""
        sent += [word for mark, word in ((_THOUGHT, "text"), (_SEAL, "sealed")) if mark in body]
    return ", ".join(sorted(set(sent), reverse=True))


def _cache(adapter: Adapter, row: ProviderRow) -> str:
    if row.prompt_cache != "explicit":
        return _CACHES[row.prompt_cache]
    marked = _body(adapter, row, cache="last_user_message")
    return "by marks" if marked is not None and marked != _body(adapter, row) else ""
