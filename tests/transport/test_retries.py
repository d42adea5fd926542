"""Retries: which errors, when and how often, counted at the server. Pauses are recorded instead of waited."""

import asyncio
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import msgspec
import pytest

from lm_deluge import LLMClient, Timeouts
from lm_deluge import errors as e
from lm_deluge.events import Attempt
from loopback import (
    DONE,
    FIN,
    HANG,
    HEAD,
    HELLO,
    RACE,
    RST,
    Loopback,
    Step,
    answer,
    chunk,
    data,
    plain,
    text,
)
from patience import Waits, without_waiting


def client_of(server: Loopback, **options: Any) -> LLMClient:
    return LLMClient("gpt-4o", **{"api_key": "sk-test", "base_url": server.url, **options})


async def run(*transcripts: list[Step], chance: float = 0.0, **options: Any) -> tuple[Any, Waits, int]:
    """Return the response or error of a call, its pauses, and the number of requests at the server."""
    async with Loopback(*transcripts) as server, client_of(server, **options) as client, asyncio.timeout(20):
        waits = without_waiting(client, chance)
        try:
            outcome: Any = await client.stream("hi", echo=None)
        except e.DelugeError as error:
            outcome = error
        return outcome, waits, len(server.requests)


def refuse(status: int, *headers: str, code: str | None = None) -> list[Step]:
    body = msgspec.json.encode({"error": {"message": "m", "code": code}})
    return plain(f"{status} X", body, "x-request-id: req_9", *headers)


def date_in(seconds: float) -> list[str]:
    """A `retry-after` date, and a `date` header of a server whose clock is years off."""
    now = datetime(2031, 5, 6, 7, 8, 9, tzinfo=UTC)
    then = format_datetime(now + timedelta(seconds=seconds), usegmt=True)
    return [f"date: {format_datetime(now, usegmt=True)}", f"retry-after: {then}"]


OWN_BACK_OFF = 0.5
ASKED = {
    "milliseconds": (["retry-after-ms: 1500"], 1.5),
    "milliseconds come first": (["retry-after: 60", "retry-after-ms: 250"], 0.25),
    "seconds": (["retry-after: 7"], 7.0),
    "parts of a second": (["retry-after: 0.25"], 0.25),
    "at once": (["retry-after: 0"], 0.0),
    "a date by the server's clock": (date_in(42), 42.0),
    "a date that is past": (date_in(-42), None),
    "a date without a date, past by the local clock": (["retry-after: Fri, 31 Dec 2010 23:59:59 GMT"], None),
    "negative": (["retry-after: -5"], None),
    "not a number": (["retry-after: nan"], None),
    "infinite": (["retry-after: inf"], None),
    "overflowing": (["retry-after: 1e400"], None),
    "absurd": (["retry-after: 99999999999"], None),
    "words": (["retry-after: soon"], None),
    "nothing": ([], None),
}


@pytest.mark.parametrize("status", [429, 503, 500])
@pytest.mark.parametrize("name", ASKED)
async def test_each_form_of_retry_after_is_honoured(name: str, status: int) -> None:
    headers, asked = ASKED[name]
    own = 2.0 if status == 503 else OWN_BACK_OFF
    for chance in (0.0, 1.0):
        response, waits, requests = await run(refuse(status, *headers), answer(HELLO), chance=chance)
        assert response.completion == "Hello world"
        assert requests == response.stats.attempts == 2
        assert waits == [pytest.approx(max(own * chance, (asked or 0.0) * (1 + 0.1 * chance)))]


async def test_a_wait_above_the_cap_is_said_and_not_waited() -> None:
    for limit, headers in ((120.0, "retry-after: 86400"), (3.0, "retry-after-ms: 3001")):
        error, waits, requests = await run(refuse(429, headers), answer(HELLO), max_retry_after_s=limit)
        assert type(error) is e.RateLimitError
        assert (error.attempts, requests, waits) == (1, 1, [])
        assert error.retry_after_s == float(headers.split()[1]) / (1 if limit == 120.0 else 1000)
        assert "max_retry_after_s" in error.hint


async def test_the_cap_itself_is_waited() -> None:
    response, waits, _ = await run(refuse(429, "retry-after: 3"), answer(HELLO), max_retry_after_s=3)
    assert response.completion == "Hello world"
    assert waits == [3.0]


