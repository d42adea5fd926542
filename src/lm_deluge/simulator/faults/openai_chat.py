"""Faults of the content: an unusual answer in well-formed frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec

from lm_deluge.events import (
    Event,
    RefusalDelta,
    ResponseFinished,
    ResponseStarted,
    TextDelta,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
    UsageReported,
)
from lm_deluge.simulator.faults.fault import EditEvents, EditPlan, FaultSpec, Parameters
from lm_deluge.simulator.plan import AnswerContext, Frame, WirePlan
from lm_deluge.wire.sse import encode_sse

__all__ = ["CHAT_FAULTS"]

JSON = dict[str, Any]

_AFTER: dict[str, Any] = {"after": 3}


def _edges(events: list[Event]) -> tuple[list[Event], list[Event]]:
    """Return the start event and the usage event of an answer, each in a list that may be empty."""
    opening: list[Event] = [event for event in events if isinstance(event, ResponseStarted)]
    usage: list[Event] = [event for event in events if isinstance(event, UsageReported)]
    return opening, usage


def _tool_name(context: AnswerContext) -> str:
    return context.request.tools[0].name if context.request.tools else "get_weather"


def _bad_tool_json(events: list[Event], context: AnswerContext, params: Parameters) -> list[Event]:
    """Answer with a call whose arguments are cut off, although the finish reason is `tool_calls`."""
    opening, usage = _edges(events)
    call: list[Event] = [ToolCallStarted(0, "call_bad", _tool_name(context)), ToolCallDelta(0, '{"city": "Par')]
    return [*opening, *call, *usage, ResponseFinished("tool_calls")]


def _calls_of(events: list[Event], context: AnswerContext) -> list[ToolCallFinished]:
    """Return the calls of the answer, or two generated calls if the answer has fewer than two."""
    calls = [event for event in events if isinstance(event, ToolCallFinished)]
    if len(calls) < 2:  # noqa: PLR2004 - interleaving needs two calls
        name = _tool_name(context)
        calls = [ToolCallFinished(index, f"call_{index}", name, f'{{"n": {index}}}') for index in range(2)]
    return calls


def _whole_calls(events: list[Event], context: AnswerContext, params: Parameters) -> list[Event]:
    """Answer with two calls, one after the other."""
    opening, usage = _edges(events)
    return [*opening, *_calls_of(events, context), *usage, ResponseFinished("tool_calls")]


def _two_calls(events: list[Event], context: AnswerContext, params: Parameters) -> list[Event]:
    """Answer with two calls whose fragments alternate."""
    opening, usage = _edges(events)
    calls = _calls_of(events, context)
    started = [ToolCallStarted(call.index, call.id, call.name, call.custom) for call in calls]
    longest = max(len(call.arguments_text) for call in calls)
    fragments = [
        ToolCallDelta(call.index, call.arguments_text[at : at + 3])
        for at in range(0, longest, 3)
        for call in calls
        if call.arguments_text[at : at + 3]
    ]
    return [*opening, *started, *fragments, *calls, *usage, ResponseFinished("tool_calls")]


def _ends_early(reason: ResponseFinished, *last: Event) -> EditEvents:
    """Return an edit that ends the answer in order after the first `after` deltas."""

    def edit(events: list[Event], context: AnswerContext, params: Parameters) -> list[Event]:
        opening, usage = _edges(events)
        deltas = [event for event in events if isinstance(event, TextDelta)]
        return [*opening, *deltas[: params["after"]], *last, *usage, reason]

    return edit


def _missing_usage(events: list[Event], context: AnswerContext, params: Parameters) -> list[Event]:
    return [event for event in events if not isinstance(event, UsageReported)]


def _other_model_name(events: list[Event], context: AnswerContext, params: Parameters) -> list[Event]:
    return [
        ResponseStarted(event.response_id, params["model"]) if isinstance(event, ResponseStarted) else event
        for event in events
    ]


def _empty_answer(events: list[Event], context: AnswerContext, params: Parameters) -> list[Event]:
    opening, usage = _edges(events)
    return [*opening, *usage, ResponseFinished("stop")]


def _edit_chunks(edit: Callable[[JSON], JSON]) -> EditPlan:
    """Return an edit of the JSON of every frame with JSON data."""

    def edited(frame: bytes) -> bytes:
        if not frame.startswith(b"data: {"):
            return frame
        return encode_sse(msgspec.json.encode(edit(msgspec.json.decode(frame[6:]))))

    return lambda plan, _params: plan.map_frames(edited)


def _edit_calls(edit: Callable[[JSON], list[JSON]]) -> EditPlan:
    """Return an edit of every fragment of a tool call. It returns the fragments to send instead."""

    def edited(chunk: JSON) -> JSON:
        for choice in chunk["choices"]:
            calls = choice["delta"].get("tool_calls")
            if calls:
                choice["delta"]["tool_calls"] = [piece for call in calls for piece in edit(call)]
        return chunk

    return _edit_chunks(edited)


def _without(name: str) -> Callable[[JSON], list[JSON]]:
    return lambda call: [{key: value for key, value in call.items() if key != name}]


def _repeated_head() -> EditPlan:
    """Repeat id and name in every fragment, as some servers do."""

    def edit(plan: WirePlan, params: Parameters) -> WirePlan:
        heads: dict[int, JSON] = {}

        def repeat(call: JSON) -> list[JSON]:
            head = heads.setdefault(call["index"], call)
            function = {**call["function"], "name": head["function"]["name"]}
            return [{**call, "id": head["id"], "type": "function", "function": function}]

        return _edit_calls(repeat)(plan, params)

    return edit


def _split_name(call: JSON) -> list[JSON]:
    name = call.get("function", {}).get("name")
    if not name:
        return [call]
    middle = len(name) // 2
    first = {**call, "function": {"name": name[:middle], "arguments": ""}}
    return [first, {"index": call["index"], "function": {"name": name[middle:], "arguments": ""}}]


def _second_finish(plan: WirePlan, params: Parameters) -> WirePlan:
    """Send the finishing chunk a second time with another reason. Clients must keep the first reason."""
    before, rest = plan.split(len(plan.body))
    first = rest[0] if rest else None
    if not isinstance(first, Frame):
        return plan
    chunk = msgspec.json.decode(first.data[6:])
    chunk["choices"][0]["finish_reason"] = params["reason"]
    return replace(plan, body=(*before, first, Frame(encode_sse(msgspec.json.encode(chunk))), *rest[1:]))


def _insert_changed_opening(change: Callable[[JSON], JSON], *, first: bool = False) -> EditPlan:
    """Return an edit that inserts a changed copy of the opening chunk."""

    def edit(plan: WirePlan, params: Parameters) -> WirePlan:
        opening = next((step for step in plan.body if isinstance(step, Frame)), None)
        if opening is None:
            return plan
        chunk = Frame(encode_sse(msgspec.json.encode(change(msgspec.json.decode(opening.data[6:])))))
        return replace(plan, body=(chunk, *plan.body)) if first else plan.insert(params["after"], chunk)

    return edit


def _filter_results(chunk: JSON) -> JSON:
    # Azure's first chunk, as recorded in 2024.
    safe = {name: {"filtered": False, "severity": "safe"} for name in ("hate", "self_harm", "sexual", "violence")}
    results = [{"prompt_index": 0, "content_filter_results": safe}]
    return {"choices": [], "created": 0, "id": "", "model": "", "object": "", "prompt_filter_results": results}


def _null_delta(chunk: JSON) -> JSON:
    null = {"content": None, "role": None, "tool_calls": None, "refusal": None, "function_call": None}
    choices = [{"index": 0, "delta": delta, "finish_reason": None} for delta in (None, null)]
    return {**chunk, "choices": choices}


def _unknown_chunk(chunk: JSON) -> JSON:
    choice = {"index": 0, "delta": {"hologram": {"shape": [1, 2]}}, "finish_reason": None, "mood": "fine"}
    return {**chunk, "choices": [choice], "weather": ["sunny", None]}


def _plain_for_stream(plan: WirePlan, params: Parameters) -> WirePlan:
    """Answer with one JSON document, although the request asks for a stream."""
    data = plan.context.encoder.encode_response(plan.events, created=int(plan.context.now))
    return plan.with_document(200, "application/json", data)


_FILTERED = ResponseFinished("content_filter")
_REFUSED = ResponseFinished("refusal")

_SPECS: dict[str, FaultSpec] = {
    "second_finish": FaultSpec("a second finish reason, `reason`", _second_finish, defaults={"reason": "length"}),
    "empty_choices": FaultSpec(
        "the stream starts with a chunk without choices, as with Azure",
        _insert_changed_opening(_filter_results, first=True),
    ),
    "null_delta": FaultSpec(
        "chunks whose delta, or every field of the delta, is null",
        _insert_changed_opening(_null_delta),
        defaults=_AFTER,
    ),
    "unknown_chunk": FaultSpec("a chunk with unknown fields", _insert_changed_opening(_unknown_chunk), defaults=_AFTER),
    "plain_for_stream": FaultSpec("a plain answer, although the request asks for a stream", _plain_for_stream),
    "missing_usage": FaultSpec("usage is not reported", edit_events=_missing_usage, only_streams=False),
    "other_model_name": FaultSpec(
        "the answer has another model name, `model`",
        edit_events=_other_model_name,
        defaults={"model": "other-model-2024-01-01"},
        only_streams=False,
    ),
    "empty_answer": FaultSpec("a whole answer without any content", edit_events=_empty_answer, only_streams=False),
    "content_filter_mid": FaultSpec(
        "the content filter ends the answer early",
        edit_events=_ends_early(_FILTERED),
        defaults=_AFTER,
        only_streams=False,
    ),
    "refusal_mid": FaultSpec(
        "the model refuses in the middle of its answer",
        edit_events=_ends_early(_REFUSED, RefusalDelta("I cannot go on with that.")),
        defaults=_AFTER,
        only_streams=False,
    ),
    "bad_tool_json": FaultSpec(
        "a tool call whose arguments are not JSON", edit_events=_bad_tool_json, only_streams=False
    ),
    "interleaved_tool_calls": FaultSpec("the fragments of two tool calls alternate", edit_events=_two_calls),
    "tool_calls_without_ids": FaultSpec("tool calls without ids", _edit_calls(_without("id")), _two_calls),
    "tool_calls_without_index": FaultSpec("tool calls without indices", _edit_calls(_without("index")), _whole_calls),
    "tool_calls_repeated_ids": FaultSpec("id and name of a tool call in every fragment", _repeated_head(), _two_calls),
    "tool_call_index_gaps": FaultSpec(
        "the indices of the tool calls are 0 and 10",
        _edit_calls(lambda call: [{**call, "index": call["index"] * 10}]),
        _two_calls,
    ),
    "tool_name_in_pieces": FaultSpec("the name of a tool call in two pieces", _edit_calls(_split_name), _two_calls),
}

# Faults that edit the fields of Chat Completions chunks, which other APIs do not have.
_CHAT_ONLY = (
    *("second_finish", "empty_choices", "null_delta", "unknown_chunk", "tool_calls_without_ids"),
    *("tool_calls_without_index", "tool_calls_repeated_ids", "tool_call_index_gaps", "tool_name_in_pieces"),
)
CHAT_FAULTS: dict[str, FaultSpec] = {
    name: replace(spec, needs="openai-chat") if name in _CHAT_ONLY else spec for name, spec in _SPECS.items()
}
