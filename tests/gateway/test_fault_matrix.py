"""Faults of a provider, through the gateway, for pairs of dialects: no client takes a broken answer for a whole one.

`make soak` plays each fault for each pair; otherwise each fault is played for some pairs, which differ by fault.
"""

import asyncio
import os
from pathlib import Path
from typing import Any, NamedTuple

import anthropic
import msgspec
import openai
import pytest

from client.faults.fault_runs import PATIENT
from client.faults.test_fault_matrix import CLOCKS, ENDS, OTHER_TEXT, SPELLED
from gateway.conftest import TEXT
from gateway.serving import serve
from lm_deluge import errors as e
from lm_deluge.gateway.configuration.settings import GatewaySettings, ServedModel
from lm_deluge.simulator import FAULTS, Fault, Simulator

UPSTREAMS = ("gpt-4o", "claude-sonnet-5-5")
PROMPT = [{"role": "user", "content": "Hello"}]
ASKED: dict[str, dict[str, str]] = {name: {"accept-encoding": "br, zstd"} for name in ("br", "zstd")}

# The class of each client for the classes of the provider's errors that come before an answer.
OPENAI = {
    e.BadRequestError: openai.BadRequestError,
    e.AuthenticationError: openai.AuthenticationError,
    e.PermissionDeniedError: openai.PermissionDeniedError,
    e.NotFoundError: openai.NotFoundError,
    e.RateLimitError: openai.RateLimitError,
    e.OverloadedError: openai.InternalServerError,
}
ANTHROPIC = {
    e.BadRequestError: anthropic.BadRequestError,
    e.AuthenticationError: anthropic.AuthenticationError,
    e.PermissionDeniedError: anthropic.PermissionDeniedError,
    e.NotFoundError: anthropic.NotFoundError,
    e.RateLimitError: anthropic.RateLimitError,
    e.OverloadedError: anthropic.InternalServerError,
}


class Outcome(NamedTuple):
    """What a client got: a text, or an error."""

    text: str | None
    error: BaseException | None = None


async def by_chat(url: str, model: str, *, is_streamed: bool) -> str:
    async with openai.AsyncOpenAI(api_key="any", base_url=f"{url}/v1", max_retries=0) as client:
        if not is_streamed:
            plain = await client.chat.completions.create(model=model, messages=PROMPT)
            assert plain.choices[0].finish_reason is not None
            return plain.choices[0].message.content or ""
        stream = await client.chat.completions.create(model=model, messages=PROMPT, stream=True)
        text, finish = "", None
        async for chunk in stream:
            for choice in chunk.choices:
                text += choice.delta.content or ""
                finish = choice.finish_reason or finish
        if finish is None:
            raise AssertionError("the stream ended in silence")
        return text


async def by_responses(url: str, model: str, *, is_streamed: bool) -> str:
    async with openai.AsyncOpenAI(api_key="any", base_url=f"{url}/v1", max_retries=0) as client:
        if not is_streamed:
            plain = await client.responses.create(model=model, input="Hello")
            assert plain.status in ("completed", "incomplete")
            return plain.output_text
        stream = await client.responses.create(model=model, input="Hello", stream=True)
        events = [event async for event in stream]
        if events[-1].type == "response.failed":
            assert events[-1].response.error.message
            raise openai.APIError("failed", request=None, body=events[-1].response.error)
        assert events[-1].type in ("response.completed", "response.incomplete"), "the stream ended in silence"
        return events[-1].response.output_text


async def by_messages(url: str, model: str, *, is_streamed: bool) -> str:
    async with anthropic.AsyncAnthropic(api_key="any", base_url=url, max_retries=0) as client:
        if not is_streamed:
            plain = await client.messages.create(model=model, max_tokens=100, messages=PROMPT)
            assert plain.stop_reason is not None
            return "".join(block.text for block in plain.content if block.type == "text")
        stream = await client.messages.create(model=model, max_tokens=100, messages=PROMPT, stream=True)
        text, last = "", None
        async for event in stream:
            last = event.type
            if last == "content_block_delta" and event.delta.type == "text_delta":
                text += event.delta.text
        assert last == "message_stop", "the stream ended in silence"
        return text


WAYS = {"chat": by_chat, "responses": by_responses, "messages": by_messages}
SAME_API = {("gpt-4o", "chat"), ("gpt-4o", "responses"), ("claude-sonnet-5-5", "messages")}
THROUGH_CHAT = {("gpt-4o", "chat"), ("gpt-4o", "messages")}  # OpenAI has the Responses API, too

