"""Custom tools with free text as their input, in front of providers of other APIs: Codex edits files by one."""

import json
from typing import Any

import openai
import pytest

from gateway.conftest import TEXT
from gateway.serving import Serving
from gateway.test_client_needs import post, sent_tools
from gateway.test_client_tools import gateway_before
from lm_deluge.events import Event, ToolCallDelta, ToolCallFinished, ToolCallStarted
from lm_deluge.gateway.translation.custom_tools import CustomTools
from lm_deluge.prompt.tool import ProviderTool
from lm_deluge.simulator import Script

# Of clients of tests before, which have no `close`.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")

OTHERS = ("claude-sonnet-5-5", "gemini-3.8-flash", "llama")
PATCH = '*** Begin Patch\n*** Add File: a.txt\n+say "hé😀"\n*** End Patch\n'
GRAMMAR = {"type": "grammar", "syntax": "lark", "definition": "start: begin_patch hunk+ end_patch"}
APPLY = {"type": "custom", "name": "apply_patch", "description": "Edit files.", "format": GRAMMAR}
NOTE = {"type": "custom", "name": "note", "description": "Take a note."}
ASKED: dict[str, Any] = {"input": "Add a file.", "tools": [APPLY, NOTE], "store": False}


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "plain"])
@pytest.mark.parametrize("model", OTHERS)
async def test_a_whole_task(monkeypatch: pytest.MonkeyPatch, model: str, streamed: bool) -> None:
    script = [Script(tool_calls=[("apply_patch", {"input": PATCH})]), TEXT]
    async with gateway_before(script, monkeypatch) as serving:
        async with openai.AsyncOpenAI(api_key="any", base_url=f"{serving.url}/v1", max_retries=0) as client:
            if streamed:
                events = [event async for event in await client.responses.create(model=model, **ASKED, stream=True)]
                deltas = [event.delta for event in events if event.type == "response.custom_tool_call_input.delta"]
                assert "".join(deltas) == PATCH
                response = events[-1].response
            else:
                response = await client.responses.create(model=model, **ASKED)
            call, *_ = response.output  # Gemini's signature of the call is an item of its own
            assert (call.type, call.name, call.input) == ("custom_tool_call", "apply_patch", PATCH)
            assert sent_tools(serving) == ["apply_patch", "note"]
            assert GRAMMAR["definition"] in str(serving.simulator.requests[-1].json)
            result = {"type": "custom_tool_call_output", "call_id": call.call_id, "output": "It is written."}
            history: Any = [
                {"role": "user", "content": "Add a file."},
                call.model_dump(exclude_none=True),
                result,
            ]
            answer = await client.responses.create(model=model, **{**ASKED, "input": history})
            assert answer.output_text == TEXT
        sent = json.dumps(serving.simulator.requests[-1].json)
        assert "Begin Patch" in sent
        assert "It is written." in sent


async def test_chat_completions_has_them_too(monkeypatch: pytest.MonkeyPatch) -> None:
    tool: Any = {"type": "custom", "custom": {"name": "note", "description": "Take a note."}}
    prompt: Any = [{"role": "user", "content": "Note it."}]
    async with (
        gateway_before([Script(tool_calls=[("note", {"input": "It."})]), TEXT], monkeypatch) as serving,
        openai.AsyncOpenAI(api_key="any", base_url=f"{serving.url}/v1", max_retries=0) as client,
    ):
        choice: Any = {"type": "custom", "custom": {"name": "note"}}
        answer = await client.chat.completions.create(
            model=OTHERS[1], messages=prompt, tools=[tool], tool_choice=choice
        )
        (call,) = answer.choices[0].message.tool_calls
        assert (call.type, call.custom.name, call.custom.input) == ("custom", "note", "It.")
        config = serving.simulator.requests[-1].json["toolConfig"]["functionCallingConfig"]
        assert config == {"mode": "ANY", "allowedFunctionNames": ["note"]}
        prompt += [answer.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "Noted."}]
        again = await client.chat.completions.create(model=OTHERS[1], messages=prompt, tools=[tool])
        assert again.choices[0].message.content == TEXT


async def test_only_what_is_lost_is_named(serving: Serving) -> None:
    both = await post(serving, "/v1/responses", {"model": OTHERS[0], "input": "Hello", "tools": [APPLY, NOTE]})
    assert both.headers["x-deluge-warning"] == "not passed on: format of tool apply_patch"
    free = {**NOTE, "format": {"type": "text"}}
    for tools in ([NOTE], [free]):
        answer = await post(serving, "/v1/responses", {"model": OTHERS[0], "input": "Hello", "tools": tools})
        assert answer.status_code == 200, answer.text
        assert "x-deluge-warning" not in answer.headers


