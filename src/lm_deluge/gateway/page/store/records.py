"""The conversations, messages and files of the page as values, and as JSON."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec

from lm_deluge.errors import APIError, DelugeError
from lm_deluge.response import APIResponse
from lm_deluge.usage import Usage

__all__ = ["Answered", "FileRecord", "MessageRecord", "Status", "error_fields", "timing", "usage_fields"]

JSON = dict[str, Any]
Status: TypeAlias = Literal["running", "complete", "stopped", "failed"]


class MessageRecord(msgspec.Struct, kw_only=True):
    """A message as the page gets it.

    Attributes:
        parts: Its parts: text, reasoning, tool calls, images, files, sources.
        created: Seconds since 1970.
        unsaved: Whether the end of an answer is in the memory of the server only, because the database failed.
    """

    id: str
    parent: str | None
    role: Literal["user", "assistant"]
    parts: msgspec.Raw
    model: str | None = None
    status: Status = "complete"
    error: msgspec.Raw | None = None
    usage: msgspec.Raw | None = None
    cost: float | None = None
    first_token_s: float | None = None
    duration_s: float | None = None
    created: float
    unsaved: bool = False


class FileRecord(msgspec.Struct, kw_only=True):
    """A file that a user has sent."""

    file_id: str
    name: str
    media_type: str
    size: int

    def part(self) -> JSON:
        """Return the file as a part of a message."""
        kind = "image" if self.media_type.startswith("image/") else "file"
        return {"type": kind, "file_id": self.file_id, "name": self.name, "media_type": self.media_type}


class Answered(msgspec.Struct, kw_only=True):
    """How an answer ended, or what is there of it so far.

    Attributes:
        parts: As the page shows them.
        upstream: As the next turn sends them, JSON text.
        text: What the search looks at; None: it is not known yet.
    """

    status: Status
    parts: bytes
    upstream: str
    text: str | None = None
    error: JSON | None = None
    usage: JSON | None = None
    cost: float | None = None
    first_token_s: float | None = None
    duration_s: float | None = None


def error_fields(error: BaseException) -> JSON:
    """Return an error as the page gets it: errors of ours have no key and no prompt in their message."""
    if not isinstance(error, DelugeError):
        return {"type": "ServerError", "message": "The server failed.", "retryable": True}
    # The hint of an error with a part of an answer is where programs find that; the page shows it anyway.
    hint = error.hint if error.partial is None else None
    text = f"{error.message.removesuffix('.')}. {hint}" if hint else error.message
    # A limit or a budget of a key passes by itself.
    is_passing = error.retryable or (isinstance(error, APIError) and error.status_code == _TOO_MANY)
    return {"type": type(error).__name__, "message": text, "retryable": is_passing}


_TOO_MANY = 429  # the status of limits and budgets


def usage_fields(usage: Usage | None) -> JSON | None:
    """Return the usage of an answer as the page gets it."""
    if usage is None:
        return None
    return {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "cached": usage.cache_read_tokens,
    }


def timing(response: APIResponse) -> tuple[float | None, float | None]:
    """Return the seconds to the first token, and to the end."""
    stats = response.stats
    return (None, None) if stats is None else (stats.time_to_first_token, stats.duration)
