"""Prompts as callers give them: dicts, subclasses of str, single prompts for a batch, partial answers, text files."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from lm_deluge import Conversation, LLMClient
from lm_deluge.config import Timeouts
from lm_deluge.errors import InvalidPromptError
from lm_deluge.events import ToolCallDelta, ToolCallStarted
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import ToolCallPart
from lm_deluge.prompt.tool import Tool
from lm_deluge.simulator import Script, Simulator

DICTS = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": [{"type": "text", "text": "Hi"}]}]


class Word(str):
    """A subclass of str, as numpy.str_ is one."""

    __slots__ = ()


def client_of(sim: Simulator, model: str = "openai-compatible:m", **options: Any) -> LLMClient:
    return LLMClient(model, base_url=sim.base_url, api_key="k", progress="none", **options)


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator("ok") as running:
        yield running


def texts_of(sim: Simulator) -> list[list[str]]:
    return [[text_of(message["content"]) for message in request.json["messages"]] for request in sim.requests]


def text_of(content: Any) -> str:
    return content if isinstance(content, str) else "".join(piece["text"] for piece in content)


@pytest.mark.parametrize(
    ("prompt", "texts"),
    [(DICTS, ["Be brief.", "Hi"]), (DICTS[1], ["Hi"]), (Word("Hi"), ["Hi"]), ([Message.user(Word("Hi"))], ["Hi"])],
    ids=["dicts", "a dict", "a subclass", "messages"],
)
async def test_a_prompt_is_taken_by_every_method(sim: Simulator, prompt: Any, texts: list[str], tmp_path: Path) -> None:
    async with client_of(sim) as client:
        assert (await client.stream(prompt, echo=None)).completion == "ok"
        task = client.start_nowait(prompt)
        assert (await client.wait_for(task)).completion == "ok"
        for options in ({}, {"ask_duplicates_once": True}):
            (response,) = await client.process_prompts_async([prompt], **options)
            assert (response.error, response.completion) == (None, "ok")
        streams = client.stream_many([prompt])
        async for _ in streams:
            pass
        assert streams.responses[0].completion == "ok"
    async with client_of(sim, local_cache=tmp_path / "cache.db") as client:
        await client.stream(prompt, echo=None)
        assert (await client.stream(prompt, echo=None)).local_cache_hit
    assert texts_of(sim) == [texts] * 6


SINGLE = ["Hello", Word("Hello"), Conversation.user("Hello"), Message.user("Hello"), DICTS[1]]


@pytest.mark.parametrize("prompts", SINGLE, ids=lambda value: type(value).__name__)
async def test_a_single_prompt_is_refused_by_every_batch(sim: Simulator, prompts: Any, tmp_path: Path) -> None:
    async with client_of(sim) as client:
        with pytest.raises(InvalidPromptError, match=r"a list of prompts, not a single .* Write \[prompt\]"):
            await client.process_prompts_async(prompts)
        with pytest.raises(InvalidPromptError, match="a list of prompts"):
            await client.process_prompts_async(prompts, ask_duplicates_once=True)
        with pytest.raises(InvalidPromptError, match="a list of prompts"):
            client.process_prompts_sync(prompts)
        with pytest.raises(InvalidPromptError, match="a list of prompts"):
            client.stream_many(prompts)
    async with client_of(sim, "openai:gpt-4o") as client:
        with pytest.raises(InvalidPromptError, match="a list of prompts"):
            client.provider_batch(prompts, journal=tmp_path / "journal")
    assert not sim.requests


def as_wanted(request: Any) -> Script:
    if any(message.role == "assistant" for message in request.conversation):
        return Script(text="Fine.")
    return Script(text="I look.", tool_calls=[("weather", {"city": "Rome", "days": list(range(50))})])


MODELS = ["openai-compatible:m", "openai-responses:m", "anthropic:m", "gemini:gemini-3-pro", "cohere:m"]
URLS = ("openai-responses", "openai-compatible", "cohere")


@pytest.mark.parametrize("open_calls", ["drop", "close", None])
@pytest.mark.parametrize("model", MODELS)
async def test_a_conversation_goes_on_after_a_cancel_in_a_tool_call(model: str, open_calls: Any) -> None:
    async with Simulator(as_wanted) as sim:
        url = sim.base_url if model.startswith(URLS[:2]) else sim.url
        async with LLMClient(model, base_url=url, api_key="k", max_attempts=1) as client:
            conversation = Conversation.user("Weather?")
            stream = client.stream(conversation, tools=[Tool(name="weather")], echo=None)
            async for event in stream.events():
                if isinstance(event, ToolCallDelta | ToolCallStarted):
                    break
            partial = await stream.cancel()
            assert partial.tool_calls
            left = conversation.copy().add(partial.content).user("go on")
            with pytest.raises(InvalidPromptError, match=r"without a result .*'weather'"):
                client.stream(left)
            conversation.add_answer(partial, open_calls=open_calls).user("go on")
            assert (await client.stream(conversation, tools=[Tool(name="weather")], echo=None)).completion == "Fine."
        assert len(sim.requests) == 2


async def test_a_fallback_to_gemini_signs_the_call_of_another_model(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Simulator(faults=["status_503"] * 9) as broken, Simulator("Sunny.") as sim:
        for name, url in (("OPENAI", broken.base_url), ("GOOGLE_GEMINI", sim.url)):
            monkeypatch.setenv(f"{name}_BASE_URL", url)
        for name in ("OPENAI_API_KEY", "GOOGLE_API_KEY"):
            monkeypatch.setenv(name, "k")
        calls = [ToolCallPart("call_x", "weather", "{}", {})]
        conversation = (
            Conversation.user("Weather?").add(Message.assistant(tool_calls=calls)).tool_result("call_x", "21")
        )
        options: dict[str, Any] = {"max_attempts": 2, "timeouts": Timeouts(connect=5)}
        async with LLMClient("gpt-4o", fallback="gemini:gemini-3-pro", **options) as client:
            response = await client.stream(conversation, tools=[Tool(name="weather")], echo=None)
        assert response.completion == "Sunny."
        sent = sim.requests[0].json["contents"][1]["parts"][0]
        assert sent["thoughtSignature"] == "skip_thought_signature_validator"


async def test_a_file_of_code_reaches_the_model(sim: Simulator, tmp_path: Path) -> None:
    path = tmp_path / "main.py"
    path.write_text("print('hi')\n")
    async with client_of(sim) as client:
        await client.stream(Conversation.user("Explain.", file=path), echo=None)
    assert texts_of(sim) == [["Explain.\n\n<file name=\"main.py\">\nprint('hi')\n\n</file>"]]
