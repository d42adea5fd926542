"""Streams and complete responses of Converse: literal messages and their events."""

from __future__ import annotations

import json
from typing import Any

import pytest

from grammar import check_grammar
from lm_deluge import errors
from lm_deluge.errors import APIError, ContentTypeError, ProtocolError, TruncatedError
from lm_deluge.events import (
    Citation,
    Event,
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
from lm_deluge.testing.decode import decode_body, decode_events
from lm_deluge.usage import Usage
from samples.bedrock_bytes import (
    BEGIN,
    block_delta,
    block_start,
    block_stop,
    converse,
    event,
    exception,
    metadata,
    stop,
)

API = "bedrock-converse"
OWNER = "recording"


def read(body: bytes) -> list[Event]:
    events = list(decode_events(API, body))
    check_grammar(events)
    return events


def middle(*messages: dict[str, Any], reason: str = "end_turn") -> list[Event]:
    """Return the events between start and usage."""
    events = read(converse(BEGIN, *messages, stop(reason), metadata(inputTokens=1, outputTokens=2, totalTokens=3)))
    assert events[0] == ResponseStarted()
    assert isinstance(events[-2], UsageReported)
    return events[1:-2]


def test_text_and_usage() -> None:
    body = converse(
        BEGIN,
        block_delta(0, text="Hé"),
        block_delta(0, text=""),
        block_delta(0, text="llo"),
        block_stop(0),
        stop(),
        metadata(inputTokens=3, outputTokens=2, totalTokens=5),
    )
    usage = Usage(input_tokens=3, output_tokens=2, raw={"inputTokens": 3, "outputTokens": 2, "totalTokens": 5})
    assert read(body) == [
        ResponseStarted(),
        TextDelta("Hé"),
        TextDelta("llo"),
        UsageReported(usage),
        ResponseFinished("stop", "end_turn"),
    ]


def test_cached_tokens_are_part_of_the_input() -> None:
    counts = {"inputTokens": 11, "outputTokens": 2, "cacheReadInputTokens": 100, "cacheWriteInputTokens": 0}
    usage = decode_body(API, converse(BEGIN, block_delta(0, text="a"), stop(), metadata(**counts))).usage
    assert usage is not None
    assert (usage.input_tokens, usage.cache_read_tokens, usage.cache_write_tokens) == (111, 100, 0)
    assert usage.raw == counts


def test_a_call_in_pieces() -> None:
    assert middle(
        block_start(0, toolUse={"toolUseId": "t1", "name": "weather"}),
        block_delta(0, toolUse={"input": ""}),
        block_delta(0, toolUse={"input": '{"city": '}),
        block_delta(0, toolUse={"input": '"Roma"}'}),
        block_stop(0),
        reason="tool_use",
    ) == [
        ToolCallStarted(0, "t1", "weather"),
        ToolCallDelta(0, '{"city": '),
        ToolCallDelta(0, '"Roma"}'),
        ToolCallFinished(0, "t1", "weather", '{"city": "Roma"}', {"city": "Roma"}),
    ]


def test_blocks_without_start_or_stop() -> None:
    events = middle(
        block_delta(0, text="a"),
        block_start(1, toolUse={"toolUseId": "t1", "name": "f"}),
        block_delta(1, toolUse={"input": "{}"}),
        block_delta(2, text="b"),
    )
    assert [type(each) for each in events] == [TextDelta, ToolCallStarted, ToolCallDelta, TextDelta, ToolCallFinished]


def test_calls_that_are_open_at_the_same_time() -> None:
    events = middle(
        block_start(0, toolUse={"toolUseId": "t0", "name": "f"}),
        block_start(1, toolUse={"toolUseId": "t1", "name": "g"}),
        block_delta(0, toolUse={"input": '{"a":'}),
        block_delta(1, toolUse={"input": "{}"}),
        block_delta(0, toolUse={"input": "1}"}),
        block_stop(1),
        block_stop(0),
    )
    finished = [each for each in events if isinstance(each, ToolCallFinished)]
    assert [(each.index, each.arguments) for each in finished] == [(1, {}), (0, {"a": 1})]


def test_thoughts_with_signatures_and_hidden_ones() -> None:
    assert middle(
        block_delta(0, reasoningContent={"text": "Hm, "}),
        block_delta(0, reasoningContent={"text": "so."}),
        block_delta(0, reasoningContent={"signature": "sig"}),
        block_delta(0, reasoningContent={"signature": "nature"}),
        block_stop(0),
        block_delta(1, reasoningContent={"redactedContent": "QUJD"}),
        block_delta(1, reasoningContent={"redactedContent": "RA=="}),
        block_stop(1),
        block_delta(2, text="Yes"),
    ) == [
        ReasoningDelta("Hm, "),
        ReasoningDelta("so."),
        ProviderPart(OWNER, "reasoning_signature", "signature"),
        ProviderPart(OWNER, "redacted_reasoning", "QUJDRA=="),
        TextDelta("Yes"),
    ]


def test_damaged_base64_is_passed_on() -> None:
    pieces = [block_delta(0, reasoningContent={"redactedContent": piece}) for piece in ("!", "a")]
    assert middle(*pieces) == [ProviderPart(OWNER, "redacted_reasoning", "!a")]


def test_tools_that_the_provider_runs_are_opaque() -> None:
    call = {"toolUseId": "t1", "name": "nova_code_interpreter", "type": "server_tool_use"}
    result = {"toolUseId": "t1", "type": "nova_code_interpreter_result", "status": "success"}
    assert middle(
        block_start(0, toolUse=call),
        block_delta(0, toolUse={"input": '{"snippet":'}),
        block_delta(0, toolUse={"input": '"1+1"}'}),
        block_stop(0),
        block_start(1, toolResult=result),
        block_delta(1, toolResult=[{"json": {"stdOut": "2"}}]),
        block_delta(1, toolResult=[{"text": "done"}]),
        block_stop(1),
    ) == [
        ProviderPart(OWNER, "server_tool", {"toolUse": {**call, "input": {"snippet": "1+1"}}}),
        ProviderPart(
            OWNER, "server_tool", {"toolResult": {**result, "content": [{"json": {"stdOut": "2"}}, {"text": "done"}]}}
        ),
    ]


def test_sources() -> None:
    web = {"title": "T", "location": {"web": {"url": "https://a.test", "domain": "a.test"}}}
    document = {"title": "facts", "location": {"documentChar": {"documentIndex": 0, "start": 0, "end": 7}}}
    assert middle(block_delta(0, citation=web), block_delta(0, text="x"), block_delta(0, citation=document)) == [
        Citation("https://a.test", "T", raw=web),
        TextDelta("x"),
        Citation(title="facts", raw=document),
    ]


def test_images() -> None:
    assert middle(
        block_start(0, image={"format": "png"}),
        block_delta(0, image={"source": {"bytes": "QUJD"}}),
        block_stop(0),
        block_start(1, image={"format": "jpeg"}),
        block_delta(1, image={"source": {"s3Location": {"uri": "s3://b/k"}}}),
        block_delta(1, image={"error": {"message": "no"}}),
    ) == [MediaDelta("image/png", "QUJD"), MediaDelta("image/jpeg", url="s3://b/k")]


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("tool_use", "tool_calls"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("guardrail_intervened", "content_filter"),
        ("content_filtered", "content_filter"),
        ("malformed_tool_use", "error"),
    ],
)
def test_reasons(word: str, reason: str) -> None:
    response = decode_body(API, converse(BEGIN, block_delta(0, text="a"), stop(word), metadata(inputTokens=1)))
    assert (response.finish_reason, response.raw_finish_reason, response.warnings) == (reason, word, ())


