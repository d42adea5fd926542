"""The Interactions API: events decoded from responses, and conversations as steps."""

from __future__ import annotations

import json

import pytest

from grammar import check_grammar
from lm_deluge import Conversation, Message, SamplingParams, Tool
from lm_deluge.adapters.catalog import find_adapter
from lm_deluge.api_requests.request import build_call
from lm_deluge.errors import APIError, ProtocolError, RateLimitError, TruncatedError, UnsupportedParameterError
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
    UsageReported,
)
from lm_deluge.models.registry import find_model
from lm_deluge.prompt.media import Media
from lm_deluge.prompt.parts import ImagePart, ProviderDataPart, ToolResultPart
from lm_deluge.prompt.tool import ProviderTool
from lm_deluge.response import ResponseBuilder
from lm_deluge.testing import decode_body, decode_events

API = "gemini-interactions"
MODEL = "gemini-interactions:gemini-3-pro"
USAGE = {"total_input_tokens": 5, "total_tool_use_tokens": 2, "total_output_tokens": 3, "total_thought_tokens": 4}


def sse(*events: dict, is_typed: bool = True) -> bytes:
    heads = (f"event: {event['event_type']}\n" if is_typed else "" for event in events)
    return "".join(f"{head}data: {json.dumps(event)}\n\n" for head, event in zip(heads, events, strict=True)).encode()


def created() -> dict:
    interaction = {"id": "i1", "status": "in_progress", "model": "gemini-3"}
    return {"event_type": "interaction.created", "interaction": interaction}


def completed(status: str = "completed", **fields: object) -> dict:
    return {"event_type": "interaction.completed", "interaction": {"id": "i1", "status": status, **fields}}


def step(index: int, kind: str, *deltas: dict, **fields: object) -> list[dict]:
    return [
        {"event_type": "step.start", "index": index, "step": {"type": kind, **fields}},
        *({"event_type": "step.delta", "index": index, "delta": delta} for delta in deltas),
        {"event_type": "step.stop", "index": index},
    ]


def text(content: str) -> dict:
    return {"type": "text", "text": content}


def part(kind: str, data: object) -> ProviderPart:
    return ProviderPart("recording", kind, data)


def events_of(body: bytes) -> list:
    events = list(decode_events(API, body))
    check_grammar(events)
    return events


EVERYTHING = [
    created(),
    *step(
        0,
        "thought",
        {"type": "thought_summary", "content": text("Hm.")},
        {"type": "thought_signature", "signature": ""},
        {"type": "thought_signature", "signature": "s1"},
    ),
    *step(1, "google_search_call", {"type": "google_search_call", "arguments": {"queries": ["x"]}}, id="g1"),
    *step(2, "google_search_result", {"type": "google_search_result", "result": [{"a": 1}]}, call_id="g1", result=[]),
    *step(
        3,
        "model_output",
        text("é"),
        text("ab"),
        {
            "type": "text_annotation_delta",
            "annotations": [{"type": "url_citation", "url": "https://a.test", "start_index": 2, "end_index": 4}],
        },
        {"type": "image", "mime_type": "image/png", "data": "AAE="},
    ),
    *step(
        4,
        "function_call",
        {"type": "arguments_delta", "arguments": '{"x":'},
        {"type": "arguments_delta", "arguments": "1}"},
        id="f1",
        name="f",
        arguments={},
    ),
    completed("requires_action", usage=USAGE),
]
SEARCH = {"type": "google_search_call", "id": "g1", "arguments": {"queries": ["x"]}}
FOUND = {"type": "google_search_result", "call_id": "g1", "result": [{"a": 1}]}


@pytest.mark.parametrize("is_typed", [True, False])
def test_everything_that_an_answer_can_hold(is_typed: bool) -> None:
    events = events_of(sse(*EVERYTHING, is_typed=is_typed) + b"event: done\ndata: [DONE]\n\n")
    (usage,) = [event.usage for event in events if isinstance(event, UsageReported)]
    assert (usage.input_tokens, usage.output_tokens, usage.reasoning_tokens) == (7, 7, 4)
    assert [event for event in events if not isinstance(event, Citation | UsageReported)] == [
        ResponseStarted("i1", "gemini-3"),
        ReasoningDelta("Hm."),
        part("thought_signature", "s1"),
        part("google_search_call", SEARCH),
        part("google_search_result", FOUND),
        TextDelta("é"),
        TextDelta("ab"),
        MediaDelta("image/png", "AAE="),
        ToolCallStarted(0, "f1", "f"),
        ToolCallDelta(0, '{"x":'),
        ToolCallDelta(0, "1}"),
        ToolCallFinished(0, "f1", "f", '{"x":1}', {"x": 1}),
        ResponseFinished("tool_calls", "requires_action"),
    ]
    assert [(event.url, event.start, event.end) for event in events if isinstance(event, Citation)] == [
        ("https://a.test", 1, 3)
    ]


