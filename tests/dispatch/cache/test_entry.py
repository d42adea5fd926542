"""Values and keys of a cache: complete answers, unchanged after decoding, under a key of everything."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_deluge import Conversation
from lm_deluge.api_requests.request import build_call
from lm_deluge.config import Secret
from lm_deluge.dispatch.cache.entry import CachedAnswer, build_key, decode_answer, encode_answer
from lm_deluge.errors import ServerError
from lm_deluge.events import (
    Attempt,
    Citation,
    Event,
    MediaDelta,
    ProviderPart,
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
from lm_deluge.models.registry import find_served_model
from lm_deluge.response import APIResponse, ResponseBuilder
from lm_deluge.usage import Usage
from lm_deluge.wire.http import HttpRequest

CALL = build_call(find_served_model("gpt-4o", None), Conversation.user("Hello"))
START, END = ResponseStarted("id", "gpt-4o"), ResponseFinished("stop", "stop")
REQUEST = HttpRequest("http://h/v1/x", {"a": "b", "c": "d"}, b"{}")

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
MAYBE = st.none() | TEXTS
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda each: st.lists(each, max_size=3) | st.dictionaries(TEXTS, each, max_size=3),
    max_leaves=5,
)
LOGPROBS = st.lists(
    st.builds(
        TokenLogprob,
        TEXTS,
        st.floats(-100, 0),
        st.none() | st.lists(st.integers(0, 255), max_size=2).map(tuple),
        st.lists(st.builds(TopLogprob, TEXTS, st.floats(-100, 0)), max_size=1).map(tuple),
    ),
    max_size=2,
).map(tuple)
COUNTS = st.none() | st.integers(0, 9)
USAGES = st.builds(
    Usage,
    input_tokens=st.integers(0, 9),
    output_tokens=st.integers(0, 9),
    cache_read_tokens=COUNTS,
    reasoning_tokens=COUNTS,
    estimated=st.booleans(),
    raw=st.none() | st.dictionaries(TEXTS, JSON, max_size=2),
)
EVENTS: st.SearchStrategy[Event] = st.one_of(
    st.builds(TextDelta, TEXTS, LOGPROBS),
    st.builds(ReasoningDelta, TEXTS),
    st.builds(RefusalDelta, TEXTS, LOGPROBS),
    st.builds(ToolCallStarted, st.integers(0, 3), TEXTS, TEXTS, st.booleans()),
    st.builds(ToolCallDelta, st.integers(0, 3), TEXTS),
    st.builds(ToolCallFinished, st.integers(0, 3), TEXTS, TEXTS, TEXTS, JSON, MAYBE, st.booleans()),
    st.builds(Citation, MAYBE, MAYBE, COUNTS, COUNTS, st.none() | st.dictionaries(TEXTS, JSON, max_size=2)),
    st.builds(MediaDelta, TEXTS, TEXTS, MAYBE, MAYBE, MAYBE),
    st.builds(ProviderPart, TEXTS, TEXTS, JSON),
    st.builds(UsageReported, USAGES),
    st.builds(Attempt, st.integers(2, 5), TEXTS, TEXTS, st.floats(0, 9), TEXTS, st.booleans()),
)


def response(**fields: Any) -> APIResponse:
    return APIResponse(model_internal="gpt-4o", **fields)


@given(st.lists(EVENTS, max_size=6), st.none() | USAGES)
def test_any_answer_comes_back_the_same_without_its_attempts(middle: list[Event], usage: Usage | None) -> None:
    events = [START, *middle, END]
    value = encode_answer(events, response(usage=usage), CALL)
    found = decode_answer(value)
    void = max((at for at, event in enumerate(middle) if isinstance(event, Attempt) and not event.goes_on), default=-1)
    assert list(found.events) == [START, *(each for each in middle[void + 1 :] if not isinstance(each, Attempt)), END]
    assert found.usage == usage
    assert msgspec.json.decode(value)["version"] == 1


def test_warnings_of_the_call_and_of_the_way_are_not_the_answer_s() -> None:
    call = msgspec.structs.replace(CALL, warnings=("lossy",))
    own = response(warnings=("lossy", "no_done", "other_model", "buffered_upstream"))
    end = ResponseFinished("stop", None, ("no_done",))
    assert decode_answer(encode_answer([START, end], own, call)).warnings == ("no_done", "other_model")


NAN = TextDelta("x", (TokenLogprob("x", float("nan")),))
UNKEPT: dict[str, tuple[list[Event], APIResponse]] = {
    "nothing": ([], response()),
    "no end": ([START, TextDelta("x")], response()),
    "no start": ([TextDelta("x"), END], response()),
    "half a character": ([START, TextDelta("\ud800"), END], response()),
    "a number that JSON has not": ([START, NAN, END], response()),
    "data that JSON has not": ([START, ProviderPart("p", "k", object()), END], response()),
    "keys that are no text": ([START, ProviderPart("p", "k", {1: 2}), END], response()),
    "filtered": ([START, ResponseFinished("content_filter")], response()),
    "paused": ([START, ResponseFinished("pause")], response()),
    "failed": ([START, ResponseFinished("error")], response()),
    "doubtful": ([START, ResponseFinished("stop", None, ("no_finish_reason",))], response()),
    "with an error": ([START, END], response(error=ServerError("x"))),
    "of another model": ([START, END], APIResponse(model_internal="fallback")),
}


@pytest.mark.parametrize("name", UNKEPT)
def test_what_is_not_kept(name: str) -> None:
    events, answer = UNKEPT[name]
    assert encode_answer(events, answer, CALL) is None


@pytest.mark.parametrize("reason", ["stop", "length", "tool_calls", "refusal"])
def test_every_ending_of_a_success_is_kept(reason: Any) -> None:
    events = [START, TextDelta("x"), ResponseFinished(reason)]
    found = decode_answer(encode_answer(events, response(), CALL))
    builder = ResponseBuilder()
    builder.add_all(found.events)
    assert builder.response().finish_reason == reason


@given(st.binary(max_size=60))
def test_any_value_is_an_answer_or_a_miss(value: bytes) -> None:
    assert decode_answer(value) is None


@pytest.mark.parametrize("events", [[], [START], [END, START], [TextDelta("x"), END], [START, TextDelta("x")]])
def test_a_value_that_is_no_whole_answer_is_a_miss(events: list[Event]) -> None:
    assert decode_answer(msgspec.json.encode(CachedAnswer(events=tuple(events)))) is None


def test_a_key_is_of_everything() -> None:
    def replaced(**changes: Any) -> HttpRequest:
        return msgspec.structs.replace(REQUEST, **changes)

    model = msgspec.structs.replace(CALL.model, id="other")
    keys = [
        build_key("openai-chat", CALL, REQUEST, Secret("k")),
        build_key("openai-chat", CALL, REQUEST, Secret("l")),
        build_key("openai-chat", CALL, REQUEST, None),
        build_key("other", CALL, REQUEST, Secret("k")),
        build_key("openai-chat", msgspec.structs.replace(CALL, base_url="http://other"), REQUEST, Secret("k")),
        build_key("openai-chat", msgspec.structs.replace(CALL, model=model), REQUEST, Secret("k")),
        build_key("openai-chat", CALL, replaced(body=b"{ }"), Secret("k")),
        build_key("openai-chat", CALL, replaced(url="http://h/v1/y"), Secret("k")),
        build_key("openai-chat", CALL, replaced(method="GET"), Secret("k")),
        build_key("openai-chat", CALL, replaced(headers={"a": "b", "c": "e"}), Secret("k")),
        build_key("openai-chat", CALL, replaced(headers={"a": "bc", "": "d"}), Secret("k")),
    ]
    assert len(set(keys)) == len(keys)
    assert all(len(key) == 64 and int(key, 16) for key in keys)
    assert build_key("openai-chat", CALL, replaced(headers={"c": "d", "a": "b"}), Secret("k")) == keys[0]
