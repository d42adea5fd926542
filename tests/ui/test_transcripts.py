"""The frames of each protocol, literally, for all parts of answers, and for the ways in which answers end."""

from __future__ import annotations

from typing import Any

import pytest

from lm_deluge.errors import ConfigurationError, DelugeError, RateLimitError, TruncatedError
from lm_deluge.events import (
    Attempt,
    Citation,
    MediaDelta,
    ReasoningDelta,
    RefusalDelta,
    ResponseFinished,
    ResponseStarted,
    RoundStarted,
    TextDelta,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
    ToolProgress,
    ToolResult,
    UsageReported,
)
from lm_deluge.prompt.media import Media
from lm_deluge.prompt.parts import ImagePart, ToolCallPart
from lm_deluge.response import APIResponse, StreamStats
from lm_deluge.ui import DataPart, encode, frame_encoder
from lm_deluge.ui.frame_encoder import UIEvent
from lm_deluge.usage import Usage

START, END = ResponseStarted("resp-1", "gpt-5.4"), ResponseFinished("stop")
USAGE = UsageReported(Usage(input_tokens=3, output_tokens=4, reasoning_tokens=1, cache_read_tokens=2))
IMAGE = Media(media_type="image/png", data=b"png")
CALL = (
    ToolCallStarted(0, "c1", "weather"),
    ToolCallDelta(0, '{"city":'),
    ToolCallDelta(0, '"Rome"}'),
    ToolCallFinished(0, "c1", "weather", '{"city":"Rome"}', {"city": "Rome"}),
)


def lines(data: bytes) -> list[str]:
    """Return the data of each server-sent event."""
    return [frame.removeprefix("data: ") for frame in data.decode().split("\n\n") if frame]


def frames(protocol: Any, events: list[UIEvent], **options: Any) -> list[str]:
    return lines(b"".join(encode(protocol, events, **options)))


