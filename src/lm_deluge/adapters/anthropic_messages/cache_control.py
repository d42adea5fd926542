"""Put `cache_control` marks into the body of a request, as Anthropic's prompt caching wants them.

https://platform.claude.com/docs/en/build-with-claude/prompt-caching

A mark on a block caches everything up to it, in the order tools, system, messages. The API takes at most four marks.
"""

from __future__ import annotations

from typing import Any

from lm_deluge.config import PromptCache

__all__ = ["add_cache_marks"]

JSON = dict[str, Any]

_MARK: JSON = {"cache_control": {"type": "ephemeral"}}

_USER_MESSAGES = {"last_user_message": 1, "last_2_user_messages": 2, "last_3_user_messages": 3}


def add_cache_marks(body: JSON, cache: PromptCache) -> None:
    """Add the marks to `body`. Messages with tool results have the role `user` here and count as user messages."""
    if cache in _USER_MESSAGES:
        users = [message for message in body["messages"] if message["role"] == "user"]
        for message in users[-_USER_MESSAGES[cache] :]:
            message["content"] = _marked(_blocks(message["content"]))
        return
    if body.get("tools"):
        body["tools"] = _marked(body["tools"])
    if cache == "system_and_tools" and body.get("system"):
        body["system"] = _marked(_blocks(body["system"]))


def _blocks(content: str | list[JSON]) -> list[JSON]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _marked(blocks: list[JSON]) -> list[JSON]:
    return [*blocks[:-1], blocks[-1] | _MARK]
