"""Shortcuts to build calls and requests of Chat Completions."""

from __future__ import annotations

import json
from typing import Any

from lm_deluge.adapters.adapter import Call
from lm_deluge.adapters.openai_chat.adapter import OpenAIChat
from lm_deluge.models.rows import Capabilities, ModelRow, ProviderRow, Quirks
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.wire.http import HttpRequest


def a_call(
    conversation: Conversation, *, capabilities: Capabilities | None = None, quirks: Quirks | None = None, **fields: Any
) -> Call:
    """Return a call to a model with default capabilities."""
    provider = ProviderRow(
        id="acme", otel_name="acme", adapter="openai-chat", base_url="https://acme.test/v1", quirks=quirks or Quirks()
    )
    model = ModelRow(id="acme:m", name="m-1", provider="acme", capabilities=capabilities or Capabilities())
    fields = {"base_url": provider.base_url, **fields}
    return Call(model=model, provider=provider, conversation=conversation, **fields)


def request_of(conversation: Conversation, **fields: Any) -> HttpRequest:
    """Return the request for a conversation."""
    return OpenAIChat().build_request(a_call(conversation, **fields))


def body_of(conversation: Conversation, **fields: Any) -> dict[str, Any]:
    """Return the JSON of the request for a conversation."""
    body: dict[str, Any] = json.loads(request_of(conversation, **fields).body)
    return body
