"""Parse requests of Gemini's APIs, and encode errors in Google's format."""

from __future__ import annotations

import json

import pytest

from lm_deluge.adapters.catalog import find_adapter
from lm_deluge.encoders.catalog import find_encoder
from lm_deluge.errors import BadRequestError, OverloadedError, QuotaExceededError, RateLimitError
from lm_deluge.events import (
    ReasoningDelta,
    RefusalDelta,
    ResponseFinished,
    ResponseStarted,
    TextDelta,
    TokenLogprob,
    ToolCallFinished,
    ToolCallStarted,
)
from lm_deluge.prompt.parts import AudioPart, FilePart, ImagePart, ProviderDataPart, ToolCallPart, ToolResultPart
from lm_deluge.prompt.tool import ProviderTool, Tool
from lm_deluge.testing import decode_body, encode_events

GENERATE, INTERACTIONS = find_encoder("gemini-generate"), find_encoder("gemini-interactions")
HI = {"contents": [{"parts": [{"text": "Hi"}]}]}


def generate(**fields):
    return GENERATE.parse_request(json.dumps({**HI, **fields}).encode(), model="gemini-3", is_streamed=True)


def interact(**fields):
    return INTERACTIONS.parse_request(json.dumps({"model": "gemini-3", "input": "Hi", **fields}).encode())


def test_either_spelling_is_read() -> None:
    parsed = generate(
        system_instruction={"parts": [{"text": "Be brief."}]},
        generation_config={"max_output_tokens": 7, "response_mime_type": "application/json"},
        tools=[{"function_declarations": [{"name": "f", "parameters": {"type": "OBJECT"}}]}, {"google_search": {}}],
        tool_config={"function_calling_config": {"mode": "ANY", "allowed_function_names": ["f"]}},
        safetySettings=[],
    )
    assert [message.role for message in parsed.conversation] == ["system", "user"]
    assert (parsed.params.max_new_tokens, parsed.params.json_mode, parsed.params.tool_choice) == (7, True, "f")
    assert parsed.tools == (Tool(name="f", parameters={"type": "object"}), ProviderTool({"googleSearch": {}}))
    assert parsed.extra == {"safetySettings": []}
    assert parsed.is_streamed


def test_settings_without_a_counterpart_are_passed_on_whole() -> None:
    config = {"topK": 3, "temperature": 1, "thinkingConfig": {"thinkingBudget": 5}}
    tools = [{"functionDeclarations": [{"name": "f", "response": {"type": "STRING"}}]}]
    choice = {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["f", "g"]}}
    parsed = generate(generationConfig=config, tools=tools, toolConfig=choice)
    assert parsed.extra == {"generationConfig": config, "tools": tools, "toolConfig": choice}
    assert (parsed.params.temperature, parsed.params.reasoning_effort) == (1, "medium")
    assert [tool.name for tool in parsed.tools] == ["f"]


def test_results_find_their_calls() -> None:
    call = {"functionCall": {"name": "f", "args": {"x": 1}}, "thoughtSignature": "s"}
    contents = [
        {"role": "user", "parts": [{"text": "Hi"}]},
        {"role": "model", "parts": [{"text": "Hm.", "thought": True}, call, call]},
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"name": "f", "response": {"output": "one"}}},
                {"functionResponse": {"name": "f", "response": {"error": "two"}}},
                {"text": "Well?"},
            ],
        },
    ]
    messages = generate(contents=contents).conversation.messages
    assert [message.role for message in messages] == ["user", "assistant", "tool", "user"]
    assert messages[1].parts[2] == ProviderDataPart("gemini-generate", "thought_signature", "s")
    ids = [part.id for part in messages[1].parts if isinstance(part, ToolCallPart)]
    assert messages[2].parts == (ToolResultPart(ids[0], "one"), ToolResultPart(ids[1], "two", is_error=True))
    with pytest.raises(BadRequestError, match="number of function response parts"):
        generate(contents=contents[::2])


def test_media_are_inline_or_by_url() -> None:
    blobs = [("image/png", ImagePart), ("audio/wav", AudioPart), ("application/pdf", FilePart)]
    parts = [{"inlineData": {"mimeType": kind, "data": "_-8="}} for kind, _ in blobs]
    parts.append({"fileData": {"fileUri": "gs://bucket/x.png", "mimeType": "image/png"}})
    read = generate(contents=[{"parts": parts}]).conversation[0].parts
    assert [type(part) for part in read] == [*(kind for _, kind in blobs), ImagePart]
    assert read[0].media.data == b"\xff\xef"
    assert read[3].media.file_id == "gs://bucket/x.png"