def test_usage_may_come_first_and_may_be_missing() -> None:
    first = read(converse(metadata(inputTokens=1), block_delta(0, text="a"), stop()))
    assert [type(each) for each in first] == [ResponseStarted, UsageReported, TextDelta, ResponseFinished]
    missing = decode_body(API, converse(block_delta(0, text="a"), stop()))
    assert (missing.usage, missing.finish_reason, missing.warnings) == (None, "stop", ("no_done",))


def test_without_a_stop_reason_there_is_no_success() -> None:
    with pytest.raises(TruncatedError) as caught:
        decode_body(API, converse(BEGIN, block_delta(0, text="a"), block_stop(0), metadata(inputTokens=1)))
    assert caught.value.partial.completion == "a"


def test_after_the_end_nothing_is_an_error() -> None:
    body = converse(BEGIN, block_delta(0, text="a"), stop(), metadata(inputTokens=1))
    late = body + exception("throttlingException", {"message": "x"}) + b"garbage of any kind"
    response = decode_body(API, late)
    assert (response.completion, response.finish_reason) == ("a", "stop")
    between = converse(BEGIN, block_delta(0, text="a"), stop()) + exception("throttlingException", {"message": "x"})
    assert decode_body(API, between).warnings == ("error_after_finish", "no_done")


