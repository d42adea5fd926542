"""Signatures of reasoning, for the APIs that sign it so that a client can send it back."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator

from lm_deluge.events import Event, ProviderPart, ReasoningDelta, ToolCallStarted

__all__ = ["sign_reasoning"]

# Kinds of opaque data that end a block of reasoning. An encoder ignores a kind that its API or model does not have.
_BLOCK_KINDS = {
    "anthropic-messages": ("signature",),
    "bedrock-invoke": ("signature", "reasoning_signature"),  # Claude and Nova
    "bedrock-converse": ("reasoning_signature",),
    "gemini-interactions": ("thought_signature",),
}
# Gemini signs the first call of an answer: https://ai.google.dev/gemini-api/docs/thought-signatures
_CALL_KINDS = {"gemini-generate": ("thought_signature",)}
_SIGNATURE = base64.b64encode(b"signed by the simulator, not by a provider").decode()


def sign_reasoning(api: str, events: list[Event], *, signs_calls: bool = False) -> list[Event]:
    """Return the events with a signature after each run of reasoning, unless they have signatures of their own.

    Args:
        api: The wire API.
        events: The events of an answer.
        signs_calls: The model signs its calls, whether or not the answer contains reasoning.
    """
    kinds = (*_BLOCK_KINDS.get(api, ()), *_CALL_KINDS.get(api, ()))
    is_signed_call = signs_calls and api in _CALL_KINDS
    has_reasoning = is_signed_call or any(isinstance(event, ReasoningDelta) for event in events)
    if not has_reasoning or any(isinstance(event, ProviderPart) and event.kind in kinds for event in events):
        return events
    parts = [ProviderPart(api, kind, _SIGNATURE) for kind in kinds]
    return list(_after_first_call(events, parts) if api in _CALL_KINDS else _after_reasoning(events, parts))


def _after_reasoning(events: Iterable[Event], parts: list[ProviderPart]) -> Iterator[Event]:
    is_open = False
    for event in events:
        if is_open and not isinstance(event, ReasoningDelta):
            yield from parts
        is_open = isinstance(event, ReasoningDelta)
        yield event


def _after_first_call(events: Iterable[Event], parts: list[ProviderPart]) -> Iterator[Event]:
    for event in events:
        yield event
        if isinstance(event, ToolCallStarted):
            yield from parts
            parts = []
