"""Recorded responses are sent back on the next turn block by block; a simple reader of the recording is the oracle."""

from __future__ import annotations

import json
from typing import Any

import pytest

import recordings
from lm_deluge.adapters.adapter import Call
from lm_deluge.adapters.anthropic_messages.adapter import AnthropicMessages
from lm_deluge.models.rows import ModelRow, ProviderRow
from lm_deluge.prompt.conversation import Conversation
from oracles import sse_frame_ends
from samples.anthropic_bytes import API, read

NAMES = recordings.names(API)
pytestmark = pytest.mark.skipif(not NAMES, reason=recordings.REASON)

JSON = dict[str, Any]


def add(block: JSON, delta: JSON) -> None:
    """Apply a delta to its block."""
    kind = delta.pop("type")
    for name, value in delta.items():
        if kind == "citations_delta":
            block.setdefault("citations", []).append(value)
        elif kind == "signature_delta":
            block[name] = value
        else:
            block[name] = (block.get(name) or "") + value


def blocks_of(body: bytes) -> list[JSON]:
    """Return the blocks of the last message in a body, without fields that make no difference to the API."""
    blocks: list[JSON] = []
    for _, data in sse_frame_ends(body):
        event = json.loads(data)
        if event["type"] == "message_start":
            blocks = list(event["message"]["content"])
        elif event["type"] == "content_block_start":
            blocks.append(event["content_block"])
        elif event["type"] == "content_block_delta":
            add(blocks[event["index"]], event["delta"])
    return [normal(block) for block in blocks if is_accepted(block)]


def is_accepted(block: JSON) -> bool:
    """Whether the API accepts the block: it rejects blank text and thinking without a signature."""
    if block["type"] == "text":
        return bool(block["text"].strip())
    return block["type"] != "thinking" or bool(block.get("signature"))


def normal(block: JSON) -> JSON:
    written = block.pop("partial_json", None)
    if written:
        block["input"] = json.loads(written)
    if block["type"] == "tool_use" and block.get("caller") == {"type": "direct"}:
        del block["caller"]
    if not block.get("citations", True):
        del block["citations"]
    return block


@pytest.mark.parametrize("name", NAMES)
def test_an_answer_goes_back_as_it_came(name: str) -> None:
    body = recordings.load(API, name).body
    # `read` decodes responses under the same provider id, so their opaque data is sent back.
    row = ProviderRow(id="recording", otel_name="acme", adapter=API, base_url="https://acme.test")
    model = ModelRow(id="claude", name="claude", provider=row.id)
    answer = read(body).content
    conversation = Conversation.user("Hi").add(answer)
    for each in answer.tool_calls:
        conversation.tool_result(each.id, "done")
    conversation.user("Go on.")
    call = Call(model=model, provider=row, conversation=conversation)
    messages = json.loads(AnthropicMessages().build_request(call).body)["messages"]
    content = messages[1]["content"]
    found = [{"type": "text", "text": content}] if isinstance(content, str) else content
    assert (found if len(messages) > 2 else []) == blocks_of(body)
