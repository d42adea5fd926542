"""What a loop has so far, without a model: the messages, the open calls, the ids, the events of a round."""

import pytest

from agents.loops import assert_valid
from lm_deluge.agents.history import CallIds, LoopHistory, with_closed_calls
from lm_deluge.agents.loop_response import build_response, total_usage
from lm_deluge.agents.round_events import RoundEvents
from lm_deluge.events import (
    Attempt,
    ResponseFinished,
    ResponseStarted,
    RoundStarted,
    TextDelta,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
    UsageReported,
)
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import TextPart, ToolCallPart, ToolResultPart
from lm_deluge.response import APIResponse, StreamStats
from lm_deluge.usage import Usage

A, B, C = (ToolCallPart(name, "f", "{}", {}) for name in "abc")


def answer(*calls: ToolCallPart, reason: str | None = "tool_calls", text: str = "Hm.") -> APIResponse:
    content = Message("assistant", (TextPart(text), *calls))
    return APIResponse(content=content, finish_reason=reason)  # type: ignore[arg-type]


def result(call: ToolCallPart) -> ToolResultPart:
    return ToolResultPart(call.id, f"result of {call.id}")


def test_results_stand_in_the_order_of_the_calls() -> None:
    history = LoopHistory(Conversation.user("Hi"))
    history.add_answer(answer(A, B, C))
    for call in (C, A, B):
        history.add_result(result(call))
    prompt = history.next_prompt()
    assert [part.tool_call_id for part in prompt[2].parts] == ["a", "b", "c"]
    assert history.open_calls == ()
    assert_valid(prompt)


def test_open_calls_are_closed_unless_they_stay_open() -> None:
    history = LoopHistory(Conversation.user("Hi"))
    history.add_answer(answer(A, B))
    history.add_result(result(B))
    closed = history.conversation()
    assert [part.is_error for part in closed[2].parts] == [True, False]
    assert_valid(closed)
    paused = history.conversation(keeps_open=True)
    assert paused[2].parts == (result(B),)
    again = LoopHistory(paused)
    assert again.open_calls == (A,)
    again.add_result(result(A))
    assert again.next_prompt()[2].parts == (result(A), result(B))


def test_the_first_result_of_a_call_stays() -> None:
    history = LoopHistory(Conversation.user("Hi"))
    history.add_answer(answer(A))
    history.add_result(result(A))
    history.add_result(ToolResultPart("a", "late"))
    assert history.next_prompt()[2].parts == (result(A),)


@pytest.mark.parametrize("results", [(), (A,), (B,), (A, B)])
@pytest.mark.parametrize("follows", [(), ("user",), ("user", "assistant")])
def test_calls_that_were_left_open(results: tuple[ToolCallPart, ...], follows: tuple[str, ...]) -> None:
    conversation = Conversation.user("Hi").add(answer(A, B).content)
    for call in results:
        conversation.add(Message("tool", (result(call),)))
    for role in follows:
        conversation.add(Message(role, (TextPart("And?"),)))  # type: ignore[arg-type]
    history = LoopHistory(conversation)
    assert history.open_calls == (() if follows else tuple(call for call in (A, B) if call not in results))
    prompt = history.next_prompt()
    assert_valid(prompt)
    assert [message.role for message in prompt][-len(follows) or len(prompt) :] == list(follows)
    assert with_closed_calls(prompt) is prompt
    if len(results) == 2:
        assert prompt == conversation


def test_the_last_answer_closes_its_calls_or_leaves_them_out() -> None:
    for reason, roles in (("length", ["user", "assistant", "tool"]), (None, ["user", "assistant"])):
        history = LoopHistory(Conversation.user("Hi"))
        history.add_last_answer(answer(A, reason=reason))
        assert [message.role for message in history.conversation()] == roles
        assert_valid(history.conversation())


def test_unreadable_arguments_go_back_as_an_empty_object() -> None:
    broken = ToolCallPart("a", "f", '{"x": ', None, "unexpected end")
    history = LoopHistory(Conversation.user("Hi"))
    history.add_answer(answer(broken))
    history.add_result(ToolResultPart("a", "not valid JSON", is_error=True))
    assert history.next_prompt()[1].tool_calls[0].arguments_text == "{}"
    assert history.rounds[0].tool_calls == (broken,)