def test_a_plain_answer() -> None:
    whole = {
        "id": "i1",
        "model": "gemini-3",
        "status": "requires_action",
        "usage": USAGE,
        "steps": [
            {"type": "thought", "signature": "s1", "summary": [text("Hm.")]},
            SEARCH,
            FOUND,
            {
                "type": "model_output",
                "content": [
                    {**text("éab"), "annotations": EVERYTHING[-7]["delta"].get("annotations", [])},
                    {"type": "image", "mime_type": "image/png", "data": "AAE="},
                ],
            },
            {"type": "function_call", "id": "f1", "name": "f", "arguments": {"x": 1}},
        ],
    }
    plain, streamed = decode_body(API, json.dumps(whole).encode()), decode_body(API, sse(*EVERYTHING))
    assert plain.content == streamed.content
    assert plain.usage == streamed.usage
    assert (plain.finish_reason, plain.response_id) == ("tool_calls", "i1")


@pytest.mark.parametrize(
    ("status", "reason"),
    [("completed", "stop"), ("incomplete", "length"), ("budget_exceeded", "length"), ("cancelled", "error")],
)
def test_statuses(status: str, reason: str) -> None:
    assert events_of(sse(created(), completed(status)))[-1] == ResponseFinished(reason, status)


def test_no_end_no_success() -> None:
    with pytest.raises(TruncatedError) as caught:
        decode_body(API, sse(created(), *step(0, "model_output", text("a"))) + b"event: done\ndata: [DONE]\n\n")
    assert caught.value.partial.completion == "a"
    with pytest.raises(TruncatedError, match="not finished"):
        decode_body(API, b'{"id": "i1", "status": "in_progress"}')
    with pytest.raises(ProtocolError):
        decode_body(API, b'{"id": "i1"}')


def test_errors() -> None:
    error = {"event_type": "error", "error": {"code": "resource_exhausted", "message": "Too much."}}
    for is_typed in (True, False):
        with pytest.raises(RateLimitError, match="Too much"):
            decode_body(API, sse(created(), error, is_typed=is_typed))
    with pytest.raises(APIError, match="It broke"):
        decode_body(API, sse(created(), completed("failed", errors=[{"message": "It broke."}])))
    with pytest.raises(RateLimitError):
        decode_body(API, b'{"error": {"code": 429, "message": "No."}}')
    assert decode_body(API, sse(created(), completed(), error)).finish_reason == "stop"


def test_odd_events_are_passed_over() -> None:
    odd = [
        {"event_type": "step.delta", "index": 9, "delta": text("a")},
        {"event_type": "step.delta", "index": 9, "delta": {"type": "new"}},
        {"event_type": "step.delta", "index": 9, "delta": 7},
        {"event_type": "step.start", "index": 10, "step": "x"},
        {"event_type": "step.stop", "index": 77},
        {"event_type": "something.else"},
    ]
    assert decode_body(API, sse(*odd, completed())).completion == "a"


def body_of(prompt, **options):
    return json.loads(find_adapter(API).build_request(build_call(find_model(MODEL), prompt, **options)).body)


def test_a_request() -> None:
    request = find_adapter(API).build_request(build_call(find_model(MODEL), "Hi"))
    assert request.url == "https://generativelanguage.googleapis.com/v1beta/interactions"
    assert json.loads(request.body) == {
        "model": "gemini-3-pro",
        "input": [{"type": "user_input", "content": [text("Hi")]}],
        "stream": True,
    }
    params = SamplingParams(
        temperature=0.5, top_p=0.5, max_new_tokens=5, stop="x", seed=1, reasoning_effort="max", tool_choice="f"
    )
    schema = {"type": "object", "properties": {}}
    tools = [Tool(name="f", description="d", parameters=schema), ProviderTool({"type": "google_search"})]
    body = body_of(Conversation.system("A").developer("B").user("Hi"), params=params, tools=tools, output=schema)
    assert body["system_instruction"] == "A\n\nB"
    assert body["tools"] == [
        {"type": "function", "name": "f", "description": "d", "parameters": schema},
        {"type": "google_search"},
    ]
    assert body["response_format"] == {"type": "text", "mime_type": "application/json", "schema": schema}
    assert body["generation_config"] == {
        "temperature": 0.5,
        "top_p": 0.5,
        "max_output_tokens": 5,
        "stop_sequences": ["x"],
        "seed": 1,
        "thinking_level": "xhigh",
        "thinking_summaries": "auto",
        "tool_choice": {"allowed_tools": {"mode": "any", "tools": ["f"]}},
    }
    assert body_of("Hi", extra_body={"previous_interaction_id": "i1"})["previous_interaction_id"] == "i1"


@pytest.mark.parametrize(
    "params",
    [
        {"verbosity": "low"},
        {"logprobs": True},
        {"top_logprobs": 2},
        {"presence_penalty": 1},
        {"frequency_penalty": 1},
        {"parallel_tool_calls": False},
        {"reasoning_effort": "none"},
    ],
)
def test_what_has_no_place_is_refused(params) -> None:
    with pytest.raises(UnsupportedParameterError):
        body_of("Hi", params=SamplingParams(**params))


