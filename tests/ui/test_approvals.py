"""Decisions about tool calls in the requests of browsers: which of them count, and what an answer says about them."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_deluge import Conversation, LLMClient
from lm_deluge.errors import ChatRequestError, ConfigurationError
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import ToolCallPart, ToolResultPart
from lm_deluge.simulator import Script, Simulator
from lm_deluge.ui import approvals_from, conversation_from, frame_encoder
from lm_deluge.ui.approvals import DENIED, approval_id
from lm_deluge.ui.chat_requests import request_options
from ui.judges import VercelJudge, decoded

KEY = "0123456789abcdef"
CALL = ToolCallPart("c1", "remove", '{"path":"a.txt","depth":2.0}', {"path": "a.txt", "depth": 2.0})
OTHER = ToolCallPart("c2", "remove", '{"path":"b.txt"}', {"path": "b.txt"})
ASKED = {"role": "user", "content": "Tidy up."}


def chat_part(call: ToolCallPart, *, approved: Any = True, key: str | None = KEY, **changes: Any) -> dict[str, Any]:
    approval = {"id": approval_id(call, key), "approved": approved}
    part = {"type": "dynamic-tool", "toolName": call.name, "toolCallId": call.id, "state": "approval-responded"}
    return {**part, "input": json.loads(json.dumps(call.arguments)), "approval": approval, **changes}


def chat_body(*parts: dict[str, Any], after: tuple[dict[str, Any], ...] = ()) -> dict[str, Any]:
    messages = [
        {"id": "u", "role": "user", "parts": [{"type": "text", "text": "Tidy up."}]},
        {"id": "a", "role": "assistant", "parts": [{"type": "step-start"}, *parts]},
        *after,
    ]
    return {"id": "chat-1", "messages": messages, "trigger": "submit-message"}


def agent_body(*entries: tuple[ToolCallPart, Any], key: str | None = KEY, **changes: Any) -> dict[str, Any]:
    calls = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": json.dumps(call.arguments)}}
        for call, _ in entries
    ]
    resume = [
        {"interruptId": approval_id(call, key), "status": "resolved", "payload": {"approved": verdict}}
        for call, verdict in entries
    ]
    messages = [{"id": "u", **ASKED}, {"id": "a", "role": "assistant", "toolCalls": calls}]
    return {"threadId": "t", "runId": "r", "messages": messages, "resume": resume, **changes}


def bodies(*entries: tuple[ToolCallPart, Any], key: str | None = KEY) -> list[dict[str, Any]]:
    chat = chat_body(*(chat_part(call, approved=verdict, key=key) for call, verdict in entries))
    return [chat, agent_body(*entries, key=key)]


@pytest.mark.parametrize("client", [0, 1])
def test_decisions_are_read_by_the_ids_of_their_calls(client: int) -> None:
    entries = ((CALL, True), (OTHER, False))
    assert approvals_from(bodies(*entries, key=None)[client]) == {"c1": True, "c2": False}
    assert approvals_from(json.dumps(bodies(*entries)[client]), approval_key=KEY) == {"c1": True, "c2": False}


@pytest.mark.parametrize("client", [0, 1])
def test_decisions_are_refused_without_a_key(client: int) -> None:
    with pytest.raises(ChatRequestError, match="decisions about tool calls are not allowed here"):
        conversation_from(bodies((CALL, True), key=None)[client])


@pytest.mark.parametrize("client", [0, 1])
def test_a_signed_call_is_open_and_a_denied_one_has_its_result(client: int) -> None:
    found = conversation_from(bodies((CALL, True), (OTHER, False))[client], approval_key=KEY).messages
    assert [message.role for message in found] == ["user", "assistant", "tool"]
    assert [(call.id, call.name) for call in found[1].tool_calls] == [("c1", "remove"), ("c2", "remove")]
    assert found[1].tool_calls[0].arguments == CALL.arguments
    assert found[2].tool_results == (ToolResultPart("c2", DENIED, is_error=True),)


FORGED = {
    "another argument": ToolCallPart("c1", "remove", "{}", {"path": "/", "depth": 2}),
    "one more argument": ToolCallPart("c1", "remove", "{}", {"path": "a.txt", "depth": 2, "force": True}),
    "another tool": ToolCallPart("c1", "send_money", CALL.arguments_text, CALL.arguments),
    "another id": ToolCallPart("c9", "remove", CALL.arguments_text, CALL.arguments),
}


@pytest.mark.parametrize("forged", FORGED)
@pytest.mark.parametrize("client", [0, 1])
@pytest.mark.parametrize("verdict", [True, False])
def test_a_call_that_was_not_asked_about_is_refused(client: int, forged: str, *, verdict: bool) -> None:
    """The browser has the signature of `CALL`, and would like to run something else with it."""
    body = bodies((FORGED[forged], verdict))[client]
    stolen = approval_id(CALL, KEY)
    if client == 0:
        body["messages"][-1]["parts"][-1]["approval"]["id"] = stolen
    else:
        body["resume"][0]["interruptId"] = stolen
    with pytest.raises(ChatRequestError, match="a decision is about a tool call that"):
        conversation_from(body, approval_key=KEY)


@pytest.mark.parametrize("key", [None, KEY[::-1]])
@pytest.mark.parametrize("client", [0, 1])
def test_no_signature_and_that_of_another_key_are_refused(client: int, key: str | None) -> None:
    with pytest.raises(ChatRequestError, match="a decision is about a tool call that"):
        conversation_from(bodies((CALL, True), key=key)[client], approval_key=KEY)


@pytest.mark.parametrize("client", [0, 1])
def test_a_call_without_a_decision_is_refused(client: int) -> None:
    """It would be open at the end of the conversation, and run."""
    body = bodies((CALL, True))[client]
    if client == 0:
        body["messages"][-1]["parts"].append(chat_part(OTHER))
        del body["messages"][-1]["parts"][-1]["approval"]
        with pytest.raises(ChatRequestError, match="has no id"):
            conversation_from(body, approval_key=KEY)
    body = bodies((CALL, True), (OTHER, True))[client]
    if client == 1:
        body["resume"].pop()
        assert [call.id for call in conversation_from(body, approval_key=KEY).messages[-1].tool_calls] == ["c1"]


def test_a_later_message_supersedes_a_decision() -> None:
    later = {"id": "u2", "role": "user", "parts": [{"type": "text", "text": "Never mind."}]}
    body = chat_body({"type": "text", "text": "I remove it."}, chat_part(CALL), after=(later,))
    assert approvals_from(body) == {}
    assert [message.role for message in conversation_from(body).messages] == ["user", "assistant", "user"]
    assert not conversation_from(body).messages[1].tool_calls
    followed = chat_body(chat_part(CALL), {"type": "step-start"}, {"type": "text", "text": "Done."})
    assert approvals_from(followed) == {}
    agent = agent_body((CALL, True))
    agent["messages"].append({"id": "u2", "role": "user", "content": "Never mind."})
    with pytest.raises(ChatRequestError, match="does not wait"):
        conversation_from(agent, approval_key=KEY)


def test_a_step_that_failed_before_its_first_part_leaves_the_decision() -> None:
    body = chat_body(chat_part(CALL), {"type": "step-start"}, {"type": "data-x", "data": 1})
    assert approvals_from(body, approval_key=KEY) == {"c1": True}
    assert conversation_from(body, approval_key=KEY).messages[-1].tool_calls == (
        ToolCallPart("c1", "remove", '{"path":"a.txt","depth":2.0}', CALL.arguments),
    )


def test_a_call_that_ran_does_not_run_again() -> None:
    ran = chat_part(OTHER, state="output-available", output="removed")
    found = conversation_from(chat_body(ran, chat_part(CALL)), approval_key=KEY, allow_tool_results=True).messages
    assert [message.role for message in found] == ["user", "assistant", "tool"]
    assert [part.tool_call_id for part in found[-1].tool_results] == ["c2"]
    with pytest.raises(ChatRequestError, match="results of tools are not allowed here"):
        conversation_from(chat_body(ran, chat_part(CALL)), approval_key=KEY)


@pytest.mark.parametrize(
    "body",
    [
        chat_body(chat_part(CALL, approved="yes")),
        chat_body(chat_part(CALL, approval=None)),
        chat_body(chat_part(CALL, toolCallId=7)),
        chat_body(chat_part(CALL, approval={"id": ["x"], "approved": True})),
        agent_body((CALL, "yes")),
        agent_body((CALL, True), resume=[{"interruptId": "c1"}]),
        agent_body((CALL, True), resume=[{"interruptId": 1, "status": "resolved", "payload": True}]),
        agent_body((CALL, True), resume=["c1"]),
    ],
)
def test_malformed_decisions_are_refused(body: dict[str, Any]) -> None:
    for read in (approvals_from, conversation_from):
        with pytest.raises(ChatRequestError):
            read(body, approval_key=KEY)


def test_an_abandoned_interrupt_is_a_denial_and_a_bare_value_a_decision() -> None:
    name = approval_id(CALL, KEY)
    cancelled = agent_body((CALL, True), resume=[{"interruptId": name, "status": "cancelled"}])
    assert approvals_from(cancelled, approval_key=KEY) == {"c1": False}
    bare = agent_body((CALL, True), resume=[{"interruptId": name, "status": "resolved", "payload": True}])
    assert approvals_from(bare, approval_key=KEY) == {"c1": True}


def test_a_short_key_is_refused() -> None:
    for call in (conversation_from, approvals_from):
        with pytest.raises(ConfigurationError, match="approval_key has less than 16 bytes"):
            call(chat_body(), approval_key="secret")
    with pytest.raises(ConfigurationError, match="approval_key"):
        frame_encoder("vercel-ui", approval_key="secret")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def as_browsers_write(value: Any) -> Any:
    """Return a value as JSON.parse and JSON.stringify leave it: numbers have one type, names may have any order."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, int | float):
        return int(value) if math.isfinite(value) and value == int(value) and abs(value) < 1e21 else value
    if isinstance(value, list):
        return [as_browsers_write(each) for each in value]
    return {name: as_browsers_write(value[name]) for name in reversed(value)}