@pytest.mark.parametrize(
    "fields",
    [
        {"contents": []},
        {"contents": "Hi"},
        {"contents": [{"role": "dog", "parts": []}]},
        {"contents": [{"parts": [{}]}]},
        {"contents": [{"parts": [{"inlineData": {"mimeType": "image/png", "data": "%"}}]}]},
        {"contents": [{"parts": [7]}]},
        {"tools": ["x"]},
        {"tools": [{"functionDeclarations": [{"name": "no name"}]}]},
        {"generationConfig": {"temperature": 9}},
        {"generationConfig": 9},
    ],
)
def test_bad_requests(fields) -> None:
    with pytest.raises(BadRequestError) as caught:
        generate(**fields)
    said = json.loads(GENERATE.encode_error(caught.value))["error"]
    assert (said["code"], said["status"]) == (400, "INVALID_ARGUMENT")


@pytest.mark.parametrize(
    "fields",
    [
        {"model": ""},
        {"input": []},
        {"input": [{"type": "user_input", "content": [{"type": "smell"}]}]},
        {"input": [{"type": "image", "data": "%"}]},
        {"input": [{"type": "image"}]},
        {"input": [{"type": "function_call", "id": "a"}]},
        {"input": [7]},
        {"tools": [7]},
        {"generation_config": {"temperature": 9}},
    ],
)
def test_bad_interactions(fields) -> None:
    with pytest.raises(BadRequestError):
        interact(**fields)


def test_an_interaction_is_read() -> None:
    parsed = interact(
        input=[
            {"type": "user_input", "content": [{"type": "text", "text": "Hi"}]},
            {"type": "google_search_call", "id": "g"},
            {"type": "function_call", "id": "f1", "name": "f", "arguments": {}},
            {"type": "function_result", "call_id": "f1", "result": {"x": 1}},
        ],
        generation_config={"thinking_level": "low", "top_p": 0.5, "tool_choice": "any"},
        previous_interaction_id="i0",
        tools=[{"type": "function", "name": "f"}, {"type": "google_search"}],
        stream=True,
    )
    assert [message.role for message in parsed.conversation] == ["user", "assistant", "tool"]
    assert parsed.conversation[2].parts == (ToolResultPart("f1", '{"x":1}'),)
    assert (parsed.params.reasoning_effort, parsed.params.top_p, parsed.params.tool_choice) == ("low", 0.5, "required")
    assert parsed.extra["previous_interaction_id"] == "i0"
    assert (
        parsed.extra["generation_config"]["thinking_level"] == "low"
    )  # passed on: the request has no thinking_summaries
    assert parsed.is_streamed


@pytest.mark.parametrize(
    ("error", "kind", "wait"),
    [
        (RateLimitError("Slow down.", status_code=429, retry_after_s=2.5), RateLimitError, 2.5),
        (QuotaExceededError("Nothing left."), QuotaExceededError, None),
        (OverloadedError("Busy.", status_code=529), OverloadedError, None),
    ],
)
def test_errors_are_read_again(error, kind: type, wait: float | None) -> None:
    for encoder in (GENERATE, INTERACTIONS):
        body = encoder.encode_error(error)
        found = find_adapter(encoder.name).classify_error(json.loads(body)["error"]["code"], {}, body)
        assert type(found) is kind
        assert (found.message, found.retry_after_s) == (error.message, wait)


def test_events_that_these_apis_cannot_express() -> None:
    events = [
        ResponseStarted(),
        ReasoningDelta("Hm."),
        RefusalDelta("No."),
        ToolCallStarted(0, "call_0", "f"),
        ToolCallFinished(0, "call_0", "f", "{broken", None, "it is broken"),
        ResponseFinished("refusal"),
    ]
    first, second = (
        decode_body(encoder.name, encode_events(encoder.name, events)) for encoder in (GENERATE, INTERACTIONS)
    )
    assert (first.completion, first.finish_reason) == ("No.", "content_filter")
    assert first.tool_calls[0].arguments == {"input": "{broken"}
    assert (second.completion, second.finish_reason) == ("No.", "tool_calls")
    assert second.tool_calls[0].arguments_text == "{broken"


def test_logprobs_are_written() -> None:
    events = [ResponseStarted(), TextDelta("a", (TokenLogprob("a", -1.0),)), ResponseFinished("stop")]
    response = decode_body("gemini-generate", encode_events("gemini-generate", events))
    assert response.content.parts[0].logprobs == (TokenLogprob("a", -1.0),)


def test_a_cut_answer_gets_no_end() -> None:
    for encoder in (GENERATE, INTERACTIONS):
        body = b"".join(encoder.encode_stream([ResponseStarted(), TextDelta("a")]))
        assert b"finishReason" not in body
        assert b"completed" not in body