# Ids


def test_ids_are_unique_over_rounds_and_repeat_after_a_restart() -> None:
    ids = CallIds([answer(A).content])
    assert [ids.add("a"), ids.add("a"), ids.add("b")] == ["a_2", "a_3", "b"]
    ids.restart()
    assert [ids.add("a"), ids.add("b")] == ["a_2", "b"]
    ids.start_round()
    assert [ids.add("a"), ids.add("b")] == ["a_3", "b_2"]


def test_the_answer_of_a_round_has_the_ids_of_its_events() -> None:
    ids = CallIds([answer(A).content])
    added = [ids.add("a"), ids.add("b"), ids.add("a")]
    renamed = ids.rename(answer(A, B, A))
    assert [call.id for call in renamed.tool_calls] == added
    assert [call.id for call in ids.rename(answer(A, B, A)).tool_calls] == added


# Events


def test_a_later_round_has_no_start_and_goes_on_counting() -> None:
    events = RoundEvents(
        2, is_start=False, first_index=3, ids=CallIds([answer(A).content]), usage=Usage(input_tokens=5)
    )
    found = events.translate(
        [
            ResponseStarted("r", "m"),
            TextDelta("x"),
            ToolCallStarted(0, "a", "f"),
            ToolCallDelta(0, "{}"),
            ToolCallFinished(0, "a", "f", "{}", {}),
            UsageReported(Usage(input_tokens=2)),
            ResponseFinished("tool_calls"),
        ]
    )
    assert found == [
        RoundStarted(2, "r", "m"),
        TextDelta("x"),
        ToolCallStarted(3, "a_2", "f"),
        ToolCallDelta(3, "{}"),
        ToolCallFinished(3, "a_2", "f", "{}", {}),
        UsageReported(Usage(input_tokens=7)),
    ]
    assert events.finished == ResponseFinished("tool_calls")
    assert events.next_index == 4


@pytest.mark.parametrize("goes_on", [False, True])
def test_an_attempt_that_starts_again_repeats_the_ids(goes_on: bool) -> None:
    events = RoundEvents(1, is_start=True, first_index=0, ids=CallIds(()), usage=None)
    again = Attempt(2, "ServerError", "x", 0.0, "m", goes_on)
    found = events.translate([ToolCallStarted(0, "a", "f"), again, ToolCallStarted(0, "a", "f")])
    assert found[2] == ToolCallStarted(0, "a_2" if goes_on else "a", "f")


# Response


def test_the_response_has_the_sums_of_the_rounds() -> None:
    one = answer(A)
    one.usage, one.cost, one.warnings = Usage(input_tokens=3, output_tokens=4), 0.5, ("no_done",)
    one.stats = StreamStats(attempts=2, reads=1, gap_mean=1.0, gap_max=2.0, output_tokens=4, tokens_per_second=2.0)
    two = answer(text="Yes.", reason="stop")
    two.usage, two.warnings = Usage(input_tokens=9, output_tokens=1, estimated=True), ("no_done", "other_model")
    two.stats = StreamStats(attempts=1, reads=3, gap_mean=5.0, gap_max=5.0, output_tokens=1, tokens_per_second=1.0)
    found = build_response([one, two], model="m", duration=9.0)
    assert (found.completion, found.finish_reason, found.cost) == ("Yes.", "stop", 0.5)
    assert found.usage == total_usage([one, two]) == Usage(input_tokens=12, output_tokens=5, estimated=True)
    assert found.warnings == ("no_done", "other_model")
    assert found.stats == StreamStats(
        attempts=3, duration=9.0, reads=4, gap_mean=4.0, gap_max=5.0, output_tokens=5, tokens_per_second=5 / 3
    )
    assert found.rounds == (one, two)


def test_a_round_without_content_shows_the_one_before() -> None:
    failed = APIResponse(model_internal="m", status_code=500)
    found = build_response([answer(A), failed], model="m", duration=None)
    assert found.completion == "Hm."
    assert len(found.rounds) == 1
    assert build_response([], model="m", duration=None).model_internal == "m"
