"""Responses and the builder that folds events into them."""

from __future__ import annotations

import itertools
import json
import pickle
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

import recordings
from lm_deluge.errors import DelugeError, RateLimitError, ServerError, TimeoutError
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
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
    UsageReported,
)
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.media import Media
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import (
    AudioPart,
    ImagePart,
    ProviderDataPart,
    ReasoningPart,
    RefusalPart,
    TextPart,
    TokenLogprob,
    ToolCallPart,
    TopLogprob,
)
from lm_deluge.response import APIResponse, ResponseBuilder, StreamStats
from lm_deluge.usage import Usage
from samples.chat_bytes import outcome_of

TOKEN = TokenLogprob("Hi", -0.5, (72, 105), (TopLogprob("Yo", -2.0),))
STORY: list[Event] = [
    ResponseStarted("id-1", "m-2025"),
    Attempt(2, "RateLimitError", "slow down", 1.0, "m"),
    ReasoningDelta("h"),
    ReasoningDelta("m"),
    TextDelta("Hi", (TOKEN,)),
    TextDelta("!"),
    ToolCallStarted(0, "a", "f"),
    ToolCallDelta(0, '{"x"'),
    ToolCallStarted(1, "b", "g", custom=True),
    ToolCallDelta(0, ":1}"),
    TextDelta(" Then"),
    RefusalDelta("No"),
    MediaDelta("audio/pcm", "AAE=", id="audio_1", transcript="la"),
    MediaDelta("audio/pcm", "Ag==", transcript=" la"),
    MediaDelta("image/png", "iVBORw=="),
    MediaDelta("image/*", url="https://a.test"),
    Citation("https://a.test", "A", 0, 2, {"x": 1}),
    UsageReported(Usage(input_tokens=1)),
    UsageReported(Usage(input_tokens=2, output_tokens=3, raw={"prompt_tokens": 2})),
    ToolCallFinished(0, "a", "f", '{"x":1}', {"x": 1}),
    ToolCallFinished(1, "b", "g", "", custom=True),
    ProviderPart("acme", "reasoning_details", [{"data": "x"}]),
    ResponseFinished("tool_calls", "tool_use", ("odd",)),
]
PARTS = (
    ReasoningPart("hm"),
    TextPart("Hi!", (TOKEN,)),
    ToolCallPart("a", "f", '{"x":1}', {"x": 1}),
    ToolCallPart("b", "g", "", None, None, custom=True),
    TextPart(" Then"),
    RefusalPart("No"),
    AudioPart(Media(media_type="audio/pcm", data=b"\0\1\2", file_id="audio_1"), "la la"),
    ImagePart(Media(media_type="image/png", data=b"\x89PNG")),
    ImagePart(Media(media_type="image/*", url="https://a.test")),
    ProviderDataPart("acme", "reasoning_details", [{"data": "x"}]),
)


def built(events: list[Event]) -> APIResponse:
    builder = ResponseBuilder()
    builder.add_all(events)
    return builder.response("m")


def test_parts_stand_in_the_order_of_their_first_piece() -> None:
    response = built(STORY)
    assert response.content == Message("assistant", PARTS)
    assert (response.completion, response.thinking) == ("Hi! Then", "hm")
    assert [call.name for call in response.tool_calls] == ["f", "g"]
    assert (response.finish_reason, response.raw_finish_reason, response.warnings) == (
        "tool_calls",
        "tool_use",
        ("odd",),
    )
    assert (response.model_internal, response.model_external, response.response_id) == ("m", "m-2025", "id-1")
    assert response.usage == Usage(input_tokens=2, output_tokens=3, raw={"prompt_tokens": 2})
    assert response.citations == (Citation("https://a.test", "A", 0, 2, {"x": 1}),)
    assert (response.is_error, response.error_message) == (False, None)


def test_one_by_one_is_the_same_as_all_at_once() -> None:
    builder = ResponseBuilder()
    for event in STORY:
        builder.add(event)
    assert builder.response("m") == built(STORY)
    assert builder.has_deltas


