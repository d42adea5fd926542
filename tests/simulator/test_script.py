"""Answers without faults."""

from __future__ import annotations

import pytest

from lm_deluge.encoders.encoder import ParsedRequest
from lm_deluge.errors import RateLimitError
from lm_deluge.events import Citation, ResponseFinished, ResponseStarted, TextDelta
from lm_deluge.prompt.parts import ToolCallPart
from lm_deluge.response import APIResponse
from lm_deluge.simulator import Script, Simulator
from lm_deluge.simulator.script import ScriptSource, split_tokens
from lm_deluge.testing import decode_body
from lm_deluge.usage import Usage
from simulator.raw_client import ask

USAGE = {"stream_options": {"include_usage": True}}


async def answer(script: ScriptSource | None = None, text: str = "Hi", **fields: object) -> APIResponse:
    async with Simulator(script) as sim:
        reply = await ask(sim, **{"text": text, **fields})
    return decode_body("openai-chat", reply.body)


async def test_the_default_is_a_tour_in_markdown() -> None:
    response = await answer(text="What can you do?", **USAGE)
    text = response.completion
    assert text.startswith("## You said: What can you do?\n\nI am the **simulator** of LM Deluge, not a model")
    assert 140 <= len(text.split()) <= 220
    assert "\n- " in text
    assert text.count("```") == 2
    assert (response.finish_reason, response.model_external) == ("stop", "gpt-4o")


@pytest.mark.parametrize("text", ["", "x" * 61, "#*\x1b`"])
async def test_a_question_that_suits_no_heading_is_not_taken_up(text: str) -> None:
    assert (await answer(text=text)).completion.startswith("## Welcome to LM Deluge\n")


async def test_control_characters_of_a_question_do_not_come_back() -> None:
    assert (await answer(text="a\x1b[31m `b`\n#c")).completion.startswith("## You said: a 31m b c\n")


async def test_the_code_in_the_tour_is_python() -> None:
    code = (await answer()).completion.split("```python\n")[1].split("```")[0]
    compile(code, "tour", "exec")


async def test_tools_are_offered_and_not_used() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    assert (await answer("No, thanks.", tools=tools)).completion == "No, thanks."


@pytest.mark.parametrize("stream", [True, False])
async def test_every_field_of_a_script(stream: bool) -> None:
    script = Script(
        text="Here you are.",
        reasoning="Hm, let me see.",
        tool_calls=[
            ("weather", {"city": "Genève"}),
            ("weather", '{"city": '),
            ToolCallPart("call_7", "note", "free text", custom=True),
        ],
        refusal="Not more.",
        extra=[Citation("https://example.org", "A page", 0, 4)],
    )
    response = await answer(script, stream=stream, **(USAGE if stream else {}))
    assert (response.completion, response.thinking) == ("Here you are.", "Hm, let me see.")
    assert response.content.refusal == "Not more."
    first, broken, custom = response.tool_calls
    assert (first.name, first.arguments) == ("weather", {"city": "Genève"})
    assert broken.arguments_error
    assert (custom.id, custom.arguments_text, custom.custom) == ("call_7", "free text", True)
    assert response.citations[0].url == "https://example.org"
    assert response.finish_reason == "tool_calls"
    assert response.usage.reasoning_tokens == 4


@pytest.mark.parametrize("stream", [True, False])
async def test_a_refusal_by_itself(stream: bool) -> None:
    response = await answer(Script(refusal="I cannot."), stream=stream)
    assert (response.finish_reason, response.content.refusal, response.completion) == ("refusal", "I cannot.", "")


async def test_usage_and_reason_as_given() -> None:
    script = Script(text="x", usage=Usage(input_tokens=100, output_tokens=7), finish_reason="content_filter")
    response = await answer(script, **USAGE)
    assert (response.usage.input_tokens, response.usage.output_tokens) == (100, 7)
    assert response.finish_reason == "content_filter"


async def test_tokens_are_counted() -> None:
    response = await answer("one two three", text="x" * 40, **USAGE)
    assert (response.usage.input_tokens, response.usage.output_tokens) == (10, 3)


async def test_usage_is_only_reported_when_asked_for() -> None:
    assert (await answer("x")).usage is None
    assert (await answer("x", stream=False)).usage is not None


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("stream", [True, False])
async def test_the_limit_of_tokens_cuts(field: str, stream: bool) -> None:
    response = await answer("one two three four", stream=stream, **{field: 2})
    assert (response.completion, response.finish_reason) == ("one two", "length")
    enough = await answer("one two three four", **{field: 4})
    assert (enough.completion, enough.finish_reason) == ("one two three four", "stop")


async def test_the_limit_of_tokens_cuts_calls_too() -> None:
    response = await answer(Script(tool_calls=[("f", {"city": "Saint Petersburg"})]), max_tokens=1)
    assert response.finish_reason == "length"
    assert response.tool_calls[0].arguments_error


@pytest.mark.parametrize("stop", ["three", ["nothing", "three", "four"]])
async def test_stop_cuts(stop: str | list[str]) -> None:
    response = await answer("one two three four", stop=stop)
    assert (response.completion, response.finish_reason) == ("one two ", "stop")


async def test_events_as_given() -> None:
    events = [ResponseStarted("mine", "other"), TextDelta("exact"), ResponseFinished("length")]
    response = await answer(Script(events=events))
    assert (response.response_id, response.completion, response.finish_reason) == ("mine", "exact", "length")


async def completion_of(sim: Simulator, fault: str | None = None, **fields: object) -> str:
    return decode_body("openai-chat", (await ask(sim, fault, **fields)).body).completion


async def test_several_scripts_in_turn() -> None:
    async with Simulator(["one", Script(text="two")], faults=["status_429"]) as sim:
        assert (await ask(sim)).status == 429
        assert [await completion_of(sim) for _ in range(3)] == ["one", "two", "two"]


async def test_no_scripts_are_the_tour() -> None:
    assert (await answer([])).completion.startswith("## You said: Hi")


async def test_a_script_for_each_model() -> None:
    async with Simulator({"small": "s", "large": Script(text="l")}) as sim:
        assert [await completion_of(sim, model=name) for name in ("small", "large")] == ["s", "l"]
        assert (await completion_of(sim, model="other")).startswith("## You said")


async def test_a_function_of_the_request() -> None:
    def reply(request: ParsedRequest) -> str:
        return f"{request.model}: {request.conversation[-1].completion.upper()}"

    async with Simulator(reply) as sim:
        assert await completion_of(sim, text="hello") == "gpt-4o: HELLO"


async def test_an_error_that_a_script_raises_is_the_answer() -> None:
    def reply(request: ParsedRequest) -> str:
        raise RateLimitError("not now", status_code=429, retry_after_s=2.5)

    async with Simulator(reply) as sim:
        answered = await ask(sim)
    assert (answered.status, answered.header("retry-after")) == (429, "2.5")


async def test_the_exception_of_a_script_is_reported_to_the_client() -> None:
    def reply(request: ParsedRequest) -> str:
        raise IndexError("no more")

    async with Simulator(reply) as sim:
        reply = await ask(sim)
        assert (reply.status, b"the script raised IndexError" in reply.body) == (500, True)
        assert (await ask(sim)).status == 500


@pytest.mark.parametrize("text", ["", " ", "one two  three\n\n", "Donaudampfschifffahrt!", "🌊 ü"])
def test_tokens_joined_are_the_text(text: str) -> None:
    tokens = split_tokens(text)
    assert "".join(tokens) == text
    assert all(tokens)
