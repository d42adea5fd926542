"""Responses of Ollama from literal bytes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lm_deluge.adapters.ollama_chat.adapter import OllamaChat
from lm_deluge.errors import (
    APIError,
    ContentTypeError,
    NotFoundError,
    ProtocolError,
    ResponseLimitError,
    ServerError,
    TruncatedError,
)
from lm_deluge.events import (
    MediaDelta,
    ReasoningDelta,
    ResponseFinished,
    ResponseStarted,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
    UsageReported,
)
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.testing import decode_body, decode_events
from lm_deluge.usage import Usage
from samples import api_calls

API = "ollama-chat"


def line(message: dict[str, Any] | None = None, **fields: Any) -> bytes:
    fragment = {} if message is None else {"message": {"role": "assistant", "content": "", **message}}
    return json.dumps({"model": "m", "done": False, **fragment, **fields}, ensure_ascii=False).encode() + b"\n"


def text(words: str) -> bytes:
    return line({"content": words})


def end(reason: str | None = "stop", **fields: Any) -> bytes:
    return line({}, done=True, **({} if reason is None else {"done_reason": reason}), **fields)


def test_an_answer_that_thinks_first() -> None:
    counted = {"total_duration": 9, "load_duration": 1, "prompt_eval_count": 10, "eval_count": 3, "eval_duration": 5}
    body = line({"thinking": "Hm"}) + line({"thinking": "."}) + text("Fo") + text("ur\u2028") + end(**counted)
    assert list(decode_events(API, body)) == [
        ResponseStarted(None, "m"),
        ReasoningDelta("Hm"),
        ReasoningDelta("."),
        TextDelta("Fo"),
        TextDelta("ur\u2028"),
        UsageReported(Usage(input_tokens=10, output_tokens=3, raw=counted)),
        ResponseFinished("stop", "stop"),
    ]


def test_calls_come_whole_and_mostly_without_ids() -> None:
    one = {"function": {"index": 0, "name": "add", "arguments": {"n": 1, "b": "é"}}}
    two = {"id": "call_abc", "function": {"index": 0, "name": "now", "arguments": {}}}
    body = line({"tool_calls": [one]}) + line({"tool_calls": [two]}) + end()
    assert list(decode_events(API, body))[1:] == [
        ToolCallStarted(0, "call_0", "add"),
        ToolCallDelta(0, '{"n":1,"b":"é"}'),
        ToolCallFinished(0, "call_0", "add", '{"n":1,"b":"é"}', {"n": 1, "b": "é"}),
        ToolCallStarted(1, "call_abc", "now"),
        ToolCallDelta(1, "{}"),
        ToolCallFinished(1, "call_abc", "now", "{}", {}),
        ResponseFinished("tool_calls", "stop"),
    ]


def test_arguments_may_be_text() -> None:
    call = {"function": {"name": "add", "arguments": '{"n": 1}'}}
    (found,) = decode_body(API, line({"tool_calls": [call]}) + end()).tool_calls
    assert (found.arguments_text, found.arguments) == ('{"n": 1}', {"n": 1})


def test_images_and_log_probabilities() -> None:
    tokens = [{"token": "Hi", "logprob": -0.5, "bytes": [72, 105], "top_logprobs": []}]
    body = line({"images": ["iVBORw0KGgo=", "AAAA", "?"]}) + line({"content": "Hi"}, logprobs=tokens) + end()
    events = list(decode_events(API, body))
    assert events[1:4] == [
        MediaDelta("image/png", "iVBORw0KGgo="),
        MediaDelta("image/*", "AAAA"),
        MediaDelta("image/*", "?"),
    ]
    assert events[4] == TextDelta("Hi", (TokenLogprob("Hi", -0.5, (72, 105)),))


@pytest.mark.parametrize(
    ("word", "reason", "warnings"),
    [
        ("stop", "stop", ()),
        ("length", "length", ()),
        ("load", "stop", ()),
        ("unload", "stop", ()),
        ("new", "stop", ("unknown_finish_reason",)),
    ],
)
def test_finish_reasons(word: str | None, reason: str, warnings: tuple[str, ...]) -> None:
    response = decode_body(API, text("Hi") + end(word))
    assert (response.finish_reason, response.raw_finish_reason) == (reason, word)
    assert response.warnings == warnings
    assert response.usage is None


def test_a_last_line_without_a_finish_reason_ends_the_answer_only_if_it_has_counts() -> None:
    response = decode_body(API, text("Hi") + end(None, eval_count=3))  # Ollama before 2024-05
    assert (response.finish_reason, response.raw_finish_reason) == ("stop", None)
    assert response.warnings == ("no_finish_reason",)
    with pytest.raises(TruncatedError) as caught:
        decode_body(API, text("Hi") + end(None))
    assert caught.value.partial.completion == "Hi"


def test_a_count_of_zero_is_left_out_on_the_wire() -> None:
    usage = decode_body(API, text("Hi") + end(eval_count=3)).usage
    assert usage == Usage(input_tokens=0, output_tokens=3, raw={"eval_count": 3})


def test_nothing_but_a_last_line() -> None:
    assert list(decode_events(API, end("load"))) == [ResponseStarted(None, "m"), ResponseFinished("stop", "load")]


def test_a_last_line_needs_no_line_end_but_whole_json() -> None:
    body = text("Hi") + end()
    assert decode_body(API, body[:-1]).finish_reason == "stop"
    for cut in range(2, 30):
        with pytest.raises(TruncatedError) as caught:
            decode_body(API, body[:-cut])
        assert caught.value.partial is not None
        assert caught.value.partial.completion == "Hi"


@pytest.mark.parametrize("body", [b"", b"\n", text("Hi"), b"[1]\n", b"{}\n", b"5\n"])
def test_an_answer_without_its_last_line_is_cut(body: bytes) -> None:
    with pytest.raises(TruncatedError):
        decode_body(API, body)


def test_an_error_in_the_stream() -> None:
    with pytest.raises(ServerError, match="the model runner has stopped") as caught:
        decode_body(API, text("Hi") + b'{"error":"the model runner has stopped"}\n')
    assert (caught.value.billed, caught.value.partial.completion) == ("maybe", "Hi")
    with pytest.raises(ServerError, match="out of memory"):
        decode_body(API, b'{"error":"out of memory"}')


def test_after_the_last_line_nothing_matters() -> None:
    assert decode_body(API, text("Hi") + end() + b'{"error":"late"}\n<html>\n').completion == "Hi"


def test_a_line_that_is_no_json() -> None:
    with pytest.raises(ProtocolError, match="is not JSON") as caught:
        decode_body(API, text("Hi") + b"oops\n" + end())
    assert caught.value.reason == "json"


def test_a_page_is_no_stream() -> None:
    with pytest.raises(ContentTypeError, match="an HTML page, titled 'Proxy'"):
        decode_body(API, b"<html><title>Proxy</title></html>")


def test_a_line_may_be_too_long() -> None:
    decoder = OllamaChat().decoder(api_calls.call_of(API, Conversation.user("Hi"), max_event_bytes=1_000))
    events = decoder.feed(text("Hi") + text("x" * 2_000))
    assert events[-1] == TextDelta("Hi")
    assert isinstance(decoder.error, ResponseLimitError)


@pytest.mark.parametrize("indent", [None, 2])
def test_a_plain_answer_may_be_spread_over_lines(indent: int | None) -> None:
    message = {"role": "assistant", "content": "Four", "thinking": "Hm."}
    answer = {"model": "m", "message": message, "done": True, "done_reason": "stop", "prompt_eval_count": 1}
    decoder = OllamaChat().decoder(api_calls.call_of(API, Conversation.user("Hi"), is_streamed=False))
    decoder.expect("application/json; charset=utf-8")
    events = decoder.feed(json.dumps(answer, indent=indent).encode()) + decoder.close()
    assert decoder.error is None
    assert [type(event) for event in events] == [
        ResponseStarted,
        ReasoningDelta,
        TextDelta,
        UsageReported,
        ResponseFinished,
    ]


def test_json_that_is_not_a_response() -> None:
    with pytest.raises(ProtocolError, match="not a finished chat response"):
        OllamaChat().parse_response(api_calls.call_of(API, Conversation.user("Hi")), b'{"ok":true}')


def test_errors() -> None:
    error = OllamaChat().classify_error(404, {}, b'{"error":"model \'x\' not found"}')
    assert (type(error), error.message) == (NotFoundError, "model 'x' not found")
    assert isinstance(OllamaChat().classify_error(503, {}, b'{"error":"server busy"}'), APIError)


def test_servers_that_imitate_ollama_name_the_calls_as_the_reason() -> None:
    call = {"function": {"name": "f", "arguments": {}}}
    response = decode_body(API, line({"tool_calls": [call]}) + end("tool_calls"))
    assert (response.finish_reason, response.raw_finish_reason, response.warnings) == ("tool_calls", "tool_calls", ())
