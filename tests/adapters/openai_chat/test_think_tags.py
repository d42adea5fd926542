"""Reasoning between tags in the text: converted only for hosts and models with `think_tags` in their row."""

from __future__ import annotations

import json
import random
import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_deluge.adapters.openai_chat.adapter import OpenAIChat
from lm_deluge.adapters.openai_chat.think_tags import TagSplitter
from lm_deluge.events import (
    Event,
    ReasoningDelta,
    ResponseFinished,
    ResponseStarted,
    TextDelta,
    TokenLogprob,
    ToolCallStarted,
)
from lm_deluge.models.registry import find_provider
from lm_deluge.models.rows import Capabilities, Quirks
from lm_deluge.prompt.conversation import Conversation
from samples.chat_bytes import chunk, text
from samples.chat_calls import a_call

HI = Conversation.user("Hi")
TAGS = Quirks(think_tags=True)
DONE = b"data: [DONE]\n\n"


def split(*pieces: str) -> list[Event]:
    splitter = TagSplitter()
    events: list[Event] = []
    for piece in pieces:
        events += splitter.split([TextDelta(piece)])
    return [*events, *splitter.split([ResponseFinished("stop")])]


def content_of(events: list[Event]) -> tuple[str, str]:
    """Return the reasoning and the text of events."""
    reasoning = "".join(event.text for event in events if isinstance(event, ReasoningDelta))
    return reasoning, "".join(event.text for event in events if isinstance(event, TextDelta))


@pytest.mark.parametrize(
    ("answer", "reasoning", "rest"),
    [
        ("<think>Hm.</think>Yes.", "Hm.", "Yes."),
        ("<think>\nHm.\n</think>\n\nYes.", "\nHm.\n", "\n\nYes."),
        ("\n <think>Hm.</think>Yes.", "Hm.", "\n Yes."),
        ("<think></think>Yes.", "", "Yes."),
        ("Yes. <think>Hm.</think>", "", "Yes. <think>Hm.</think>"),
        ("<think>a</think><think>b</think>", "a", "<think>b</think>"),
        ("<think>a < b, </thin, <think></think>c", "a < b, </thin, <think>", "c"),
        ("<thinking>a</thinking>", "", "<thinking>a</thinking>"),
        ("<reasoning>Hm.</reasoning>Yes.", "Hm.", "Yes."),
        ("<thought>Hm.</thought>\nYes.", "Hm.", "\nYes."),
        ("<reasoning>a</think>b</reason</reasoning>c", "a</think>b</reason", "c"),
        ("<reason>a", "", "<reason>a"),
        ("<think>cut off </thi", "cut off </thi", ""),
        ("<thi", "", "<thi"),
        ("  ", "", "  "),
        ("a</think>b", "", "a</think>b"),
        ("", "", ""),
    ],
)
def test_wherever_the_text_is_cut_the_events_have_the_same_content(answer: str, reasoning: str, rest: str) -> None:
    assert content_of(split(answer)) == (reasoning, rest)
    assert content_of(split(*answer)) == (reasoning, rest)
    for seed in range(20):
        draw = random.Random(seed)
        cuts = sorted(draw.randint(0, len(answer)) for _ in range(4))
        pieces = [answer[a:b] for a, b in zip([0, *cuts], [*cuts, len(answer)], strict=True)]
        assert content_of(split(*pieces)) == (reasoning, rest)


def expected(whole: str) -> tuple[str, str]:
    """Return the reasoning and the text of a response, by one regular expression."""
    found = re.fullmatch(r"(\s*)<think>(.*?)(?:</think>(.*))?", whole, re.DOTALL)
    return (found[2], found[1] + (found[3] or "")) if found else ("", whole)


@given(st.lists(st.sampled_from(["<think>", "</think>", "<", "</", "think", ">", " ", "a", ""]), max_size=14))
def test_nothing_but_the_tags_is_lost(pieces: list[str]) -> None:
    whole = "".join(pieces)
    assert content_of(split(*pieces)) == content_of(split(*whole)) == content_of(split(whole)) == expected(whole)


def test_no_delta_is_empty_and_text_that_cannot_be_a_tag_is_not_buffered() -> None:
    splitter = TagSplitter()
    steps = [("<thi", []), ("s", [TextDelta("<this")]), ("<think>", [TextDelta("<think>")])]
    for piece, made in steps:
        assert splitter.split([TextDelta(piece)]) == made
    splitter = TagSplitter()
    steps = [
        ("<think>a", [ReasoningDelta("a")]),
        ("b</", [ReasoningDelta("b")]),
        ("c", [ReasoningDelta("</c")]),
        ("</think", []),
        (">d", [TextDelta("d")]),
    ]
    for piece, made in steps:
        assert splitter.split([TextDelta(piece)]) == made


