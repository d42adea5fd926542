"""Shortcuts to build calls and requests of any wire API."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import msgspec

from lm_deluge.adapters.adapter import Call
from lm_deluge.adapters.catalog import find_adapter
from lm_deluge.models.rows import Capabilities, ModelRow, ProviderRow
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.message import Message
from lm_deluge.simulator import Simulator
from lm_deluge.wire.http import HttpRequest


def call_of(api: str, prompt: Conversation | Iterable[Message], **fields: Any) -> Call:
    """Return a call to a model with default capabilities, at the provider id `recording` that `decode_body` uses."""
    row = ProviderRow(
        id="recording", otel_name="acme", adapter=api, base_url="https://acme.test", prompt_cache="automatic"
    )
    capabilities = fields.pop("capabilities", Capabilities())
    model = ModelRow(id="acme:m", name="m-1", provider=row.id, capabilities=capabilities)
    return Call(model=model, provider=row, conversation=Conversation(prompt), **{"base_url": row.base_url, **fields})


def request_of(api: str, prompt: Conversation | Iterable[Message], **fields: Any) -> HttpRequest:
    """Return the request for a conversation."""
    return find_adapter(api).build_request(call_of(api, prompt, **fields))


def body_of(api: str, prompt: Conversation | Iterable[Message], **fields: Any) -> dict[str, Any]:
    """Return the JSON of the request for a conversation."""
    body: dict[str, Any] = json.loads(request_of(api, prompt, **fields).body)
    return body


def with_owner(call: Call, owner: str) -> Call:
    """Return the call with a provider whose opaque data belongs to `owner`."""
    provider = msgspec.structs.replace(call.provider, opaque_as=owner)
    return msgspec.structs.replace(call, provider=provider)


def built(call: Call) -> bytes:
    """Return the body of the request for a call."""
    return find_adapter(call.provider.adapter).build_request(call).body


def simulated_url(sim: Simulator, row: ProviderRow) -> str:
    """Return the base URL of the simulator for the API of a provider."""
    if row.adapter == "mistral-chat":
        return f"{sim.url}/mistral"  # Mistral's path equals OpenAI's, so the simulator adds a prefix
    return sim.base_url if row.base_url.endswith("/v1") else sim.url
