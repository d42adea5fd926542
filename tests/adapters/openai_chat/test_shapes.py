"""Chat Completions with values of any type, and errors in all formats."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import cuts
from grammar import check_grammar
from lm_deluge import errors
from lm_deluge.adapters.catalog import adapter_names, find_adapter
from lm_deluge.adapters.errors import classify_in_band, classify_status
from lm_deluge.errors import APIError, ConfigurationError, DelugeError, ResponseLimitError
from lm_deluge.events import Event, TextDelta
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.testing.decode import decode_body, decode_events
from samples.chat_bytes import chunk, frames, text
from samples.chat_calls import a_call

API = "openai-chat"
BODY = (
    b": ping\n\n"
    + text("Hé")
    + chunk({"reasoning": "hm", "content": "llo"}, logprobs={"content": [{"token": "a", "logprob": -1}]})
    + chunk({"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": '{"x":'}}]})
    + chunk({"tool_calls": [{"index": 0, "function": {"arguments": " 1}"}}]})
    + chunk(
        {"audio": {"data": "AAE="}, "images": [{"image_url": {"url": "https://a.test"}}], "annotations": [{"url": "u"}]}
    )
    + chunk({"reasoning_details": [{"type": "reasoning.text", "text": "t", "index": 0}], "refusal": "no"})
    + chunk({}, "tool_calls")
    + frames({"id": "1", "choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 7}})
    + b"data: [DONE]\n\n"
)


def outcome(chunks: list[bytes]) -> tuple[list[Event], str | None]:
    """Return the events, and the text of the error or None. Exceptions other than `DelugeError` are not caught."""
    events: list[Event] = []
    try:
        for event in decode_events(API, chunks):
            events.append(event)  # noqa: PERF402 - events before the error are kept
    except DelugeError as error:
        check_grammar(events, is_complete=False)
        return events, f"{type(error).__name__}: {error}"
    check_grammar(events)
    return events, None


def test_there_is_an_adapter_for_each_name_and_no_other() -> None:
    assert API in adapter_names()
    for name in adapter_names():
        assert find_adapter(name).name == name
    with pytest.raises(ConfigurationError, match=r"there is no wire API 'soap'\. Known: .*openai-chat"):
        find_adapter("soap")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
_KNOWN = st.sampled_from(
    [
        "id",
        "model",
        "object",
        "choices",
        "usage",
        "x_groq",
        "error",
        "detail",
        "citations",
        "search_results",
        "index",
        "delta",
        "message",
        "text",
        "finish_reason",
        "logprobs",
        "content",
        "reasoning",
        "reasoning_content",
        "reasoning_details",
        "refusal",
        "tool_calls",
        "function_call",
        "annotations",
        "audio",
        "images",
        "function",
        "custom",
        "name",
        "arguments",
        "input",
        "data",
        "url",
        "image_url",
        "token",
        "logprob",
        "top_logprobs",
        "code",
        "type",
    ]
)
_SHAPED = st.recursive(
    _JSON, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_KNOWN, inner, max_size=4), max_leaves=12
)
_DELTAS = st.dictionaries(_KNOWN, _SHAPED, max_size=4)


@given(
    st.lists(
        st.one_of(
            _DELTAS.map(chunk),
            _SHAPED.map(frames),
            st.dictionaries(_KNOWN, _SHAPED, max_size=4).map(frames),
            st.just(text("a")),
            st.binary(max_size=10).map(lambda noise: b"data: " + noise + b"\n\n"),
            st.just(chunk({}, "stop")),
            st.just(b"data: [DONE]\n\n"),
        ),
        max_size=6,
    ),
    st.lists(st.integers(0, 500), max_size=5),
)
@example([frames({"error": {"code": "²"}})], [])
@example([chunk({"audio": {"data": 0}})], [])
@example([chunk({}, logprobs={"content": [{"token": "a", "logprob": None}]})], [])
@settings(max_examples=150, deadline=None)
def test_chunks_of_any_shape_are_events_or_deluge_errors(parts: list[bytes], positions: list[int]) -> None:
    body = b"".join(parts)
    assert outcome(cuts.at(body, positions)) == outcome([body])


@pytest.mark.parametrize("size", [1, 2, 7, 100])
def test_pieces_equal_the_whole(size: int) -> None:
    assert outcome(cuts.every(BODY, size)) == outcome([BODY])


def test_every_cut_of_a_rich_answer() -> None:
    whole, _ = outcome([BODY])
    for position in range(len(BODY)):
        events, error = outcome([BODY[:position]])
        if position < BODY.index(b'"tool_calls"}]}') + 15:
            assert error is not None
            assert error.startswith("TruncatedError")
            assert events == whole[: len(events)]
        else:
            assert error is None


def with_extras(data: bytes) -> bytes:
    """Return the JSON of a frame with an unknown field in each of its objects."""

    def widen(value: object) -> object:
        if isinstance(value, list):
            return [widen(item) for item in value]
        if isinstance(value, dict):
            return {"zz_new": {"a": [1]}, **{key: widen(item) for key, item in value.items()}, "zz_other": None}
        return value

    return json.dumps(widen(json.loads(data)), ensure_ascii=False).encode()


def test_unknown_fields_and_event_types_are_ignored() -> None:
    plain = chunk({}, "stop")
    body = text("a") + chunk({"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f"}}]}) + plain
    widened = b"".join(
        b"event: zz.new\nid: 7\ndata: " + with_extras(line.removeprefix(b"data: ")) + b"\n\n"
        for line in body.split(b"\n\n")
        if line
    )
    heartbeat = b"event: heartbeat\ndata: {}\n\n" + frames({"type": "zz.new", "payload": [1]}, "ping", 5, None, [])
    assert outcome([heartbeat + widened + heartbeat])[0] == outcome([body])[0]


IN_BAND: list[tuple[dict, type[APIError]]] = [
    ({"code": "rate_limit_exceeded"}, errors.RateLimitError),
    ({"code": 429}, errors.RateLimitError),
    ({"code": "429"}, errors.RateLimitError),
    ({"status_code": 429, "message": "x"}, errors.RateLimitError),
    ({"status": "RESOURCE_EXHAUSTED"}, errors.RateLimitError),
    ({"type": "insufficient_quota", "code": "insufficient_quota"}, errors.QuotaExceededError),
    ({"code": 402, "message": "Insufficient credits"}, errors.QuotaExceededError),
    ({"code": 429, "type": "insufficient_quota"}, errors.QuotaExceededError),
    ({"type": "overloaded_error"}, errors.OverloadedError),
    ({"code": 503}, errors.OverloadedError),
    ({"type": "invalid_request_error", "message": "bad"}, errors.BadRequestError),
    ({"type": "invalid_request_error", "code": "context_length_exceeded"}, errors.ContextLengthError),
    ({"code": 400, "message": "This model's maximum context length is 8192 tokens."}, errors.ContextLengthError),
    ({"code": "content_filter"}, errors.ContentFilterError),
    ({"code": 400, "message": "triggered the content management policy"}, errors.ContentFilterError),
    ({"type": "authentication_error"}, errors.AuthenticationError),
    ({"code": "invalid_api_key"}, errors.AuthenticationError),
    ({"code": 403, "message": "moderation"}, errors.PermissionDeniedError),
    ({"code": "model_not_found"}, errors.NotFoundError),
    ({"code": 413}, errors.RequestTooLargeError),
    ({"type": "server_error"}, errors.ServerError),
    ({"code": 408}, errors.ServerError),
    ({"code": "timeout"}, errors.ServerError),
    ({"code": 200, "message": "odd"}, errors.ServerError),
    ({"message": "nobody knows"}, errors.ServerError),
    ({"code": True}, errors.ServerError),
    ({"code": 10**30}, errors.ServerError),
    ({"code": "²²²"}, errors.ServerError),
    ({"code": ["x"], "type": {"a": 1}}, errors.ServerError),
]


@pytest.mark.parametrize(("fields", "kind"), IN_BAND, ids=lambda value: str(value)[:60])
def test_in_band_errors(fields: dict, kind: type[APIError]) -> None:
    with pytest.raises(DelugeError) as caught:
        decode_body(API, text("a") + frames({"error": fields}))
    assert type(caught.value) is kind
    assert caught.value.partial is not None
    assert caught.value.partial.completion == "a"
    assert type(classify_in_band({"error": fields})) is kind


def test_fields_of_an_error() -> None:
    body = b'{"error":{"message":"No such model","type":"invalid_request_error","code":"model_not_found","param":null}}'
    error = classify_status(404, {"x-should-retry": "false", "retry-after": "7"}, body)
    assert (error.message, error.code, error.type) == ("No such model", "model_not_found", "invalid_request_error")
    assert (error.should_retry, error.retry_after_s, error.body) == (False, 7.0, body.decode().replace(" :", ":"))
    assert str(error) == (
        "No such model (HTTP 404, model_not_found, retry after 7 s). Check the model's name and the base URL."
    )


MESSAGES = [
    (b"", "the provider answered with status 500"),
    (b"plain words", "plain words"),
    (b"<html><head><TITLE>\n502 Bad Gateway\n</TITLE></head>", "an HTML page: 502 Bad Gateway"),
    (b'{"error":"short"}', "short"),
    (b'{"error":"short","message":"long"}', "long"),
    (b'{"error":null,"message":"beside"}', "beside"),
    (b'{"message":"alone"}', "alone"),
    (b'{"detail":"FastAPI"}', "FastAPI"),
    (b'{"detail":[{"loc":["body"],"msg":"field required"}]}', '[{"loc":["body"],"msg":"field required"}]'),
    (b'[{"error":{"message":"Google","status":"INTERNAL"}}]', "Google"),
    (b"[]", "the provider answered with status 500"),
    (b"5", "the provider answered with status 500"),
    (b'{"error":{"msg":"hm"}}', "hm"),
    (b'{"error":{"message":"' + b"x" * 2_100 + b'"}}', "x" * 1_997 + "..."),
]


@pytest.mark.parametrize(("body", "message"), MESSAGES, ids=lambda value: str(value)[:40])
def test_messages_of_all_shapes(body: bytes, message: str) -> None:
    error = classify_status(500, {}, body)
    assert error.message == message
    assert len(error.body) <= 4_096


KEYS = [
    "sk-proj-abcdef123456",
    "sk_live_abcdef123456",
    "gsk_abcdef123456",
    "xai-abcdef123456",
    "AIzaSyA-abcdef123456",
    "Bearer abcdef123456",
    "sk-***********3456",
    "sk-ant-api03-abcdef",
]


@pytest.mark.parametrize("key", KEYS)
def test_a_key_that_the_provider_quotes_is_not_repeated(key: str) -> None:
    body = json.dumps({"error": {"message": f"Incorrect API key provided: {key}. Find yours", "code": key}}).encode()
    error = classify_status(401, {}, body)
    assert key not in error.message + error.body + str(error) + repr(error)
    assert error.message.startswith("Incorrect API key provided: ")
    assert error.message.endswith(". Find yours")


def test_a_too_large_event_is_an_error_at_the_first_read_that_exceeds_the_limit() -> None:
    """The read also contains whole events; there may be no next read."""
    call = a_call(Conversation.user("Hi"), max_event_bytes=2_048)
    decoder = find_adapter(API).decoder(call)
    events = decoder.feed(text("Hé") + b'data: {"choices":[{"delta":{"content":"' + b"x" * 4_096)
    assert [event.text for event in events if isinstance(event, TextDelta)] == ["Hé"]
    assert isinstance(decoder.error, ResponseLimitError)