# For a plain document there is one clock, that of the first token.
CLOCKS_OF_BOTH = {**CLOCKS, "silence": {**CLOCKS["silence"], "first_token": 2.0}}

# Only streams have them; a document of the same API is asked for as a document.
OF_STREAMS = (
    *("huge_line", "huge_event", "gzip_bomb", "not_json", "endless_pings", "endless_empty_deltas", "bad_chunk_size"),
    *("clean_truncation", "close_truncation", "in_band_error_first", "in_band_error_mid"),
)

# Faults of Chat Completions alone. After a late byte order mark Anthropic's event is still one: its JSON has the type.
ONLY_CHAT = {
    *("unknown_chunk", "second_finish", "null_delta", "empty_choices", "late_bom"),
    *(name for name in FAULTS if name.startswith("tool_")),
}

_KINDS = [(model, way, is_streamed) for model in UPSTREAMS for way in WAYS for is_streamed in (True, False)]
_STRIDE = 1 if os.environ.get("DELUGE_SOAK") else 8

CASES = [
    (fault, model, way, is_streamed)
    for number, fault in enumerate(FAULTS)
    for model, way, is_streamed in _KINDS[number % _STRIDE :: _STRIDE]
    if (model, way) in THROUGH_CHAT or fault not in ONLY_CHAT
    if (fault, model, way) != ("null_delta", "gpt-4o", "chat")  # openai's client raises an AttributeError for it
]


async def outcomes_of(fault: str) -> dict[tuple[str, str, str, bool], Outcome]:
    """Ask in every way for an answer that has a fault each time."""
    found = {}
    options: dict[str, Any] = {
        "max_attempts": 1,
        "max_event_bytes": 32_768,
        "timeouts": msgspec.structs.replace(PATIENT, **CLOCKS_OF_BOTH.get(fault, {})),
        "extra_headers": ASKED.get(fault, {}),
        "progress": "none",
    }
    async with Simulator(TEXT, faults=Fault(fault, **SPELLED.get(fault, {}))) as simulator:
        origin = simulator.base_url.removesuffix("/v1")
        urls = {"gpt-4o": f"{origin}/v1", "claude-sonnet-5-5": origin}
        models = tuple(
            ServedModel(
                name=name, models=(name,), options={**options, "api_key": "sk-test-key", "base_url": urls[name]}
            )
            for name in UPSTREAMS
        )
        async with serve(GatewaySettings(models=models), simulator) as serving:
            for case in CASES:
                if case[0] != fault:
                    continue
                _, model, way, is_streamed = case
                try:
                    found[case] = Outcome(await WAYS[way](serving.url, model, is_streamed=is_streamed))
                except Exception as error:  # noqa: BLE001 - what it is, the tests check
                    found[case] = Outcome(None, error)
    return found


@pytest.fixture(scope="module")
def outcomes(certificate: Path) -> dict[tuple[str, str, str, bool], Outcome]:
    """Play all of it at once: most of the time goes by in waits."""

    async def play() -> dict[tuple[str, str, str, bool], Outcome]:
        places = asyncio.Semaphore(20)

        async def one(fault: str) -> dict[tuple[str, str, str, bool], Outcome]:
            async with places:
                return await outcomes_of(fault)

        parts = await asyncio.gather(*map(one, FAULTS))
        return {case: outcome for part in parts for case, outcome in part.items()}

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(certificate))
        return asyncio.run(play())


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("fault", "model", "way", "is_streamed"), CASES)
def test_no_client_takes_a_broken_answer_for_a_whole_one(
    outcomes: dict[tuple[str, str, str, bool], Outcome], fault: str, model: str, way: str, is_streamed: bool
) -> None:
    text, error = outcomes[fault, model, way, is_streamed]
    end = ENDS.get(fault)
    if fault == "no_done" and is_streamed and (model, way) == ("gpt-4o", "responses"):
        end = e.TruncatedError  # there the last frame has the finish reason, too
    if end is None or (fault in OF_STREAMS and not is_streamed and (model, way) in SAME_API):
        assert error is None, error
        assert text == TEXT or fault in OTHER_TEXT
        return
    assert isinstance(error, openai.APIError | anthropic.APIError), (text, error)
    classes = ANTHROPIC if way == "messages" else OPENAI
    if isinstance(error, openai.APIStatusError) or (
        isinstance(error, anthropic.APIStatusError) and error.status_code != 200
    ):
        expected = next((classes[each] for each in end.__mro__ if each in classes), None)
        assert expected is None or isinstance(error, expected), (end, error)
