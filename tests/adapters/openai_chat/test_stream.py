"""Chat Completions from literal bytes: framing faults, ends, errors, usage."""

from __future__ import annotations

import pytest

from lm_deluge.adapters.adapter import Call
from lm_deluge.adapters.body_decoder import BodyDecoder
from lm_deluge.adapters.openai_chat.adapter import OpenAIChat
from lm_deluge.errors import (
    APIError,
    ContentTypeError,
    OverloadedError,
    ProtocolError,
    RateLimitError,
    ResponseLimitError,
    ServerError,
    TruncatedError,
)
from lm_deluge.events import (
    ResponseFinished,
    ResponseStarted,
    TextDelta,
    UsageReported,
)
from lm_deluge.models.rows import ModelRow, ProviderRow
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.usage import Usage
from samples.chat_bytes import chunk, events_of, failure_of, frames, read, text

DONE = b"data: [DONE]\n\n"
HELLO = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","model":"gpt-4o-2024-08-06","choices":[{"index":0,'
    b'"delta":{"role":"assistant","content":""},"finish_reason":null}]}\n\n'
    b'data: {"id":"chatcmpl-1","choices":[{"index":0,"delta":{"content":"Hello"},"finish_reason":null}]}\n\n'
    b'data: {"id":"chatcmpl-1","choices":[{"index":0,"delta":{"content":" world"},"finish_reason":null}]}\n\n'
)
FINISH = b'data: {"id":"chatcmpl-1","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
USAGE = (
    b'data: {"id":"chatcmpl-1","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2,"total_tokens":11}}\n\n'
)


def a_decoder(content_type: str | None = None, max_event_bytes: int = 2**20) -> BodyDecoder:
    row = ProviderRow(id="acme", otel_name="acme", adapter="openai-chat", base_url="")
    model = ModelRow(id="m", name="m", provider=row.id)
    call = Call(model=model, provider=row, conversation=Conversation(), max_event_bytes=max_event_bytes)
    decoder = OpenAIChat().decoder(call)
    if content_type is not None:
        decoder.expect(content_type)
    return decoder


