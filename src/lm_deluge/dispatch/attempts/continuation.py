"""How the rest of an answer is asked for that broke off. Pure.

Where the model takes it, the words so far are put into its mouth. Else it is told to repeat the last of them and to go
on from there. Answers of which a half is worse than nothing are left alone.
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
right behind it, even in the middle of a word. Say nothing else before it, do not begin anew, never mention the cut."""

_CHARACTERS_PER_TOKEN_AT_LEAST = 2  # of words that are to be repeated: too few tokens would cut them

# Opaque data that belongs to what a model thought before it spoke; the answer's text does not depend on it.
_OF_THOUGHTS = re.compile(r"reasoning\w*|\w*_reasoning|signature|thought_signature")
# Fields of a request's body that hold an answer to a form, whatever the API calls it.
_FORMS = re.compile(r"format|schema|guided|grammar|structured|modalit", re.IGNORECASE)

_PARTS: dict[type[Part], str] = {
    ToolCallPart: "it calls a tool",
    RefusalPart: "the model refused to answer",
    ImagePart: "it has an image",
    AudioPart: "it has sound",
}


class Rest(msgspec.Struct, frozen=True):
    """The request for the rest of an answer.

    Attributes:
        conversation: What is asked.
        max_new_tokens: What is left of the call's own limit, if it has one.
        seam: Finds out what of the rest is new.
    """

    conversation: Conversation
    max_new_tokens: int | None
    splice: Splice


def is_blank(answer: Message) -> bool:
    """Whether nothing of the answer itself was shown: thoughts and blanks at most."""
    return not answer.completion.strip() and not any(_obstacle_of(part) for part in answer.parts)


def find_obstacle(call: Call, answer: Message, *, has_citations: bool) -> str | None:
    """Return why an answer must not be continued, None where it may be."""
    if call.output is not None or call.params.json_mode or any(_FORMS.search(name) for name in _names(call.extra_body)):
        return "it follows a form"
    if call.params.logprobs or call.params.top_logprobs is not None:
        return "it has log probabilities"
    if has_citations:
        return "it names sources"
    last = call.conversation[-1]
    if last.role == "assistant" and not all(isinstance(part, TextPart) for part in last.parts):
        return "the conversation ends with more than words of the model"
    return next((reason for part in answer.parts if (reason := _obstacle_of(part))), None)


def _names(body: object) -> list[str]:
    if not isinstance(body, dict):
        return []
    return [str(name) for name in body] + [name for value in body.values() for name in _names(value)]


def _obstacle_of(part: Part) -> str | None:
    if isinstance(part, ProviderDataPart):
        return None if _OF_THOUGHTS.fullmatch(part.kind) else "it has data that only the provider understands"
    return _PARTS.get(type(part))


def ask_for_rest(call: Call, answer: Message, *, may_prefill: bool) -> Rest:
    """Return how the rest of an answer is asked for.

    Args:
        call: What the model would be asked if it was the first one.
        answer: What was shown; it is not blank.
        may_prefill: It is the model that has answered so far, and has not refused to go on with words of its own.
    """
    shown = answer.completion
    limit = call.params.max_new_tokens
    left = None if limit is None else max(1, limit - estimate_tokens(len(shown)))
    if may_prefill and _takes_prefill(call, answer):
        sent = shown.rstrip()  # Anthropic refuses blanks at the end, and no model needs them
        splice = PrefillSplice(shown, sent, is_echoed=call.provider.quirks.prefill_echo)
        return Rest(_with_words(call.conversation, sent), left, splice)
    anchor = choose_anchor(shown)
    if left is not None:
        left += estimate_tokens(len(anchor), characters_per_token=_CHARACTERS_PER_TOKEN_AT_LEAST)
    continued = _with_words(call.conversation, shown).add(Message.user(INSTRUCTION.format(anchor)))
    return Rest(continued, left, AnchorSplice(shown, anchor))


def _takes_prefill(call: Call, answer: Message) -> bool:
    """Whether the model goes on with words of its own; none does while it is to think.

    https://platform.claude.com/docs/en/build-with-claude/extended-thinking
    """
    is_thinking = call.params.reasoning_effort not in (None, "none") or "thinking" in _names(call.extra_body)
    has_thought = any(isinstance(part, ReasoningPart | ProviderDataPart) for part in answer.parts)
    return call.model.capabilities.prefill is True and not is_thinking and not has_thought


def _with_words(conversation: Conversation, words: str) -> Conversation:
    """Return the conversation with these words of the model, joined to those that it ends with."""
    messages: Sequence[Message] = conversation.messages
    if messages[-1].role == "assistant":
        given = messages[-1].completion
        # An answer that begins with a blank was asked for without the one at the end of the words before it.
        words = (given.rstrip() if words[:1].isspace() else given) + words
        messages = messages[:-1]
    return Conversation([*messages, Message.assistant(words)])


def may_end_with(shown: str) -> bool:
    """Whether an answer may end there, so that a tool can be called next: at the end of a sentence, a line, a block."""
    last = shown.rstrip(" \t")[-1:]
    return bool(last) and (last == "\n" or unicodedata.category(last)[0] in "PS") and last not in ",-"