# name -> events after the start, frames of vercel-ui after start and start-step, frames of ag-ui after RUN_STARTED
PARTS: dict[str, tuple[list[UIEvent], list[str], list[str]]] = {
    "text": (
        [TextDelta("Hé "), TextDelta(""), TextDelta('"you"')],
        [
            '{"type":"text-start","id":"1"}',
            '{"type":"text-delta","id":"1","delta":"Hé "}',
            '{"type":"text-delta","id":"1","delta":"\\"you\\""}',
            '{"type":"text-end","id":"1"}',
        ],
        [
            '{"type":"TEXT_MESSAGE_START","messageId":"m1","role":"assistant"}',
            '{"type":"TEXT_MESSAGE_CONTENT","messageId":"m1","delta":"Hé "}',
            '{"type":"TEXT_MESSAGE_CONTENT","messageId":"m1","delta":"\\"you\\""}',
            '{"type":"TEXT_MESSAGE_END","messageId":"m1"}',
        ],
    ),
    "reasoning and a refusal": (
        [ReasoningDelta("hm"), RefusalDelta("no")],
        [
            '{"type":"reasoning-start","id":"1"}',
            '{"type":"reasoning-delta","id":"1","delta":"hm"}',
            '{"type":"reasoning-end","id":"1"}',
            '{"type":"text-start","id":"2"}',
            '{"type":"text-delta","id":"2","delta":"no"}',
            '{"type":"text-end","id":"2"}',
        ],
        [
            '{"type":"REASONING_START","messageId":"m1"}',
            '{"type":"REASONING_MESSAGE_START","messageId":"m1","role":"reasoning"}',
            '{"type":"REASONING_MESSAGE_CONTENT","messageId":"m1","delta":"hm"}',
            '{"type":"REASONING_MESSAGE_END","messageId":"m1"}',
            '{"type":"REASONING_END","messageId":"m1"}',
            '{"type":"TEXT_MESSAGE_START","messageId":"m1-2","role":"assistant"}',
            '{"type":"TEXT_MESSAGE_CONTENT","messageId":"m1-2","delta":"no"}',
            '{"type":"TEXT_MESSAGE_END","messageId":"m1-2"}',
        ],
    ),
    "a loop": (
        [
            *CALL,
            ToolProgress("c1", "weather", 0.5),
            ToolResult("c1", "weather", '{"degrees":21}', media=(ImagePart(IMAGE),)),
            RoundStarted(2, "resp-2", "gpt-5.4"),
            TextDelta("21"),
        ],
        [
            '{"type":"tool-input-start","toolCallId":"c1","toolName":"weather","dynamic":true}',
            '{"type":"tool-input-delta","toolCallId":"c1","inputTextDelta":"{\\"city\\":"}',
            '{"type":"tool-input-delta","toolCallId":"c1","inputTextDelta":"\\"Rome\\"}"}',
            (
                '{"type":"tool-input-available","toolCallId":"c1","toolName":"weather","dynamic":true,'
                '"input":{"city":"Rome"}}'
            ),
            '{"type":"tool-output-available","toolCallId":"c1","output":0.5,"preliminary":true}',
            '{"type":"tool-output-available","toolCallId":"c1","output":{"degrees":21}}',
            '{"type":"file","url":"data:image/png;base64,cG5n","mediaType":"image/png"}',
            '{"type":"finish-step"}',
            '{"type":"start-step"}',
            '{"type":"text-start","id":"1"}',
            '{"type":"text-delta","id":"1","delta":"21"}',
            '{"type":"text-end","id":"1"}',
        ],
        [
            '{"type":"TOOL_CALL_START","toolCallId":"c1","toolCallName":"weather","parentMessageId":"m1"}',
            '{"type":"TOOL_CALL_ARGS","toolCallId":"c1","delta":"{\\"city\\":"}',
            '{"type":"TOOL_CALL_ARGS","toolCallId":"c1","delta":"\\"Rome\\"}"}',
            '{"type":"TOOL_CALL_END","toolCallId":"c1"}',
            '{"type":"CUSTOM","name":"tool-progress","value":{"toolCallId":"c1","toolName":"weather","progress":0.5}}',
            '{"type":"TOOL_CALL_RESULT","messageId":"m1-2","toolCallId":"c1","content":"{\\"degrees\\":21}","role":"tool"}',
            '{"type":"CUSTOM","name":"file","value":{"url":"data:image/png;base64,cG5n","mediaType":"image/png"}}',
            '{"type":"STEP_STARTED","stepName":"round 2"}',
            '{"type":"TEXT_MESSAGE_START","messageId":"m1-3","role":"assistant"}',
            '{"type":"TEXT_MESSAGE_CONTENT","messageId":"m1-3","delta":"21"}',
            '{"type":"TEXT_MESSAGE_END","messageId":"m1-3"}',
            '{"type":"STEP_FINISHED","stepName":"round 2"}',
        ],
    ),
    "a failed tool of an earlier answer": (
        [ToolResult("c0", "weather", "no such city", "ValueError: x")],
        [
            '{"type":"tool-input-start","toolCallId":"c0","toolName":"weather","dynamic":true}',
            '{"type":"tool-input-available","toolCallId":"c0","toolName":"weather","dynamic":true,"input":{}}',
            '{"type":"tool-output-error","toolCallId":"c0","errorText":"no such city"}',
        ],
        [
            '{"type":"TOOL_CALL_START","toolCallId":"c0","toolCallName":"weather","parentMessageId":"m1"}',
            '{"type":"TOOL_CALL_END","toolCallId":"c0"}',
            '{"type":"TOOL_CALL_RESULT","messageId":"m1-2","toolCallId":"c0","content":"no such city","role":"tool"}',
        ],
    ),
    "arguments that are no JSON": (
        [ToolCallFinished(0, "c1", "weather", "{", None, "cut off")],
        [
            '{"type":"tool-input-start","toolCallId":"c1","toolName":"weather","dynamic":true}',
            (
                '{"type":"tool-input-error","toolCallId":"c1","toolName":"weather","dynamic":true,"input":"{",'
                '"errorText":"cut off"}'
            ),
        ],
        [
            '{"type":"TOOL_CALL_START","toolCallId":"c1","toolCallName":"weather","parentMessageId":"m1"}',
            '{"type":"TOOL_CALL_ARGS","toolCallId":"c1","delta":"{"}',
            '{"type":"TOOL_CALL_END","toolCallId":"c1"}',
        ],
    ),
    "sources and media": (
        [
            Citation("https://a.test", "A"),
            Citation("https://a.test", "A"),
            Citation(None, "Report"),
            MediaDelta("image/png", "cG5n"),
            MediaDelta("audio/wav", "UklG", transcript="la"),
            MediaDelta("audio/wav", "Rg=="),
        ],
        [
            '{"type":"source-url","sourceId":"source-1","url":"https://a.test","title":"A"}',
            '{"type":"source-document","sourceId":"source-2","mediaType":"text/plain","title":"Report"}',
            '{"type":"file","url":"data:image/png;base64,cG5n","mediaType":"image/png"}',
            '{"type":"text-start","id":"1"}',
            '{"type":"text-delta","id":"1","delta":"la"}',
            '{"type":"text-end","id":"1"}',
            '{"type":"file","url":"data:audio/wav;base64,UklGRg==","mediaType":"audio/wav"}',
        ],
        [
            '{"type":"CUSTOM","name":"source","value":{"id":"source-1","url":"https://a.test","title":"A"}}',
            '{"type":"CUSTOM","name":"source","value":{"id":"source-2","title":"Report"}}',
            '{"type":"CUSTOM","name":"file","value":{"url":"data:image/png;base64,cG5n","mediaType":"image/png"}}',
            '{"type":"TEXT_MESSAGE_START","messageId":"m1","role":"assistant"}',
            '{"type":"TEXT_MESSAGE_CONTENT","messageId":"m1","delta":"la"}',
            '{"type":"TEXT_MESSAGE_END","messageId":"m1"}',
            '{"type":"CUSTOM","name":"file","value":{"url":"data:audio/wav;base64,UklGRg==","mediaType":"audio/wav"}}',
        ],
    ),
    "a restart": (
        [TextDelta("no"), Attempt(2, "ServerError", "secret", 0.5, "m-2"), TextDelta("yes")],
        [
            '{"type":"text-start","id":"1"}',
            '{"type":"text-delta","id":"1","delta":"no"}',
            '{"type":"reset-step"}',
            (
                '{"type":"data-attempt","transient":true,"data":{"number":2,"error":"ServerError","waitS":0.5,'
                '"model":"m-2","continues":false}}'
            ),
            '{"type":"text-start","id":"2"}',
            '{"type":"text-delta","id":"2","delta":"yes"}',
            '{"type":"text-end","id":"2"}',
        ],
        [
            '{"type":"TEXT_MESSAGE_START","messageId":"m1","role":"assistant"}',
            '{"type":"TEXT_MESSAGE_CONTENT","messageId":"m1","delta":"no"}',
            '{"type":"TEXT_MESSAGE_END","messageId":"m1"}',
            (
                '{"type":"CUSTOM","name":"attempt","value":{"number":2,"error":"ServerError","waitS":0.5,"model":"m-2",'
                '"continues":false,"discards":["m1"]}}'
            ),
            '{"type":"TEXT_MESSAGE_START","messageId":"m1-2","role":"assistant"}',
            '{"type":"TEXT_MESSAGE_CONTENT","messageId":"m1-2","delta":"yes"}',
            '{"type":"TEXT_MESSAGE_END","messageId":"m1-2"}',
        ],
    ),
    "an attempt that goes on, and data": (
        [
            TextDelta("a"),
            Attempt(2, "TimeoutError", "secret", 0.0, "m-1", goes_on=True),
            TextDelta("b"),
            DataPart("field", {"path": ["x"], "value": 1}, "x"),
        ],
        [
            '{"type":"text-start","id":"1"}',
            '{"type":"text-delta","id":"1","delta":"a"}',
            (
                '{"type":"data-attempt","transient":true,"data":{"number":2,"error":"TimeoutError","waitS":0.0,'
                '"model":"m-1","continues":true}}'
            ),
            '{"type":"text-delta","id":"1","delta":"b"}',
            '{"type":"data-field","id":"x","data":{"path":["x"],"value":1}}',
            '{"type":"text-end","id":"1"}',
        ],
        [
            '{"type":"TEXT_MESSAGE_START","messageId":"m1","role":"assistant"}',
            '{"type":"TEXT_MESSAGE_CONTENT","messageId":"m1","delta":"a"}',
            (
                '{"type":"CUSTOM","name":"attempt","value":{"number":2,"error":"TimeoutError","waitS":0.0,"model":"m-1",'
                '"continues":true}}'
            ),
            '{"type":"TEXT_MESSAGE_CONTENT","messageId":"m1","delta":"b"}',
            '{"type":"CUSTOM","name":"field","value":{"path":["x"],"value":1}}',
            '{"type":"TEXT_MESSAGE_END","messageId":"m1"}',
        ],
    ),
}


