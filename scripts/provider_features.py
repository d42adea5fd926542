"""The features of each provider. A feature exists if the adapter of the provider can build a request with it."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib import resources
from typing import Any

import msgspec

from lm_deluge.adapters.adapter import Adapter, Call
from lm_deluge.adapters.catalog import adapter_names, find_adapter
from lm_deluge.errors import DelugeError
from lm_deluge.models.registry import list_models, list_providers
from lm_deluge.models.rows import Capabilities, ModelRow, ProviderRow
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.media import Media
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import AudioPart, FilePart, ImagePart, Part, ProviderDataPart, ReasoningPart, TextPart
from lm_deluge.prompt.tool import Tool

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
    "batches",
)

_HI = Conversation([Message.user("Hi")])
_PNG, _PDF, _WAV = b"\x89PNG\r\n\x1a\n", b"%PDF-1.7", b"RIFF\0\0\0\0WAVEfmt "
_SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}
_PROBES: tuple[dict[str, Any], ...] = (
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


def _sealed(kind: str) -> tuple[Any, ...]:
    """Return opaque data in the two forms of the APIs: a signature, or a whole item that contains a signature."""
    return _SEAL, {"type": kind, "id": "rs_1", "encrypted_content": _SEAL, "signature": _SEAL, "data": _SEAL}


def feature_lines() -> Iterator[tuple[str, ...]]:
    """Yield a table row for each provider whose wire API has an adapter."""
    tables = tomllib.loads(resources.files("lm_deluge.models").joinpath("providers.toml").read_text("utf-8"))
    for name in sorted(tables):
        row = msgspec.convert({"id": name, **tables[name]}, ProviderRow)
        if row.adapter in adapter_names() and row.base_url:
            adapter = find_adapter(row.adapter)
            supported = ("yes" if _body(adapter, row, **fields) is not None else "" for fields in _PROBES)
            key = f"`{row.key_env[0]}`" if row.key_env else ""
            address = f"`{row.base_url}`"
            yield (
                f"`{row.id}`",
                f"`{row.adapter}`",
                key,
                address,
                *supported,
                _reasoning(adapter, row),
                _cache(adapter, row),
                "yes" if row.batch_api else "",
            )


def _body(adapter: Adapter, row: ProviderRow, **fields: Any) -> str | None:
    """Return the body of a request as text, or None if the adapter rejects the request."""
    name = _model_name(row.otel_name, row.key_env)
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


@cache
def _model_name(otel_name: str, key_env: tuple[str, ...]) -> str:
    """Return the name of a model of the provider. With Bedrock the name decides the format of the request."""
    same = {row.id for row in list_providers() if (row.otel_name, row.key_env) == (otel_name, key_env)}
    names = [model.name for model in list_models() if model.provider in same]
    return next((name for name in names if "claude" in name), names[0] if names else "model")


def _reasoning(adapter: Adapter, row: ProviderRow) -> str:
    """Return the parts of earlier reasoning that the next request contains: its text, and opaque data."""
    owner = row.opaque_owner
    seals = [ProviderDataPart(owner, kind, data) for kind in sorted(adapter.echoes) for data in _sealed(kind)]
    sent = set()
    for parts in ((), *((seal,) for seal in seals)):
        thought: tuple[Part, ...] = (ReasoningPart(_THOUGHT), *parts, TextPart("Yes."))
        chat = Conversation([*_HI, Message("assistant", thought), Message.user("And?")])
        try:
            body = _body(adapter, row, conversation=chat) or ""
        except (LookupError, TypeError, AttributeError, ValueError):
            continue  # the adapter cannot read this form of opaque data, which its API never sends
        sent |= {label for mark, label in ((_THOUGHT, "text"), (_SEAL, "sealed")) if mark in body}
    return ", ".join(sorted(sent, reverse=True))


def _cache(adapter: Adapter, row: ProviderRow) -> str:
    if row.prompt_cache != "explicit":
        return _CACHES[row.prompt_cache]
    marked = _body(adapter, row, cache="last_user_message")
    return "by marks" if marked is not None and marked != _body(adapter, row) else ""
