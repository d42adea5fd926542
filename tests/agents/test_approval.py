"""Approval: calls that are declined, and loops that pause and go on in another process. No call runs twice."""

import asyncio
import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from agents.loops import APIS, assert_next_turn, assert_valid, events_of, roles, serving
from lm_deluge.events import ResponseFinished, ResponseStarted, RoundStarted, TextDelta, ToolCallFinished, ToolResult
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.response import APIResponse
from lm_deluge.simulator import Script, Simulator


class Machine:
    """Tools that note each run."""

    def __init__(self) -> None:
        self.ran: list[str] = []

    def look(self, path: str) -> str:
        self.ran.append(f"look {path}")
        return f"{path} has 3 lines"

    def delete(self, path: str) -> str:
        self.ran.append(f"delete {path}")
        return "deleted"

    @property
    def tools(self) -> list[Any]:
        return [self.look, self.delete]


ASKS = Script(text="", tool_calls=[("delete", {"path": "a"}), ("look", {"path": "b"}), ("delete", {"path": "c"})])


def pause_to_delete(call: Any) -> Any:
    return "pause" if call.name == "delete" else True


def pause(_: Any) -> str:
    return "pause"


def decline(_: Any) -> bool:
    return False


async def test_a_declined_call_does_not_run_and_the_model_reads_so() -> None:
    machine = Machine()
    async with serving([ASKS, "All right."]) as (sim, client):
        stream = client.stream(
            "Tidy up.", tools=machine.tools, run_tools=True, approve=lambda call: call.arguments["path"] != "c"
        )
        events = await events_of(stream)
        sent = [each["content"] for each in sim.requests[1].json["messages"] if each["role"] == "tool"]
    assert sorted(machine.ran) == ["delete a", "look b"]
    assert sent[2] == "Error: The user declined this call. It was not run."
    declined = next(event for event in events if isinstance(event, ToolResult) and event.error)
    assert (declined.error, declined.duration_s) == ("the call was declined", 0.0)
    assert stream.response.completion == "All right."


async def test_all_calls_are_decided_in_order_before_any_runs() -> None:
    machine, asked = Machine(), []

    async def approve(call: Any) -> bool:
        await asyncio.sleep(0)
        asked.append((call.arguments["path"], list(machine.ran)))
        return True

    async with serving([ASKS, "Done."]) as (_, client):
        await events_of(client.stream("Tidy up.", tools=machine.tools, run_tools=True, approve=approve))
    assert asked == [("a", []), ("b", []), ("c", [])]


@pytest.mark.parametrize("verdict", [None, 1, "yes", ValueError("the database is down"), SystemExit(1)])
async def test_an_approval_that_fails_declines(verdict: Any) -> None:
    machine = Machine()

    def approve(call: Any) -> Any:
        if isinstance(verdict, BaseException):
            raise verdict
        return verdict

    async with serving([ASKS, "All right."]) as (_, client):
        stream = client.stream("Tidy up.", tools=machine.tools, run_tools=True, approve=approve)
        events = await events_of(stream)
    assert machine.ran == []
    errors = [event.error for event in events if isinstance(event, ToolResult)]
    assert len(errors) == 3
    assert all(error.startswith("approve ") for error in errors)
    assert stream.response.completion == "All right."


@pytest.mark.parametrize("api", APIS)
async def test_a_pause_and_what_follows_in_every_api(api: str) -> None:
    machine = Machine()
    async with serving([ASKS, "Done."], api=api) as (sim, client):
        stream = client.stream("Tidy up.", tools=machine.tools, run_tools=True, approve=pause_to_delete)
        events = await events_of(stream)
        response = stream.response
        assert machine.ran == ["look b"]
        assert isinstance(events[-2], ToolResult)
        assert events[-1] == ResponseFinished("pause")
        assert (response.finish_reason, response.error) == ("pause", None)
        assert [call.arguments["path"] for call in response.pending] == ["a", "c"]
        assert len(sim.requests) == 1

        first, second = response.pending
        saved = Conversation.from_json(response.conversation.to_json())
        more = client.stream(saved, tools=machine.tools, run_tools=True, decisions={first.id: True, second.id: False})
        events = await events_of(more)
        assert_next_turn(client, more.response)
        assert len(sim.requests) == 2
    assert machine.ran == ["look b", "delete a"]
    kinds = [type(event) for event in events if not isinstance(event, TextDelta)]
    assert kinds[:4] == [ResponseStarted, ToolResult, ToolResult, RoundStarted]
    assert events[0] == ResponseStarted()
    assert more.response.completion == "Done."
    results = [part.content for part in more.response.conversation[2].parts]
    assert results[:2] == ["deleted", "b has 3 lines"]
    assert "declined" in results[2]
    assert roles(more.response.conversation) == ["user", "assistant", "tool", "assistant"]