@pytest.mark.parametrize("name", PARTS)
def test_parts_of_vercel_ui(name: str) -> None:
    events, expected, _ = PARTS[name]
    assert frames("vercel-ui", [START, *events, END], message_id="m1") == [
        '{"type":"start","messageId":"m1"}',
        '{"type":"start-step"}',
        *expected,
        '{"type":"finish-step"}',
        '{"type":"finish","finishReason":"stop","messageMetadata":{"model":"gpt-5.4","finishReason":"stop"}}',
        "[DONE]",
    ]


@pytest.mark.parametrize("name", PARTS)
def test_parts_of_ag_ui(name: str) -> None:
    events, _, expected = PARTS[name]
    assert frames("ag-ui", [START, *events, END], message_id="m1", thread_id="t1", run_id="r1") == [
        '{"type":"RUN_STARTED","threadId":"t1","runId":"r1"}',
        *expected,
        (
            '{"type":"RUN_FINISHED","threadId":"t1","runId":"r1","result":{"model":"gpt-5.4","finishReason":"stop"},'
            '"outcome":{"type":"success"}}'
        ),
    ]


def test_a_static_tool_and_one_with_free_text() -> None:
    call = (ToolCallStarted(0, "c1", "shell", custom=True), ToolCallFinished(0, "c1", "shell", "ls", custom=True))
    assert frames("vercel-ui", [START, *call, END], static_tools=["shell"])[2:4] == [
        '{"type":"tool-input-start","toolCallId":"c1","toolName":"shell","inputEncoding":"text"}',
        '{"type":"tool-input-available","toolCallId":"c1","toolName":"shell","input":"ls"}',
    ]


