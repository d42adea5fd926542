"""Encode responses of Converse as literal messages, and parse or refuse its requests."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from botocore.eventstream import EventStreamBuffer

from lm_deluge import errors
from lm_deluge.adapters.adapter import Call
from lm_deluge.adapters.catalog import find_adapter
from lm_deluge.config import SamplingParams
from lm_deluge.encoders.catalog import find_encoder
from lm_deluge.encoders.encoder import ParsedRequest
from lm_deluge.errors import BadRequestError
from lm_deluge.events import (
    Event,
    MediaDelta,
    ProviderPart,
    RefusalDelta,
    ResponseFinished,
    ResponseStarted,
    TextDelta,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
    UsageReported,
)
from lm_deluge.models.rows import ModelRow, ProviderRow
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import (
    AudioPart,
    FilePart,
    ImagePart,
    ProviderDataPart,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from lm_deluge.prompt.tool import ProviderTool, Tool
from lm_deluge.testing.decode import decode_body
from lm_deluge.usage import Usage

API = "bedrock-converse"
ENCODER = find_encoder(API)
PNG = b"\x89PNG\r\n\x1a\n rest"


def written(*events: Event) -> list[dict[str, Any]]:
    """Return the events of a stream by name, as botocore parses them."""
    buffer = EventStreamBuffer()
    buffer.add_data(b"".join(ENCODER.encode_stream(events)))
    return [{message.headers[":event-type"]: json.loads(message.payload)} for message in buffer]


def parsed(model: str = "some.model", **fields: Any) -> ParsedRequest:
    body = {"messages": [{"role": "user", "content": [{"text": "Hi"}]}], **fields}
    return ENCODER.parse_request(json.dumps(body).encode(), model=model, is_streamed=True)


def parts_of(*content: Any, role: str = "user") -> list[Message]:
    return list(parsed(messages=[{"role": role, "content": list(content)}]).conversation)


def test_a_stream_literally() -> None:
    usage = Usage(input_tokens=9, output_tokens=2, cache_read_tokens=4, cache_write_tokens=1)
    assert written(
        ResponseStarted("id", "m"),
        TextDelta("a"),
        TextDelta(""),
        TextDelta("b"),
        ToolCallStarted(0, "t1", "f"),
        ToolCallDelta(0, "{}"),
        ToolCallFinished(0, "t1", "f", "{}", {}),
        UsageReported(usage),
        ResponseFinished("tool_calls", "tool_calls"),
    ) == [
        {"messageStart": {"role": "assistant"}},
        {"contentBlockDelta": {"delta": {"text": "a"}, "contentBlockIndex": 0}},
        {"contentBlockDelta": {"delta": {"text": "b"}, "contentBlockIndex": 0}},
        {"contentBlockStop": {"contentBlockIndex": 0}},
        {"contentBlockStart": {"start": {"toolUse": {"toolUseId": "t1", "name": "f"}}, "contentBlockIndex": 1}},
        {"contentBlockDelta": {"delta": {"toolUse": {"input": "{}"}}, "contentBlockIndex": 1}},
        {"contentBlockStop": {"contentBlockIndex": 1}},
        {"messageStop": {"stopReason": "tool_use"}},
        {
            "metadata": {
                "usage": {
                    "inputTokens": 4,
                    "outputTokens": 2,
                    "totalTokens": 11,
                    "cacheReadInputTokens": 4,
                    "cacheWriteInputTokens": 1,
                },
                "metrics": {"latencyMs": 0},
            }
        },
    ]


@pytest.mark.parametrize(
    ("reason", "raw", "word"),
    [
        ("stop", None, "end_turn"),
        ("stop", "stop_sequence", "stop_sequence"),
        ("stop", "stop", "end_turn"),
        ("length", None, "max_tokens"),
        ("content_filter", "guardrail_intervened", "guardrail_intervened"),
        ("refusal", None, "content_filtered"),
        ("pause", "pause_turn", "end_turn"),
        ("error", None, "malformed_model_output"),
    ],
)
def test_stop_reasons(reason: Any, raw: str | None, word: str) -> None:
    stop = written(TextDelta("a"), ResponseFinished(reason, raw))[-2]
    assert stop == {"messageStop": {"stopReason": word}}


def test_events_that_the_api_cannot_express_are_left_out() -> None:
    events = [
        ResponseStarted(),
        RefusalDelta("No."),
        MediaDelta("audio/pcm", "QUJD"),
        ProviderPart("elsewhere", "server_tool", ["no block"]),
        ProviderPart("elsewhere", "reasoning_details", []),
        ProviderPart("elsewhere", "redacted_reasoning", {"a": 1}),
        ResponseFinished("refusal"),
    ]
    for body in (b"".join(ENCODER.encode_stream(events)), ENCODER.encode_response(events)):
        response = decode_body(API, body)
        assert [type(part) for part in response.content.parts] == [TextPart]
        assert response.completion == "No."


def test_calls_that_came_whole_and_calls_that_come_mixed() -> None:
    whole = ToolCallFinished(0, "t0", "f", '{"a":1}', {"a": 1})
    mixed = [
        ToolCallStarted(0, "t0", "f"),
        ToolCallStarted(1, "t1", "g"),
        ToolCallDelta(1, "{}"),
        ToolCallDelta(0, '{"a":1}'),
        whole,
        ToolCallFinished(1, "t1", "g", "{}", {}),
    ]
    for events in ([whole], mixed):
        body = b"".join(ENCODER.encode_stream([*events, ResponseFinished("tool_calls")]))
        call = decode_body(API, body).tool_calls[0]
        assert (call.id, call.arguments) == ("t0", {"a": 1})


def test_errors() -> None:
    error = errors.RateLimitError("Slow down", status_code=429)
    assert json.loads(ENCODER.encode_error(error)) == {"__type": "ThrottlingException", "message": "Slow down"}
    own = errors.ServerError("x", code="modelErrorException")
    assert json.loads(ENCODER.encode_error(own))["__type"] == "ModelErrorException"
    for each, name in {
        error: "throttlingException",
        errors.PermissionDeniedError("x"): "modelStreamErrorException",
        errors.ServerError("x", code="ModelTimeoutException"): "modelTimeoutException",
    }.items():
        buffer = EventStreamBuffer()
        buffer.add_data(ENCODER.encode_stream_error(each))
        (message,) = buffer
        assert message.headers[":message-type"] == "exception"
        assert message.headers[":exception-type"] == name


def test_messages_of_the_user() -> None:
    png = {"format": "png", "source": {"bytes": base64.b64encode(PNG).decode()}}
    result = {"toolUseId": "t1", "status": "error", "content": [{"json": {"a": 1}}, {"text": "x"}, {"image": png}]}
    messages = [
        {"role": "assistant", "content": [{"toolUse": {"toolUseId": "t1", "name": "f", "input": {}}}]},
        {"role": "user", "content": [{"toolResult": result}, {"text": "Hi"}, {"image": png}]},
    ]
    _, called, told = parsed(messages=messages, toolConfig={"tools": [SPEC]}).conversation
    (found,) = called.parts
    assert isinstance(found, ToolResultPart)
    assert (called.role, found.content, found.is_error, len(found.media)) == ("tool", '{"a":1}x', True, 1)
    assert (told.role, told.parts[0]) == ("user", TextPart("Hi"))
    assert isinstance(told.parts[1], ImagePart)


def test_media() -> None:
    data = {"bytes": "QUJD"}
    (message,) = parts_of(
        {"document": {"format": "md", "name": "notes", "source": data}},
        {"video": {"format": "three_gp", "source": data}},
        {"audio": {"format": "mp3", "source": data}},
        {"image": {"format": "jpeg", "source": {"s3Location": {"uri": "s3://b/k.jpg"}}}},
        {"document": {"name": "d", "source": {"text": "x"}, "citations": {"enabled": True}}},
        {"video": {"format": "mp4", "source": {"s3Location": {"uri": "s3://b/k", "bucketOwner": "1"}}}},
        {"searchResult": {"source": "s", "title": "t", "content": []}},
    )
    kinds = [FilePart, FilePart, AudioPart, ImagePart, ProviderDataPart, ProviderDataPart, ProviderDataPart]
    assert [type(part) for part in message.parts] == kinds
    types = [part.media.media_type for part in message.parts[:4]]  # type: ignore[union-attr]
    assert types == ["text/markdown", "video/3gpp", "audio/mpeg", "image/jpeg"]


def test_results_that_no_part_can_hold() -> None:
    found = {"searchResult": {"source": "s", "title": "t", "content": [{"text": "x"}]}}
    block = {"toolResult": {"toolUseId": "t", "content": [{"text": "a"}, found]}}
    (message,) = parts_of(block)
    assert message == Message("user", (ProviderDataPart(API, "content_block", block),))
    assert again(messages=[{"role": "user", "content": [block]}])["messages"][0]["content"] == [block]


def test_messages_of_the_model() -> None:
    content = [
        {"reasoningContent": {"reasoningText": {"text": "Hm.", "signature": "sig"}}},
        {"reasoningContent": {"reasoningText": {"text": "", "signature": "alone"}}},
        {"reasoningContent": {"redactedContent": "QUJD"}},
        {"citationsContent": {"content": [{"text": "a"}], "citations": []}},
        {"toolUse": {"toolUseId": "t1", "name": "f", "input": {"a": 1}}},
        {"toolUse": {"toolUseId": "t2", "name": "s", "type": "server_tool_use", "input": {}}},
        {"toolResult": {"toolUseId": "t2", "content": []}},
    ]
    result = {"toolResult": {"toolUseId": "t1", "content": [{"text": "1"}]}}
    messages = [{"role": "assistant", "content": content}, {"role": "user", "content": [result]}]
    message, _ = parsed(messages=messages, toolConfig={"tools": [SPEC]}).conversation
    assert message.parts[:5] == (
        ReasoningPart("Hm."),
        ProviderDataPart(API, "reasoning_signature", "sig"),
        ProviderDataPart(API, "reasoning_signature", "alone"),
        ProviderDataPart(API, "redacted_reasoning", "QUJD"),
        TextPart("a"),
    )
    assert message.parts[5] == ToolCallPart("t1", "f", '{"a":1}', {"a": 1})
    assert [part.kind for part in message.parts[6:]] == ["server_tool"] * 2  # type: ignore[union-attr]


def test_the_system() -> None:
    guard = {"guardContent": {"text": {"text": "x"}}}
    said = {"role": "system", "content": [{"text": "Rhyme."}, {"toolAddition": {"tool": {"name": "f"}}}]}
    user = {"role": "user", "content": [{"text": "Hi"}]}
    found = parsed(system=[{"text": "Be brief."}, guard, {"cachePoint": {"type": "default"}}], messages=[user, said])
    assert [message.role for message in found.conversation] == ["system", "system", "user", "system", "system"]
    assert found.cache == "system_and_tools"


def test_parameters() -> None:
    found = parsed(
        inferenceConfig={"maxTokens": 9, "temperature": 1, "topP": 0.5, "stopSequences": ["|"]},
        serviceTier={"type": "flex"},
        outputConfig={"effort": "low"},
        toolConfig={
            "tools": [
                {"toolSpec": {"name": "f", "inputSchema": {"json": {"type": "object"}}, "strict": True}},
                {"systemTool": {"name": "nova_grounding"}},
            ],
            "toolChoice": {"any": {}},
        },
        guardrailConfig={"guardrailIdentifier": "g"},
    )
    assert found.params == SamplingParams(
        max_new_tokens=9,
        temperature=1,
        top_p=0.5,
        stop=["|"],
        service_tier="flex",
        reasoning_effort="low",
        tool_choice="required",
    )
    tool = Tool(name="f", parameters={"type": "object"}, strict=True)
    assert found.tools == (tool, ProviderTool({"systemTool": {"name": "nova_grounding"}}))
    assert found.extra == {"guardrailConfig": {"guardrailIdentifier": "g"}}
    assert (found.is_streamed, found.wants_usage, found.model) == (True, True, "some.model")
    assert parsed(toolConfig={"tools": [], "toolChoice": {"tool": {"name": "f"}}}).params.tool_choice == "f"


@pytest.mark.parametrize(
    ("more", "effort", "is_kept"),
    [
        ({"thinking": {"type": "disabled"}}, "none", False),
        ({"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "high"}}, "high", False),
        ({"reasoning_effort": "low"}, "low", False),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, None, True),
        ({"reasoning_effort": "low", "top_k": 1}, None, True),
    ],
)
def test_efforts(more: dict[str, Any], effort: str | None, is_kept: bool) -> None:
    found = parsed(additionalModelRequestFields=more)
    assert found.params.reasoning_effort == effort
    assert ("additionalModelRequestFields" in found.extra) is is_kept


@pytest.mark.parametrize(
    ("marked", "word"),
    [([False, False], None), ([False, True], "last_user_message"), ([True, True], "last_2_user_messages")],
)
def test_marks_of_the_cache(marked: list[bool], word: str | None) -> None:
    point = {"cachePoint": {"type": "default"}}
    messages = [{"role": "user", "content": [{"text": "x"}, *([point] if each else [])]} for each in marked]
    assert parsed(messages=messages).cache == word
    assert parsed(toolConfig={"tools": [point]}).cache == "tools_only"


def again(**fields: Any) -> dict[str, Any]:
    """Return the body that the adapter builds from the request that the encoder parsed."""
    found = parsed(**fields)
    row = ProviderRow(id=API, otel_name=API, adapter=API, base_url="https://a.test", prompt_cache="explicit")
    call = Call(
        model=ModelRow(id="m", name="m", provider=API),
        provider=row,
        base_url=row.base_url,
        conversation=found.conversation,
        tools=found.tools,
        cache=found.cache,
    )
    body: dict[str, Any] = json.loads(find_adapter(API).build_request(call).body)
    return body


POINT = {"cachePoint": {"type": "default"}}
LONG = {"cachePoint": {"type": "default", "ttl": "1h"}}
SPEC = {"toolSpec": {"name": "f", "inputSchema": {"json": {"type": "object"}}}}
RESULT = {"toolResult": {"toolUseId": "t", "content": [{"text": "x"}]}}


def with_result(*after: Any) -> dict[str, Any]:
    called = {"role": "assistant", "content": [{"toolUse": {"toolUseId": "t", "name": "f", "input": {}}}]}
    return {"messages": [called, {"role": "user", "content": [RESULT, *after]}], "toolConfig": {"tools": [SPEC]}}


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"system": [{"text": "a"}, POINT]}, "system_and_tools"),
        ({"system": [{"text": "a"}, POINT], "toolConfig": {"tools": [SPEC, POINT]}}, "system_and_tools"),
        ({"system": [{"text": "a"}], "toolConfig": {"tools": [SPEC, POINT]}}, "tools_only"),
        ({"system": [{"text": "a"}, POINT], "toolConfig": {"tools": [SPEC]}}, None),
        ({"system": [{"text": "a"}, LONG]}, None),
        ({"system": [{"text": "a"}, POINT, {"text": "b"}]}, None),
        ({"messages": [{"role": "user", "content": [{"text": "a"}, POINT, {"text": "b"}]}]}, None),
        ({"messages": [{"role": "user", "content": [{"text": "a"}, LONG]}]}, None),
        (with_result(POINT), "last_user_message"),
        (with_result(POINT, {"text": "b"}), None),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"text": "a"}, POINT]},
                    {"role": "assistant", "content": [{"text": "b"}, POINT]},
                    {"role": "user", "content": [{"text": "c"}]},
                ]
            },
            None,
        ),
        ({"system": [{"text": "a"}, POINT], "messages": [{"role": "user", "content": [{"text": "a"}, POINT]}]}, None),
    ],
)
def test_marks_of_the_cache_are_written_again_where_they_were(fields: dict[str, Any], word: str | None) -> None:
    assert parsed(**fields).cache == word
    body = {"messages": [{"role": "user", "content": [{"text": "Hi"}]}], **fields}
    assert again(**fields) == body


BAD: list[dict[str, Any]] = [
    {"messages": None},
    {"messages": []},
    {"messages": [5]},
    {"messages": [{"role": "robot", "content": []}]},
    {"messages": [{"role": "user", "content": "text"}]},
    {"messages": [{"role": "user", "content": [{}]}]},
    {"messages": [{"role": "user", "content": [{"text": "a", "image": {}}]}]},
    {"messages": [{"role": "user", "content": [{"text": 5}]}]},
    {"messages": [{"role": "user", "content": [{"image": {"format": "png", "source": {"bytes": "!"}}}]}]},
    {"messages": [{"role": "user", "content": [{"image": {"format": "png", "source": {"bytes": "QUJD"}}}]}]},
    {"messages": [{"role": "user", "content": [{"toolResult": {"content": [{"audio": {}}]}}]}]},
    {"messages": [{"role": "user", "content": [{"toolResult": {"content": [{"text": "x"}]}}]}]},
    {"messages": [{"role": "assistant", "content": [{"toolUse": {"name": "f"}}]}]},
    {"messages": [{"role": "assistant", "content": [{"reasoningContent": {}}]}]},
    {"system": "text"},
    {"system": [5]},
    {"inferenceConfig": {"temperature": 7}},
    {"inferenceConfig": {"maxTokens": "9"}},
    {"toolConfig": {"tools": [{"toolSpec": {"name": "no name!", "inputSchema": {"json": {}}}}]}},
    {"toolConfig": {"tools": [5]}},
    {"outputConfig": {"textFormat": {"structure": {"jsonSchema": {"schema": "{"}}}}},
    {"outputConfig": {"textFormat": {"structure": {"jsonSchema": {"schema": "[]"}}}}},
]


@pytest.mark.parametrize("fields", BAD)
def test_malformed_requests_are_bad_requests(fields: dict[str, Any]) -> None:
    with pytest.raises(BadRequestError) as caught:
        parsed(**fields)
    assert (caught.value.status_code, caught.value.code) == (400, "ValidationException")
