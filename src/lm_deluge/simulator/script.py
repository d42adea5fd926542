"""Scripts: the answers of the simulator, as events."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, TypeAlias

import msgspec

from lm_deluge.config import SamplingParams
from lm_deluge.encoders.encoder import ParsedRequest
from lm_deluge.events import (
    Event,
    FinishReason,
    ReasoningDelta,
    RefusalDelta,
    ResponseFinished,
    ResponseStarted,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
    TopLogprob,
    UsageReported,
)
from lm_deluge.prompt.parts import ToolCallPart
from lm_deluge.simulator.generated_answer import make_call, make_reasoning, make_text
from lm_deluge.simulator.input_tokens import count_input_tokens
from lm_deluge.usage import Usage

__all__ = ["Script", "ScriptSource", "Scripts", "split_tokens"]

# White space belongs to the token after it. Long words are cut, so that an English token has about four characters.
_TOKEN = re.compile(r"\s*\S{1,6}|\s+")


def split_tokens(text: str) -> list[str]:
    """Split a text into the tokens of the simulator. The tokens joined are the text."""
    return _TOKEN.findall(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """One answer of the simulator, for example `Script(reasoning="Easy.", text="4")`.

    A script without text, tool calls and refusal is completed from the request: the answer calls the first tool that
    the request offers, follows the schema of the request, or is a tour of the library.

    Attributes:
        text: The text of the answer; None for generated text. An empty string is an answer without text.
        reasoning: The reasoning before the text.
        tool_calls: Tool calls, as `("name", {"argument": ...})`, `("name", "arguments as text")` or a `ToolCallPart`.
        refusal: The text of a refusal.
        usage: Token counts to report; by default the simulator counts its tokens.
        finish_reason: The finish reason; by default it follows from the content, or is `length` if the token limit of
            the request cuts the answer.
        extra: Events after the content: citations, images, opaque data.
        events: The whole answer as events. All other attributes are ignored.
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
            return self._generated(request).play(request, response_id=response_id)
        limit = request.params.max_new_tokens
        content: list[Event] = []
        tokens = reasoning_tokens = 0
        is_cut = False
        for event in self._content(request, response_id):
            is_token = not isinstance(event, ToolCallStarted | ToolCallFinished)
            if is_token and tokens == limit:
                is_cut = True
                break
            tokens += is_token
            reasoning_tokens += isinstance(event, ReasoningDelta)
            content.append(event)
        usage = self.usage or Usage(
            input_tokens=count_input_tokens(request),
            output_tokens=tokens,
            reasoning_tokens=reasoning_tokens if self.reasoning else None,
        )
        reason = self.finish_reason or ("length" if is_cut else self._default_finish_reason())
        start = ResponseStarted(response_id, request.model)
        return [start, *content, *self.extra, UsageReported(usage), ResponseFinished(reason)]

    def _generated(self, request: ParsedRequest) -> Script:
        """Return a script with generated content: reasoning if the request wants it, and a tool call or a text."""
        reasoning = self.reasoning or make_reasoning(request)
        call = make_call(request)
        if call is not None:
            return replace(self, reasoning=reasoning, tool_calls=(call,))
        return replace(self, reasoning=reasoning, text=make_text(request))

    def _default_finish_reason(self) -> FinishReason:
        return "tool_calls" if self.tool_calls else "refusal" if self.refusal else "stop"

    def _content(self, request: ParsedRequest, response_id: str) -> Iterator[Event]:
        yield from (ReasoningDelta(token) for token in split_tokens(self.reasoning))
        text = _until_stop(self.text or "", request.params.stop)
        yield from (TextDelta(token, _logprobs(token, request.params)) for token in split_tokens(text))
        yield from (RefusalDelta(token, _logprobs(token, request.params)) for token in split_tokens(self.refusal))
        for index, call in enumerate(self.tool_calls):
            yield from _call_events(index, call, f"call_{response_id}_{index}")


def _logprobs(token: str, params: SamplingParams) -> tuple[TokenLogprob, ...]:
    """Return the log probability of a token and of its alternatives, if the request asks for them.

    Each token has a probability of 1/2, its alternatives 1/4, 1/8 and so on.
    """
    if not params.logprobs:
        return ()
    others = [token, *(f"{token}~{number}" for number in range(1, params.top_logprobs or 0))]
    tops = [
        TopLogprob(other, -number * math.log(2), tuple(other.encode("utf-8", "replace")))
        for number, other in enumerate(others[: params.top_logprobs or 0], start=1)
    ]
    return (TokenLogprob(token, -math.log(2), tuple(token.encode("utf-8", "replace")), tuple(tops)),)


def _call_events(index: int, call: ToolCallPart | tuple[str, Any], call_id: str) -> Iterator[Event]:
    if not isinstance(call, ToolCallPart):
        name, arguments = call
        text = arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode()
        call = ToolCallPart(call_id, name, text, None if isinstance(arguments, str) else arguments)
    yield ToolCallStarted(index, call.id, call.name, call.custom)
    for token in split_tokens(call.arguments_text):
        yield ToolCallDelta(index, token)
    yield ToolCallFinished(
        index, call.id, call.name, call.arguments_text, call.arguments, call.arguments_error, call.custom
    )


def _until_stop(text: str, stop: str | Iterable[str] | None) -> str:
    sequences = (stop,) if isinstance(stop, str) else stop or ()
    found = [position for position in (text.find(sequence) for sequence in sequences) if position >= 0]
    return text[: min(found)] if found else text


ScriptSource: TypeAlias = (
    str | Script | Sequence["str | Script"] | Callable[[ParsedRequest], "str | Script"] | Mapping[str, "str | Script"]
)
"""A text or script for every request, a sequence of them used in turn, a function of the request, or a mapping from
model names to scripts."""


class Scripts:
    """Chooses the script of each request. The last script of a sequence repeats."""

    def __init__(self, source: ScriptSource | None) -> None:
        self._source: ScriptSource = Script() if source is None else source
        is_sequence = isinstance(source, Sequence) and not isinstance(source, str)
        self._remaining = iter(source) if is_sequence else iter(())  # type: ignore[arg-type]  # narrowed one line above
        self._last: str | Script = Script()

    def choose(self, request: ParsedRequest) -> Script:
        """Return the script of the next answer. Exceptions of a script function propagate."""
        source = self._source
        found: str | Script
        if isinstance(source, str | Script):
            found = source
        elif isinstance(source, Mapping):
            found = source.get(request.model, Script())
        elif callable(source):
            found = source(request)
        else:
            found = self._last = next(chain(self._remaining, (self._last,)))
        return Script(text=found) if isinstance(found, str) else found