def test_a_restart_takes_back_the_messages_of_its_round_only() -> None:
    asked = [{"id": "u1", "role": "user", "content": "Hi"}]
    events = [*CALL, ToolResult("c1", "weather", "21"), RoundStarted(2), ReasoningDelta("so"), TextDelta("n")]
    restart = Attempt(2, "ServerError", "", 0.0, "m")
    found = frames(
        "ag-ui", [START, TextDelta("A"), *events, restart, TextDelta("y"), END], message_id="m", messages=asked
    )
    assert [line for line in found if "SNAPSHOT" in line] == [
        (
            '{"type":"MESSAGES_SNAPSHOT","messages":[{"id":"u1","role":"user","content":"Hi"},'
            '{"id":"m","role":"assistant","content":"A","toolCalls":[{"id":"c1","type":"function","function":'
            '{"name":"weather","arguments":"{\\"city\\":\\"Rome\\"}"}}]},'
            '{"id":"m-2","role":"tool","toolCallId":"c1","content":"21"},{"id":"m-3","role":"reasoning","content":""}]}'
        )
    ]


ANSWER = APIResponse(
    model_internal="gpt-5.4",
    usage=USAGE.usage,
    cost=0.25,
    finish_reason="stop",
    stats=StreamStats(attempts=1, duration=2.0, time_to_first_token=0.5),
)
METADATA = (
    '{"model":"gpt-5.4","finishReason":"stop","usage":{"inputTokens":3,"outputTokens":4,"totalTokens":7,'
    '"reasoningTokens":1,"cachedInputTokens":2},"cost":0.25,"firstTokenS":0.5,"durationS":2.0,"attempts":1}'
)
TOKENS = (
    '"usage":[{"model":"gpt-5.4","inputTokens":3,"outputTokens":4,"totalTokens":7,"reasoningTokens":1,'
    '"cachedInputTokens":2}]}'
)
LIMITED = RateLimitError("too many requests", provider="openai", request_id="req-1")
STOPPED = APIResponse(model_internal="gpt-5.4", usage=USAGE.usage)
PAUSED = APIResponse(finish_reason="pause", pending=(ToolCallPart("c1", "weather"),))


