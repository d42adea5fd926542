"""Find calls with equal requests, so that one answer serves all of them. Pure."""

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
    """Remembers the hash of each request, with the name of the first call that made it."""

    def __init__(self) -> None:
        self._first: dict[bytes, Name] = {}

    def first(self, name: Name, conversation: Conversation, *options: Any) -> Name:
        """Return the name of the first call with an equal request; `name` if there was none.

        Args:
            name: The name of this call.
            conversation: Its prompt.
            options: Everything else that shapes its answer, the same number of values for each call.
        """
        try:
            data = _encoder.encode((conversation.messages, options))
        except (TypeError, ValueError, OverflowError, RecursionError):
            return name  # a request that cannot be encoded has no duplicate
        return self._first.setdefault(hashlib.sha256(data).digest(), name)


def answer_again(response: APIResponse) -> APIResponse:
    """Return a copy of an answer for a duplicate of its call: without usage, and at no cost."""
    again = msgspec.structs.replace(response, usage=None)
    again.cost = None if response.cost is None else 0.0
    return again