def test_an_ordinary_stream() -> None:
    assert events_of(HELLO + FINISH + USAGE + DONE) == [
        ResponseStarted("chatcmpl-1", "gpt-4o-2024-08-06"),
        TextDelta("Hello"),
        TextDelta(" world"),
        UsageReported(
            Usage(
                input_tokens=9,
                output_tokens=2,
                raw={"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11},
            )
        ),
        ResponseFinished("stop", "stop"),
    ]


# Seven streams that the predecessor of this library could not decode.


def test_a_fully_read_stream_ends_once_and_in_order() -> None:
    response = read(HELLO + FINISH + DONE)
    assert (response.completion, response.finish_reason, response.warnings) == ("Hello world", "stop", ())


def test_a_character_split_between_two_reads() -> None:
    body = text("héllo €豆腐 🦜") + FINISH + DONE
    for position in range(len(body)):
        assert read([body[:position], body[position:]]).completion == "héllo €豆腐 🦜"


@pytest.mark.parametrize("end", [b"\r\n", b"\r"], ids=["CRLF", "CR"])
def test_other_line_ends(end: bytes) -> None:
    assert read((HELLO + FINISH + DONE).replace(b"\n", end)).completion == "Hello world"


def test_a_final_usage_chunk_with_empty_choices() -> None:
    response = read(HELLO + FINISH + USAGE + DONE)
    assert response.usage is not None
    assert response.usage.total_tokens == 11


def test_a_connection_cut_before_the_end_mark_is_no_success() -> None:
    error = failure_of(HELLO, TruncatedError)
    assert error.partial.completion == "Hello world"
    assert error.partial.finish_reason is None
    assert str(error) == (
        "the stream ended without its terminal event. The answer is incomplete; the received part is in .partial."
    )
    assert error.retryable


def test_an_error_object_inside_the_stream() -> None:
    body = HELLO + b'data: {"error":{"message":"The server had an error","type":"server_error","code":null}}\n\n' + DONE
    error = failure_of(body, ServerError)
    assert error.partial.completion == "Hello world"
    assert (error.message, error.type, error.code, error.billed) == (
        "The server had an error",
        "server_error",
        None,
        "maybe",
    )


def test_an_event_line_before_the_data() -> None:
    body = (HELLO + FINISH + DONE).replace(b"data: ", b"event: message\ndata: ")
    assert read(body).completion == "Hello world"


# Other faults of a stream.


def test_invalid_utf8_becomes_the_replacement_character() -> None:
    body = text("caf\xe9 au lait").replace("é".encode(), b"\xe9") + FINISH + DONE
    assert read(body).completion == "caf\ufffd au lait"


def test_data_of_several_lines_is_joined() -> None:
    body = b'data: {"id":"1","choices":[{"index":0,\ndata: "delta":{"content":"two lines"}}]}\n\n' + FINISH + DONE
    assert read(body).completion == "two lines"


def test_keep_alives_and_empty_data_are_no_events() -> None:
    body = b": OPENROUTER PROCESSING\n\n\n\ndata:\n\ndata: \n\nretry: 100\n\n" + HELLO + b": ping\n\n" + FINISH + DONE
    assert read(body).completion == "Hello world"


@pytest.mark.parametrize("blank", [b"\n" * 50, b" ", b"\xef\xbb\xbf", b"\r\n\r\n", b"\xef\xbb\xbf \n"])
@pytest.mark.parametrize("size", [1, 100])
def test_blanks_before_the_first_event(blank: bytes, size: int) -> None:
    body = blank + HELLO + FINISH + DONE
    assert read([body[start : start + size] for start in range(0, len(body), size)]).completion == "Hello world"


def test_blanks_without_an_end_are_not_kept() -> None:
    decoder = a_decoder()
    for _ in range(10_000):
        assert decoder.feed(b"\n\n") == []
    assert decoder._head == b""


TAILS = {
    "the mark without a blank line": (b"data: [DONE]\n", ()),
    "the mark without a line end": (b"data: [DONE]", ()),
    "no mark": (b"", ("no_done",)),
    "half a mark": (b"data: [DO", ("no_done",)),
    "half a chunk": (b'data: {"id":"chatcmpl-1","cho', ("no_done",)),
    "half a field name": (b"dat", ("no_done",)),
}


@pytest.mark.parametrize("name", TAILS)
def test_after_the_finish_reason_the_answer_is_complete(name: str) -> None:
    tail, warnings = TAILS[name]
    response = read(HELLO + FINISH + tail)
    assert (response.completion, response.finish_reason, response.warnings) == ("Hello world", "stop", warnings)


@pytest.mark.parametrize(
    "tail", [b"data: [DO", b'data: {"id":"1","choices":[{"delta":{"content":"!"', b"data: [[[[", b":"]
)
def test_a_cut_last_event_is_no_content(tail: bytes) -> None:
    error = failure_of(HELLO + tail, TruncatedError)
    assert error.partial.completion == "Hello world"


def test_a_whole_last_event_without_its_blank_line_counts() -> None:
    response = read(HELLO + FINISH.rstrip())
    assert (response.completion, response.warnings) == ("Hello world", ("no_done",))
    response = read(HELLO + FINISH + USAGE.rstrip())
    assert response.usage is not None
    assert response.usage.output_tokens == 2


def test_the_mark_with_usage_but_without_a_finish_reason_is_an_end_with_a_warning() -> None:
    response = read(HELLO + USAGE + DONE)
    assert (response.finish_reason, response.raw_finish_reason) == ("stop", None)
    assert response.warnings == ("no_finish_reason",)


def test_the_mark_with_neither_usage_nor_a_finish_reason_is_no_end() -> None:
    error = failure_of(HELLO + DONE, TruncatedError)
    assert (error.partial.completion, error.billed) == ("Hello world", "maybe")
    assert str(error) == (
        "the stream ended with neither a finish reason nor usage (may be billed). "
        "The answer is incomplete; the received part is in .partial."
    )


def test_the_mark_may_have_blanks_around_it() -> None:
    assert read(HELLO + FINISH + b"data:  [DONE] \n\n").warnings == ()
    assert read(HELLO + FINISH + b"data: [DONE] \n\n").warnings == ()


@pytest.mark.parametrize("body", [DONE, b": ping\n\n" + DONE, b'data: {"choices":[]}\n\n' + DONE])
def test_the_mark_alone_is_no_answer(body: bytes) -> None:
    error = failure_of(body, TruncatedError)
    assert error.partial.completion == ""
    assert error.hint == "Nothing was received."


@pytest.mark.parametrize(
    "body", [b"", b"\n\n", b": ping\n\n", b"data", b"event: x\n\n", b'data: "text"\n\n', b"data: 5\n\n"]
)
def test_a_body_without_any_chunk_is_truncated(body: bytes) -> None:
    error = failure_of(body, TruncatedError)
    assert error.partial.completion == ""
    assert str(error) == "the stream ended without its terminal event. Nothing was received."


def test_what_comes_after_the_mark_is_counted_and_ignored() -> None:
    decoder = a_decoder()
    events = decoder.feed(HELLO + FINISH + DONE + text(" ghost") + b"data: not json\n\n" + DONE)
    assert [event.text for event in events if isinstance(event, TextDelta)] == ["Hello", " world"]
    assert (decoder.is_finished, decoder.ignored, decoder.error) == (True, 3, None)
    assert decoder.feed(text("more")) == []
    assert decoder.close() == []
    assert decoder.ignored == 4


def test_the_first_finish_reason_wins() -> None:
    assert read(HELLO + chunk({}, "length") + chunk({}, "stop") + DONE).raw_finish_reason == "length"


def test_null_and_missing_parts_of_a_chunk() -> None:
    body = HELLO + frames(
        {"id": "1", "choices": None},
        {"id": "1", "choices": [{}]},
        {"id": "1", "choices": [{"index": 0, "delta": None, "finish_reason": None}]},
        {"id": "1", "choices": [{"index": 0, "delta": {"content": None, "tool_calls": None, "refusal": None}}]},
        {"id": "1", "choices": [{"index": None, "delta": {"content": "!"}, "logprobs": None}], "usage": None},
        {"id": "1", "choices": [{"finish_reason": "stop"}], "error": None},
        {"choices": [], "usage": None, "error": {}, "prompt_filter_results": []},
    )
    assert read(body + DONE).completion == "Hello world!"


def test_the_filter_results_that_azure_sends_first() -> None:
    body = (
        b'data: {"choices":[],"created":0,"id":"","model":"","object":"","prompt_filter_results":'
        b'[{"prompt_index":0,"content_filter_results":{"hate":{"filtered":false}}}]}\n\n'
    )
    response = read(body + HELLO + FINISH + DONE)
    assert (response.response_id, response.model_external) == ("chatcmpl-1", "gpt-4o-2024-08-06")


# Not JSON, not a stream, too large.


@pytest.mark.parametrize("data", [b"not json", b'{"id":', b"[1, 2", b"{'a': 1}", b"<html>", b"\xff\xfe"])
def test_data_that_is_no_json(data: bytes) -> None:
    error = failure_of(HELLO + b"data: " + data + b"\n\n" + FINISH + DONE, ProtocolError)
    assert error.partial.completion == "Hello world"
    assert (error.reason, error.excerpt, error.billed) == ("json", data, "maybe")
    assert error.message == f"a frame of {len(data)} bytes is not JSON"
    assert not error.retryable


def test_nonsense_after_the_finish_reason_does_not_undo_the_answer() -> None:
    response = read(HELLO + FINISH + b"data: oops\n\n")
    assert (response.completion, response.warnings) == ("Hello world", ("error_after_finish", "no_done"))


HTML = b"<!DOCTYPE html>\n<html><head><title> 502 Bad Gateway </title></head><body>nginx</body></html>"


@pytest.mark.parametrize("content_type", [None, "text/html; charset=utf-8", "text/event-stream"])
@pytest.mark.parametrize("size", [1, 7, 1_000])
def test_a_page_instead_of_a_stream(content_type: str | None, size: int) -> None:
    decoder = a_decoder(content_type)
    for start in range(0, len(HTML), size):
        assert decoder.feed(HTML[start : start + size]) == []
    assert decoder.close() == []
    assert isinstance(decoder.error, ContentTypeError)
    assert str(decoder.error) == (
        "the answer is an HTML page, titled '502 Bad Gateway'. A proxy or a wrong base URL may be in between."
    )
    assert (decoder.error.retryable, decoder.error.max_retries) == (True, 1)


def test_a_page_without_a_title_is_known_at_its_end_or_when_it_is_long() -> None:
    decoder = a_decoder()
    assert decoder.feed(b"<html>nothing here") == []
    assert decoder.error is None
    decoder.close()
    assert isinstance(decoder.error, ContentTypeError)
    assert decoder.error.message == "the answer is an HTML page"
    decoder = a_decoder()
    decoder.feed(b"<html>" + b" " * 3_000)
    assert isinstance(decoder.error, ContentTypeError)


@pytest.mark.parametrize("size", [1, 3, 1_000])
def test_a_content_type_of_no_stream_is_looked_at_with_suspicion(size: int) -> None:
    body = b"upstream connect error or disconnect"
    decoder = a_decoder("application/octet-stream")
    for start in range(0, len(body), size):
        decoder.feed(body[start : start + size])
    assert isinstance(decoder.error, ContentTypeError)
    assert decoder.error.message == "the answer is not a stream"
    assert decoder.feed(HELLO) == []
    short = a_decoder("image/png")
    short.feed(b"no")
    short.close()
    assert isinstance(short.error, ContentTypeError)


@pytest.mark.parametrize("content_type", ["application/octet-stream", "binary/octet-stream", "text/html"])
@pytest.mark.parametrize("size", [1, 1_000])
@pytest.mark.parametrize("before", [b"", b": ping\n\n", b"event: x\n", b"id: 1\n", b"retry: 5\n", b"\n"])
def test_a_stream_under_a_wrong_content_type_is_read(content_type: str, size: int, before: bytes) -> None:
    body = before + HELLO + FINISH + DONE
    decoder = a_decoder(content_type)
    events = [event for start in range(0, len(body), size) for event in decoder.feed(body[start : start + size])]
    assert decoder.error is None
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == "Hello world"


ERROR_DOCUMENTS: dict[str, tuple[bytes, type[APIError], str]] = {
    "an error object": (b'{"error":{"message":"slow down","code":"rate_limit_exceeded"}}', RateLimitError, "slow down"),
    "with blanks and a BOM": (b'\xef\xbb\xbf\n {"error":{"message":"busy","code":529}}', OverloadedError, "busy"),
    "an error as text": (b'{"error":"model is overloaded"}', ServerError, "model is overloaded"),
    "FastAPI": (b'{"detail":"Internal Server Error"}', ServerError, "Internal Server Error"),
    "vLLM": (b'{"object":"error","message":"bad thing","code":503}', OverloadedError, "bad thing"),
}


@pytest.mark.parametrize("name", ERROR_DOCUMENTS)
@pytest.mark.parametrize("size", [1, 1_000])
def test_an_error_document_with_status_200(name: str, size: int) -> None:
    body, kind, message = ERROR_DOCUMENTS[name]
    error = failure_of([body[start : start + size] for start in range(0, len(body), size)], kind)
    assert error.message == message


def test_a_plain_answer_where_a_stream_was_asked_for() -> None:
    body = (
        b'{"id":"chatcmpl-2","object":"chat.completion","model":"m-1","choices":[{"index":0,"message":{"role":'
        b'"assistant","content":"Hi","refusal":null},"finish_reason":"length","logprobs":null}],'
        b'"usage":{"prompt_tokens":1,"completion_tokens":2}}'
    )
    response = read(body)
    assert (response.completion, response.finish_reason, response.response_id) == ("Hi", "length", "chatcmpl-2")
    assert response.warnings == ()
    assert response.usage is not None


@pytest.mark.parametrize("body", [b"{}", b'{"id":"x"}', b"[]", b'{"choices":[]}', b"[1]"])
def test_a_json_document_that_is_no_answer(body: bytes) -> None:
    error = failure_of(body, ProtocolError)
    assert (error.message, error.reason) == ("the answer is JSON, but not a chat completion", "order")


def test_a_cut_json_document_is_no_json() -> None:
    assert failure_of(b'{"id":"x","choices":[{"mess', ProtocolError).reason == "json"


def test_an_event_beyond_the_limit_is_an_error_after_the_whole_events() -> None:
    decoder = a_decoder(max_event_bytes=2_000)
    events = decoder.feed(HELLO + text("x" * 3_000))
    assert [event.text for event in events if isinstance(event, TextDelta)] == ["Hello", " world"]
    assert isinstance(decoder.error, ResponseLimitError)
    assert (decoder.feed(FINISH), decoder.close()) == ([], [])


def test_an_event_beyond_the_limit_after_the_finish_reason_does_not_undo_the_answer() -> None:
    decoder = a_decoder(max_event_bytes=2_000)
    decoder.feed(HELLO + FINISH + text("x" * 3_000))
    assert decoder.error is None
    assert decoder.close() == [ResponseFinished("stop", "stop", ("no_done",))]


def test_a_document_beyond_the_limit() -> None:
    decoder = a_decoder(max_event_bytes=1_000)
    for _ in range(6):
        decoder.feed(b'{"a": "' + b"x" * 993)
    assert isinstance(decoder.error, ResponseLimitError)
    assert decoder.error.message == "the answer is larger than 4000 bytes"
    assert decoder._document == b""
    assert decoder.close() == []


# Errors in the stream.


def test_an_error_as_the_first_event_is_that_of_its_http_status() -> None:
    error = failure_of(b'data: {"error":{"message":"busy","code":"rate_limit_exceeded"}}\n\n' + DONE, RateLimitError)
    assert error.retryable
    assert (error.partial.completion, error.status_code, error.code) == ("", 429, "rate_limit_exceeded")


IN_BAND: dict[str, tuple[bytes, type[APIError], str]] = {
    "event: error": (b'event: error\ndata: {"message":"gone","code":503}\n\n', OverloadedError, "gone"),
    "event: error, no JSON": (b"event: error\ndata: out of memory\n\n", ServerError, "out of memory"),
    "event: error, JSON text": (b'event: error\ndata: {"error":"x"}\n\n', ServerError, "x"),
    "error beside choices": (
        b'data: {"id":"1","choices":[{"delta":{},"finish_reason":"error"}],"error":{"code":502,"message":"up"}}\n\n',
        ServerError,
        "up",
    ),
    "object error": (b'data: {"object":"error","message":"no","type":"internal_server_error"}\n\n', ServerError, "no"),
    "invalid UTF-8": (b'data: {"error":{"message":"\xff"}}\n\n', ServerError, "\ufffd"),
    "a word as finish reason": (chunk({}, "error"), ServerError, "the answer broke off: error"),
    "DeepSeek's word": (
        chunk({}, "insufficient_system_resource"),
        OverloadedError,
        "the answer broke off: insufficient_system_resource",
    ),
}


@pytest.mark.parametrize("name", IN_BAND)
def test_errors_in_the_stream(name: str) -> None:
    body, kind, message = IN_BAND[name]
    error = failure_of(HELLO + body + FINISH + DONE, kind)
    assert (error.message, error.billed, error.partial.completion) == (message, "maybe", "Hello world")


def test_an_unterminated_error_at_the_end_is_seen() -> None:
    failure_of(HELLO + b'data: {"error":{"message":"busy","code":429}}', RateLimitError)