def test_an_answer_goes_back_as_it_was() -> None:
    builder = ResponseBuilder()
    builder.add_all(decode_events(API, sse(*EVERYTHING)))
    content = builder.response().content
    owner = "google-interactions"
    own = [ProviderDataPart(owner, p.kind, p.data) if isinstance(p, ProviderDataPart) else p for p in content.parts]
    image = ImagePart(Media(media_type="image/png", data=b"\x00"))
    results = Message("tool", (ToolResultPart("f1", "one"), ToolResultPart("f1", "two", (image,), is_error=True)))
    conversation = [Message.user("Hi"), Message("assistant", tuple(own)), results]
    assert body_of(conversation)["input"][1:] == [
        {"type": "thought", "signature": "s1", "summary": [text("Hm.")]},
        SEARCH,
        FOUND,
        {
            "type": "model_output",
            "content": [text("éab"), {"type": "image", "mime_type": "image/png", "data": "AAE="}],
        },
        {"type": "function_call", "id": "f1", "name": "f", "arguments": {"x": 1}},
        {"type": "function_result", "call_id": "f1", "name": "f", "result": "one"},
        {
            "type": "function_result",
            "call_id": "f1",
            "name": "f",
            "result": [text("two"), {"type": "image", "mime_type": "image/png", "data": "AA=="}],
            "is_error": True,
        },
    ]
    assert build_call(find_model(MODEL), conversation).warnings == ()


def test_pieces_of_a_server_tool_are_joined() -> None:
    deltas = [
        {"type": "code", "result": "a", "list": [1], "object": {"x": 1}, "late": None, "odd": "t"},
        {"type": "code", "result": "b", "list": [2], "object": {"y": 2}, "late": "c", "odd": 5},
        {"type": "code", "result": "c", "list": [3], "object": {"x": 3}, "late": "d", "odd": "u"},
    ]
    body = sse(created(), *step(0, "code_execution_result", *deltas, call_id="c"), completed())
    (found,) = [event for event in events_of(body) if isinstance(event, ProviderPart)]
    assert found.data == {
        "type": "code_execution_result",
        "call_id": "c",
        "result": "abc",
        "list": [1, 2, 3],
        "object": {"x": 3, "y": 2},
        "late": "cd",
        "odd": "u",
    }


# Steps that the completed interaction repeats, by the rule of all APIs.

CALL_STEP = {"type": "function_call", "id": "c1", "name": "weather", "arguments": {"city": "Roma"}}


def output(*texts: str) -> dict:
    return {"type": "model_output", "content": [text(each) for each in texts]}


@pytest.mark.parametrize(
    ("streamed", "final", "expected", "warnings"),
    [
        ("Hello", "Hello", "Hello", ()),
        ("Hel", "Hello", "Hello", ()),
        ("Hello", "", "Hello", ()),
        ("Hello", "Help", "Hello", ("snapshot_differs",)),
    ],
)
@pytest.mark.parametrize("is_stopped", [True, False])
def test_a_completed_step_is_reconciled_by_prefix(
    is_stopped: bool, streamed: str, final: str, expected: str, warnings: tuple[str, ...]
) -> None:
    steps = step(0, "model_output", text(streamed))
    events = steps if is_stopped else steps[:-1]
    response = decode_body("gemini-interactions", sse(created(), *events, completed(steps=[output(final)])))
    assert (response.completion, response.warnings) == (expected, warnings)


def test_steps_that_only_the_completed_interaction_has() -> None:
    thought = {"type": "thought", "signature": "sig", "summary": [text("Hm.")]}
    events = step(0, "thought", {"type": "thought_summary", "content": text("H")})
    second = {**CALL_STEP, "id": "c2"}
    body = sse(created(), *events, completed("requires_action", steps=[thought, output("Hi"), CALL_STEP, second]))
    response = decode_body("gemini-interactions", body)
    check_grammar(decode_events("gemini-interactions", body))
    assert (response.thinking, response.completion) == ("Hm.", "Hi")
    assert [(each.id, each.arguments) for each in response.tool_calls] == [
        ("c1", {"city": "Roma"}),
        ("c2", {"city": "Roma"}),
    ]
    assert [each.data for each in response.content.parts if isinstance(each, ProviderDataPart)] == ["sig"]


@pytest.mark.parametrize(
    ("delta", "expected", "warnings"),
    [
        ('{"city":"Roma"}', {"city": "Roma"}, ()),
        ('{"city":"Ro', {"city": "Roma"}, ()),
        ("", {"city": "Roma"}, ()),
        ('{"city": "Oslo"}', {"city": "Oslo"}, ("snapshot_differs",)),
    ],
)
def test_a_completed_call_is_reconciled_by_prefix(delta: str, expected: dict, warnings: tuple[str, ...]) -> None:
    events = step(0, "function_call", {"type": "arguments_delta", "arguments": delta}, id="c1", name="weather")[:-1]
    body = sse(created(), *events, completed("requires_action", steps=[CALL_STEP]))
    response = decode_body("gemini-interactions", body)
    assert ([each.arguments for each in response.tool_calls], response.warnings) == ([expected], warnings)