@pytest.mark.parametrize(
    ("name", "kind", "status"),
    [
        ("throttlingException", errors.RateLimitError, 429),
        ("serviceUnavailableException", errors.OverloadedError, 503),
        ("internalServerException", errors.ServerError, 500),
        ("modelStreamErrorException", errors.ServerError, 500),
        ("modelTimeoutException", errors.ServerError, 408),
        ("validationException", errors.BadRequestError, 400),
        ("unknownException", errors.ServerError, 500),
    ],
)
def test_exceptions_in_the_stream(name: str, kind: type[APIError], status: int) -> None:
    body = converse(BEGIN, block_delta(0, text="a")) + exception(name, {"message": "Too much of it"})
    with pytest.raises(APIError) as caught:
        decode_body(API, body)
    assert type(caught.value) is kind
    assert caught.value.message == "Too much of it"
    assert (caught.value.status_code, caught.value.code) == (status, name)
    assert caught.value.partial.completion == "a"


def test_an_exception_that_says_nothing_is_named() -> None:
    with pytest.raises(errors.ServerError, match="the stream failed with modelStreamErrorException"):
        decode_body(API, exception("modelStreamErrorException", {}))
    with pytest.raises(errors.ServerError, match="of the model"):
        decode_body(API, exception("modelStreamErrorException", {"originalMessage": "of the model"}))


def test_a_prompt_that_is_too_long() -> None:
    with pytest.raises(errors.ContextLengthError):
        decode_body(API, exception("validationException", {"message": "Input is too long for requested model."}))


def test_what_is_not_known_is_passed_over() -> None:
    body = converse(
        BEGIN,
        {"initial-response": {}},
        {"newEvent": {"a": 1}},
        block_start(0, newBlock={}),
        block_delta(0, newDelta="x", text="a"),
        {"contentBlockDelta": {"contentBlockIndex": 0}},
        {"contentBlockDelta": {"contentBlockIndex": "0", "delta": {"text": 5, "toolUse": 3, "citation": []}}},
        {"contentBlockDelta": []},
        block_delta(0, text="b"),
        stop(),
        metadata(inputTokens=1),
    )
    assert decode_body(API, body).completion == "ab"


def test_a_frame_that_is_no_json() -> None:
    with pytest.raises(ProtocolError) as caught:
        decode_body(API, event("contentBlockDelta", b"{nonsense"))
    assert caught.value.reason == "json"


@pytest.mark.parametrize("body", [b"<html><title>Sign in</title></html>", b"data: {}\n\n" * 2, b"upstream error"])
def test_what_is_no_stream_is_an_error(body: bytes) -> None:
    with pytest.raises((ContentTypeError, ProtocolError)):
        decode_body(API, body)


def plain(content: list[Any], **fields: Any) -> bytes:
    answer = {"output": {"message": {"role": "assistant", "content": content}}, "stopReason": "end_turn", **fields}
    return json.dumps(answer).encode()