@pytest.mark.parametrize("length", range(len(STORY)))
def test_a_look_in_between_changes_nothing(length: int) -> None:
    builder = ResponseBuilder()
    builder.add_all(STORY[:length])
    early = builder.response("m")
    builder.add_all(STORY[length:])
    assert early.finish_reason is None
    assert builder.response("m") == built(STORY)
    assert built(STORY).completion.startswith(early.completion)


def test_a_call_that_is_open_says_so() -> None:
    (call,) = built(STORY[:8]).tool_calls
    assert call == ToolCallPart("a", "f", '{"x"', None, "the call was cut off")


def test_nothing_yet() -> None:
    builder = ResponseBuilder()
    assert not builder.has_deltas
    assert builder.output_characters == 0
    assert builder.response() == APIResponse()
    builder.add(ResponseStarted("id-1"))
    assert not builder.has_deltas


def test_characters_so_far() -> None:
    builder = ResponseBuilder()
    builder.add_all(STORY[:10])
    assert builder.output_characters == len("hm") + len("Hi!") + len('{"x":1}')


@given(
    st.lists(
        st.one_of(
            st.text(max_size=4).map(TextDelta),
            st.text(max_size=4).map(ReasoningDelta),
            st.text(max_size=4).map(RefusalDelta),
            st.just(TextDelta("t", (TOKEN,))),
        )
    )
)
def test_no_piece_is_lost_and_neighbours_are_joined(events: list[Event]) -> None:
    response = built(events)
    for kind, text in (
        (TextDelta, response.completion),
        (ReasoningDelta, response.thinking),
        (RefusalDelta, response.content.refusal),
    ):
        assert text == "".join(event.text for event in events if isinstance(event, kind))
    kinds = [type(part) for part in response.content.parts]
    assert all(one is not other for one, other in itertools.pairwise(kinds))


@given(
    st.lists(
        st.tuples(st.sampled_from([TextDelta, ReasoningDelta]), st.integers(1, 400), st.booleans(), st.booleans()),
        max_size=6,
    )
)
def test_long_texts_are_whole_however_they_are_added_and_asked_for(
    runs: list[tuple[type[TextDelta | ReasoningDelta], int, bool, bool]],
) -> None:
    builder, numbers, texts = ResponseBuilder(), itertools.count(), {TextDelta: "", ReasoningDelta: ""}
    for kind, count, is_at_once, is_counted in runs:
        events = [kind(f"{next(numbers)} ") for _ in range(count)]
        texts[kind] += "".join(event.text for event in events)
        for batch in [events] if is_at_once else [[event] for event in events]:
            builder.add_all(batch)
        if is_counted:
            assert builder.output_characters == sum(map(len, texts.values()))
    assert builder.response().completion == texts[TextDelta]
    assert builder.response().thinking == texts[ReasoningDelta]


@pytest.mark.parametrize("kind", [TextDelta, ReasoningDelta])
def test_a_text_takes_little_more_memory_than_its_characters(kind: type[TextDelta | ReasoningDelta]) -> None:
    builder = ResponseBuilder()
    tracemalloc.start()
    try:
        for number in range(100_000):
            builder.add_all([kind(f"{number:04} ")])
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken < 2 * builder.output_characters


FULL = APIResponse(
    id=3,
    model_internal="m",
    model_external="m-2025",
    content=Message("assistant", PARTS),
    usage=Usage(input_tokens=2, cache_read_tokens=1, raw={"prompt_tokens": 2}),
    cost=0.25,
    finish_reason="tool_calls",
    raw_finish_reason="tool_use",
    status_code=200,
    request_id="r-1",
    response_id="id-1",
    citations=(Citation("https://a.test", "A", 0, 2, {"x": 1}),),
    stats=StreamStats(attempts=2, time_to_first_token=0.5, ignored=1),
    warnings=("odd",),
    local_cache_hit=True,
)


