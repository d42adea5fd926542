"""Escapes of half a surrogate pair become U+FFFD in every wire API, wherever they are."""

from __future__ import annotations

import json

import msgspec
import pytest

import cuts
from edited_json import edited, replaced
from lm_deluge.adapters.anthropic_messages.batch import AnthropicBatch
from lm_deluge.adapters.catalog import adapter_names, find_adapter
from lm_deluge.adapters.gemini_generate.batch import GeminiBatch
from lm_deluge.adapters.openai_chat.batch import OpenAIBatch
from lm_deluge.encoders.catalog import find_encoder
from lm_deluge.errors import BadRequestError
from lm_deluge.events import (
    Event,
    ResponseFinished,
    ResponseStarted,
    TextDelta,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
    UsageReported,
)
from lm_deluge.testing import decode_body, encode_events
from lm_deluge.usage import Usage

WORD = "HALF@PAIR"
# Bedrock's native API has the formats of several vendors.
APIS = [(api, "m") for api in adapter_names()]
APIS += [
    ("bedrock-invoke", model) for model in ("anthropic.claude-x", "amazon.nova-x", "meta.llama3-x", "amazon.titan-x")
]
EVERY_API = pytest.mark.parametrize(("api", "model"), APIS)
HALVES = [rb"\ud800", rb"\uDBFF", rb"\udc00", rb"\uDFFF", rb"\ud83d\ud83d"]


def answer(model: str, *middle: Event, reason: str = "stop") -> list[Event]:
    usage = UsageReported(Usage(input_tokens=3, output_tokens=4))
    return [ResponseStarted("id-1", model), *middle, usage, ResponseFinished(reason)]


def bodies(api: str, events: list[Event]) -> list[bytes]:
    """Return a streamed and a plain body."""
    return [b"".join(encode_events(api, events)), find_encoder(api).encode_response(events)]


def with_unread_field(text: bytes) -> bytes:
    """Return JSON, or the text of a stream, with another field in its last object."""
    head, brace, tail = text.rpartition(b"}")
    return head + rb',"zz":"\udcaf"' + brace + tail


@EVERY_API
@pytest.mark.parametrize("half", HALVES, ids=lambda half: half.decode())
def test_in_text(api: str, model: str, half: bytes) -> None:
    expected = "A" + "\ufffd" * (len(half) // 6) + "B end"
    for body in bodies(api, answer(model, TextDelta("A" + WORD + "B"), TextDelta(" end"))):
        broken = replaced(body, WORD.encode(), half)
        response = decode_body(api, broken)
        assert (response.completion, response.finish_reason, response.warnings) == (expected, "stop", ())
        assert response == decode_body(api, cuts.every(broken, 1))


@EVERY_API
def test_in_a_field_that_is_not_read(api: str, model: str) -> None:
    for body in bodies(api, answer(model, TextDelta("A"))):
        broken = edited(body, with_unread_field)
        assert broken != body
        assert decode_body(api, broken) == decode_body(api, body)


@EVERY_API
def test_pairs_and_escaped_backslashes_stay(api: str, model: str) -> None:
    body, _ = bodies(api, answer(model, TextDelta(WORD)))
    text = decode_body(api, replaced(body, WORD.encode(), rb"\ud83d\ude00 \\ud800 \ud800")).completion
    assert text == "\U0001f600 \\ud800 \ufffd"


@pytest.mark.parametrize("api", adapter_names())
def test_in_the_arguments_of_a_tool_call(api: str) -> None:
    text = '{"q":"HALF@PAIR"}'
    call = [ToolCallStarted(0, "c", "f"), ToolCallDelta(0, text), ToolCallFinished(0, "c", "f", text, {"q": WORD})]
    for body in bodies(api, answer("m", *call, reason="tool_calls")):
        for half in (rb"\udcaf", rb"\\udcaf"):  # in the JSON of the frame, and in the JSON that the model wrote
            (found,) = decode_body(api, replaced(body, WORD.encode(), half)).tool_calls
            if found.arguments != {"q": r"\udcaf"}:  # the arguments are an object, whose text has a backslash
                assert (found.arguments, found.arguments_error) == ({"q": "\ufffd"}, None)


@pytest.mark.parametrize("api", adapter_names())
def test_in_the_body_of_an_error(api: str) -> None:
    body = rb'{"error": {"message": "no \udcaf good", "code": "c"}, "message": "no \udcaf good"}'
    error = find_adapter(api).classify_error(400, {"x-amzn-errortype": "ValidationException"}, body)
    assert isinstance(error, BadRequestError)
    assert "no \ufffd good" in str(error)


@pytest.mark.parametrize(
    ("batches", "line"),
    [
        (OpenAIBatch(), {"custom_id": "b-1", "response": {"status_code": 200, "body": {"x": WORD}}, "zz": WORD}),
        (AnthropicBatch(), {"custom_id": "b-1", "result": {"type": "succeeded", "message": {"x": WORD}}, "zz": WORD}),
        (GeminiBatch(), {"key": "b-1", "response": {"x": WORD}, "zz": WORD}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_in_a_line_of_batch_results(batches: OpenAIBatch | AnthropicBatch | GeminiBatch, line: object) -> None:
    result = batches.read_result(json.dumps(line).replace(WORD, r"\udcaf").encode())
    assert result.custom_id == "b-1"
    assert result.body is not None
    assert msgspec.json.decode(result.body.replace(rb"\udcaf", rb"\ufffd")) == {"x": "\ufffd"}


@pytest.mark.parametrize("api", adapter_names())
def test_in_the_unterminated_last_frame(api: str) -> None:
    body, _ = bodies(api, answer("m", TextDelta("A")))
    if find_encoder(api).stream_type.startswith("application/vnd"):
        pytest.skip("a message without its checksum is not read")
    broken = edited(body.rstrip(), with_unread_field)
    assert decode_body(api, broken).completion == "A"
