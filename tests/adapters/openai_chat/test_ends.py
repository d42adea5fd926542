"""The end of an answer: a finish reason or usage; without both it is incomplete, however its body ends."""

from __future__ import annotations

import json
from typing import Any

import pytest

import cuts
from lm_deluge.adapters.openai_chat.adapter import OpenAIChat
from lm_deluge.errors import ProtocolError, ServerError, TruncatedError
from lm_deluge.models.registry import find_provider
from lm_deluge.models.rows import Quirks
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.response import APIResponse, ResponseBuilder
from lm_deluge.testing.decode import decode_body
from samples.chat_bytes import chunk, failure_of, frames, read, text
from samples.chat_calls import a_call

DONE = b"data: [DONE]\n\n"
HI = Conversation.user("Hi")
USAGE = {"prompt_tokens": 3, "completion_tokens": 1}
CALL = {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def plain(message: dict[str, Any], finish_reason: str | None = None, **fields: Any) -> bytes:
    """Return a response that is not streamed."""
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish_reason}
    return json.dumps({"id": "1", "object": "chat.completion", "choices": [choice], **fields}).encode()


@pytest.mark.parametrize("api", ["openai-chat", "mistral-chat"])
@pytest.mark.parametrize("body", [text("Hi") + DONE, plain({"content": "Hi"}), plain({"content": "Hi"}, usage={})])
@pytest.mark.parametrize("size", [1, 10_000])
def test_neither_a_finish_reason_nor_usage_is_no_end(api: str, body: bytes, size: int) -> None:
    with pytest.raises(TruncatedError) as caught:
        decode_body(api, cuts.every(body, size))
    error = caught.value
    assert (error.retryable, error.billed) == (True, "maybe")
    assert error.partial is not None
    assert (error.partial.completion, error.partial.finish_reason) == ("Hi", None)
    assert error.hint == "The answer is incomplete; the received part is in .partial."


@pytest.mark.parametrize(
    "body", [text("Hi") + frames({"choices": [], "usage": USAGE}) + DONE, plain({"content": "Hi"}, usage=USAGE)]
)
def test_usage_alone_is_an_end_with_a_warning(body: bytes) -> None:
    response = read(body)
    assert (response.completion, response.finish_reason, response.raw_finish_reason) == ("Hi", "stop", None)
    assert response.warnings == ("no_finish_reason",)


def test_usage_of_zeros_with_the_first_chunk_is_no_end() -> None:
    zeros = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    first = frames({"id": "1", "choices": [{"index": 0, "delta": {"content": "Hi"}}], "usage": zeros})
    assert failure_of(first + DONE, TruncatedError).partial.completion == "Hi"


def test_a_json_document_without_choices_is_no_answer_at_all() -> None:
    assert failure_of(b'{"id":"1","usage":{"prompt_tokens":3}}', ProtocolError).reason == "order"


@pytest.mark.parametrize(
    "body",
    [
        chunk({"tool_calls": [CALL]}) + chunk({}, "") + DONE,
        plain({"tool_calls": [CALL]}, ""),
    ],
)
def test_an_empty_finish_reason_at_the_end_is_one(body: bytes) -> None:
    response = read(body)
    assert (response.finish_reason, len(response.tool_calls)) == ("tool_calls", 1)


@pytest.mark.parametrize(
    "body",
    [
        chunk({"role": "assistant", "content": "Hi"}, "") + DONE,
        chunk({}, "") + chunk({"content": "Hi"}, "") + DONE,
        chunk({}, "") + text("H") + text("i") + DONE,
    ],
)
def test_an_empty_finish_reason_beside_or_before_text_is_no_end(body: bytes) -> None:
    assert failure_of(body, TruncatedError).partial.completion == "Hi"


def events_at(body: bytes, quirks: Quirks) -> tuple[APIResponse, object]:
    decoder = OpenAIChat().decoder(a_call(HI, quirks=quirks))
    builder = ResponseBuilder()
    builder.add_all(decoder.feed(body))
    builder.add_all(decoder.close())
    return builder.response(), decoder.error


def test_a_host_without_finish_reasons_ends_with_the_mark() -> None:
    quirks = find_provider("snowflake").quirks
    response, error = events_at(text("Hi") + DONE, quirks)
    assert error is None
    assert (response.finish_reason, response.warnings) == ("stop", ("no_finish_reason",))
    assert isinstance(events_at(text("Hi"), quirks)[1], TruncatedError)
    assert isinstance(events_at(DONE, quirks)[1], TruncatedError)
    assert isinstance(events_at(text("Hi") + DONE, Quirks())[1], TruncatedError)


@pytest.mark.parametrize(
    ("reason", "ours"),
    [
        ("content_filter: PROHIBITED_CONTENT", "content_filter"),
        ("stop: END", "stop"),
        ("length : x", "length"),
        ("MAX_TOKENS", "length"),
        ("STOP", "stop"),
        ("eos_token", "stop"),
        ("SAFETY", "content_filter"),
    ],
)
@pytest.mark.parametrize("is_plain", [True, False])
def test_the_word_before_the_colon_is_the_finish_reason(reason: str, ours: str, *, is_plain: bool) -> None:
    response = read(plain({}, reason) if is_plain else chunk({"role": "assistant"}, reason) + DONE)
    assert (response.finish_reason, response.raw_finish_reason) == (ours, reason)
    assert (response.warnings, response.error) == ((), None)


def test_a_plain_answer_of_a_filter_has_no_message() -> None:
    body = (
        b'{"id":"1","choices":[{"finish_reason":"content_filter: RECITATION","index":0}],"usage":{"prompt_tokens":3}}'
    )
    assert read(body).finish_reason == "content_filter"


@pytest.mark.parametrize("reason", ["function_call_filter: MALFORMED_FUNCTION_CALL", "MALFORMED_FUNCTION_CALL"])
@pytest.mark.parametrize("is_plain", [True, False])
def test_an_answer_that_the_provider_ended_for_a_failure_is_an_error(reason: str, *, is_plain: bool) -> None:
    response = read(plain({}, reason, usage=USAGE) if is_plain else chunk({}, reason) + DONE)
    assert (response.finish_reason, response.is_error) == ("error", True)
    assert isinstance(response.error, ServerError)
    assert response.error.message == f"the provider ended the answer because of a failure: {reason}"
    assert response.error.code == reason


@pytest.mark.parametrize("reason", ["error", "ERROR", "error: upstream", "abort"])
@pytest.mark.parametrize("is_plain", [True, False])
def test_an_answer_that_broke_off_keeps_its_text_and_usage(reason: str, *, is_plain: bool) -> None:
    body = plain({"content": "Hi"}, reason, usage=USAGE)
    if not is_plain:
        choice = {"index": 0, "delta": {"content": "i"}, "finish_reason": reason}
        body = text("H") + frames({"id": "1", "choices": [choice], "usage": USAGE}) + DONE
    error = failure_of(body, ServerError)
    assert error.message == f"the answer broke off: {reason}"
    assert error.partial.completion == "Hi"
    assert error.partial.usage is not None
    assert error.partial.usage.output_tokens == 1
