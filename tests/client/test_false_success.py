"""Responses with status 200 that are no success: cut before their end, ended for a failure, or an error in disguise."""

import functools
import json

import pytest

from lm_deluge import LLMClient
from lm_deluge.dispatch.scheduling.runner import Runner
from lm_deluge.errors import QuotaExceededError, ServerError, TruncatedError
from loopback import DONE, HELLO, Loopback, Step, answer, data, finish, plain, text

EMPTY = data({"id": "chatcmpl-1", "choices": [{"index": 0, "delta": {"role": "assistant"}, "finish_reason": None}]})


def client_of(server: Loopback, **options: int) -> LLMClient:
    client = LLMClient("gpt-4o", api_key="test-key", base_url=server.url, progress="none", **options)
    client.dispatcher.make_runner(functools.partial(Runner, chance=lambda: 0.0))
    return client


def document(message: dict[str, str], **fields: object) -> list[Step]:
    choice = {"index": 0, "message": message, "finish_reason": None}
    return plain("200 OK", json.dumps({"id": "1", "choices": [choice], **fields}).encode())


@pytest.mark.parametrize("first", [answer(EMPTY, DONE), answer(DONE), answer(), document({"content": ""})])
async def test_a_stream_that_was_broken_off_before_the_first_token_is_asked_for_again(first: list[Step]) -> None:
    async with Loopback(first, answer(HELLO)) as server, client_of(server) as client:
        response = await client.stream("Hi", echo=None)
        assert (response.completion, response.stats.attempts) == ("Hello world", 2)


@pytest.mark.parametrize("first", [answer(EMPTY, DONE), answer(text("Hel"), DONE), document({"content": "Hel"})])
async def test_a_batch_has_no_empty_success(first: list[Step]) -> None:
    async with Loopback(first, first, answer(HELLO)) as server, client_of(server) as client:
        responses = await client.process_prompts_async(["Hi"] * 3)
    assert [response.completion for response in responses] == ["Hello world"] * 3
    assert sum(response.stats.attempts for response in responses) == 5


async def test_the_error_of_a_stream_that_was_broken_off() -> None:
    async with Loopback(answer(text("Hel"), DONE)) as server, client_of(server) as client:
        with pytest.raises(TruncatedError) as caught:
            await client.stream("Hi", echo=None)
    assert caught.value.partial.completion == "Hel"
    assert caught.value.hint.endswith("the received part is in .partial.")
    async with Loopback(answer(EMPTY[:20])) as server, client_of(server, max_attempts=1) as client:
        with pytest.raises(TruncatedError) as caught:
            await client.stream("Hi", echo=None)
    assert caught.value.partial is None
    assert ".partial" not in str(caught.value)


async def test_an_error_in_disguise_is_not_asked_for_again_if_it_is_permanent() -> None:
    failed = {"id": "1", "choices": None, "base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}}
    for steps in (answer(data(failed), DONE), plain("200 OK", json.dumps(failed).encode())):
        async with Loopback(steps) as server, client_of(server) as client:
            with pytest.raises(QuotaExceededError, match="insufficient balance"):
                await client.stream("Hi", echo=None)
            assert len(server.requests) == 1


async def test_an_answer_that_ended_for_a_failure_is_returned_with_its_error() -> None:
    ended = answer(text("Half"), finish("function_call_filter: MALFORMED_FUNCTION_CALL"), DONE)
    async with Loopback(ended) as server, client_of(server) as client:
        alone = await client.stream("Hi", echo=None)
        (batched,) = await client.process_prompts_async(["Hi"])
    for response in (alone, batched):
        assert (response.completion, response.finish_reason, response.is_error) == ("Half", "error", True)
        assert isinstance(response.error, ServerError)
    assert len(server.requests) == 2