# name -> how the answer ends, last frames of vercel-ui, of ag-ui, of openai-chat
ENDS: dict[str, tuple[Any, list[str], list[str], str]] = {
    "complete": (
        ANSWER,
        ['{"type":"finish-step"}', f'{{"type":"finish","finishReason":"stop","messageMetadata":{METADATA}}}'],
        [
            f'{{"type":"RUN_FINISHED","threadId":"t","runId":"r","result":{METADATA},"outcome":{{"type":"success"}},'
            + TOKENS
        ],
        "[DONE]",
    ),
    "stopped": (
        STOPPED,
        [
            (
                '{"type":"message-metadata","messageMetadata":{"model":"gpt-5.4","usage":{"inputTokens":3,'
                '"outputTokens":4,"totalTokens":7,"reasoningTokens":1,"cachedInputTokens":2}}}'
            ),
            '{"type":"abort","reason":"the answer was stopped"}',
        ],
        ['{"type":"RUN_FINISHED","threadId":"t","runId":"r","outcome":{"type":"cancelled"},' + TOKENS],
        '{"error":{"message":"the answer was stopped","type":"stopped","param":null,"code":"stopped"}}',
    ),
    "paused": (
        PAUSED,
        [
            '{"type":"tool-approval-request","approvalId":"c1","toolCallId":"c1"}',
            '{"type":"finish-step"}',
            '{"type":"finish","finishReason":"tool-calls","messageMetadata":{"finishReason":"pause"}}',
        ],
        [
            (
                '{"type":"RUN_FINISHED","threadId":"t","runId":"r","result":{"finishReason":"pause"},"outcome":'
                '{"type":"interrupt","interrupts":[{"id":"c1","reason":"tool_call","toolCallId":"c1","responseSchema":'
                '{"type":"object","properties":{"approved":{"type":"boolean"}},"required":["approved"]}}]}}'
            )
        ],
        "[DONE]",
    ),
    "an error of ours": (
        LIMITED,
        [
            '{"type":"data-error","transient":true,"data":{"type":"RateLimitError","retryable":true}}',
            '{"type":"error","errorText":"Too many requests."}',
        ],
        ['{"type":"RUN_ERROR","message":"Too many requests.","code":"RateLimitError"}'],
        '{"error":{"message":"Too many requests.","type":"api_error","param":null,"code":"RateLimitError"}}',
    ),
    "another error": (
        ValueError("a secret"),
        [
            '{"type":"data-error","transient":true,"data":{"type":"InternalError","retryable":false}}',
            '{"type":"error","errorText":"The server failed."}',
        ],
        ['{"type":"RUN_ERROR","message":"The server failed.","code":"InternalError"}'],
        '{"error":{"message":"The server failed.","type":"api_error","param":null,"code":"internal_error"}}',
    ),
    "no end": (
        None,
        [
            '{"type":"data-error","transient":true,"data":{"type":"TruncatedError","retryable":true}}',
            '{"type":"error","errorText":"The answer ended before it was complete."}',
        ],
        ['{"type":"RUN_ERROR","message":"The answer ended before it was complete.","code":"TruncatedError"}'],
        (
            '{"error":{"message":"The answer ended before it was complete.","type":"api_error","param":null,'
            '"code":"upstream_truncated"}}'
        ),
    ),
}


@pytest.mark.parametrize("name", ENDS)
def test_ends(name: str) -> None:
    outcome, vercel, ag_ui, openai = ENDS[name]
    assert lines(frame_encoder("vercel-ui").end(outcome)) == [*vercel, "[DONE]"]
    assert lines(frame_encoder("ag-ui", thread_id="t", run_id="r").end(outcome)) == ag_ui
    assert lines(frame_encoder("openai-chat").end(outcome))[-1] == openai
    encoder = frame_encoder("text")
    assert encoder.end(outcome) == b""
    assert encoder.outcome is not None
    assert encoder.outcome.kind == {"complete": "complete", "paused": "complete", "stopped": "stopped"}.get(
        name, "failed"
    )