async def test_the_same_api_gets_them_unchanged(serving: Serving) -> None:
    body = {"model": "gpt-4o", **ASKED}
    answer = await post(serving, "/v1/responses", body)
    assert answer.status_code == 200, answer.text
    assert serving.simulator.requests[-1].json == body


async def test_a_custom_tool_in_a_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    tools = [{"type": "namespace", "name": "files", "description": "Files.", "tools": [NOTE]}, NOTE]
    script = [Script(tool_calls=[("files__note", {"input": "It."})]), TEXT]
    async with gateway_before(script, monkeypatch) as serving:
        answer = await post(serving, "/v1/responses", {"model": OTHERS[0], "input": "Note it.", "tools": tools})
        (call,) = answer.json()["output"]
        assert (call["type"], call["name"], call["namespace"]) == ("custom_tool_call", "note", "files")
        assert call["input"] == "It."
        assert sent_tools(serving) == ["files__note", "note"]
        result = {"type": "custom_tool_call_output", "call_id": call["call_id"], "output": "Noted."}
        history = [{"role": "user", "content": "Note it."}, call, result]
        again = await post(serving, "/v1/responses", {"model": OTHERS[0], "input": history, "tools": tools})
        assert again.status_code == 200, again.text
        assert "files__note" in json.dumps(serving.simulator.requests[-1].json["messages"])


async def test_a_format_that_only_openai_knows_is_dropped_with_its_tool(serving: Serving) -> None:
    nameless = {"type": "custom", "name": "not a name!", "description": "?"}
    answer = await post(serving, "/v1/responses", {"model": OTHERS[0], "input": "Hello", "tools": [nameless]})
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-deluge-warning"] == "not passed on: tool not a name!"


# The input as it arrives


def restored(fragments: list[str], text: str, arguments: Any) -> tuple[str, ToolCallFinished]:
    """Return the input that arrives by deltas, and the end of the call."""
    tools = CustomTools([ProviderTool(NOTE)])
    events: list[Event] = [ToolCallStarted(0, "one", "note")]
    events += [ToolCallDelta(0, fragment) for fragment in fragments]
    error = None if arguments is not None else "not JSON"
    events.append(ToolCallFinished(0, "one", "note", text, arguments, error))
    found = [each for event in events for each in tools.restored([event])]
    assert found[0] == ToolCallStarted(0, "one", "note", custom=True)
    end = found[-1]
    assert isinstance(end, ToolCallFinished)
    assert (end.custom, end.arguments, end.arguments_error) == (True, None, None)
    return "".join(event.arguments for event in found if isinstance(event, ToolCallDelta)), end


def test_the_input_is_the_same_however_its_json_is_cut() -> None:
    text = json.dumps({"other": [1], "input": PATCH + "\\ \u2028"})
    for at in range(len(text) + 1):
        arrived, end = restored([text[:at], text[at:]], text, json.loads(text))
        assert arrived == end.arguments_text == PATCH + "\\ \u2028"
    assert restored(list(text), text, json.loads(text))[0] == PATCH + "\\ \u2028"


@pytest.mark.parametrize(
    ("text", "arguments", "arrives", "whole"),
    [
        ("*** Begin", None, "", "*** Begin"),  # no JSON: the model wrote the input itself
        ('{"input": "half a li', None, "half a li", "half a li"),
        ('{"text": "a"}', {"text": "a"}, "", '{"text": "a"}'),
        ('{"input": 5}', {"input": 5}, "", '{"input": 5}'),
        ('["a"]', ["a"], "", '["a"]'),
        ("{}", {}, "", "{}"),
        ('{"input": ""}', {"input": ""}, "", ""),
    ],
)
def test_arguments_that_are_not_as_asked_for(text: str, arguments: Any, arrives: str, whole: str) -> None:
    arrived, end = restored([text], text, arguments)
    assert (arrived, end.arguments_text) == (arrives, whole)


def test_calls_of_other_tools_stay_as_they_are() -> None:
    events: list[Event] = [
        ToolCallStarted(0, "one", "weather"),
        ToolCallDelta(0, '{"input": "a"}'),
        ToolCallFinished(0, "one", "weather", '{"input": "a"}', {"input": "a"}),
    ]
    assert CustomTools([ProviderTool(NOTE)]).restored(events) == events
