"""Signatures and encrypted reasoning of one API, carried through clients of another one.

A provider wants them back on the next turn: Claude and Gemini refuse a call of a tool without them, and OpenAI's models
think again. Clients send the opaque fields of their own API back as they are, so a value of another API travels in one
of them, with its owner and kind:

| API of the client | field |
|---|---|
| Responses | `encrypted_content` of a reasoning item |
| Messages | `signature` of a thinking block |
| Gemini | `thoughtSignature` of a part |
| Chat Completions | `reasoning_details`, as OpenRouter has it; Google's `extra_content` for a signature of a call |

Ollama's API has no such field.
"""

from __future__ import annotations

import base64
import binascii
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from lm_deluge.adapters.gemini_generate.contents import sign_foreign_calls
from lm_deluge.adapters.gemini_generate.signatures import is_older_gemini
from lm_deluge.events import Event, ProviderPart, ReasoningDelta, ToolCallFinished, ToolCallStarted
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.parts import Part, ProviderDataPart, ReasoningPart

__all__ = ["OpaqueCarrier", "unpacked", "without_envelopes"]

JSON = dict[str, Any]

_MAGIC = b"deluge:1:"
_PREFIX = base64.b64encode(_MAGIC).decode()  # nine bytes are twelve characters: every envelope begins with them
_URL_SAFE = str.maketrans("-_", "+/")  # Google's SDK decodes signatures, and encodes them again in its own alphabet

_THOUGHT = "thought_signature"
_DETAILS = "reasoning_details"
_FORMAT = "lm-deluge-v1"  # of the entries in `reasoning_details`


def _is_text(data: Any) -> bool:
    return isinstance(data, str)


def _is_reasoning_item(data: Any) -> bool:
    return isinstance(data, dict) and data.get("type") == "reasoning"


def _is_redacted(data: Any) -> bool:
    return isinstance(data, dict) and data.get("type") == "redacted_thinking"


def _is_signature(data: Any) -> bool:
    return _is_text(data) or (isinstance(data, dict) and data.keys() <= {"text", "thought", "thoughtSignature"})


# The kinds that are carried, with what their data may be: a client must not get anything else to a provider by them.
_KINDS: dict[str, Callable[[Any], bool]] = {
    "signature": _is_text,  # Claude
    "block": _is_redacted,  # Claude
    "reasoning_signature": _is_text,  # Bedrock
    "redacted_reasoning": _is_text,  # Bedrock
    _THOUGHT: _is_signature,  # Gemini
    "reasoning": _is_reasoning_item,  # Responses
}


class _Envelope(msgspec.Struct, omit_defaults=True):
    """A value with its owner and kind; `text` is the reasoning before it, if the client's API has no place for that."""

    owner: str
    kind: str
    data: Any
    text: str = ""

    def sealed(self) -> str:
        return base64.b64encode(_MAGIC + msgspec.json.encode(self)).decode()

    @property
    def part(self) -> ProviderDataPart:
        return ProviderDataPart(self.owner, self.kind, self.data)


def _opened(text: Any) -> _Envelope | None:
    """Return the envelope in a field of a client's request; None if it holds a value of the client's own API."""
    if not isinstance(text, str) or not text.startswith(_PREFIX):
        return None
    padded = text.translate(_URL_SAFE).rstrip("=")
    try:
        data = base64.b64decode(padded + "=" * (-len(padded) % 4), validate=True)
        found = msgspec.json.decode(data[len(_MAGIC) :], type=_Envelope)
    except (binascii.Error, ValueError, msgspec.DecodeError, RecursionError):
        return None
    return found if found.kind in _KINDS and _KINDS[found.kind](found.data) else None


# To the client


class OpaqueCarrier:
    """Puts the opaque values of an answer into fields of the client's API.

    Args:
        dialect: The API of the client.
    """

    def __init__(self, dialect: str) -> None:
        self._dialect = dialect
        self._pack = _PACKED.get(dialect)
        self._thought: list[str] = []  # the reasoning that arrived last, if nothing followed it
        self._open_calls: set[int] = set()
        self._held: list[Event] = []  # until the end of the call that it stands in

    def packed(self, events: list[Event]) -> list[Event]:
        """Return events in which the client's API can express each opaque value."""
        return [each for event in events for each in self._packed(event)]

    def _packed(self, event: Event) -> Iterable[Event]:
        if isinstance(event, ReasoningDelta):
            self._thought.append(event.text)
            return (event,)
        if isinstance(event, ProviderPart) and event.kind in _KINDS:
            return self._carried(event)
        self._thought = []
        if isinstance(event, ToolCallStarted):
            self._open_calls.add(event.index)
        elif isinstance(event, ToolCallFinished):
            self._open_calls.discard(event.index)
            held, self._held = self._held, []
            return (event, *held)
        return (event,)

    def _carried(self, event: ProviderPart) -> Iterable[Event]:
        thought, self._thought = "".join(self._thought), []
        if self._pack is None or not _KINDS[event.kind](event.data):
            return ()
        packed = self._pack(_Envelope(event.provider, event.kind, event.data), thought)
        if self._open_calls and packed.kind != _THOUGHT:
            self._held.append(packed)
            return ()
        return (packed,)


