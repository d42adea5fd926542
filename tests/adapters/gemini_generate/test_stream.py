"""Chunks of Gemini and the events decoded from them, including quirks."""

from __future__ import annotations

import json

import pytest

import cuts
from grammar import check_grammar
from lm_deluge.adapters.adapter import Call
from lm_deluge.adapters.catalog import find_adapter
from lm_deluge.errors import (
    AuthenticationError,
    ContentFilterError,
    ContextLengthError,
    ProtocolError,
    QuotaExceededError,
    RateLimitError,
    ResponseLimitError,
    TruncatedError,
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
    TopLogprob,
    UsageReported,
)
from lm_deluge.models.registry import find_model, find_provider
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.testing import decode_body, decode_events
from lm_deluge.wire.json_array import JSONArrayDecoder
from samples.gemini_bytes import USAGE, answer, array, sse

API = "gemini-generate"


def events_of(body: bytes) -> list:
    events = list(decode_events(API, body))
    check_grammar(events)
    return events


def part(kind: str, data: object) -> ProviderPart:
    return ProviderPart("recording", kind, data)


def test_thoughts_text_and_the_end() -> None:
    body = sse(
        answer({"text": "Hm.", "thought": True}),
        answer({"text": "Hé"}),
        {**answer({"text": ""}, reason="STOP"), "usageMetadata": {**USAGE, "thoughtsTokenCount": 3}},
    )
    events = events_of(body)
    assert events[:3] == [ResponseStarted("r1", "gemini-3"), ReasoningDelta("Hm."), TextDelta("Hé")]
    usage = events[3].usage
    assert (usage.input_tokens, usage.output_tokens, usage.reasoning_tokens) == (4, 5, 3)
    assert events[4:] == [ResponseFinished("stop", "STOP")]


def test_stop_on_every_chunk_is_not_the_end() -> None:
    response = decode_body(API, sse(*(answer({"text": word}, reason="STOP") for word in "abc")))
    assert response.completion == "abc"
    assert response.raw_finish_reason == "STOP"


def test_a_reason_without_parts() -> None:
    assert events_of(sse(answer({"text": "a"}), {"candidates": [{"finishReason": "MAX_TOKENS"}]}))[-1] == (
        ResponseFinished("length", "MAX_TOKENS")
    )


def test_no_reason_is_no_end() -> None:
    with pytest.raises(TruncatedError) as caught:
        decode_body(API, sse(answer({"text": "a"})))
    assert caught.value.partial.completion == "a"
    with pytest.raises(TruncatedError):
        decode_body(API, sse(answer({"text": "a"}, reason="FINISH_REASON_UNSPECIFIED")))


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("SAFETY", "content_filter"),
        ("RECITATION", "content_filter"),
        ("PROHIBITED_CONTENT", "content_filter"),
        ("LANGUAGE", "content_filter"),
        ("IMAGE_SAFETY", "content_filter"),
        ("MALFORMED_FUNCTION_CALL", "error"),
        ("UNEXPECTED_TOOL_CALL", "error"),
        ("OTHER", "error"),
    ],
)
def test_reasons(word: str, reason: str) -> None:
    assert events_of(sse(answer(reason=word)))[-1] == ResponseFinished(reason, word)


def test_an_unknown_reason_is_told_of() -> None:
    assert events_of(sse(answer({"text": "a"}, reason="BORED")))[-1] == (
        ResponseFinished("stop", "BORED", ("unknown_finish_reason",))
    )


def test_whole_calls_without_ids() -> None:
    body = sse(
        answer(
            {"functionCall": {"name": "f", "args": {"x": 1}}, "thoughtSignature": "s"},
            {"functionCall": {"name": "g", "id": "own"}},
            reason="STOP",
        )
    )
    assert events_of(body)[1:] == [
        ToolCallStarted(0, "call_0", "f"),
        part("thought_signature", "s"),
        ToolCallDelta(0, '{"x":1}'),
        ToolCallFinished(0, "call_0", "f", '{"x":1}', {"x": 1}),
        ToolCallStarted(1, "own", "g"),
        ToolCallFinished(1, "own", "g", "", {}),
        ResponseFinished("tool_calls", "STOP"),
    ]


