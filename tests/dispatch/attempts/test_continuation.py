"""Whether the rest of an answer may be asked for, and how."""

from typing import Any

import msgspec
import pytest

from client.continued import PROSE, anchor_in
from lm_deluge import Conversation, Message
from lm_deluge.adapters.adapter import Call
from lm_deluge.api_requests.request import build_call
from lm_deluge.config import SamplingParams
from lm_deluge.dispatch.attempts.continuation import ask_for_rest, find_obstacle, is_blank, may_end_with
from lm_deluge.dispatch.attempts.splice import AnchorSplice, PrefillSplice
from lm_deluge.models.registry import find_model
from lm_deluge.prompt.media import Media
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

SHOWN = PROSE[:200]


def call_of(model: str = "gpt-4o", prompt: Any = "Tell me.", **options: Any) -> Call:
    asked = {name: options.pop(name) for name in ("output", "extra_body") if name in options}
    return build_call(find_model(model), prompt, params=SamplingParams(**options), **asked)


def answer(*parts: Part) -> Message:
    return Message("assistant", parts)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ((), True),
        ((TextPart(" \n"),), True),
        ((ReasoningPart("Hm."),), True),
        ((ReasoningPart("Hm."), ProviderDataPart("anthropic", "signature", "s")), True),
        ((ProviderDataPart("openai", "reasoning", {}),), True),
        ((TextPart("A"),), False),
        ((ReasoningPart("Hm."), TextPart("A")), False),
        ((ToolCallPart("1", "count"),), False),
        ((RefusalPart("No."),), False),
        ((ProviderDataPart("openai", "web_search_call", {}),), False),
    ],
)
def test_what_is_nothing_of_an_answer(parts: tuple[Part, ...], expected: bool) -> None:
    assert is_blank(answer(*parts)) is expected


@pytest.mark.parametrize(
    ("options", "parts", "reason"),
    [
        ({}, (), None),
        ({"max_new_tokens": 9, "temperature": 1.0, "extra_body": {"user": "me", "metadata": {"a": 1}}}, (), None),
        ({"output": {"type": "object"}}, (), "it is structured output"),
        ({"json_mode": True}, (), "it is structured output"),
        ({"extra_body": {"response_format": {"type": "json_object"}}}, (), "it is structured output"),
        ({"extra_body": {"text": {"format": {"type": "json_schema"}}}}, (), "it is structured output"),
        ({"extra_body": {"generationConfig": {"responseSchema": {}}}}, (), "it is structured output"),
        ({"extra_body": {"guided_regex": "[ab]"}}, (), "it is structured output"),
        ({"extra_body": {"modalities": ["text", "audio"]}}, (), "it is structured output"),
        ({"logprobs": True}, (), "it has log probabilities"),
        ({"top_logprobs": 2}, (), "it has log probabilities"),
        ({}, (ToolCallPart("1", "count"),), "it calls a tool"),
        ({}, (RefusalPart("No."),), "the model refused to answer"),
        ({}, (ImagePart(Media(media_type="image/png", data=b"x")),), "it has an image"),
        ({}, (AudioPart(Media(media_type="audio/wav", data=b"x")),), "it has audio"),
        ({}, (ProviderDataPart("openai", "web_search_call", {}),), "it has opaque data of the provider"),
        ({}, (ReasoningPart("Hm."), ProviderDataPart("bedrock", "redacted_reasoning", "x")), None),
        ({}, (ProviderDataPart("bedrock", "reasoning_signature", "x"),), None),
        ({}, (ProviderDataPart("gemini", "thought_media", {}),), "it has opaque data of the provider"),
    ],
)
def test_obstacles(options: dict[str, Any], parts: tuple[Part, ...], reason: str | None) -> None:
    found = find_obstacle(call_of(**options), answer(*parts, TextPart(SHOWN)), has_citations=False)
    assert found == reason


def test_sources_are_an_obstacle() -> None:
    assert find_obstacle(call_of(), answer(TextPart(SHOWN)), has_citations=True) == "it has citations"


def test_a_conversation_that_ends_with_more_than_words() -> None:
    prompt = Conversation.user("Tell me.").add(answer(TextPart("Well"), ToolCallPart("1", "count")))
    found = find_obstacle(call_of(prompt=prompt), answer(TextPart(SHOWN)), has_citations=False)
    assert found == "the conversation ends with a message of the model that is not only text"


def test_the_instruction() -> None:
    conversation = Conversation.system("Be brief.").user("Tell me.")
    call = call_of(prompt=conversation)
    rest = ask_for_rest(call, answer(ReasoningPart("Hm."), TextPart(SHOWN)), may_prefill=True)
    *before, given, told = rest.conversation.messages
    assert before == conversation.messages
    assert given == Message.assistant(SHOWN)
    assert told.role == "user"
    anchor = anchor_in(told.completion)
    assert anchor is not None
    assert SHOWN.endswith(anchor)
    assert isinstance(rest.splice, AnchorSplice)
    assert rest.max_new_tokens is None
    assert len(conversation) == 2  # it is left as it was


