"""The fields of the Responses API's events that are decoded.

https://platform.openai.com/docs/api-reference/responses-streaming
"""

from __future__ import annotations

from typing import Any

import msgspec

from lm_deluge.events import TokenLogprob

__all__ = ["Delta", "ItemEvent", "Piece", "Response", "ResponseEvent", "Source"]


class Delta(msgspec.Struct, gc=False):
    """A fragment of an item, in one of the text fields, or a finished piece. The event type decides which field."""

    delta: str | None = None
    output_index: int | None = None
    content_index: int | None = None
    summary_index: int | None = None
    sequence_number: int | None = None
    item_id: str | None = None
    logprobs: list[TokenLogprob] | None = None
    text: str | None = None
    refusal: str | None = None
    arguments: Any = None
    input: str | None = None
    name: str | None = None
    call_id: str | None = None
    annotation: dict[str, Any] | None = None
    part: dict[str, Any] | None = None


class ItemEvent(msgspec.Struct, gc=False):
    """The start or the end of an item."""

    item: dict[str, Any] | None = None
    output_index: int | None = None
    sequence_number: int | None = None


class _Incomplete(msgspec.Struct, gc=False):
    reason: str | None = None


class Response(msgspec.Struct, gc=False):
    """The response object: the body of a plain response, and a field of the first and the last event of a stream."""

    id: str | None = None
    model: str | None = None
    status: str | None = None
    output: list[Any] | None = None
    usage: dict[str, Any] | None = None
    error: Any = None
    incomplete_details: _Incomplete | None = None
    service_tier: str | None = None


class ResponseEvent(msgspec.Struct, gc=False):
    """An event that contains the response object."""

    response: Response | None = None
    sequence_number: int | None = None


class Piece(msgspec.Struct, gc=False):
    """A piece of a finished message or of finished reasoning."""

    type: str | None = None
    text: str | None = None
    refusal: str | None = None
    logprobs: list[TokenLogprob] | None = None
    annotations: list[Any] | None = None


class Source(msgspec.Struct, gc=False):
    """A citation, of any kind."""

    url: str | None = None
    title: str | None = None
    filename: str | None = None
    start_index: int | None = None
    end_index: int | None = None
