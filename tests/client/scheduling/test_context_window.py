"""Prompts that are too long for a model: another model with a larger window, or a refusal before anything is sent."""

from __future__ import annotations

from typing import Any

import pytest

from lm_deluge import LLMClient
from lm_deluge.errors import ContextLengthError
from lm_deluge.events import Attempt
from loopback import HELLO, Loopback, answer, plain

SMALL, LARGE = "gpt-3.5-turbo", "gpt-4.1"  # 16,385 and 1,047,576 tokens
TOO_LONG = plain("400 X", b'{"error": {"message": "too long", "code": "context_length_exceeded"}}')
FAR_TOO_LONG = "word" * 40_000


def client_of(server: Loopback, model: Any = SMALL, **options: Any) -> LLMClient:
    return LLMClient(model, **{"api_key": "sk-test", "base_url": server.url, "progress": "none", **options})


def models(server: Loopback) -> list[str]:
    return [LARGE if b'"gpt-4.1"' in body else SMALL for _, _, body in server.requests]


@pytest.mark.parametrize("options", [{"model": [SMALL, LARGE]}, {"fallback": LARGE}], ids=["shared", "fallback"])
@pytest.mark.parametrize("is_batch", [False, True])
async def test_a_model_with_a_larger_window_takes_the_call(options: dict[str, Any], is_batch: bool) -> None:
    async with Loopback(TOO_LONG, answer(HELLO)) as server, client_of(server, **options) as client:
        if is_batch:
            (response,) = await client.process_prompts_async(["Hi"], prefer_model=SMALL)
        else:
            async with client.stream("Hi", prefer_model=SMALL) as stream:
                events = [event async for event in stream.events()]
            response = stream.response
            (note,) = [event for event in events if isinstance(event, Attempt)]
            assert (note.error, note.model) == ("ContextLengthError", LARGE)
        assert (response.completion, response.model_internal) == ("Hello world", LARGE)
        assert models(server) == [SMALL, LARGE]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"model": [SMALL, "gpt-4"]},
        {"model": LARGE, "fallback": SMALL},
        {"fallback": LARGE, "fallback_on_context": False},
        {"fallback": LARGE, "max_attempts": 1},
    ],
    ids=str,
)
async def test_without_one_the_error_is_raised(options: dict[str, Any]) -> None:
    async with Loopback(TOO_LONG) as server, client_of(server, **options) as client:
        with pytest.raises(ContextLengthError):
            await client.stream("Hi", echo=None)
        assert len(server.requests) == 1


@pytest.mark.parametrize("options", [{"model": [SMALL, LARGE]}, {"fallback": LARGE}], ids=["shared", "fallback"])
async def test_a_prompt_far_above_a_window_is_routed_to_a_larger_one(options: dict[str, Any]) -> None:
    async with Loopback(answer(HELLO)) as server, client_of(server, **options) as client:
        await client.stream(FAR_TOO_LONG, prefer_model=SMALL, echo=None)
        await client.stream(FAR_TOO_LONG, echo=None)
        (response,) = await client.process_prompts_async([FAR_TOO_LONG])
        assert response.model_internal == LARGE
        await client.stream("Hi", prefer_model=SMALL, echo=None)
        assert models(server) == [LARGE] * 3 + [SMALL]


@pytest.mark.parametrize("options", [{}, {"fallback": LARGE, "fallback_on_context": False}], ids=["none", "off"])
async def test_a_prompt_far_above_every_window_is_refused_by_name(options: dict[str, Any]) -> None:
    async with Loopback(answer(HELLO)) as server, client_of(server, **options) as client:
        with pytest.raises(
            ContextLengthError, match=r"about 40,000 tokens, and the context window of gpt-3.5-turbo has 16,385"
        ):
            client.stream(FAR_TOO_LONG)
        far, near = await client.process_prompts_async([FAR_TOO_LONG, "Hi"])
        assert isinstance(far.error, ContextLengthError)
        assert near.completion == "Hello world"
        assert len(server.requests) == 1


async def test_an_estimate_near_the_window_is_sent() -> None:
    async with Loopback(answer(HELLO)) as server, client_of(server) as client:
        assert (await client.stream("word" * 30_000, echo=None)).completion == "Hello world"