def call(name: str | None = None, *pieces: dict, more: bool = True) -> dict:
    fields: dict = {"partialArgs": list(pieces)} if pieces else {}
    if name:
        fields["name"] = name
    return answer({"functionCall": {**fields, **({"willContinue": True} if more else {})}})


def test_streamed_arguments() -> None:
    body = sse(
        call("f"),
        call(None, {"jsonPath": "$.items[0].name", "stringValue": 'a"', "willContinue": True}),
        call(None, {"jsonPath": "$.items[0].name", "stringValue": "b"}),
        call(None, {"jsonPath": "$.items[0].n", "numberValue": 2}, {"jsonPath": "$.items[1]", "nullValue": None}),
        call(None, {"jsonPath": "$['a key']", "boolValue": True}),
        call(more=False),
        call("f", more=False),
        answer(reason="STOP"),
    )
    events = events_of(body)
    deltas = [event.arguments for event in events if isinstance(event, ToolCallDelta)]
    assert deltas == ['{"items":[{"name":"a\\"', "b", '","n":2', "},null", '],"a key":true', "}"]
    finished = [event for event in events if isinstance(event, ToolCallFinished)]
    assert finished[0].arguments == {"items": [{"name": 'a"b', "n": 2}, None], "a key": True}
    assert finished[1].arguments == {}


def test_arguments_whose_end_is_missing() -> None:
    body = sse(
        call("f"), call(None, {"jsonPath": "$.x[1]", "stringValue": "a", "willContinue": True}), answer(reason="STOP")
    )
    assert decode_body(API, body).tool_calls[0].arguments == {"x": [None, "a"]}


def test_arguments_out_of_order_are_not_guessed_at() -> None:
    body = sse(
        *(
            call("f" if at == 0 else None, {"jsonPath": f"$.{path}", "numberValue": 1})
            for at, path in enumerate(["a.b", "c", "a.d"])
        )
    )
    with pytest.raises(ProtocolError, match="arrive out of order"):
        decode_body(API, body)


def test_signatures_stand_behind_what_they_came_on() -> None:
    body = sse(
        answer({"text": "a", "thoughtSignature": "s1"}),
        answer({"text": "", "thoughtSignature": "s2"}, reason="STOP"),
    )
    assert events_of(body)[1:4] == [
        TextDelta("a"),
        part("thought_signature", "s1"),
        part("thought_signature", {"text": "", "thoughtSignature": "s2"}),
    ]


def test_parts_of_google_s_own_tools_and_media() -> None:
    code = {"executableCode": {"language": "PYTHON", "code": "1"}}
    result = {"codeExecutionResult": {"outcome": "OUTCOME_OK"}}
    draft = {"inlineData": {"mimeType": "image/png", "data": "AA=="}, "thought": True}
    body = sse(
        answer(code, result, {"toolCall": {"id": "t"}, "thoughtSignature": "s"}, {"toolResponse": {"id": "t"}}),
        answer(draft, {"inlineData": {"mimeType": "image/png", "data": "AAE="}, "thoughtSignature": "s"}),
        answer({"fileData": {"mimeType": "image/png", "fileUri": "https://a.test/x"}}, {"newKind": {}}, reason="STOP"),
    )
    assert events_of(body)[1:-1] == [
        part("executable_code", code),
        part("code_execution_result", result),
        part("tool_call", {"toolCall": {"id": "t"}}),
        part("thought_signature", "s"),
        part("tool_response", {"toolResponse": {"id": "t"}}),
        part("thought_media", draft),
        MediaDelta("image/png", "AAE="),
        part("thought_signature", "s"),
        MediaDelta("image/png", "", "https://a.test/x"),
    ]