def test_braces_in_the_last_words_are_words() -> None:
    shown = "Write `{}` or {name}, and then {"
    rest = ask_for_rest(call_of(), answer(TextPart(shown)), may_prefill=True)
    assert anchor_in(rest.conversation[-1].completion) == shown


def test_words_in_the_mouth() -> None:
    rest = ask_for_rest(call_of("claude-haiku-4-5"), answer(TextPart("One.\n\n")), may_prefill=True)
    assert rest.conversation.messages == [Message.user("Tell me."), Message.assistant("One.")]
    assert isinstance(rest.splice, PrefillSplice)
    assert rest.splice.feed("\n\nTwo.") == "Two."


@pytest.mark.parametrize(
    ("model", "options", "parts", "may_prefill"),
    [
        ("claude-opus-4-6", {}, (), True),  # takes none
        ("gpt-4o", {}, (), True),  # nobody knows
        ("claude-haiku-4-5", {}, (), False),  # another one's words
        ("claude-haiku-4-5", {"reasoning_effort": "low"}, (), True),
        ("claude-haiku-4-5", {"extra_body": {"thinking": {"type": "enabled", "budget_tokens": 2_000}}}, (), True),
        ("claude-haiku-4-5", {}, (ReasoningPart("Hm."),), True),
    ],
)
def test_who_is_told_instead(model: str, options: dict[str, Any], parts: tuple[Part, ...], may_prefill: bool) -> None:
    rest = ask_for_rest(call_of(model, **options), answer(*parts, TextPart(SHOWN)), may_prefill=may_prefill)
    assert isinstance(rest.splice, AnchorSplice)


def test_no_effort_is_no_thinking() -> None:
    rest = ask_for_rest(call_of("claude-haiku-4-5", reasoning_effort="none"), answer(TextPart(SHOWN)), may_prefill=True)
    assert isinstance(rest.splice, PrefillSplice)


def test_a_provider_that_says_the_words_again() -> None:
    rest = ask_for_rest(call_of("mistral-large-latest"), answer(TextPart("One. ")), may_prefill=True)
    assert rest.splice.feed("One. Two.") == "Two."


@pytest.mark.parametrize(
    ("given", "shown", "whole"),
    [("Once ", " upon", "Once upon"), ("Once ", "upon", "Once upon"), ("Once", " upon", "Once upon")],
)
def test_words_that_the_conversation_ends_with(given: str, shown: str, whole: str) -> None:
    prompt = Conversation.user("Tell me.").assistant(given)
    rest = ask_for_rest(call_of("claude-haiku-4-5", prompt), answer(TextPart(shown)), may_prefill=True)
    assert rest.conversation.messages == [Message.user("Tell me."), Message.assistant(whole)]
    told = ask_for_rest(call_of("gpt-4o", prompt), answer(TextPart(shown)), may_prefill=True)
    assert told.conversation.messages[1] == Message.assistant(whole)


def test_what_is_left_of_the_limit() -> None:
    shown = answer(TextPart("x" * 400))
    assert ask_for_rest(call_of("claude-haiku-4-5", max_new_tokens=300), shown, may_prefill=True).max_new_tokens == 200
    assert ask_for_rest(call_of("claude-haiku-4-5", max_new_tokens=100), shown, may_prefill=True).max_new_tokens == 1
    told = ask_for_rest(call_of(max_new_tokens=300), shown, may_prefill=True)
    anchor = anchor_in(told.conversation[-1].completion)
    assert told.max_new_tokens == 200 + -(-len(anchor) // 2)


@pytest.mark.parametrize("text", ["Done.", "Done!  ", "So:", "Line\n", "```", "世界。", "| a |", "(so)"])
def test_where_an_answer_may_end(text: str) -> None:
    assert may_end_with(text)


@pytest.mark.parametrize("text", ["", "Do", "Do it,", "well-", "5"])
def test_where_it_may_not(text: str) -> None:
    assert not may_end_with(text)


def test_every_prefill_of_the_registry_is_of_a_known_form() -> None:
    """A row that says so is one whose adapter sends the last message as it has to be."""
    from lm_deluge.models.registry import find_provider, list_models

    adapters = {row.provider for row in list_models() if row.capabilities.prefill}
    assert adapters == {"anthropic", "vertex-anthropic", "bedrock", "mistral", "deepseek"}
    chats = [row for row in map(find_provider, adapters) if row.adapter == "openai-chat"]
    assert all(row.quirks.prefill_path for row in chats)
    assert msgspec.structs.asdict(find_model("gpt-4o").capabilities)["prefill"] is None