def _in_item(envelope: _Envelope, thought: str) -> ProviderPart:
    sealed = {"encrypted_content": envelope.sealed()}
    # Fields without a type are those of the reasoning item before them.
    whole = {"id": f"rs_{uuid.uuid4().hex}", "type": "reasoning", "summary": [], **sealed}
    return ProviderPart("openai-responses", "reasoning", sealed if thought else whole)


def _in_block(envelope: _Envelope, thought: str) -> ProviderPart:
    return ProviderPart("anthropic-messages", "signature", envelope.sealed())


def _in_part(envelope: _Envelope, thought: str) -> ProviderPart:
    return ProviderPart("gemini-generate", _THOUGHT, envelope.sealed())


def _in_message(envelope: _Envelope, thought: str) -> ProviderPart:
    if envelope.kind == _THOUGHT and isinstance(envelope.data, str) and not thought:
        return ProviderPart("openai-chat", _THOUGHT, envelope.sealed())
    sealed = msgspec.structs.replace(envelope, text=thought).sealed()
    return ProviderPart("openai-chat", _DETAILS, [{"type": "reasoning.encrypted", "data": sealed, "format": _FORMAT}])


_PACKED: dict[str, Callable[[_Envelope, str], ProviderPart]] = {
    "openai-responses": _in_item,
    "anthropic-messages": _in_block,
    "gemini-generate": _in_part,
    "openai-chat": _in_message,
}


# From the client


def unpacked(conversation: Conversation, *, dialect: str, api: str, owner: str) -> Conversation:
    """Return the conversation with the opaque values that it carries, as their providers had them.

    Args:
        conversation: The conversation of a client's request.
        dialect: The API of the client.
        api: The API that the conversation is for.
        owner: The owner of that API's values: a value of the client's own API belongs to it, if that is the same API.
    """
    if not any(isinstance(part, ProviderDataPart) for message in conversation.messages for part in message.parts):
        return conversation
    own = owner if api == dialect else dialect
    return Conversation(
        msgspec.structs.replace(message, parts=list(_unpacked_parts(message.parts, dialect, own)))
        for message in conversation.messages
    )


def _unpacked_parts(parts: Iterable[Part], dialect: str, owner: str) -> Iterator[Part]:
    found: list[Part] = []
    first: list[Part] = []  # reasoning in `reasoning_details`, which stands before everything else
    for part in parts:
        if not isinstance(part, ProviderDataPart) or part.provider != dialect:
            found.append(part)
        elif part.kind == _DETAILS and isinstance(part.data, list):
            envelopes = [_opened(entry.get("data")) for entry in part.data if isinstance(entry, dict)]
            for each in filter(None, envelopes):
                first += [ReasoningPart(each.text), each.part] if each.text else [each.part]
            own = [entry for entry in part.data if not _is_sealed(entry)]
            found += [ProviderDataPart(owner, _DETAILS, own)] if own else []
        else:
            envelope = _opened(_value_of(part.data))
            found.append(msgspec.structs.replace(part, provider=owner) if envelope is None else envelope.part)
    if any(isinstance(part, ReasoningPart) for part in first):
        found = [part for part in found if not isinstance(part, ReasoningPart)]
    yield from (*first, *found)


def _value_of(data: Any) -> Any:
    """Return the opaque field of a value, as parsers of requests have it."""
    if not isinstance(data, dict):
        return data
    return data.get("encrypted_content") or data.get("thoughtSignature")


def _is_sealed(data: Any) -> bool:
    return isinstance(data, dict) and any(
        isinstance(value, str) and value.startswith(_PREFIX) for name, value in data.items() if name != "text"
    )


def without_envelopes(body: bytes, *, model: str) -> bytes:
    """Return the body of a request for a provider of the client's own API, without the values of other APIs.

    A conversation that changes from one model to another has some; the provider would refuse them. In their place
    Gemini's calls get the signature for calls of other models.

    Args:
        body: The body, as JSON.
        model: The provider's name of the model.
    """
    if _PREFIX.encode() not in body:
        return body
    stripped = _stripped(msgspec.json.decode(body))
    contents = stripped.get("contents") if isinstance(stripped, dict) else None
    if isinstance(contents, list) and not is_older_gemini(model):
        sign_foreign_calls([content for content in contents if isinstance(content, dict)])
    return msgspec.json.encode(stripped)


def _stripped(value: Any) -> Any:
    if isinstance(value, list):
        kept = [_stripped(each) for each in value if not (_is_sealed(each) and _is_carrier(each))]
        return [each for each in kept if each != {"text": ""}]
    if isinstance(value, dict):
        signatures = ("thoughtSignature", _THOUGHT)
        return {
            name: _stripped(inner)
            for name, inner in value.items()
            if not (name in signatures and isinstance(inner, str) and inner.startswith(_PREFIX))
        }
    return value


def _is_carrier(data: JSON) -> bool:
    """Whether an object holds nothing but reasoning: an item, a block, or an entry of `reasoning_details`."""
    kind = data.get("type")
    return isinstance(kind, str) and kind.startswith(("reasoning", "thinking"))