def test_openai_chat() -> None:
    calls = [*CALL, ToolResult("c1", "weather", "21"), RoundStarted(2, "resp-2", "gpt-5.4")]
    own = [ToolCallStarted(1, "c2", "save"), ToolCallFinished(1, "c2", "save", "{}", {})]
    end = ResponseFinished("tool_calls", "tool_use")
    events = [START, ReasoningDelta("hm"), TextDelta("A"), *calls, *own, TextDelta("B"), DataPart("x", 1), USAGE, end]
    found = frames("openai-chat", events, created=1, message_id="chatcmpl-1")
    head = (
        '{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"gpt-5.4","system_fingerprint":null,'
        '"choices":['
    )
    assert all(line.startswith(head) for line in found[:-1])
    deltas = [line.removeprefix(head).partition(',"logprobs"')[0].removeprefix('{"index":0,"delta":') for line in found]
    assert deltas == [
        '{"role":"assistant","content":"","refusal":null}',
        '{"reasoning_content":"hm"}',
        '{"content":"A"}',
        '{"content":"\\n\\n"}',
        '{"content":"B"}',
        '{"tool_calls":[{"index":1,"id":"c2","type":"function","function":{"name":"save","arguments":""}}]}',
        '{"tool_calls":[{"index":1,"function":{"arguments":"{}"}}]}',
        "{}",
        found[-2].removeprefix(head),
        "[DONE]",
    ]
    assert '"finish_reason":"tool_calls"' in found[-3]
    assert '"total_tokens":7' in found[-2]


def test_text() -> None:
    events = [START, ReasoningDelta("hm"), TextDelta("Hé"), *CALL, RoundStarted(2), RefusalDelta(" no"), USAGE, END]
    assert b"".join(encode("text", events)) == "Hé\n\n no".encode()


@pytest.mark.parametrize("protocol", ["openai-chat", "text"])
def test_a_restart_after_text_is_an_error_where_text_cannot_be_taken_back(protocol: Any) -> None:
    encoder = frame_encoder(protocol)
    encoder.frames([START, Attempt(2, "ServerError", "", 0.0, "m")])
    assert not encoder.is_over
    data = encoder.frames([TextDelta("a"), Attempt(3, "ServerError", "", 0.0, "m"), TextDelta("b")])
    assert encoder.is_over
    assert b"b" not in data.partition(b"error")[0].replace(b'"object"', b"")[-1:]
    assert encoder.frames([TextDelta("b")]) == encoder.end(ANSWER) == b""
    with pytest.raises(TruncatedError) if protocol == "text" else pytest.MonkeyPatch.context():
        list(encode(protocol, [START, TextDelta("a"), Attempt(2, "ServerError", "", 0.0, "m")]))


@pytest.mark.parametrize("protocol", ["vercel-ui", "ag-ui"])
def test_the_pieces_of_one_read_are_one_frame(protocol: Any) -> None:
    encoder = frame_encoder(protocol)
    encoder.frames([START, TextDelta("a")])
    data = encoder.frames([TextDelta("b"), TextDelta("c")])
    assert data.count(b"data: ") == 1
    assert b'"delta":"bc"' in data


@pytest.mark.parametrize("protocol", ["vercel-ui", "ag-ui", "openai-chat"])
def test_the_application_words_its_errors(protocol: Any) -> None:
    assert b"Sorry: ServerTrouble" in frame_encoder(protocol, error_text=lambda error: f"Sorry: {error}").end(
        DelugeError("ServerTrouble")
    )

    def fail(error: BaseException) -> str:
        raise ValueError

    assert b"The server failed." in frame_encoder(protocol, error_text=fail).end(LIMITED)


def test_values_that_are_no_json() -> None:
    class Odd:
        def __repr__(self) -> str:
            return "odd"

    class Raw(str):
        __slots__ = ()

    data = [DataPart("x", Odd()), DataPart("x", {"a": {1}, "b": 2**70}), DataPart("x", [Raw("\ud83d")])]
    found = frames("vercel-ui", [START, *data, TextDelta("\ud83d!"), END])
    assert found[2:5] == [
        '{"type":"data-x","data":"odd"}',
        '{"type":"data-x","data":{"a":[1],"b":1180591620717411303424}}',
        '{"type": "data-x", "data": ["?"]}',
    ]
    assert '"delta":"?!"' in found[6]


def test_a_value_that_is_no_event_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"a value of type str\. Yield the events"):
        list(encode("vercel-ui", ["text"]))  # type: ignore[list-item]
    with pytest.raises(ConfigurationError, match=r"no protocol 'sse'\. The protocols are vercel-ui, ag-ui"):
        encode("sse", [])  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="does not take these options"):
        encode("text", [], static_tools=["x"])