def test_other_events_keep_their_place() -> None:
    splitter = TagSplitter()
    call = ToolCallStarted(0, "call_1", "add")
    start = ResponseStarted("1", "m")
    assert splitter.split([start, TextDelta("<th")]) == [start]
    assert splitter.split([call]) == [TextDelta("<th"), call]
    assert splitter.split([TextDelta("<think>")]) == [TextDelta("<think>")]


def test_log_probabilities_stay_with_the_text() -> None:
    splitter = TagSplitter()
    first, second = TokenLogprob("<th", -0.1), TokenLogprob("is", -0.2)
    assert splitter.split([TextDelta("<th", (first,))]) == []
    assert splitter.split([TextDelta("is", (second,))]) == [TextDelta("<this", (first, second))]


def read(body: bytes, *, capabilities: Capabilities | None = None, quirks: Quirks = TAGS) -> list[Event]:
    decoder = OpenAIChat().decoder(a_call(HI, capabilities=capabilities, quirks=quirks))
    events = [event for at in range(len(body)) for event in decoder.feed(body[at : at + 1])]
    return [*events, *decoder.close()]


STREAM = b"".join(map(text, ("<th", "ink>Hm", ".</thi", "nk>", "Yes."))) + chunk({}, "stop") + DONE


def test_a_stream_of_a_host_with_tags() -> None:
    assert content_of(read(STREAM)) == ("Hm.", "Yes.")


def test_without_think_tags_in_the_row_tags_are_text() -> None:
    assert content_of(read(STREAM, quirks=Quirks())) == ("", "<think>Hm.</think>Yes.")


@pytest.mark.parametrize("of_host", [True, False])
def test_the_row_of_the_model_overrules_that_of_the_host(*, of_host: bool) -> None:
    quirks, model = Quirks(think_tags=of_host), Capabilities(think_tags=not of_host)
    assert content_of(read(STREAM, capabilities=model, quirks=quirks))[0] == ("" if of_host else "Hm.")


@pytest.mark.parametrize(("of_models", "reasoning"), [(("m-2",), ""), (("m-2", "m-1"), "Hm."), ((), "Hm.")])
def test_the_row_of_a_host_may_name_the_models_with_tags(of_models: tuple[str, ...], reasoning: str) -> None:
    assert content_of(read(STREAM, quirks=Quirks(think_tags=True, tagged_models=of_models)))[0] == reasoning


@pytest.mark.parametrize(
    ("host", "model", "tag"),
    [
        ("perplexity", "sonar-reasoning-pro", "think"),
        ("minimax", "MiniMax-M2", "think"),
        ("bedrock-openai", "openai.gpt-oss-120b-1:0", "reasoning"),
        ("bedrock-mantle", "openai.gpt-oss-20b", "reasoning"),
        ("gemini-openai", "gemini-3-pro", "thought"),
    ],
)
@pytest.mark.parametrize("is_plain", [True, False])
def test_hosts_with_tags(host: str, model: str, tag: str, *, is_plain: bool) -> None:
    row = msgspec.structs.replace(a_call(HI).model, name=model)
    call = msgspec.structs.replace(a_call(HI), provider=find_provider(host), model=row)
    whole = f"<{tag}>Hm.</{tag}>Yes."
    if is_plain:
        choice = {"index": 0, "message": {"role": "assistant", "content": whole}, "finish_reason": "stop"}
        events = OpenAIChat().parse_response(call, json.dumps({"id": "1", "choices": [choice]}).encode())
    else:
        events = OpenAIChat().decoder(call).feed(b"".join(map(text, whole)) + chunk({}, "stop") + DONE)
    assert content_of(events) == ("Hm.", "Yes.")


def test_other_models_of_bedrock_write_tags_as_text() -> None:
    call = msgspec.structs.replace(a_call(HI), provider=find_provider("bedrock-openai"))
    body = text("<reasoning>Hm.</reasoning>") + chunk({}, "stop") + DONE
    assert content_of(OpenAIChat().decoder(call).feed(body)) == ("", "<reasoning>Hm.</reasoning>")


@pytest.mark.parametrize("way", ["decoder", "parse_response"])
def test_a_plain_answer_is_split_once(way: str) -> None:
    message = {"role": "assistant", "content": "<think>a</think><think>b</think>"}
    body = json.dumps({"id": "1", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}).encode()
    call = a_call(HI, quirks=TAGS, is_streamed=False)
    events = read(body) if way == "decoder" else OpenAIChat().parse_response(call, body)
    assert content_of(events) == ("a", "<think>b</think>")


def test_buffered_text_is_released_if_the_stream_breaks() -> None:
    decoder = OpenAIChat().decoder(a_call(HI, quirks=TAGS))
    events = decoder.feed(text("<think>Hm</th"))
    assert content_of(events) == ("Hm", "")
    assert content_of(decoder.close()) == ("</th", "")
    assert decoder.error is not None
    assert not decoder.is_complete
    assert not decoder.is_finished
    assert decoder.ignored == 0