def test_a_plain_answer() -> None:
    content = [
        {"reasoningContent": {"reasoningText": {"text": "Hm.", "signature": "sig"}}},
        {"reasoningContent": {"redactedContent": "QUJD"}},
        {"citationsContent": {"content": [{"text": "Yes."}], "citations": [{"title": "T"}]}},
        {"toolUse": {"toolUseId": "t1", "name": "f", "input": {"a": [1]}}},
        {"toolUse": {"toolUseId": "t2", "name": "g", "input": {}}},
        {"toolUse": {"toolUseId": "t3", "name": "s", "type": "server_tool_use", "input": {}}},
        {"toolResult": {"toolUseId": "t3", "status": "success", "content": [{"text": "x"}]}},
        {"image": {"format": "png", "source": {"bytes": "QUJD"}}},
        {"newBlock": {}},
        "no block",
    ]
    body = plain(content, usage={"inputTokens": 1, "outputTokens": 2}, stopReason="tool_use")
    events = read(body)
    assert events == [
        ResponseStarted(),
        ReasoningDelta("Hm."),
        ProviderPart(OWNER, "reasoning_signature", "sig"),
        ProviderPart(OWNER, "redacted_reasoning", "QUJD"),
        Citation(title="T", raw={"title": "T"}),
        TextDelta("Yes."),
        ToolCallStarted(0, "t1", "f"),
        ToolCallDelta(0, '{"a":[1]}'),
        ToolCallFinished(0, "t1", "f", '{"a":[1]}', {"a": [1]}),
        ToolCallStarted(1, "t2", "g"),
        ToolCallFinished(1, "t2", "g", "", {}),
        ProviderPart(
            OWNER,
            "server_tool",
            {"toolUse": {"toolUseId": "t3", "name": "s", "type": "server_tool_use", "input": {}}},
        ),
        ProviderPart(
            OWNER, "server_tool", {"toolResult": {"toolUseId": "t3", "status": "success", "content": [{"text": "x"}]}}
        ),
        MediaDelta("image/png", "QUJD"),
        UsageReported(Usage(input_tokens=1, output_tokens=2, raw={"inputTokens": 1, "outputTokens": 2})),
        ResponseFinished("tool_calls", "tool_use", ("wrong_type",)),
    ]


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'{"message": "The security token included in the request is invalid"}', APIError),
        (b'{"__type": "com.amazon.coral#ThrottlingException", "message": "x"}', errors.RateLimitError),
        (b'{"error": {"type": "overloaded_error"}}', errors.OverloadedError),
        (b'{"output": {}}', ProtocolError),
        (b"[]", ProtocolError),
        (b'{"output": {"message": {"content": []}}}', ProtocolError),
    ],
)
def test_a_document_that_is_no_answer(body: bytes, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        decode_body(API, body)


METRICS: dict[str, Any] = {"metadata": {"metrics": {"latencyMs": 5}}}
COUNTED = metadata(inputTokens=3, outputTokens=4)


@pytest.mark.parametrize(
    "last",
    [
        (stop(), METRICS, COUNTED),
        (METRICS, stop(), COUNTED),
        (stop(), COUNTED, METRICS),
        (COUNTED, stop()),
        (COUNTED, METRICS, stop()),
        (stop(), {"metadata": {"usage": {}}}, COUNTED),
        (stop(), {"metadata": {"usage": {"inputTokens": None}}}, COUNTED),
        (metadata(inputTokens=3), stop(), COUNTED),
        (stop(), metadata(inputTokens=3), metadata(outputTokens=4)),
    ],
)
def test_metadata_without_usage_ends_nothing(last: tuple[dict[str, Any], ...]) -> None:
    body = converse(BEGIN, block_delta(0, text="Hi"), *last)
    for chunks in ([body], [body[at : at + 1] for at in range(len(body))]):
        response = decode_body(API, chunks)
        assert response.usage is not None
        assert (response.usage.input_tokens, response.usage.output_tokens) == (3, 4)
        assert (response.completion, response.finish_reason, response.warnings) == ("Hi", "stop", ())


def test_metadata_without_usage_is_an_end_all_the_same() -> None:
    response = decode_body(API, converse(BEGIN, block_delta(0, text="Hi"), stop(), METRICS))
    assert (response.completion, response.usage, response.warnings) == ("Hi", None, ())
