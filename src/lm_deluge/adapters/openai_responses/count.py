"""Build the request that counts the tokens of a prompt for OpenAI's models.

https://platform.openai.com/docs/api-reference/responses/input-tokens
"""

from __future__ import annotations

import msgspec

from lm_deluge.adapters.adapter import Call
from lm_deluge.adapters.http_request import build_side_request
from lm_deluge.adapters.openai_responses.request import build_responses_body
from lm_deluge.config import SamplingParams
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import AudioPart
from lm_deluge.wire.http import HttpRequest

__all__ = ["build_chat_count", "build_count"]

_FIELDS = ("model", "input", "tools", "tool_choice", "text", "reasoning", "parallel_tool_calls")


def build_count(call: Call) -> HttpRequest:
    """Return the request, without credentials."""
    body = build_responses_body(msgspec.structs.replace(call, is_streamed=False, background=False))
    content = {name: body[name] for name in _FIELDS if name in body}
    path = (call.provider.path or "/responses") + "/input_tokens"
    return build_side_request(call, method="POST", path=path, content=content)


def build_chat_count(call: Call) -> HttpRequest | None:
    """Return the request for a call through Chat Completions, which has no endpoint of its own.

    None: the prompt has audio, which the Responses API does not take. Names of authors are left out, for the same
    reason; they are a few tokens.
    """
    messages = call.conversation.messages
    if any(isinstance(part, AudioPart) for message in messages for part in message.parts):
        return None
    unnamed = Conversation(Message(message.role, message.parts) for message in messages)
    return build_count(msgspec.structs.replace(call, conversation=unnamed, params=SamplingParams()))