def test_places_of_sources_are_characters() -> None:
    support = {"segment": {"startIndex": 6, "endIndex": 9, "text": "ab"}, "groundingChunkIndices": [0, 7]}
    grounding = {
        "groundingChunks": [
            {"web": {"uri": "https://a.test", "title": "A"}},
            {"retrievedContext": {"title": "B", "text": "..."}},
        ],
        "groundingSupports": [support],
        "searchEntryPoint": {"renderedContent": "<b>"},
    }
    recited = {"citationSources": [{"startIndex": 0, "endIndex": 3, "uri": "https://c.test", "license": "MIT"}]}
    body = sse(
        answer({"text": "éé"}, citationMetadata=recited),
        answer({"text": " ab"}, groundingMetadata=grounding),
        answer(reason="STOP", groundingMetadata=grounding),
    )
    events = events_of(body)
    citations = [(event.url, event.title, event.start, event.end) for event in events if isinstance(event, Citation)]
    assert citations == [("https://c.test", None, 0, 1), ("https://a.test", "A", 3, 5), (None, "B", None, None)]
    assert events[-2] == part("search_suggestions", "<b>")


def test_the_last_count_holds_and_those_without_counts_do_not() -> None:
    first = {**answer({"text": "a"}), "usageMetadata": {"promptTokenCount": 9, "candidatesTokenCount": 9}}
    last = {
        **answer(reason="STOP"),
        "usageMetadata": {"promptTokenCount": 4, "toolUsePromptTokenCount": 10, "cachedContentTokenCount": 3},
    }
    traffic = {**answer({"text": "b"}), "usageMetadata": {"trafficType": "ON_DEMAND"}}
    usage = decode_body(API, sse(first, last, traffic)).usage
    assert (usage.input_tokens, usage.output_tokens, usage.cache_read_tokens) == (14, 0, 3)
    assert sum(isinstance(event, UsageReported) for event in events_of(sse(first, last, traffic))) == 2


def test_only_the_first_candidate_is_read() -> None:
    other = {"candidates": [{"index": 1, "content": {"parts": [{"text": "no"}]}, "finishReason": "STOP"}]}
    assert decode_body(API, sse(other, answer({"text": "yes"}, reason="STOP"))).completion == "yes"
    with pytest.raises(TruncatedError):
        decode_body(API, sse(answer({"text": "yes"}), other))


def test_logprobs() -> None:
    result = {
        "chosenCandidates": [{"token": "a", "logProbability": -1}],
        "topCandidates": [{"candidates": [{"token": "b", "logProbability": -2}]}],
    }
    (event,) = [
        e
        for e in events_of(sse(answer({"text": "a"}, reason="STOP", logprobsResult=result)))
        if isinstance(e, TextDelta)
    ]
    assert (event.text, event.logprobs[0].logprob) == ("a", -1)
    assert event.logprobs[0].top_logprobs == (TopLogprob("b", -2),)


def test_a_blocked_prompt_is_an_error_with_its_usage() -> None:
    body = sse({"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "usageMetadata": {"promptTokenCount": 8}})
    for whole in (body, body.removeprefix(b"data: ")):
        with pytest.raises(ContentFilterError, match="blocked by PROHIBITED_CONTENT") as caught:
            decode_body(API, whole)
        assert not caught.value.retryable
    with pytest.raises(ContentFilterError) as caught:
        decode_body(API, body)
    assert caught.value.partial.usage.input_tokens == 8


QUOTA = {
    "code": 429,
    "message": "You exceeded your current quota.",
    "status": "RESOURCE_EXHAUSTED",
    "details": [
        {
            "@type": "type.googleapis.com/google.rpc.QuotaFailure",
            "violations": [{"quotaId": "GenerateRequestsPerMinutePerProjectPerModel-FreeTier", "quotaValue": "10"}],
        },
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.074824224s"},
    ],
}


def test_an_error_in_the_stream_says_when_to_ask_again() -> None:
    with pytest.raises(RateLimitError, match="current quota") as caught:
        decode_body(API, sse(answer({"text": "a"}), {"error": QUOTA}))
    assert caught.value.retry_after_s == 34.074824224
    assert caught.value.partial.completion == "a"
    response = decode_body(API, sse(answer({"text": "a"}, reason="STOP"), {"error": QUOTA}))
    assert response.warnings == ("error_after_finish",)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (
            lambda e: e["details"][0]["violations"][0].update(quotaId="GenerateRequestsPerDayPerProjectPerModel"),
            QuotaExceededError,
        ),
        (lambda e: e.update(message="Quota exceeded for metric: x, limit: 0, model: y"), QuotaExceededError),
        (lambda e: e.update(code=429), RateLimitError),
        (lambda e: e.update(details="odd"), RateLimitError),
        (
            lambda e: e.update(code=400, status="INVALID_ARGUMENT", details=[{"reason": "API_KEY_INVALID"}]),
            AuthenticationError,
        ),
        (
            lambda e: e.update(
                code=400, message="The input token count (9) exceeds the maximum number of tokens allowed"
            ),
            ContextLengthError,
        ),
    ],
)
@pytest.mark.parametrize("is_array", [False, True])
def test_errors_by_status(change, kind: type, is_array: bool) -> None:
    error = json.loads(json.dumps(QUOTA))
    change(error)
    body = json.dumps([{"error": error}] if is_array else {"error": error}).encode()
    found = find_adapter(API).classify_error(error["code"], {}, body)
    assert type(found) is kind
    with pytest.raises(kind):
        decode_body(API, body)


