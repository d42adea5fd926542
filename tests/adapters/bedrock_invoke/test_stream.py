"""Streams and complete responses of the native API by model family: literal chunks and their events."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from grammar import check_grammar
from lm_deluge import errors
from lm_deluge.errors import APIError, ProtocolError, TruncatedError
from lm_deluge.events import (
    Citation,
    Event,
    ProviderPart,
    ReasoningDelta,
    ResponseFinished,
    ResponseStarted,
    TextDelta,
    ToolCallFinished,
    UsageReported,
)
from lm_deluge.response import APIResponse
from lm_deluge.testing.decode import decode_body, decode_events
from lm_deluge.usage import Usage
from samples.bedrock_bytes import chunk, chunks, event, exception

API = "bedrock-invoke"
COUNTS = {"inputTokenCount": 5, "outputTokenCount": 2, "invocationLatency": 9, "firstByteLatency": 8}
METRICS = {"amazon-bedrock-invocationMetrics": COUNTS}


def read(*pieces: Any) -> list[Event]:
    events = list(decode_events(API, chunks(*pieces)))
    check_grammar(events)
    return events


def answer(*pieces: Any) -> APIResponse:
    return decode_body(API, chunks(*pieces))


def test_titan() -> None:
    assert read(
        {"outputText": "Hé", "index": 0, "inputTextTokenCount": 5},
        {"outputText": "llo", "index": 0.0, "totalOutputTextTokenCount": 2.0, "completionReason": "FINISH", **METRICS},
    ) == [
        ResponseStarted(),
        TextDelta("Hé"),
        TextDelta("llo"),
        UsageReported(Usage(input_tokens=5, output_tokens=2, raw=COUNTS)),
        ResponseFinished("stop", "FINISH"),
    ]


def test_a_guardrail_that_blocks_leaves_no_reason() -> None:
    body = {"outputText": "Blocked", "totalOutputTextTokenCount": 3.0, "amazon-bedrock-guardrailAction": "INTERVENED"}
    response = answer(body)
    assert (response.completion, response.usage, response.warnings) == ("Blocked", None, ())
    assert (response.finish_reason, response.raw_finish_reason) == ("content_filter", None)
    masked = answer({**body, "completionReason": "FINISH", **METRICS})
    assert masked.finish_reason == "stop"


@pytest.mark.parametrize(
    ("pieces", "reason", "word"),
    [
        ([{"generation": "a", "stop_reason": None}, {"generation": "", "stop_reason": "length"}], "length", "length"),
        ([{"outputs": [{"text": "a", "stop_reason": None}]}, {"outputs": [{"text": "", "stop_reason": "stop"}]}],
         "stop", "stop"),
        ([{"text": "a", "is_finished": False}, {"is_finished": True, "finish_reason": "MAX_TOKENS"}],
         "length", "MAX_TOKENS"),
        ([{"text": "a", "is_finished": False}, {"is_finished": True, "finish_reason": "ERROR_TOXIC"}],
         "content_filter", "ERROR_TOXIC"),
        ([{"completion": "a", "stop_reason": None}, {"completion": "", "stop_reason": "stop_sequence"}],
         "stop", "stop_sequence"),
        ([{"choices": [{"text": "a", "stop_reason": None}]}, {"choices": [{"text": "", "stop_reason": "stop"}]}],
         "stop", "stop"),
    ],
)  # fmt: skip
def test_others_that_continue_text(pieces: list[Any], reason: str, word: str) -> None:
    for last in (pieces[-1], {**pieces[-1], **METRICS}):
        response = answer(*pieces[:-1], last)
        assert (response.completion, response.finish_reason, response.raw_finish_reason) == ("a", reason, word)
        assert (response.usage is None) == (last is pieces[-1])
        assert response.warnings == ()


def test_the_count_may_come_behind_the_reason() -> None:
    response = answer({"text": "a", "is_finished": False}, {"finish_reason": "COMPLETE"}, METRICS)
    assert response.usage is not None
    assert response.usage.output_tokens == 2


def test_command_r() -> None:
    source = {"start": 0, "end": 3, "text": "abc", "document_ids": ["d"]}
    events = read(
        {"event_type": "stream-start", "generation_id": "g1", "is_finished": False},
        {"event_type": "text-generation", "text": "abc", "is_finished": False},
        {"event_type": "citation-generation", "citations": [source, 5], "is_finished": False},
        {"event_type": "tool-calls-generation", "tool_calls": [{"name": "f", "parameters": {"a": 1}}, {}]},
        {
            "event_type": "stream-end",
            "finish_reason": "COMPLETE",
            "is_finished": True,
            "text": "abc",
            "response": {"text": "abc"},
            **METRICS,
        },
    )
    assert events[0] == ResponseStarted("g1")
    assert events[1:3] == [TextDelta("abc"), Citation(start=0, end=3, raw=source)]
    (call,) = [each for each in events if isinstance(each, ToolCallFinished)]
    assert (call.name, call.arguments) == ("f", {"a": 1})
    assert events[-1] == ResponseFinished("tool_calls", "COMPLETE", ("wrong_type",))


def test_claude() -> None:
    start = {"id": "msg_1", "model": "claude-x", "content": [], "usage": {"input_tokens": 5, "output_tokens": 1}}
    events = read(
        {"type": "message_start", "message": start},
        {"type": "ping"},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "Hm."}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "sig"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
        {"index": 1, "delta": {"text": "Yes", "type": "text_delta"}, "type": "content_block_delta"},
        {"type": "content_block_stop", "index": 1},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 7}},
        {"type": "message_stop", **METRICS},
    )
    assert events[0] == ResponseStarted("msg_1", "claude-x")
    assert ReasoningDelta("Hm.") in events
    assert ProviderPart("recording", "signature", "sig") in events
    assert TextDelta("Yes") in events
    usage = [each.usage for each in events if isinstance(each, UsageReported)][-1]
    assert (usage.input_tokens, usage.output_tokens) == (5, 7)
    assert events[-1] == ResponseFinished("stop", "end_turn")


def test_nova() -> None:
    usage = {"inputTokens": 5, "outputTokens": 2, "cacheReadInputTokenCount": 0, "cacheWriteInputTokenCount": 4}
    response = answer(
        {"messageStart": {"role": "assistant"}},
        {"contentBlockDelta": {"delta": {"text": "Yes"}, "contentBlockIndex": 0}},
        {"contentBlockStop": {"contentBlockIndex": 0}},
        {"contentBlockStart": {"start": {"toolUse": {"toolUseId": "t1", "name": "f"}}, "contentBlockIndex": 1}},
        {"contentBlockDelta": {"delta": {"toolUse": {"input": "{}"}}, "contentBlockIndex": 1}},
        {"contentBlockStop": {"contentBlockIndex": 1}},
        {"messageStop": {"stopReason": "tool_use"}},
        {"metadata": {"usage": usage, "metrics": {}}, **METRICS},
    )
    assert (response.completion, response.finish_reason) == ("Yes", "tool_calls")
    assert [call.name for call in response.tool_calls] == ["f"]
    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.cache_read_tokens, response.usage.cache_write_tokens) == (
        9,
        None,
        4,
    )


def delta(content: str | None = None, reason: str | None = None, **fields: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": {} if content is None else {"content": content}, "finish_reason": reason}
    return {"id": "c1", "object": "chat.completion.chunk", "model": "m", "choices": [choice], **fields}


def test_openai_s_form() -> None:
    response = answer(delta("a"), delta("b"), delta(reason="stop", **METRICS))
    assert (response.completion, response.finish_reason, response.warnings) == ("ab", "stop", ())
    assert response.usage is not None
    assert response.usage.input_tokens == 5
    own = answer(delta("a"), delta(reason="stop", usage={"prompt_tokens": 3, "completion_tokens": 1}, **METRICS))
    assert own.usage is not None
    assert own.usage.input_tokens == 3
    without = answer(delta("a"), delta(reason="length"))
    assert (without.usage, without.finish_reason, without.warnings) == (None, "length", ())


def test_mistral_s_chat() -> None:
    call = {"id": "t1", "function": {"name": "f", "arguments": "{}"}}
    message = {"role": "assistant", "content": "Hi", "tool_calls": [call]}
    body = {"choices": [{"index": 0, "message": message, "stop_reason": "tool_calls"}]}
    for response in (answer(body), decode_body(API, json.dumps(body).encode())):
        assert (response.completion, response.finish_reason) == ("Hi", "tool_calls")
        assert [each.name for each in response.tool_calls] == ["f"]
    odd = answer({"choices": [{"message": {"content": "a"}, "finish_reason": None}]}, delta("b", "stop"))
    assert odd.completion == "ab"
    with pytest.raises(TruncatedError):
        answer({"choices": [{"message": {"content": "a"}}, 5], "x": {"stop_reason": 1}})


@pytest.mark.parametrize(
    ("document", "text", "usage"),
    [
        (
            {"inputTextTokenCount": 5, "results": [{"tokenCount": 2, "outputText": "a", "completionReason": "FINISH"}]},
            "a",
            (5, 2),
        ),
        (
            {"generation": "a", "prompt_token_count": 5, "generation_token_count": 2, "stop_reason": "stop"},
            "a",
            (5, 2),
        ),
        ({"outputs": [{"text": "a", "stop_reason": "stop"}]}, "a", None),
        ({"generations": [{"text": "a", "finish_reason": "COMPLETE"}], "prompt": "x"}, "a", None),
        ({"text": "a", "finish_reason": "COMPLETE", "generation_id": "g"}, "a", None),
        ({"completion": "a", "stop_reason": "stop_sequence", "stop": "\n\nHuman:"}, "a", None),
        (
            {
                "output": {"message": {"content": [{"text": "a"}]}},
                "stopReason": "end_turn",
                "usage": {"inputTokens": 5, "outputTokens": 2},
            },
            "a",
            (5, 2),
        ),
        (
            {
                "type": "message",
                "id": "m",
                "content": [{"type": "text", "text": "a"}],
                "stop_reason": "end_turn",
                "usage": {"input_tokens": 5, "output_tokens": 2},
            },
            "a",
            (5, 2),
        ),
    ],
)
def test_plain_answers(document: Any, text: str, usage: tuple[int, int] | None) -> None:
    response = decode_body(API, json.dumps(document).encode())
    assert (response.completion, response.finish_reason, response.warnings) == (text, "stop", ())
    found = response.usage
    assert (None if found is None else (found.input_tokens, found.output_tokens)) == usage


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'{"message": "Malformed input request", "__type": "ValidationException"}', errors.BadRequestError),
        (b'{"a": 1}', ProtocolError),
        (b"[1]", ProtocolError),
        (b'{"choices": [{"delta": {}}]}', errors.TruncatedError),
        (b"{", ProtocolError),
    ],
)
def test_documents_that_are_no_answer(body: bytes, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        decode_body(API, body)


@pytest.mark.parametrize(
    "begin",
    [
        [{"outputText": "a"}],
        [{"generation": "a"}],
        [delta("a")],
        [{"contentBlockDelta": {"delta": {"text": "a"}, "contentBlockIndex": 0}}],
        [
            {"type": "message_start", "message": {}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "a"}},
        ],
    ],
)
def test_no_family_ends_without_its_last_word(begin: list[Any]) -> None:
    with pytest.raises(TruncatedError) as caught:
        answer(*begin)
    assert caught.value.partial.completion == "a"
    with pytest.raises(errors.RateLimitError) as late:
        decode_body(API, chunks(*begin) + exception("throttlingException", {"message": "Slow down"}))
    assert late.value.partial.completion == "a"


def test_after_the_end_nothing_is_an_error() -> None:
    whole = chunks({"outputText": "a", "completionReason": "FINISH"})
    damaged = b'{"amazon-bedrock-invocationMetrics": '
    assert decode_body(API, chunks(delta("a"), delta(reason="stop"), damaged)).finish_reason == "stop"
    late = decode_body(API, whole + exception("throttlingException", {"message": "x"}) + chunk(b"{no JSON"))
    assert (late.completion, late.finish_reason) == ("a", "stop")
    assert decode_body(API, chunks({"outputText": "a", "completionReason": "FINISH", **METRICS}, {"x": 1})).usage


@pytest.mark.parametrize(
    "body",
    [
        event("chunk", b"no JSON"),
        event("chunk", {"bytes": "!"}),
        chunk(b"no JSON"),
        chunk({"outputText": "a"}) + chunk(b"{"),
        chunk(delta("a")) + chunk(b"{"),
        chunk({"type": "message_start", "message": {}}) + chunk(b'{"type": "content_block_stop"'),
        chunk({"messageStart": {}}) + chunk(b'{"messageStop"'),
    ],
)
def test_what_cannot_be_read(body: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        decode_body(API, body)
    assert caught.value.reason == "json"


def test_what_is_not_known_is_passed_over() -> None:
    odd = event("initial-response", {}) + event("chunk", {"p": "abc"}) + event("chunk", [])
    body = odd + chunks({"outputText": "a"}, {"new": 1}, [], {"outputText": 5}, {"results": "x"}) + odd
    body += chunks({"outputText": "b", "completionReason": "NEW", **METRICS})
    response = decode_body(API, body)
    assert (response.completion, response.finish_reason) == ("ab", "stop")
    assert response.warnings == ("unknown_finish_reason", "wrong_type")


def test_a_first_chunk_that_says_nothing() -> None:
    for odd in ({}, {"new": 1}, []):
        assert answer(odd, odd, delta("a"), delta(reason="stop")).completion == "a"
        assert answer(odd, {"outputText": "a", "completionReason": "FINISH"}).completion == "a"
    with pytest.raises(TruncatedError):
        answer({}, {})


def test_an_error_in_a_chunk() -> None:
    for first in ({"outputText": "a"}, delta("a")):
        with pytest.raises(APIError):
            answer(first, {"error": {"type": "overloaded_error", "message": "x"}})


def test_bytes_that_are_cut_oddly() -> None:
    body = chunks({"generation": "Grüße"}, {"generation": "", "stop_reason": "stop"})
    assert base64.b64encode("Grüße".encode())[:4] not in b"{}"
    assert decode_body(API, [body[at : at + 1] for at in range(len(body))]).completion == "Grüße"


def test_of_two_answers_the_first_is_read() -> None:
    """Cohere's old models interleave the answers of `num_generations`."""
    body = chunks(
        {"index": 1, "text": " Uno"},
        {"index": 0, "text": " One"},
        {"index": 1, "text": " dos", "finish_reason": "MAX_TOKENS", "is_finished": True},
        {"index": 0, "text": " two"},
        {"index": 0, "is_finished": True, "finish_reason": "COMPLETE"},
        {"is_finished": True, "finish_reason": "COMPLETE", **METRICS},
    )
    for pieces in ([body], [body[at : at + 1] for at in range(len(body))]):
        response = decode_body(API, pieces)
        assert (response.completion, response.raw_finish_reason) == (" One two", "COMPLETE")
        assert response.usage is not None
        assert response.usage.output_tokens == 2


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_of_two_complete_answers_the_first_is_read(order: tuple[int, int]) -> None:
    found = [{"index": index, "text": f"answer {index}", "finish_reason": "COMPLETE"} for index in order]
    assert decode_body(API, json.dumps({"generations": found}).encode()).completion == "answer 0"


