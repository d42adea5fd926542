"""The check that code which handles events or parts by type has a decision for each type.

A place gets a valid answer, or message, once with and once without an example of the type. The result must differ, or
the type must be listed as ignored, with the reason. A new type is in no list, so each place reports it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from lm_deluge.adapters.adapter import Call
from lm_deluge.models.rows import Capabilities, ModelRow, ProviderRow
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.message import Message


class Example(NamedTuple):
    """An event or a part, between others that make a valid answer or message of it."""

    before: tuple[Any, ...]
    value: Any
    after: tuple[Any, ...] = ()


class Place(NamedTuple):
    """Code that handles events or parts by type.

    Attributes:
        observe: Return what the place makes of events or parts. It depends on each type that the place handles.
        ignored: The types that it ignores on purpose, with the reason.
    """

    name: str
    observe: Callable[[tuple[Any, ...]], Any]
    ignored: Mapping[type, str]


def verdict(place: Place, kind: type, examples: Mapping[type, Sequence[Example]]) -> str:
    """Return "" if the place handles the type or ignores it on purpose, otherwise the fault."""
    if kind not in examples:
        return f"no example of {kind.__name__}"
    try:
        is_handled = any(
            place.observe((*each.before, each.value, *each.after)) != place.observe((*each.before, *each.after))
            for each in examples[kind]
        )
    except (KeyError, AttributeError, TypeError, msgspec.ValidationError) as error:
        return f"{place.name} fails: {error!r}"
    if is_handled and kind in place.ignored:
        return f"{place.name} lists {kind.__name__} as ignored, but handles it"
    if is_handled or kind in place.ignored:
        return ""
    return f"{place.name} neither handles {kind.__name__} nor lists it as ignored"


ARGUMENTS = '{"city": "Rome"}'
OPAQUE: dict[str, Any] = {
    "signature": "c2ln",
    "reasoning_signature": "c2ln",
    "redacted_reasoning": "c2ln",
    "thought_signature": "c2ln",
    "reasoning_details": [{"type": "reasoning.text", "text": "hm"}],
    "reasoning": {"type": "reasoning", "id": "r-1", "summary": [], "encrypted_content": "c2ln"},
    "tool_plan": "first this",
    "block": {"type": "redacted_thinking", "data": "c2ln"},
}


def because(reason: str, *types: type) -> dict[type, str]:
    return dict.fromkeys(types, reason)


def call_of(messages: Sequence[Message], *, api: str = "openai-chat", model: str = "m", **able: bool) -> Call:
    return Call(
        model=ModelRow(id=model, name=model, provider="p", capabilities=Capabilities(**able)),
        provider=ProviderRow(id="p", otel_name="p", adapter=api, base_url="https://p.test"),
        conversation=Conversation(messages),
        base_url="https://p.test",
    )


class Unheard(msgspec.Struct, frozen=True, tag="unheard"):
    """A type that no place knows."""

    note: str = "x"