def test_a_json_array_is_a_stream_too() -> None:
    chunks = [answer({"text": 'a]}"\\ '}), answer({"functionCall": {"name": "f", "args": {"x": ["{"]}}}, reason="STOP")]
    body = array(*chunks)
    assert events_of(body) == events_of(sse(*chunks))
    assert list(decode_events(API, cuts.every(body, 1))) == events_of(body)
    end = body.rindex(b"}")  # of the last item
    assert events_of(body[: end + 1])[-1].finish_reason == "tool_calls"
    with pytest.raises(TruncatedError):
        decode_body(API, body[:end])


def test_an_array_comes_item_by_item() -> None:
    row = find_provider("gemini")
    decoder = find_adapter(API).decoder(Call(model=find_model("gemini:x"), provider=row, conversation=Conversation()))
    decoder.expect("application/json; charset=UTF-8")
    assert decoder.feed(array(answer({"text": "a"}))[:-3])[1] == TextDelta("a")


def test_an_item_of_an_array_has_a_limit() -> None:
    decoder = JSONArrayDecoder(100)
    assert [item.data for item in decoder.feed(b'[{"a": 1}, ')] == [b'{"a": 1}']
    assert decoder.feed(b'{"b": "' + b"x" * 200) == []
    assert isinstance(decoder.error, ResponseLimitError)
    assert decoder.feed(b'"}]') == []


def test_a_plain_answer_has_the_same_events() -> None:
    whole = {**answer({"text": "Hm.", "thought": True}, {"text": "a"}, reason="STOP"), "usageMetadata": USAGE}
    assert events_of(json.dumps(whole).encode()) == events_of(sse(whole))
    with pytest.raises(ProtocolError):
        decode_body(API, b'{"kind": "else"}')


def test_odd_types_and_frames_are_passed_over() -> None:
    body = (
        b": ping\n\n"
        + sse({"candidates": "x"}, {"candidates": [{"content": {"parts": [7, {"text": 1}]}}]}, [], {"new": 1})
        + sse(answer({"text": "a"}, {"functionCall": {"args": {}}}, reason="STOP"))
        + b"data: [DONE]\n\ndata: {bro"
    )
    assert decode_body(API, body).completion == "a"
    with pytest.raises(ProtocolError):
        decode_body(API, b"data: {bro\n\n")


def test_the_explanation_of_a_finish_reason_is_in_the_error() -> None:
    chunk = {
        "candidates": [{"finishReason": "MALFORMED_FUNCTION_CALL", "finishMessage": "Malformed function call: f("}]
    }
    for body in (sse(chunk), json.dumps(chunk).encode()):
        response = decode_body(API, body)
        assert (response.finish_reason, response.is_error) == ("error", True)
        assert "MALFORMED_FUNCTION_CALL (Malformed function call: f()" in str(response.error)
