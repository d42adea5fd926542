"""What the simulator answers, as events."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, TypeAlias

import msgspec

from lm_deluge.encoders.encoder import ParsedRequest
from lm_deluge.events import (
    Event,
    FinishReason,
    ReasoningDelta,
    RefusalDelta,
    ResponseFinished,
    ResponseStarted,
    TextDelta,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
    UsageReported,
)
from lm_deluge.prompt.parts import ToolCallPart
from lm_deluge.simulator.generated_answer import make_call, make_reasoning, make_text
from lm_deluge.usage import Usage, estimate_tokens

__all__ = ["Script", "ScriptSource", "Scripts", "split_tokens"]

# A blank belongs to the token behind it, and long words come in pieces: about four characters each in English.
_TOKEN = re.compile(r"\s*\S{1,6}|\s+")


def split_tokens(text: str) -> list[str]:
    """Cut a text into the tokens of the simulator, which joined are the text."""
    return _TOKEN.findall(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """One answer. What is left out is made up.

    Without text, calls and refusal it calls the first tool that the request offers, follows the schema that it asks
    for, or else is a tour of the library.

    Attributes:
        tool_calls: Calls, as `("name", {"argument": ...})`, `("name", "text of the arguments")` or a `ToolCallPart`.
        usage: Tokens to report; counted where it is None.
        finish_reason: Why the answer ends; by default what its content says, or `length` where the request's
            limit of tokens cut it.
        extra: Events behind the content: citations, images, opaque data.
        events: The whole answer, in place of everything else.
    """

    text: str | None = None
    reasoning: str = ""
    tool_calls: Sequence[ToolCallPart | tuple[str, Any]] = ()
    refusal: str = ""
    usage: Usage | None = None
    finish_reason: FinishReason | None = None
    extra: Sequence[Event] = ()
    events: Sequence[Event] = ()

    def play(self, request: ParsedRequest, *, response_id: str) -> list[Event]:
        """Return the events of the answer to `request`."""
        if self.events:
            return list(self.events)
        if self.text is None and not self.tool_calls and not self.refusal:
            return self._made_up(request).play(request, response_id=response_id)
        limit = request.params.max_new_tokens
        content: list[Event] = []
        tokens = reasoned = 0
        is_cut = False
        for event in self._content(request, response_id):
            costs = not isinstance(event, ToolCallStarted | ToolCallFinished)
            if costs and tokens == limit:
                is_cut = True
                break
            tokens += costs
            reasoned += isinstance(event, ReasoningDelta)
            content.append(event)
        usage = self.usage or Usage(
            input_tokens=max(1, estimate_tokens(request.conversation.text_length())),
            output_tokens=tokens,
            reasoning_tokens=reasoned if self.reasoning else None,
        )
        reason = self.finish_reason or ("length" if is_cut else self._reason())
        start = ResponseStarted(response_id, request.model)
        return [start, *content, *self.extra, UsageReported(usage), ResponseFinished(reason)]

    def _made_up(self, request: ParsedRequest) -> Script:
        """Return the script with content: reasoning, if asked for, and a call or a text."""
        reasoning = self.reasoning or make_reasoning(request)
        call = make_call(request)
        if call is not None:
            return replace(self, reasoning=reasoning, tool_calls=(call,))
        return replace(self, reasoning=reasoning, text=make_text(request))

    def _reason(self) -> FinishReason:
        return "tool_calls" if self.tool_calls else "refusal" if self.refusal else "stop"

    def _content(self, request: ParsedRequest, response_id: str) -> Iterator[Event]:
        yield from (ReasoningDelta(token) for token in split_tokens(self.reasoning))
        text = _until_stop(self.text or "", request.params.stop)
        yield from (TextDelta(token) for token in split_tokens(text))
        yield from (RefusalDelta(token) for token in split_tokens(self.refusal))
        for index, call in enumerate(self.tool_calls):
            yield from _call_events(index, call, f"call_{response_id}_{index}")


def _call_events(index: int, call: ToolCallPart | tuple[str, Any], call_id: str) -> Iterator[Event]:
    if not isinstance(call, ToolCallPart):
        name, given = call
        text = given if isinstance(given, str) else msgspec.json.encode(given).decode()
        call = ToolCallPart(call_id, name, text, None if isinstance(given, str) else given)
    yield ToolCallStarted(index, call.id, call.name, call.custom)
    for token in split_tokens(call.arguments_text):
        yield ToolCallDelta(index, token)
    yield ToolCallFinished(
        index, call.id, call.name, call.arguments_text, call.arguments, call.arguments_error, call.custom
    )


def _until_stop(text: str, stop: str | Iterable[str] | None) -> str:
    words = (stop,) if isinstance(stop, str) else stop or ()
    found = [position for position in (text.find(word) for word in words) if position >= 0]
    return text[: min(found)] if found else text


ScriptSource: TypeAlias = (
    str | Script | Sequence["str | Script"] | Callable[[ParsedRequest], "str | Script"] | Mapping[str, "str | Script"]
)
"""A text or script for every request, several that are taken in turn, a function of the request, or one script for
each name of a model."""


class Scripts:
    """Chooses the script of each request. Of several, the last one is repeated."""

    def __init__(self, source: ScriptSource | None) -> None:
        self._source: ScriptSource = Script() if source is None else source
        several = isinstance(source, Sequence) and not isinstance(source, str)
        self._turns = iter(source) if several else iter(())  # type: ignore[arg-type]  # narrowed one line above
        self._last: str | Script = Script()

    def choose(self, request: ParsedRequest) -> Script:
        """Return the script of the next answer; what a function raises passes."""
        source = self._source
        found: str | Script
        if isinstance(source, str | Script):
            found = source
        elif isinstance(source, Mapping):
            found = source.get(request.model, Script())
        elif callable(source):
            found = source(request)
        else:
            found = self._last = next(chain(self._turns, (self._last,)))
        return Script(text=found) if isinstance(found, str) else found