def test_a_chunk_with_text_and_mistrals_finish_reason() -> None:
    first = {"choices": [{"index": 0, "delta": {"content": "a"}, "stop_reason": None}]}
    last = {"choices": [{"index": 0, "delta": {"content": "b"}, "stop_reason": "length"}], **METRICS}
    response = answer(first, first, last)
    assert (response.completion, response.finish_reason, response.warnings) == ("aab", "length", ())
    assert response.usage is not None
    assert response.usage.output_tokens == 2


@pytest.mark.parametrize(
    ("streamed", "final", "expected", "warnings"),
    [
        ("abc", "abc", "abc", ()),
        ("ab", "abc", "abc", ()),
        ("", "abc", "abc", ()),
        ("abc", "", "abc", ()),
        ("abc", "abd", "abc", ("snapshot_differs",)),
    ],
)
def test_the_last_chunk_of_command_r_is_reconciled_by_prefix(
    streamed: str, final: str, expected: str, warnings: tuple[str, ...]
) -> None:
    whole = {"text": final, "generation_id": "g1", "tool_calls": [{"name": "f", "parameters": {"a": 1}}] * 2}
    response = answer(
        {"event_type": "text-generation", "text": streamed, "is_finished": False},
        {"event_type": "tool-calls-generation", "tool_calls": whole["tool_calls"][:1]},
        {"event_type": "stream-end", "finish_reason": "COMPLETE", "is_finished": True, "response": whole, **METRICS},
    )
    assert (response.completion, response.warnings) == (expected, warnings)
    assert [(each.name, each.arguments) for each in response.tool_calls] == [("f", {"a": 1})] * 2
