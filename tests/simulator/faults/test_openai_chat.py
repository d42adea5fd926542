"""Each fault of the content puts the described answer on the wire."""

from __future__ import annotations

import json

import pytest

from lm_deluge.simulator.faults.openai_chat import CHAT_FAULTS
from lm_deluge.testing import decode_body
from simulator.checks import API, Checks, events_of, healthy
from simulator.raw_client import TEXT, Reply

check = Checks(CHAT_FAULTS)


@pytest.mark.parametrize("name", CHAT_FAULTS)
async def test_the_bytes_match_the_description(name: str) -> None:
    await check.run(name)


def test_every_fault_is_checked() -> None:
    check.assert_complete()


@check("second_finish")
def _(reply: Reply) -> None:
    reasons = [choice["finish_reason"] for event in events_of(reply) for choice in event["choices"]]
    assert reasons[-2:] == ["stop", "length"]
    assert healthy(reply).raw_finish_reason == "stop"


@check("empty_choices")
def _(reply: Reply) -> None:
    first = events_of(reply)[0]
    assert (first["choices"], first["id"]) == ([], "")
    assert "prompt_filter_results" in first
    assert healthy(reply).completion == TEXT


@check("null_delta")
def _(reply: Reply) -> None:
    assert b'"delta":null' in reply.body
    assert b'"delta":{"content":null' in reply.body
    assert healthy(reply).completion == TEXT


@check("unknown_chunk")
def _(reply: Reply) -> None:
    assert b'"hologram"' in reply.body
    assert healthy(reply).completion == TEXT


@check("plain_for_stream")
def _(reply: Reply) -> None:
    assert reply.header("content-type") == "application/json"
    assert json.loads(reply.body)["object"] == "chat.completion"
    assert healthy(reply).completion == TEXT


@check("missing_usage")
def _(reply: Reply) -> None:
    assert all(event["usage"] is None for event in events_of(reply))
    assert healthy(reply).usage is None


@check("other_model_name")
def _(reply: Reply) -> None:
    assert healthy(reply).model_external == "other-model-2024-01-01"


@check("empty_answer")
def _(reply: Reply) -> None:
    assert healthy(reply).content.parts == ()


@check("content_filter_mid")
def _(reply: Reply) -> None:
    response = decode_body(API, reply.body)
    assert response.finish_reason == "content_filter"
    assert TEXT.startswith(response.completion)
    assert response.completion


@check("refusal_mid")
def _(reply: Reply) -> None:
    response = decode_body(API, reply.body)
    assert (response.finish_reason, response.raw_finish_reason) == ("refusal", "stop")
    assert response.content.refusal == "I cannot go on with that."


@check("bad_tool_json")
def _(reply: Reply) -> None:
    (call,) = decode_body(API, reply.body).tool_calls
    assert (call.name, call.arguments_text, call.arguments) == ("get_weather", '{"city": "Par', None)
    assert call.arguments_error


def fragments(reply: Reply) -> list[dict]:
    deltas = [choice["delta"] for event in events_of(reply) for choice in event["choices"]]
    return [call for delta in deltas for call in delta.get("tool_calls", ())]


def both_calls(reply: Reply) -> tuple[str, ...]:
    calls = decode_body(API, reply.body).tool_calls
    assert [(call.name, call.arguments) for call in calls] == [("get_weather", {"n": 0}), ("get_weather", {"n": 1})]
    return tuple(call.id for call in calls)


@check("interleaved_tool_calls")
def _(reply: Reply) -> None:
    assert [call["index"] for call in fragments(reply)] == [0, 1, 0, 1, 0, 1, 0, 1]
    assert both_calls(reply) == ("call_0", "call_1")


@check("tool_calls_without_ids")
def _(reply: Reply) -> None:
    assert all("id" not in call for call in fragments(reply))
    both_calls(reply)


@check("tool_calls_without_index")
def _(reply: Reply) -> None:
    assert all("index" not in call for call in fragments(reply))
    assert both_calls(reply) == ("call_0", "call_1")


@check("tool_calls_repeated_ids")
def _(reply: Reply) -> None:
    assert {(call["index"], call["id"]) for call in fragments(reply)} == {(0, "call_0"), (1, "call_1")}
    assert {call["function"]["name"] for call in fragments(reply)} == {"get_weather"}
    both_calls(reply)


@check("tool_call_index_gaps")
def _(reply: Reply) -> None:
    assert {call["index"] for call in fragments(reply)} == {0, 10}
    both_calls(reply)


@check("tool_name_in_pieces")
def _(reply: Reply) -> None:
    names = [call["function"].get("name") for call in fragments(reply)]
    assert names[:4] == ["get_w", "eather", "get_w", "eather"]
    both_calls(reply)