async def test_without_a_decision_a_call_waits_on() -> None:
    machine = Machine()
    async with serving([ASKS, "Done."]) as (sim, client):
        stream = client.stream("Tidy up.", tools=machine.tools, run_tools=True, approve=pause_to_delete)
        await events_of(stream)
        first, second = stream.response.pending
        options = {"tools": machine.tools, "run_tools": True}
        more = client.stream(stream.response.conversation, decisions={first.id: True}, **options)
        await events_of(more)
        assert more.response.pending == (second,)
        assert len(sim.requests) == 1
        last = client.stream(more.response.conversation, decisions={second.id: True, "other": True}, **options)
        await events_of(last)
    assert machine.ran == ["look b", "delete a", "delete c"]
    assert last.response.completion == "Done."


async def test_approve_is_asked_again_for_calls_without_a_decision() -> None:
    machine = Machine()
    async with serving([ASKS, "Done."]) as (_, client):
        stream = client.stream("Tidy up.", tools=machine.tools, run_tools=True, approve=pause_to_delete)
        await events_of(stream)
        first, _ = stream.response.pending
        options = {"tools": machine.tools, "run_tools": True, "approve": decline}
        await events_of(client.stream(stream.response.conversation, decisions={first.id: True}, **options))
    assert machine.ran == ["look b", "delete a"]


async def test_without_approval_and_decisions_open_calls_run() -> None:
    machine = Machine()
    async with serving([ASKS, "Done."]) as (_, client):
        answer = await client.stream("Tidy up.", tools=machine.tools, echo=None)
        conversation = Conversation.user("Tidy up.").add(answer.content)
        stream = client.stream(conversation, tools=machine.tools, run_tools=True)
        await events_of(stream)
    assert sorted(machine.ran) == ["delete a", "delete c", "look b"]  # side by side, in threads
    assert stream.response.completion == "Done."


async def test_a_user_who_goes_on_without_deciding_closes_the_calls() -> None:
    machine = Machine()
    async with serving([ASKS, "As you like."]) as (_, client):
        stream = client.stream("Tidy up.", tools=machine.tools, run_tools=True, approve=pause_to_delete)
        await events_of(stream)
        conversation = stream.response.conversation.user("Never mind.")
        more = client.stream(conversation, tools=machine.tools, run_tools=True)
        await events_of(more)
        assert_valid(more.response.conversation)
    assert machine.ran == ["look b"]
    assert more.response.completion == "As you like."


async def test_all_calls_of_an_answer_may_pause() -> None:
    machine = Machine()
    async with serving([ASKS, "Done."]) as (_, client):
        stream = client.stream("Tidy up.", tools=machine.tools, run_tools=True, approve=pause)
        events = await events_of(stream)
    assert machine.ran == []
    assert len(stream.response.pending) == 3
    assert isinstance(events[-2], ToolCallFinished)


async def test_a_pause_survives_as_data() -> None:
    machine = Machine()
    async with serving([ASKS]) as (_, client):
        stream = client.stream("Tidy up.", tools=machine.tools, run_tools=True, approve=pause_to_delete)
        await events_of(stream)
    response = stream.response
    back = APIResponse.from_dict(json.loads(json.dumps(response.to_dict())))
    assert (back.pending, back.conversation, back.finish_reason) == (response.pending, response.conversation, "pause")
    assert [each.content for each in back.rounds] == [each.content for each in response.rounds]


PROGRAM = """
    import asyncio, json, sys
    from lm_deluge import Conversation, LLMClient

    log = sys.argv[3]

    def delete(path: str) -> str:
        with open(log, "a") as file:
            print("delete", path, file=file)
        return "deleted"

    async def main(url, saved):
        async with LLMClient("gpt-4o", base_url=url, api_key="k") as client:
            conversation = Conversation.load(saved)
            (call,) = conversation[-1].tool_calls
            stream = client.stream(
                conversation, tools=[delete], run_tools=True, decisions={call.id: True}, echo=None
            )
            response = await stream
            print(response.completion)

    asyncio.run(main(sys.argv[1], sys.argv[2]))
"""


def test_a_pause_goes_on_in_another_process(tmp_path: Path) -> None:
    log, saved = tmp_path / "log", tmp_path / "saved.json"
    log.touch()

    def delete(path: str) -> str:
        with log.open("a") as file:
            print("delete", path, file=file)
        return "deleted"

    asks = Script(text="", tool_calls=[("delete", {"path": "a"})])
    with Simulator([asks, "Done."]).start_in_thread() as sim:

        async def begin() -> None:
            from lm_deluge import LLMClient

            async with LLMClient("gpt-4o", base_url=sim.base_url, api_key="k") as client:
                stream = client.stream("Tidy up.", tools=[delete], run_tools=True, approve=pause)
                await events_of(stream)
                assert stream.response.pending
                stream.response.conversation.save(saved)

        asyncio.run(begin())
        assert log.read_text() == ""
        command = [sys.executable, "-c", textwrap.dedent(PROGRAM), sim.base_url, str(saved), str(log)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)  # noqa: S603 - our own program
        assert len(sim.requests) == 2
    assert done.stdout == "Done.\n"
    assert log.read_text() == "delete a\n"