@pytest.mark.parametrize(
    ("steps", "kind"),
    [
        (refuse(429, code="insufficient_quota"), e.QuotaExceededError),
        (refuse(402), e.QuotaExceededError),
        (refuse(400), e.BadRequestError),
        (refuse(401), e.AuthenticationError),
        (refuse(403), e.PermissionDeniedError),
        (refuse(404), e.NotFoundError),
        (refuse(413), e.RequestTooLargeError),
        (refuse(422, code="context_length_exceeded"), e.ContextLengthError),
        (refuse(501), e.ServerError),
        (refuse(505), e.ServerError),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
async def test_what_waiting_does_not_mend_is_asked_once(steps: list[Step], kind: type[e.APIError]) -> None:
    error, waits, requests = await run(steps, answer(HELLO))
    assert type(error) is kind
    assert (error.attempts, requests, waits) == (1, 1, [])
    assert error.request_id == "req_9"
    assert error.where == "headers"
    assert (error.provider, error.model) == ("openai", "gpt-4o")


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504, 529])
async def test_what_may_pass_is_asked_again(status: int) -> None:
    response, waits, requests = await run(refuse(status), refuse(status), answer(HELLO), chance=1.0)
    assert response.completion == "Hello world"
    assert requests == 3
    base = 2.0 if status in (503, 529) else 0.5
    assert waits == [base, 2 * base]


async def test_the_most_attempts_are_what_the_server_sees() -> None:
    for most in (1, 2, 5):
        error, waits, requests = await run(refuse(500), max_attempts=most)
        assert type(error) is e.ServerError
        assert (error.attempts, requests, len(waits)) == (most, most, most - 1)
        assert error.request_id == "req_9"
        assert error.hint
        assert (f"{most} attempts" in str(error)) == (most > 1)