@pytest.mark.parametrize("response", [APIResponse(), FULL], ids=["empty", "full"])
def test_to_json_and_back(response: APIResponse) -> None:
    data = json.loads(json.dumps(response.to_dict()))
    assert APIResponse.from_dict(data) == response
    assert pickle.loads(pickle.dumps(response)) == response  # noqa: S301 - our own bytes


ERRORS: list[DelugeError] = [
    RateLimitError(
        "slow", status_code=429, code="c", type="t", retry_after_s=1.5, provider="acme", model="m", attempts=2
    ),
    TimeoutError("too long", phase="idle", limit_s=60.0, billed="maybe", where="mid_stream", hint="Wait."),
    DelugeError("odd", request_id="r-1"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_comes_back_as_its_class_and_says_the_same(error: DelugeError) -> None:
    response = APIResponse(content=Message.assistant("so far"), error=error)
    back = APIResponse.from_dict(json.loads(json.dumps(response.to_dict())))
    assert type(back.error) is type(error)
    assert {**vars(back.error), "partial": None} == {**vars(error), "partial": None}
    assert (back.is_error, back.error_message) == (True, str(error))
    assert back.completion == "so far"


def test_an_error_of_an_unknown_class_is_one_of_ours_all_the_same() -> None:
    back = APIResponse.from_dict({**APIResponse().to_dict(), "error": {"type": "NewError", "message": "x", "other": 1}})
    assert type(back.error) is DelugeError
    assert str(back.error) == "x."


def test_an_error_that_is_none_of_ours_is_not_data() -> None:
    response = APIResponse(error=ValueError("x"))
    assert response.to_dict()["error"] is None
    assert response.error_message == "x"


def test_an_answer_can_be_added_to_its_conversation() -> None:
    conversation = Conversation.user("u").add(built(STORY).content).tool_result("a", 1)
    assert len(conversation) == 3


@pytest.mark.skipif(not recordings.names("openai-chat"), reason=recordings.REASON)
def test_recorded_answers_survive_json() -> None:
    for name in recordings.names("openai-chat"):
        response, _ = outcome_of(recordings.load("openai-chat", name).body)
        data = json.loads(json.dumps(response.to_dict()))
        assert APIResponse.from_dict(data) == response, name


def test_an_attempt_voids_what_came_before_it() -> None:
    builder = ResponseBuilder()
    builder.add_all(
        [
            ResponseStarted("id-1", "m"),
            TextDelta("gone"),
            ToolCallStarted(0, "a", "f"),
            Citation("https://gone.test"),
            UsageReported(Usage(input_tokens=1)),
            Attempt(2, "StreamInterruptedError", "again", 0.0, "m"),
            TextDelta("kept"),
            ResponseFinished("stop"),
        ]
    )
    response = builder.response()
    assert response.content == Message.assistant("kept")
    assert (response.citations, response.usage, response.response_id) == ((), None, "id-1")


@pytest.mark.parametrize(
    ("finished", "message"),
    [
        (ResponseFinished("error"), "the provider ended the answer because of a failure"),
        (ResponseFinished("error", "OTHER"), "the provider ended the answer because of a failure: OTHER"),
        (
            ResponseFinished("error", "MALFORMED_FUNCTION_CALL", finish_details={"finishMessage": "Bad: f("}),
            "the provider ended the answer because of a failure: MALFORMED_FUNCTION_CALL (Bad: f()",
        ),
    ],
)
def test_an_answer_that_ends_with_an_error_has_one(finished: ResponseFinished, message: str) -> None:
    builder = ResponseBuilder()
    builder.add_all([ResponseStarted(), TextDelta("Half"), finished])
    response = builder.response()
    assert (response.completion, response.finish_reason, response.is_error) == ("Half", "error", True)
    assert isinstance(response.error, ServerError)
    assert (response.error.message, response.error.code) == (message, finished.raw_finish_reason)
    assert APIResponse.from_dict(response.to_dict()).error_message == response.error_message
