"""Which calls ask the same, so that one answer can serve them all. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable
from typing import Any, Generic, TypeVar

import msgspec

from lm_deluge.prompt.conversation import Conversation
from lm_deluge.response import APIResponse

__all__ = ["Duplicates", "answer_again"]

Name = TypeVar("Name", bound=Hashable)

_encoder = msgspec.msgpack.Encoder()


class Duplicates(Generic[Name]):
    """Remembers what was asked, as hashes, and by whom first."""

    def __init__(self) -> None:
        self._first: dict[bytes, Name] = {}

    def first(self, name: Name, conversation: Conversation, *asked: Any) -> Name:
        """Return the name under which the same was asked first: `name` itself where nobody did.

        Args:
            name: Of this call.
            conversation: Its prompt.
            asked: What is asked beside the prompt, the same number of values each time.
        """
        try:
            data = _encoder.encode((conversation.messages, asked))
        except (TypeError, ValueError, OverflowError, RecursionError):
            return name  # what cannot be written down is like nothing else
        return self._first.setdefault(hashlib.sha256(data).digest(), name)


def answer_again(response: APIResponse) -> APIResponse:
    """Return the answer to a call for another one that asked the same: it took nothing and cost nothing."""
    again = msgspec.structs.replace(response, usage=None)
    again.cost = None if response.cost is None else 0.0
    return again