BUSY = data({"error": {"message": "busy", "type": "overloaded_error"}})
RATE_LIMITED = data({"error": {"message": "slow down", "code": "rate_limit_exceeded"}})
ROLE = data({"id": "lost", "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
BEFORE_THE_FIRST_TOKEN = {
    "error in the stream [P7]": answer(BUSY),
    "error behind the start [P7]": answer(ROLE, RATE_LIMITED),
    "JSON error with status 200 [W17]": plain("200 OK", b'{"error":{"message":"m","code":"rate_limit_exceeded"}}'),
    "clean end [T7]": answer(ROLE),
    "cut [T5]": [HEAD, chunk(ROLE), FIN],
    "reset [T6]": [HEAD, chunk(ROLE), 0.02, RST],
    "no answer": [FIN],
    "HTML [W16]": plain("200 OK", b"<html><title>Wait</title>", content_type="text/html"),
}


@pytest.mark.parametrize("name", BEFORE_THE_FIRST_TOKEN)
async def test_before_the_first_token_it_is_mended_in_silence(name: str) -> None:
    response, waits, requests = await run(BEFORE_THE_FIRST_TOKEN[name], answer(HELLO))
    assert response.completion == "Hello world"
    assert response.response_id == "chatcmpl-1"
    assert (requests, len(waits)) == (2, 1)


AFTER_A_TOKEN = {
    "error in the stream [P8]": (answer(text("a"), BUSY), e.OverloadedError),
    "clean end [T7]": (answer(text("a")), e.TruncatedError),
    "end mark alone": (answer(text("a"), DONE), e.DelugeError),
    "cut [T5]": ([HEAD, chunk(text("a")), FIN], e.StreamInterruptedError),
    "reset [T6]": ([HEAD, chunk(text("a")), 0.05, RST], e.StreamInterruptedError),
    "silence [T4]": ([HEAD, chunk(text("a")), HANG], e.TimeoutError),
}


@pytest.mark.parametrize("name", AFTER_A_TOKEN)
async def test_after_a_token_nothing_is_asked_again(name: str) -> None:
    steps, kind = AFTER_A_TOKEN[name]
    outcome, waits, requests = await run(steps, answer(HELLO), timeouts=Timeouts(idle=0.2))
    assert (requests, waits) == (1, [])
    if isinstance(outcome, e.DelugeError):
        assert isinstance(outcome, kind)
        assert outcome.partial.completion == "a"
        assert (outcome.billed, outcome.attempts, outcome.request_id) == ("yes", 1, "req_7")
    else:
        assert (name, outcome.completion) == ("end mark alone", "a")


@pytest.mark.parametrize(
    ("status", "word", "requests"), [(500, "false", 1), (429, "false", 1), (400, "true", 2), (501, "true", 2)]
)
async def test_the_provider_s_own_word_is_obeyed(status: int, word: str, requests: int) -> None:
    outcome, _, seen = await run(refuse(status, f"x-should-retry: {word}"), answer(HELLO))
    assert seen == requests
    assert isinstance(outcome, e.APIError) is (requests == 1)


async def test_a_page_instead_of_a_stream_is_tried_once_more_and_no_more() -> None:
    page = plain("200 OK", b"<html><title>Sign in</title>", content_type="text/html")
    error, _, requests = await run(page)
    assert type(error) is e.ContentTypeError
    assert (error.attempts, requests) == (2, 2)


async def test_nobody_listening_is_tried_again(unused_tcp_port: int) -> None:
    client = LLMClient("gpt-4o", api_key="k", base_url=f"http://127.0.0.1:{unused_tcp_port}/v1", max_attempts=3)
    async with client:
        waits = without_waiting(client, 1.0)
        with pytest.raises(e.ConnectError) as caught:
            await client.stream("hi", echo=None)
    assert (caught.value.attempts, caught.value.billed, caught.value.where) == (3, "no", "connect")
    assert waits == [0.5, 1.0]


async def test_the_total_clock_covers_waits_and_retries() -> None:
    error, waits, requests = await run(refuse(429, "retry-after: 5"), answer(HELLO), timeouts=Timeouts(total=4.0))
    assert type(error) is e.RateLimitError
    assert (requests, waits) == (1, [])
    assert "Timeouts(total=...)" in error.hint
    # Two attempts that are slow together: the second has what the first one left.
    slow = [0.25, *refuse(500)]
    error, _, requests = await run(slow, [HEAD, HANG], timeouts=Timeouts(total=0.6, first_token=30))
    assert type(error) is e.TimeoutError
    assert error.phase == "total"
    assert error.limit_s == 0.6
    assert (error.attempts, requests) == (2, 2)


async def test_attempts_show_as_events_with_their_waits() -> None:
    async with (
        Loopback(refuse(429, "retry-after: 2"), answer(BUSY), answer(HELLO)) as server,
        client_of(server) as client,
        client.stream("hi") as stream,
    ):
        waits = without_waiting(client)
        events = [event async for event in stream.events() if isinstance(event, Attempt)]
    assert [(each.number, each.error, each.wait_s) for each in events] == [
        (2, "RateLimitError", 2.0),
        (3, "OverloadedError", 0.0),
    ]
    assert waits == [2.0, 0.0]


async def test_a_connection_that_the_server_just_gave_up_costs_no_attempt() -> None:
    """[T14] The server closes the idle connection while the next request is sent: it is sent again at once."""
    first: list[Step] = [*answer(HELLO)[:-1], RACE]
    async with Loopback(first, answer(HELLO)) as server, client_of(server, max_attempts=1) as client:
        waits = without_waiting(client)
        await client.stream("hi", echo=None)
        response = await client.stream("hi", echo=None)
        assert response.completion == "Hello world"
        assert response.stats.attempts == 1
        assert waits == []
        assert server.connections == 2
        # The first answer, the request that met the closing door, and the one that was answered.
        assert len(server.requests) == 3


async def test_a_fresh_connection_that_dies_is_no_race() -> None:
    async with Loopback([FIN]) as server, client_of(server, max_attempts=1) as client:
        with pytest.raises(e.StreamInterruptedError) as caught:
            await client.stream("hi", echo=None)
        assert (len(server.requests), caught.value.billed, caught.value.where) == (1, "maybe", "headers")


async def test_a_connection_that_dies_within_the_answer_s_head_is_no_race() -> None:
    """After one byte of a response the server may have processed the request: repeating it might bill it twice."""
    half: list[Step] = [b"HTTP/1.1 200 OK\r\ncontent-type: text/ev", FIN]
    async with Loopback(answer(HELLO), half, answer(HELLO)) as server, client_of(server, max_attempts=1) as client:
        await client.stream("hi", echo=None)
        with pytest.raises(e.StreamInterruptedError) as caught:
            await client.stream("hi", echo=None)
        assert caught.value.billed == "maybe"
        assert len(server.requests) == 2
        assert server.connections == 1