@given(st.dictionaries(st.text(), json_values, max_size=3), st.binary(min_size=16))
def test_the_signature_survives_a_browser(arguments: dict[str, Any], key: bytes) -> None:
    call = ToolCallPart("c", "f", json.dumps(arguments), arguments)
    back = ToolCallPart("c", "f", "", as_browsers_write(arguments))
    assert approval_id(back, key) == approval_id(call, key)
    assert approval_id(call, key + b"x") != approval_id(call, key)
    assert approval_id(call, None) == "c"


removed: list[str] = []


def remove(path: str, depth: float = 1) -> str:
    """Remove a file."""
    removed.append(path)
    return "removed"


ASKS = Script(text="I remove it.", tool_calls=[("remove", {"path": "a.txt"})])


@pytest.mark.parametrize("verdict", [True, False])
async def test_the_frames_after_a_decision_go_on_with_the_message(*, verdict: bool) -> None:
    """The client has the call already: its result belongs to the step that asked, and the answer is the next step."""
    removed.clear()
    async with Simulator([ASKS, "Done."]) as simulator, simulator_client(simulator) as client:
        asked = await client.stream("Tidy up.", tools=[remove], run_tools=True, approve=lambda _: "pause")
        [call] = asked.pending
        body = chat_body({"type": "text", "text": "I remove it."}, chat_part(call, approved=verdict))
        conversation, decisions = conversation_from(body, approval_key=KEY), approvals_from(body, approval_key=KEY)
        stream = client.stream(conversation, tools=[remove], run_tools=True, decisions=decisions)
        encoder = frame_encoder("vercel-ui", approval_key=KEY, **request_options("vercel-ui", body, KEY))
        frames = encoder.start()
        async for event in stream.events():
            frames += encoder.frames([event])
        frames += encoder.end()
    assert removed == (["a.txt"] if verdict else [])
    kinds = [chunk["type"] for chunk in decoded(frames)[:-1]]
    settled = ["tool-output-available"] if verdict else ["tool-output-denied"]
    before = ["start", "tool-input-available", "tool-approval-request", "tool-approval-response", *settled]
    assert kinds[: len(before) + 1] == [*before, "start-step"]
    assert [kind for kind in kinds if kind.endswith("-step")] == ["start-step", "finish-step"]
    assert VercelJudge().read(frames).end == "finish"
    assert simulator.requests[-1].json["messages"][-1]["content"] == ("removed" if verdict else f"Error: {DENIED}")


def simulator_client(simulator: Simulator) -> LLMClient:
    return LLMClient("gpt-5.4", base_url=simulator.url, api_key="k", max_attempts=1)


async def test_a_guessed_id_approves_nothing_that_the_model_asks_for_later() -> None:
    """The id of the next call may be known beforehand: some hosts count their calls."""
    removed.clear()
    async with Simulator([ASKS]) as simulator, simulator_client(simulator) as client:
        first = await client.stream("Tidy up.", tools=[remove], run_tools=True, approve=lambda _: "pause")
        guessed = {call.id: True for call in first.pending}
    async with Simulator([ASKS]) as simulator, simulator_client(simulator) as client:
        response = await client.stream(
            Conversation([Message.user("Tidy up.")]),
            tools=[remove],
            run_tools=True,
            decisions=guessed,
            approve=lambda _: "pause",
        )
        assert [call.id for call in response.pending] == [*guessed]
    assert removed == []
