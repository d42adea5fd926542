"""Responses of Mistral from literal bytes: the differences from Chat Completions."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lm_deluge.adapters.mistral_chat.adapter import MistralChat
from lm_deluge.errors import (
    APIError,
    AuthenticationError,
    BadRequestError,
    ContextLengthError,
    DelugeError,
    ProtocolError,
    RateLimitError,
    ServerError,
)
from lm_deluge.events import (
    Citation,
    MediaDelta,
    ProviderPart,
    ReasoningDelta,
    ResponseFinished,
    ResponseStarted,
    TextDelta,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
    UsageReported,
)
from lm_deluge.testing import decode_body, decode_events
from lm_deluge.usage import Usage

API = "mistral-chat"
DONE = b"data: [DONE]\n\n"
TOO_LONG = (
    b'{"object":"error","message":"Prompt contains 40000 tokens, too large for model with 32768 maximum '
    b'context length",'
    b'"type":"invalid_request_error","param":null,"code":"3051"}'
)
EXTRA = (
    b'{"object":"error","message":{"detail":[{"type":"extra_forbidden","loc":["body","x"],"msg":"Extra"}]},'
    b'"type":"invalid_request_error","param":null,"code":null}'
)


def chunk(delta: dict[str, Any], reason: str | None = None, **fields: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return b"data: %b\n\n" % json.dumps({"id": "1", "model": "m", "choices": [choice], "p": "abc", **fields}).encode()


def content_chunk(*content: dict[str, Any]) -> bytes:
    return chunk({"content": list(content)})


def thinking(*inner: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "thinking", "thinking": list(inner), **more}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def test_an_answer_that_thinks_first() -> None:
    usage = {
        "prompt_tokens": 10,
        "total_tokens": 13,
        "completion_tokens": 3,
        "prompt_tokens_details": {"cached_tokens": 5},
    }
    body = (
        chunk({"role": "assistant", "content": ""})
        + content_chunk(thinking(text("Hm")))
        + content_chunk(thinking(text("."), closed=True, signature="sig"), text("Fo"))
        + chunk({"content": "ur"}, "stop", usage=usage)
        + DONE
    )
    assert list(decode_events(API, body)) == [
        ResponseStarted("1", "m"),
        ReasoningDelta("Hm"),
        ReasoningDelta("."),
        ProviderPart("recording", "signature", "sig"),
        TextDelta("Fo"),
        TextDelta("ur"),
        UsageReported(Usage(input_tokens=10, output_tokens=3, cache_read_tokens=5, raw=usage)),
        ResponseFinished("stop", "stop"),
    ]


def test_a_call_comes_whole_and_without_an_index() -> None:
    call = {"id": "abcDEF123", "function": {"name": "f", "arguments": '{"a": 1}'}}
    body = chunk({"content": None, "tool_calls": [call]}, "tool_calls") + DONE
    assert list(decode_events(API, body))[1:] == [
        ToolCallStarted(0, "abcDEF123", "f"),
        ToolCallDelta(0, '{"a": 1}'),
        ToolCallFinished(0, "abcDEF123", "f", '{"a": 1}', {"a": 1}),
        ResponseFinished("tool_calls", "tool_calls"),
    ]


def test_a_call_in_pieces_that_repeat_its_name() -> None:
    pieces = ('{"a"', ": ", "1}")
    body = b"".join(
        chunk({"tool_calls": [{"id": "abcDEF123", "index": 0, "function": {"name": "f", "arguments": piece}}]})
        for piece in pieces
    )
    (call,) = decode_body(API, body + chunk({}, "tool_calls") + DONE).tool_calls
    assert (call.name, call.arguments_text) == ("f", '{"a": 1}')


def test_an_id_that_is_not_there_may_be_written_as_text() -> None:
    first = {"id": "abcDEF123", "index": 0, "function": {"name": "f", "arguments": '{"a"'}}
    rest = {"id": "null", "index": 0, "function": {"name": "", "arguments": ": 1}"}}
    (call,) = decode_body(API, chunk({"tool_calls": [first]}) + chunk({"tool_calls": [rest]}, "tool_calls")).tool_calls
    assert (call.id, call.arguments) == ("abcDEF123", {"a": 1})
    whole = [{"id": "null", "function": {"name": name, "arguments": "{}"}} for name in ("f", "f", "g")]
    calls = decode_body(API, chunk({"tool_calls": whole}, "tool_calls") + DONE).tool_calls
    assert [(call.name, call.arguments) for call in calls] == [("f", {}), ("f", {}), ("g", {})]
    assert len({call.id for call in calls}) == 3


def test_arguments_may_be_an_object() -> None:
    call = {"id": "abcDEF123", "function": {"name": "f", "arguments": {"a": 1}}}
    (found,) = decode_body(API, chunk({"tool_calls": [call]}, "tool_calls") + DONE).tool_calls
    assert found.arguments == {"a": 1}


def test_sources_in_text_and_thought_are_citations() -> None:
    of_ours = {"type": "reference", "reference_ids": [1, "b"]}
    found = {"type": "tool_reference", "tool": "web_search", "title": "T", "url": "https://a.test"}
    body = content_chunk(thinking(text("Hm"), found), text("So "), of_ours) + chunk({"content": "it is"}, "stop") + DONE
    response = decode_body(API, body)
    assert (response.thinking, response.completion) == ("Hm", "So it is")
    assert response.citations == (Citation("https://a.test", "T", raw=found), Citation(raw=of_ours))


@pytest.mark.parametrize(
    ("image", "event"),
    [
        ("https://a.test/1.png", MediaDelta("image/*", url="https://a.test/1.png")),
        ({"url": "data:image/png;base64,AAE="}, MediaDelta("image/png", "AAE=")),
    ],
)
def test_images(image: Any, event: MediaDelta) -> None:
    assert event in list(
        decode_events(API, content_chunk({"type": "image_url", "image_url": image}) + chunk({}, "stop"))
    )


def test_pieces_of_unknown_types_are_passed_over() -> None:
    odd = (
        {"type": "image_url"},
        {"type": "image_url", "image_url": {"url": 5}},
        {"type": ["x"]},
        {"type": "new", "x": 1},
    )
    body = content_chunk(*odd, text("Hi")) + chunk({}, "stop") + DONE
    assert decode_body(API, body).completion == "Hi"


@pytest.mark.parametrize(
    ("word", "reason"),
    [("stop", "stop"), ("length", "length"), ("model_length", "length"), ("tool_calls", "tool_calls"), ("new", "stop")],
)
def test_finish_reasons(word: str, reason: str) -> None:
    response = decode_body(API, chunk({"content": "Hi"}, word) + DONE)
    assert (response.finish_reason, response.raw_finish_reason) == (reason, word)


def test_a_response_that_broke_off_is_an_error() -> None:
    with pytest.raises(ServerError, match="the answer broke off: error") as caught:
        decode_body(API, chunk({"content": "Hi"}) + chunk({}, "error") + DONE)
    assert caught.value.partial is not None
    assert caught.value.partial.completion == "Hi"


def test_a_plain_answer_has_the_same_content() -> None:
    message = {
        "role": "assistant",
        "content": [thinking(text("Hm")), text("Four")],
        "tool_calls": None,
        "prefix": False,
    }
    body = {"id": "1", "model": "m", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    response = decode_body(API, json.dumps(body).encode())
    assert (response.thinking, response.completion, response.finish_reason) == ("Hm", "Four", "stop")


def test_json_that_is_not_a_response() -> None:
    with pytest.raises(ProtocolError, match="not a chat completion"):
        decode_body(API, b'{"ok": true}')


@pytest.mark.parametrize(
    ("status", "body", "kind", "message"),
    [
        (401, b'{"detail":"Unauthorized"}', AuthenticationError, "Unauthorized"),
        (429, b'{"message":"Requests rate limit exceeded"}', RateLimitError, "Requests rate limit exceeded"),
        (
            400,
            TOO_LONG,
            ContextLengthError,
            "40000 tokens",
        ),
        (
            422,
            EXTRA,
            BadRequestError,
            "extra_forbidden",
        ),
    ],
)
def test_errors(status: int, body: bytes, kind: type[APIError], message: str) -> None:
    error = MistralChat().classify_error(status, {}, body)
    assert type(error) is kind
    assert message in error.message


def test_an_error_in_the_stream() -> None:
    frame = (
        b'data: {"object":"error","message":"Slow down","type":"rate_limit_exceeded","param":null,"code":"1300"}\n\n'
    )
    with pytest.raises(DelugeError, match="Slow down") as caught:
        decode_body(API, chunk({"content": "Hi"}) + frame)
    assert type(caught.value) is RateLimitError


def test_content_in_lists_is_decoded_as_content_in_texts() -> None:
    """Chunks whose content is a list take the fast path; text after a signed thought still ends the thought."""
    pieces = [
        [{"type": "text", "text": "a"}],
        [{"type": "reference", "url": "https://a.test", "title": "t"}, {"type": "text", "text": "b"}],
        "c",
        [],
        [{"type": "text", "text": "d"}, 7],
    ]
    body = b"".join(
        b"data: %b\n\n" % json.dumps({"id": "1", "choices": [{"index": 0, "delta": {"content": piece}}]}).encode()
        for piece in pieces
    )
    end = b'data: {"choices":[{"index":0,"delta":{"content":""},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
    found = decode_body("mistral-chat", body + end)
    assert found.completion == "abcd"
    assert [citation.url for citation in found.citations] == ["https://a.test"]
    assert found.warnings == ("wrong_type",)
