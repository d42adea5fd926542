"""A conversation as a file: JSON with all branches, or Markdown of the branch that is shown. Pure."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import msgspec

from lm_deluge.gateway.page.store.records import MessageRecord

__all__ = ["attachment", "branch_of", "to_json", "to_markdown"]

JSON = dict[str, Any]


def to_json(conversation: JSON) -> bytes:
    """Return a conversation with all messages as JSON."""
    return msgspec.json.format(msgspec.json.encode({"version": 1, **conversation}), indent=2)


def branch_of(messages: Sequence[MessageRecord], head: str | None) -> list[MessageRecord]:
    """Return the messages from the first one to the head; without a head, to the latest message."""
    by_id = {message.id: message for message in messages}
    at = by_id.get(head or "") or (messages[-1] if messages else None)
    branch: list[MessageRecord] = []
    while at is not None:
        branch.append(at)
        at = by_id.get(at.parent or "")
    return branch[::-1]


def to_markdown(conversation: JSON) -> bytes:
    """Return the branch that is shown as Markdown."""
    day = dt.datetime.fromtimestamp(conversation["created"], tz=dt.UTC)
    blocks = [f"# {conversation['title'] or 'Conversation'}", f"{day:%Y-%m-%d %H:%M} UTC"]
    if conversation["system"]:
        blocks += ["## System", conversation["system"]]
    for message in branch_of(conversation["messages"], conversation["head"]):
        blocks.append(f"## {message.model or 'Assistant'}" if message.role == "assistant" else "## User")
        blocks += [_block(part) for part in msgspec.json.decode(message.parts)]
        if message.error is not None:
            blocks.append(f"*{msgspec.json.decode(message.error)['message']}*")
    return ("\n\n".join(block for block in blocks if block) + "\n").encode()


def _block(part: JSON) -> str:
    match part["type"]:
        case "text":
            return str(part["text"])
        case "reasoning":
            return _quoted(part["text"])
        case "tool":
            return _tool_block(part)
        case "source":
            return f"- [{part['title'] or part['url']}]({part['url']})"
    return f"*{part['type']}: {part['name']}*"


def _quoted(text: str) -> str:
    return "\n".join(f"> {line}".rstrip() for line in text.splitlines())


def _tool_block(part: JSON) -> str:
    given = part["arguments"]
    shown = given if isinstance(given, str) else msgspec.json.format(msgspec.json.encode(given)).decode()
    ended = part["error"] or part["result"]
    return "\n\n".join([f"**{part['name']}**", _fenced(shown), *([_fenced(ended)] if ended else [])])


def _fenced(text: str) -> str:
    """Return text as a block of code, whose fence is longer than any in the text."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}\n{text}\n{fence}"


def attachment(name: str) -> str:
    """Return the header that has a browser save a response under a name; https://www.rfc-editor.org/rfc/rfc6266."""
    plain = re.sub(r"[^A-Za-z0-9._ -]", "_", name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
