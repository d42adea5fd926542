"""How the rest of an answer is requested after its stream broke. Pure.

If the model supports it, the answer so far is sent as a prefilled message. Otherwise the model is instructed to repeat
the last words and to continue from there. Answers that may become wrong by being continued are not continued.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import msgspec

from lm_deluge.adapters.adapter import Call
from lm_deluge.dispatch.attempts.splice import AnchorSplice, PrefillSplice, Splice, choose_anchor
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import (
    AudioPart,
    ImagePart,
    Part,
    ProviderDataPart,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
)
from lm_deluge.usage import estimate_tokens

__all__ = ["INSTRUCTION", "Rest", "ask_for_rest", "find_obstacle", "is_blank", "may_end_with"]

INSTRUCTION = """\
Your last message was cut off on its way. These are the last words of it that arrived:
<last_words>{}</last_words>
Go on exactly there: begin with what stands between the tags, letter for letter and without the tags, and write on \
right after it, even in the middle of a word. Say nothing else before it, do not start over, never mention the cut."""

_CHARACTERS_PER_TOKEN_AT_LEAST = 2  # of the repeated words; a limit with too few tokens would cut them

# Kinds of opaque data that belong to the reasoning before the answer; the text of the answer does not depend on them.
_OF_THOUGHTS = re.compile(r"reasoning\w*|\w*_reasoning|signature|thought_signature")
# Fields of a request's body that request structured output, in any API.
_FORMS = re.compile(r"format|schema|guided|grammar|structured|modalit", re.IGNORECASE)

_PARTS: dict[type[Part], str] = {
    ToolCallPart: "it calls a tool",
    RefusalPart: "the model refused to answer",
    ImagePart: "it has an image",
    AudioPart: "it has audio",
}


class Rest(msgspec.Struct, frozen=True):
    """The request for the rest of an answer.

    Attributes:
        conversation: The prompt.
        max_new_tokens: The rest of the call's own limit, if it has one.
        splice: Finds the new part of the continuation.
        context: The text of the answer before the continuation, for filters.
    """

    conversation: Conversation
    max_new_tokens: int | None
    splice: Splice
    context: str = ""


def is_blank(answer: Message) -> bool:
    """Whether the answer so far has no text: only reasoning or white space."""
    return not answer.completion.strip() and not any(_obstacle_of(part) for part in answer.parts)


def find_obstacle(call: Call, answer: Message, *, has_citations: bool) -> str | None:
    """Return why an answer must not be continued; None if it may be."""
    if call.output is not None or call.params.json_mode or any(_FORMS.search(name) for name in _names(call.extra_body)):
        return "it is structured output"
    if call.params.logprobs or call.params.top_logprobs is not None:
        return "it has log probabilities"
    if has_citations:
        return "it has citations"
    last = call.conversation[-1]
    if last.role == "assistant" and not all(isinstance(part, TextPart) for part in last.parts):
        return "the conversation ends with a message of the model that is not only text"
    return next((reason for part in answer.parts if (reason := _obstacle_of(part))), None)


def _names(body: object) -> list[str]:
    if not isinstance(body, dict):
        return []
    return [str(name) for name in body] + [name for value in body.values() for name in _names(value)]


def _obstacle_of(part: Part) -> str | None:
    if isinstance(part, ProviderDataPart):
        return None if _OF_THOUGHTS.fullmatch(part.kind) else "it has opaque data of the provider"
    return _PARTS.get(type(part))


def ask_for_rest(call: Call, answer: Message, *, may_prefill: bool) -> Rest:
    """Return the request for the rest of an answer.

    Args:
        call: The call as the model would be asked first.
        answer: The answer so far; it is not blank.
        may_prefill: The same model has answered so far, and has not refused a prefilled message.
    """
    shown = answer.completion
    limit = call.params.max_new_tokens
    left = None if limit is None else max(1, limit - estimate_tokens(len(shown)))
    if may_prefill and _takes_prefill(call, answer):
        sent = shown.rstrip()  # Anthropic refuses white space at the end, and no model needs it
        is_echoed = call.provider.quirks.prefill_echo
        splice = PrefillSplice(shown, sent, is_echoed=is_echoed)
        return Rest(_with_text(call.conversation, sent), left, splice, "" if is_echoed else sent)
    anchor = choose_anchor(shown)
    if left is not None:
        left += estimate_tokens(len(anchor), characters_per_token=_CHARACTERS_PER_TOKEN_AT_LEAST)
    prompt = _with_text(call.conversation, shown).add(Message.user(INSTRUCTION.format(anchor)))
    return Rest(prompt, left, AnchorSplice(shown, anchor), shown[: len(shown) - len(anchor)])


def _takes_prefill(call: Call, answer: Message) -> bool:
    """Whether the model continues a prefilled message; no model does while reasoning is on.

    https://platform.claude.com/docs/en/build-with-claude/extended-thinking
    """
    is_thinking = call.params.reasoning_effort not in (None, "none") or "thinking" in _names(call.extra_body)
    has_thought = any(isinstance(part, ReasoningPart | ProviderDataPart) for part in answer.parts)
    return call.model.capabilities.prefill is True and not is_thinking and not has_thought


def _with_text(conversation: Conversation, words: str) -> Conversation:
    """Return the conversation with this text of the model, joined to a message of the model at its end."""
    messages: Sequence[Message] = conversation.messages
    if messages[-1].role == "assistant":
        given = messages[-1].completion
        # The message at the end was sent without its white space if the answer starts with some.
        words = (given.rstrip() if words[:1].isspace() else given) + words
        messages = messages[:-1]
    return Conversation([*messages, Message.assistant(words)])


def may_end_with(shown: str) -> bool:
    """Whether a tool call may follow this text: it ends with a sentence, a line or a block."""
    last = shown.rstrip(" \t")[-1:]
    return bool(last) and (last == "\n" or unicodedata.category(last)[0] in "PS") and last not in ",-"
